"""One image file: what it holds, found by content, and its pixels as upright 8-bit RGB."""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from kdzoo.data.images import Array
from kdzoo.errors import InputError

DECODER = 2
"""raised whenever the same files are decoded to other pixels; what is kept of decoded files bears it"""
GROUND = (255, 255, 255, 255)
"""the colour behind transparent pixels"""
NO_PICTURES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
"""formats that Pillow names and cannot draw by itself"""
UNREADABLE = (
    *(OSError, UnidentifiedImageError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError),
    *(ArithmeticError, LookupError, TypeError, MemoryError, struct.error, zlib.error),
)
"""what the decoders of damaged files raise"""

RANGES = {"16-bit": 2**16, "32-bit": 2**31}
"""levels that a grey value of so many bits can take"""
FEW_BITS = 16
"""where no value of a data set is beyond one part in so many of the range, the range is taken to be smaller"""
FLOAT = "float"
GREY = frozenset({*RANGES, FLOAT})
COLOUR_16 = "16-bit colour"
"""of these Pillow gives the upper bytes alone"""

Scales = Mapping[str, float]
"""for each kind of deep grey values, the number of levels that become 256"""


@dataclass(frozen=True)
class Look:
    """What a file holds besides ordinary 8-bit pixels.

    kind: that of deep values, empty for 8 bits. low, high: the values that are reached, where the kind is not empty.
    transparent: whether some pixels are. animated: whether further frames follow.
    """

    kind: str = ""
    low: float = 0.0
    high: float = 0.0
    transparent: bool = False
    animated: bool = False


def look(content: bytes) -> Look:
    """What an image file holds; an ordinary look for one that cannot be read, which decoding names."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            kind = _kind(image)
            low, high = _range(image, kind) if kind else (0.0, 0.0)
            transparent = kind not in GREY and _transparent(image)
            return Look(kind, low, high, transparent, bool(getattr(image, "is_animated", False)) and image.format != "MPO")
    except UNREADABLE:
        return Look()


def identified(path: Path) -> bool:
    """Whether a file of an unknown ending is an image by its content."""
    Image.init()
    sure = [name for name, (_, accept) in Image.OPEN.items() if accept is not None and name not in NO_PICTURES]
    try:
        with Image.open(path, formats=sure):
            return True
    except UNREADABLE:
        return False


def endings() -> frozenset[str]:
    """The endings of files that Pillow reads here, in lower case."""
    Image.init()
    return frozenset(ending for ending, name in Image.EXTENSION.items() if name in Image.OPEN and name not in NO_PICTURES)


def scales_of(looks: Mapping[str, Look]) -> dict[str, float]:
    """The scale of every kind of deep grey values among the files of a data set, whose looks are given by path.

    Whole numbers are of the kind's whole range; where none is beyond 1/16 of it, of the smallest power of two that holds
    them all. Floats within [0, 1] are shares, floats within [0, 255] are levels. Raises InputError for any other range.
    """
    by_kind: dict[str, list[str]] = {}
    for path, one in looks.items():
        if one.kind:
            by_kind.setdefault(one.kind, []).append(path)
    problems: list[str] = []
    scales: dict[str, float] = {}
    for kind, paths in by_kind.items():
        lowest = min(paths, key=lambda path: _or_nan_first(looks[path].low))
        highest = min(paths, key=lambda path: _or_nan_first(-looks[path].high))
        try:
            scales[kind] = _scale(kind, looks[lowest].low, looks[highest].high)
        except InputError as error:
            problems += [f"{problem} ({', '.join(dict.fromkeys((lowest, highest)))})" for problem in error.problems]
    if problems:
        raise InputError(*problems)
    return scales


def decode(source: Path | str | BinaryIO, side: int, scales: Scales | None = None) -> Array:
    """One image as (3, side, side) uint8: upright, RGB on white, the shorter side resized, the centre square kept.

    scales: of the data set's deep grey values (`scales_of`); by default those of this image alone.
    """
    return channels_first(square(source, side, scales))


def square(source: Path | str | BinaryIO, side: int, scales: Scales | None = None) -> Image.Image:
    """The same as a Pillow image."""
    with Image.open(source) as opened:
        kind = _kind(opened)
        upright = ImageOps.exif_transpose(opened)
        if kind in GREY:
            scale = (scales or {}).get(kind) or _scale(kind, *_range(opened, kind))
            upright = Image.fromarray(_levels(np.asarray(upright), scale))
        return ImageOps.fit(_rgb(upright), (side, side), method=Image.Resampling.BILINEAR)


def channels_first(image: Image.Image) -> Array:
    return np.asarray(image).transpose(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, GROUND), image).convert("RGB")
    return image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB")


def _levels(values: NDArray[Any], scale: float) -> Array:
    """Deep grey values as 8 bits."""
    if values.dtype.kind == "f":
        return np.round(values * (256 / scale)).clip(0, 255).astype(np.uint8)
    return (values.astype(np.int64) * 256 // int(scale)).clip(0, 255).astype(np.uint8)


def _kind(image: Image.Image) -> str:
    """Of which kind of deep values an opened image is; empty for 8 bits a channel."""
    if image.mode == "F":
        return FLOAT
    if image.mode.startswith("I"):
        return "32-bit" if image.mode == "I" and image.format not in ("PNG", "PPM") else "16-bit"
    stored = " ".join(str(part) for tile in getattr(image, "tile", ()) for part in tile[3:])
    return COLOUR_16 if re.search(";16[BLN]", stored) else ""


def _transparent(image: Image.Image) -> bool:
    """Whether some pixels of an image are transparent."""
    if not image.has_transparency_data:
        return False
    least = image.convert("RGBA").getchannel("A").getextrema()[0]
    return bool(least < 255)  # type: ignore[operator]


def _range(image: Image.Image, kind: str) -> tuple[float, float]:
    """The least and the largest value of an image; NaN where one is."""
    values = np.asarray(image.convert("RGB") if kind == COLOUR_16 else image)
    return float(values.min()), float(values.max())


def _scale(kind: str, low: float, high: float) -> float:
    if kind == COLOUR_16:
        if high * FEW_BITS < 256:
            raise InputError(
                f"data: colour images of 16 bits per channel use under 1/{FEW_BITS} of their range, and Pillow reads their upper 8 bits "
                "alone; save them with 8 bits per channel"
            )
        return RANGES["16-bit"]
    if kind == FLOAT:
        if low >= 0 and high <= 255:
            return 256 / 255 if high <= 1 else 256
        raise InputError(f"data: float images have values from {low:g} to {high:g}; expected 0 to 1, or 0 to 255")
    if low < 0:
        raise InputError(f"data: {kind} grey images have values from {low:g} to {high:g}; expected none below 0")
    held = 2 ** max(int(high).bit_length(), 1)
    return held if held * FEW_BITS <= RANGES[kind] else RANGES[kind]


def _or_nan_first(value: float) -> float:
    """A key by which NaN is the least."""
    return -math.inf if math.isnan(value) else value
