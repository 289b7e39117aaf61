"""The smallest image size at which a trained network still sees what tells the classes apart, measured before it is fine-tuned."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kdzoo.data.dataset import Subset
from kdzoo.data.folder import MARGIN
from kdzoo.data.loader import load_all
from kdzoo.data.split import stratified, take
from kdzoo.errors import InputError
from kdzoo.files import cache_folder, read_text
from kdzoo.models.identity import identity
from kdzoo.models.names import own_norm
from kdzoo.models.network import Network, other_norm
from kdzoo.models.normalisation import in_words
from kdzoo.runs.atomic import write_json
from kdzoo.runs.recipe import Augment
from kdzoo.runs.spec import Normalisation
from kdzoo.training.head import USUAL_C, cross_validated, embeddings, folds_of

LARGEST_SAMPLE = 200
"""training images that are used at most"""
CLEARLY = 2.0
"""standard errors by which a larger size has to be better"""
CPU = torch.device("cpu")
SAMPLED_SIZES = 64
"""different sizes of images that are looked at"""


@dataclass(frozen=True)
class ImageSize:
    """side: the size chosen. norm: the normalisation that suits the network's weights better than that of the data, as text, or None.

    tried: the share of `images` named right at each side that was tried, in ascending order.
    """

    side: int
    norm: str | None
    tried: tuple[tuple[int, float], ...]
    images: int

    def __str__(self) -> str:
        shares = ", ".join(f"{share:.1%} at {side}" for side, share in self.tried)
        return (
            f"image size {self.side}: a classifier on the teacher's frozen features has accuracy {shares} pixels "
            f"({self.images} training images, cross-validated); the smallest size is chosen whose next larger one is not clearly better"
        )


def choose_size(network_at: Callable[[int], Network], name: str, train: Subset, sides: Sequence[int]) -> ImageSize | None:
    """The first of ascending sides whose next is not clearly better; None where too few images can tell.

    network_at: the network for a side. train: images of at least MARGIN times the largest side. A network whose normalisation
    is not known is tried with that of timm's weights for `name` too. The result is remembered in the cache folder.
    """
    known = (train.targets >= 0).nonzero().flatten()
    part = take(train, known)
    if len(known) > LARGEST_SAMPLE:
        part = take(part, stratified(part.targets, LARGEST_SAMPLE, 0, "image size"))
    targets = part.targets.numpy()
    if len(np.unique(targets)) < 2 or folds_of(targets) < 2:
        return None
    first = network_at(sides[0])
    if isinstance(first.classifier, torch.nn.Identity):
        return None
    memory = cache_folder() / "image-sizes" / f"{_digest(first, part, sides)}.json"
    if (remembered := _read(memory)) is not None:
        return remembered
    pixels = load_all(part.images, CPU)

    def right(network: Network, side: int, norm: Normalisation | None) -> NDArray[np.bool_]:
        with nullcontext() if norm is None else other_norm(network, norm):
            features = embeddings(network, Subset(_shrunk(pixels, side), part.targets), Augment(size=side), CPU).double().numpy()
        scale = float(np.sqrt((features**2).mean())) or 1.0
        return cross_validated(features / scale, targets, USUAL_C, folds_of(targets))[1]

    best, norm = right(first, sides[0], None), None
    own = own_norm(name) if first.assumed_norm else None
    if own is not None and not first.normalises_with(own):
        other = right(first, sides[0], own)
        if other.sum() >= best.sum():
            best, norm = other, own
    chosen, tried = sides[0], [(sides[0], float(best.mean()))]
    for side in sides[1:]:
        found = right(network_at(side), side, norm)
        tried.append((side, float(found.mean())))
        if not clearly_better(found, best):
            break
        best, chosen = found, side
    choice = ImageSize(chosen, None if norm is None else in_words(norm), tuple(tried), len(targets))
    write_json(memory, asdict(choice))
    return choice


def enlarged_note(folder: Path, side: int) -> str | None:
    """That images are smaller than what networks are to see, by the first SAMPLED_SIZES of a folder; None where one is not."""
    sizes: set[tuple[int, int]] = set()
    files = (Path(place) / name for place, _, names in os.walk(folder) for name in names)
    for file in files:
        with suppress(OSError, ValueError, Image.DecompressionBombError), Image.open(file) as image:
            sizes.add(image.size)
            if min(image.size) >= side:
                return None
        if len(sizes) >= SAMPLED_SIZES:
            break
    if not sizes:
        return None
    most = max(sizes, key=lambda size: size[0] * size[1])
    pixels = f"{side * side / (most[0] * most[1]):.2g} times the pixels"
    at_most = "" if len(sizes) == 1 else "at most "
    return f"images of {at_most}{most[0]}x{most[1]} are enlarged to {side} ({pixels}); --image-size sets another side"


def clearly_better(larger: NDArray[np.bool_], smaller: NDArray[np.bool_]) -> bool:
    """Whether one is right more often than another on the same images, by more than two standard errors of the difference."""
    difference = larger.astype(float) - smaller.astype(float)
    return bool(difference.mean() > CLEARLY * difference.std(ddof=1) / math.sqrt(len(difference)))


def _shrunk(pixels: Tensor, side: int) -> Tensor:
    """Images (N, C, S, S) uint8 about as a folder decodes them for a side."""
    decoded = min(round(side * MARGIN), pixels.shape[-1])
    parts = [
        F.interpolate(part.float(), size=decoded, mode="bilinear", antialias=True, align_corners=False) for part in torch.split(pixels, 32)
    ]
    return torch.cat([part.round().clamp(0, 255).to(torch.uint8) for part in parts])


def _digest(network: Network, part: Subset, sides: Sequence[int]) -> str:
    digest = hashlib.sha256(f"{identity(network)} {list(sides)} {part.targets.tolist()}".encode())
    if part.keys is not None:
        digest.update(part.keys.numpy().tobytes())
    return digest.hexdigest()[:24]


def _read(memory: Path) -> ImageSize | None:
    try:
        content = json.loads(read_text(memory))
        tried = tuple((int(side), float(share)) for side, share in content["tried"])
        return ImageSize(int(content["side"]), content["norm"], tried, int(content["images"]))
    except (OSError, InputError, ValueError, KeyError, TypeError):
        return None
