"""From an image file to what a network is given: the code that reads images in training, and beside an exported network.

Needs numpy and Pillow alone: `kdzoo export` and `kdzoo distill` copy this file beside a network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

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
    mean: Sequence[float],
    std: Sequence[float],
    grey: bool = False,
    channels: int = 3,
    scales: Scales | None = None,
) -> NDArray[np.float32]:
    """One image file as a batch of one for a network, (1, C, S, S) float32, as images were evaluated in training.

    mean, std: a number a channel of pixels in [0, 1]; the rest as `read_pixels` takes it.
    """
    pixels = read_pixels(source, decode_side=decode_side, crop_side=crop_side, grey=grey, channels=channels, scales=scales)
    means, deviations = (np.asarray(part, np.float32)[:, None, None] for part in (mean, std))
    image: NDArray[np.float32] = (pixels.astype(np.float32) / np.float32(255) - means) / deviations
    return image


def read_pixels(
    source: Path | str | BinaryIO,
    *,
    decode_side: int,
    crop_side: int | None = None,
    grey: bool = False,
    channels: int = 3,
    scales: Scales | None = None,
) -> NDArray[np.uint8]:
    """One image file as a batch of one, (1, C, S, S) uint8.

    decode_side: of the square that the file is decoded to; crop_side: of the centre of it that is seen (None for all).
    grey: whether only the brightness is seen. channels: 1 or 3, of which a grey image has equal ones. scales: of deep grey
    values (`grey_scale`).
    """
    image = square(source, decode_side, scales)
    image = image.convert("L") if grey else image
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(decode_side, decode_side, channels)
    size = crop_side or decode_side
    start = (decode_side - size) // 2
    return np.array(pixels[start : start + size, start : start + size].transpose(2, 0, 1)[None], order="C")


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
