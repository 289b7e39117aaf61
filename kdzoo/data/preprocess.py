"""From an image file to what a network is given: the one code that training, evaluation and a delivered network's README run.

Needs numpy, Pillow and torch alone: `kdzoo distill` copies this file beside the weights that it delivers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

GROUND = (255, 255, 255, 255)
"""the colour behind transparent pixels"""
RANGES = {"16-bit": 2**16, "32-bit": 2**31}
"""the number of levels that a grey value of a number of bits can take"""
FEW_BITS = 16
"""where no value of a data set is beyond one part in so many of the range, the range is taken to be smaller"""
FLOAT = "float"
GREY = frozenset({*RANGES, FLOAT})
COLOUR_16 = "16-bit colour"
"""of these Pillow gives the upper bytes alone"""

Scales = Mapping[str, float]
"""for each kind of deep grey values, the number of levels that become 256"""


def read_image(
    source: Path | str | BinaryIO,
    *,
    decode_side: int,
    crop_side: int | None,
    network_side: int | None,
    mean: Sequence[float],
    std: Sequence[float],
    scales: Scales | None = None,
) -> Tensor:
    """One image file as a batch of one for a network, (1, 3, S, S) float32, as images were evaluated in training.

    decode_side: of the square that the file is decoded to; crop_side: of the centre of it that is seen (None for all);
    network_side: what that is resized to (None for no change). scales: of deep grey values (`grey_scale`).
    """
    pixels = torch.from_numpy(np.array(square(source, decode_side, scales))).permute(2, 0, 1)[None]
    return normalise(centre(pixels, crop_side), mean, std, network_side)


def square(source: Path | str | BinaryIO, side: int, scales: Scales | None = None) -> Image.Image:
    """One image file as a square: upright, RGB on white, the shorter side resized, the centre kept.

    scales: of the data set's deep grey values; by default those of this image alone.
    """
    with Image.open(source) as image:
        return ImageOps.fit(upright_rgb(image, scales), (side, side), method=Image.Resampling.BILINEAR)


def upright_rgb(image: Image.Image, scales: Scales | None = None) -> Image.Image:
    """An opened image in its own size: upright, 8-bit RGB on white.

    scales: of the data set's deep grey values; by default those of this image alone.
    """
    kind = deep_kind(image)
    upright = ImageOps.exif_transpose(image)
    if kind in GREY:
        scale = (scales or {}).get(kind) or grey_scale(kind, *value_range(image, kind))
        upright = Image.fromarray(_levels(np.asarray(upright), scale))
    return _rgb(upright)


def centre(images: Tensor, size: int | None) -> Tensor:
    """The central square of side `size` of images (B, C, H, W) uint8, resized first where they are smaller."""
    if size is None or tuple(images.shape[-2:]) == (size, size):
        return images
    if min(images.shape[-2:]) < size:
        scaled = F.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        return scaled.round().clamp(0, 255).to(torch.uint8)
    top, left = ((side - size) // 2 for side in images.shape[-2:])
    return images[..., top : top + size, left : left + size]


def normalise(images: Tensor, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor, side: int | None = None) -> Tensor:
    """Images (B, C, H, W) of 0 to 255 as float32: scaled to [0, 1], resized to `side`, less `mean`, over `std`.

    mean, std: a number a channel, or tensors of shape (1, C, 1, 1).
    """
    x = images.float() / 255
    if side is not None and x.shape[-1] != side:
        x = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    by_channel = [torch.as_tensor(part, device=x.device).view(1, -1, 1, 1) for part in (mean, std)]
    return (x - by_channel[0]) / by_channel[1]


def deep_kind(image: Image.Image) -> str:
    """The kind of deep values that an opened image holds; empty for 8 bits a channel."""
    if image.mode == "F":
        return FLOAT
    if image.mode.startswith("I"):
        return "32-bit" if image.mode == "I" and image.format not in ("PNG", "PPM") else "16-bit"
    stored = " ".join(str(part) for tile in getattr(image, "tile", ()) for part in tile[3:])
    return COLOUR_16 if re.search(";16[BLN]", stored) else ""


def value_range(image: Image.Image, kind: str) -> tuple[float, float]:
    """The least and the largest value of an image; NaN where one is."""
    values = np.asarray(image.convert("RGB") if kind == COLOUR_16 else image)
    return float(values.min()), float(values.max())


def grey_scale(kind: str, low: float, high: float) -> float:
    """The number of levels of deep values that become 256, from the least and the largest; raises ValueError for an unclear range."""
    if kind == COLOUR_16:
        if high * FEW_BITS < 256:
            raise ValueError(
                f"colour images of 16 bits per channel use under 1/{FEW_BITS} of their range, and Pillow reads their upper 8 bits "
                "alone; save them with 8 bits per channel"
            )
        return RANGES["16-bit"]
    if kind == FLOAT:
        if low >= 0 and high <= 255:
            return 256 / 255 if high <= 1 else 256
        raise ValueError(f"float images have values from {low:g} to {high:g}; expected 0 to 1, or 0 to 255")
    if low < 0:
        raise ValueError(f"{kind} grey images have values from {low:g} to {high:g}; expected none below 0")
    levels = 2 ** max(int(high).bit_length(), 1)
    return levels if levels * FEW_BITS <= RANGES[kind] else RANGES[kind]


def _rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, GROUND), image).convert("RGB")
    return image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB")


def _levels(values: NDArray[Any], scale: float) -> NDArray[np.uint8]:
    """Deep grey values as 8 bits."""
    if values.dtype.kind == "f":
        return np.round(values * (256 / scale)).clip(0, 255).astype(np.uint8)
    return (values.astype(np.int64) * 256 // int(scale)).clip(0, 255).astype(np.uint8)
