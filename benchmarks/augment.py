"""Images a second of every augmentation, of a batch at once, beside torchvision's transforms of one image after the other.

    python benchmarks/augment.py                        # prints the table
    python benchmarks/augment.py --write results/speed  # and writes augment.json there
    python benchmarks/augment.py --device cuda --batch 512

CIFAR-10's training images (from KDZOO_DATA; noise where they are not there), one thread. torchvision's side has PIL images
at hand, as a dataset of a plain loop gives them, and no decoding, copying or normalising is counted; its mixup and CutMix
are of a batch of floats, made before, with one share or box for all. kdzoo's side is `views.apply_views` and `mixing.mix` on
uint8 images on the device; what is drawn once an epoch is counted in full, as that many images' share. Sides alternate;
medians of several rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as T

from kdzoo.data.mixing import draw_mixes, mix
from kdzoo.data.sources import load
from kdzoo.data.views import apply_views, draw_views
from kdzoo.errors import InputError
from kdzoo.runs.environment import environment
from kdzoo.runs.recipe import Augment, Recipe

SAMPLES, SIDE, CLASSES = 50_000, 32, 10
CROPPED = {"crop": "pad", "pad": 4, "flip": True}
CROP = (v2.RandomCrop(SIDE, padding=4), v2.RandomHorizontalFlip())
SQUARE = v2.RandomErasing(p=1, scale=(0.25, 0.25), ratio=(1, 1))


@dataclass(frozen=True)
class Case:
    """One augmentation by the two sides' words; `of_batch` where torchvision's takes a batch of tensors."""

    name: str
    recipe: Recipe
    theirs: Callable[..., Any]
    of_batch: bool = False
    of_tensors: bool = False


@dataclass(frozen=True)
class Row:
    """Images a second of both sides, and milliseconds to draw an epoch of 50,000 samples."""

    augmentation: str
    kdzoo: float
    torchvision: float
    draw_milliseconds: float


def case(name: str, theirs: Callable[..., Any], augment: dict[str, Any], **changes: Any) -> Case:
    mixing = {key: value for key, value in changes.items() if key in ("mixup", "cutmix")}
    kinds = {key: value for key, value in changes.items() if key.startswith("of_")}
    return Case(name, Recipe(epochs=1, batch_size=1, lr=1.0, augment=Augment(**augment), **mixing), theirs, **kinds)


CASES = (
    case("padded crop and flip", v2.Compose(CROP), CROPPED),
    case("brightness", v2.ColorJitter(brightness=0.4), {"brightness": 0.4}),
    case("brightness, contrast, saturation", v2.ColorJitter(0.4, 0.4, 0.4), {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}),
    case("RandAugment, 1 operation", v2.RandAugment(1, 9), {"randaugment": 1}),
    case("RandAugment, 2 operations", v2.RandAugment(2, 9), {"randaugment": 2}),
    case("cutout of 16", SQUARE, {"cutout": 16}, of_tensors=True),
    case("mixup", v2.MixUp(alpha=0.2, num_classes=CLASSES), {}, mixup=0.2, of_batch=True),
    case("CutMix", v2.CutMix(alpha=1.0, num_classes=CLASSES), {}, cutmix=1.0, of_batch=True),
    case(
        "crop, flip, RandAugment, cutout",
        v2.Compose([*CROP, v2.RandAugment(2, 9), v2.PILToTensor(), SQUARE]),
        {**CROPPED, "randaugment": 2, "cutout": 16},
    ),
)


def cifar(count: int) -> Tensor:
    """The first images of CIFAR-10, or noise, (count, 3, 32, 32) uint8."""
    try:
        return load("cifar10", root=None, image_size=None).train.images[:count]
    except InputError:
        return torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def ours(chosen: Case, images: Tensor) -> tuple[Callable[[], object], float]:
    """A batch as the training step makes it, and the seconds that an epoch's draws took."""
    size = {"samples": SAMPLES, "height": SIDE, "width": SIDE, "seed": 0, "epoch": 0}
    began = time.perf_counter()
    views, mixes = draw_views(chosen.recipe.augment, **size), draw_mixes(chosen.recipe, **size)
    drawn = time.perf_counter() - began
    index = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(0))[: len(images)]

    def run() -> object:
        seen = apply_views(images, views, index, chosen.recipe.augment)
        return seen if mixes is None else mix(seen, mixes, index)

    return run, drawn


def theirs(chosen: Case, images: Tensor) -> Callable[[], object]:
    """The same images through torchvision."""
    if chosen.of_batch:
        whole, targets = images.float(), torch.arange(len(images)) % CLASSES
        return lambda: chosen.theirs(whole, targets)
    given = list(images) if chosen.of_tensors else [T.to_pil_image(image) for image in images]
    return lambda: [chosen.theirs(image) for image in given]


def row(chosen: Case, images: Tensor, device: torch.device, rounds: int) -> Row:
    """One augmentation timed on both sides, in turn."""
    run, drawn = ours(chosen, images.to(device))
    sides = (run, theirs(chosen, images))
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for side, kept in zip(sides, times, strict=True):
            _synchronise(device)
            began = time.perf_counter()
            side()
            _synchronise(device)
            kept.append(time.perf_counter() - began)
    mine, other = (statistics.median(kept[1:]) for kept in times)
    return Row(chosen.name, len(images) / (mine + drawn * len(images) / SAMPLES), len(images) / other, 1000 * drawn)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| augmentation | kdzoo, images/s | torchvision, images/s | times | an epoch's draws, ms |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| {r.augmentation} | {r.kdzoo:,.0f} | {r.torchvision:,.0f} | {r.kdzoo / r.torchvision:.1f} | {r.draw_milliseconds:.0f} |"
        for r in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", type=Path, help="a folder for augment.json")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    images = cifar(given.batch)
    torch.zeros(31 * 2**20, dtype=torch.uint8)  # once such a block was freed, glibc keeps what is freed, as it does in training
    rows = [row(chosen, images, device, given.rounds) for chosen in CASES]
    print(table(rows))
    if given.write is not None:
        given.write.mkdir(parents=True, exist_ok=True)
        content = {"batch": given.batch, "environment": environment(device, given.threads), "rows": [asdict(r) for r in rows]}
        (given.write / "augment.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
