"""One image file: what it holds, found by content, and its pixels (`preprocess.square`) as an array."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from kdzoo.data.dataset import Array
from kdzoo.data.preprocess import GREY, Scales, deep_kind, grey_scale, square, value_range
from kdzoo.errors import InputError

DECODER = 2
"""raised whenever the same files are decoded to other pixels; what is kept of decoded files bears it"""
NO_PICTURES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
"""formats that Pillow names and cannot draw by itself"""
UNREADABLE = (
    *(OSError, UnidentifiedImageError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError),
    *(ArithmeticError, LookupError, TypeError, MemoryError, struct.error, zlib.error),
)
"""what the decoders of damaged files raise"""

EMPTY = "an empty file"


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
            kind = deep_kind(image)
            low, high = value_range(image, kind) if kind else (0.0, 0.0)
            transparent = kind not in GREY and _transparent(image)
            return Look(kind, low, high, transparent, bool(getattr(image, "is_animated", False)) and image.format != "MPO")
    except UNREADABLE:
        return Look()


def fault(content: bytes) -> str | None:
    """Why an image file cannot be decoded; None where it can."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
        return None
    except UNREADABLE as error:
        return reason_of(error) if content else EMPTY


def reason_of(error: BaseException) -> str:
    """Why an image file cannot be decoded, in the same words each time: Pillow names the place of its bytes in memory."""
    return "not an image" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__


def has_image_content(path: Path) -> bool:
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


def find_scales(looks: Mapping[str, Look]) -> dict[str, float]:
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
            scales[kind] = grey_scale(kind, looks[lowest].low, looks[highest].high)
        except ValueError as error:
            problems.append(f"data: {error} ({', '.join(dict.fromkeys((lowest, highest)))})")
    if problems:
        raise InputError(*problems)
    return scales


def decode(source: Path | str | BinaryIO, side: int, scales: Scales | None = None) -> Array:
    """One image as (3, side, side) uint8: upright, RGB on white, the shorter side resized, the centre square kept.

    scales: of the data set's deep grey values (`find_scales`); by default those of this image alone.
    """
    return channels_first(square(source, side, scales))


def channels_first(image: Image.Image) -> Array:
    return np.asarray(image).transpose(2, 0, 1)


def _transparent(image: Image.Image) -> bool:
    """Whether some pixels of an image are transparent."""
    if not image.has_transparency_data:
        return False
    least = image.convert("RGBA").getchannel("A").getextrema()[0]
    return bool(least < 255)  # type: ignore[operator]


def _or_nan_first(value: float) -> float:
    """A key by which NaN is the least."""
    return -math.inf if math.isnan(value) else value
