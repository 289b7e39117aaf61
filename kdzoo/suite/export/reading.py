"""How image files become a network's input: in numbers, and as the code of a README that does it elsewhere."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdzoo.data import network_input, preprocess
from kdzoo.errors import InputError
from kdzoo.runs.atomic import write_bytes
from kdzoo.suite.export.student import Student

BESIDE = "  # the file beside this one: the code that read the images in training"


@dataclass(frozen=True)
class Reading:
    """How an image file becomes a network's input, as it did in training.

    decode_side: of the square that a file is decoded to; crop_side: of the centre that is seen (None for all); network_side: what
    that is resized to (None for no change). grey: whether the images of the data have one channel; channels: of the network.
    mean, std: of each channel. scales: of deep grey values.
    """

    decode_side: int
    crop_side: int | None
    network_side: int | None
    grey: bool
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scales: Mapping[str, float]

    @property
    def seen_side(self) -> int:
        """The side of what is seen of an image, before the network resizes it."""
        return self.crop_side or self.decode_side

    @property
    def side(self) -> int:
        """The side of the network's input."""
        return self.network_side or self.seen_side

    @property
    def enlarges(self) -> bool:
        """Whether images are smaller than what is seen of them, so that torch enlarges them first."""
        return self.seen_side > self.decode_side

    @property
    def resizes(self) -> bool:
        """Whether torch resizes an image on its way to the network, before or while it is normalised."""
        return self.enlarges or self.side != self.seen_side


def reading_of(student: Student) -> Reading:
    """How image files become a student's input; raises InputError for images that no image file holds as they were trained on."""
    dataset, network = student.dataset, student.body
    if dataset.height != dataset.width or dataset.channels not in (1, 3):
        raise InputError(
            f"{dataset.name}: expected square images of 1 or 3 channels, as image files are read, got {dataset.channels} channels of "
            f"{dataset.height}x{dataset.width}"
        )
    return Reading(
        decode_side=dataset.height,
        crop_side=student.recipe.augment.size,
        network_side=network.image_size,
        grey=dataset.channels == 1,
        channels=network.channels,
        mean=tuple(network.mean.flatten().tolist()),
        std=tuple(network.std.flatten().tolist()),
        scales=dict(dataset.scales),
    )


@dataclass(frozen=True)
class ReadingCode:
    """The lines of a README that read an image file: imports, the statements within a function of `path` that leave it as `image`, and
    the files beside the README that they need.
    """

    imports: tuple[str, ...]
    statements: tuple[str, ...]
    modules: tuple[Any, ...] = (preprocess,)

    def copy_modules(self, folder: Path) -> None:
        """Write the modules beside the README."""
        for module in self.modules:
            file = Path(inspect.getfile(module))
            write_bytes(folder / file.name, file.read_bytes())


def array_code(reading: Reading) -> ReadingCode:
    """Code that leaves a network's input as an array (1, C, S, S) float32."""
    if reading.resizes:
        code = tensor_code(reading)
        *before, last = code.statements
        return ReadingCode(("import torch", *code.imports), (*before, f"{last}.numpy()"), code.modules)
    return ReadingCode((f"from preprocess import read_image{BESIDE}",), _call("image = read_image(", ")", reading_options(reading)))


def tensor_code(reading: Reading) -> ReadingCode:
    """Code that leaves a network's input as a tensor (1, C, S, S) float32; torch is imported already."""
    if not reading.resizes:
        call = _call("image = torch.from_numpy(read_image(", "))", reading_options(reading))
        return ReadingCode((f"from preprocess import read_image{BESIDE}",), call)
    statements = _call("pixels = torch.from_numpy(read_pixels(", "))", _pixel_options(reading, crop=False))
    normalised = ", ".join(repr(list(part)) for part in (reading.mean, reading.std))
    statements += (f"image = normalise(centre(pixels, {reading.crop_side}), {normalised}, {reading.network_side})",)
    imports = (f"from network_input import centre, normalise{BESIDE}", f"from preprocess import read_pixels{BESIDE}")
    return ReadingCode(imports, statements, (preprocess, network_input))


def pixel_code(reading: Reading) -> ReadingCode:
    """Code that leaves the pixels that a network sees as an array (1, C, S, S) uint8, not yet normalised."""
    if not reading.enlarges:
        call = _call("image = read_pixels(", ")", _pixel_options(reading, crop=True))
        return ReadingCode((f"from preprocess import read_pixels{BESIDE}",), call)
    statements = _call("pixels = torch.from_numpy(read_pixels(", "))", _pixel_options(reading, crop=False))
    imports = ("import torch", f"from network_input import centre{BESIDE}", f"from preprocess import read_pixels{BESIDE}")
    return ReadingCode(imports, (*statements, f"image = centre(pixels, {reading.crop_side}).numpy()"), (preprocess, network_input))


def reading_options(reading: Reading, *, normalise: bool = True) -> dict[str, object]:
    """The arguments of `preprocess.read_image` that are not its defaults, or of `preprocess.read_pixels` where it does not normalise."""
    pixels = _pixel_options(reading, crop=True)
    return {**pixels, "mean": list(reading.mean), "std": list(reading.std)} if normalise else pixels


def _pixel_options(reading: Reading, *, crop: bool) -> dict[str, object]:
    """The arguments of `preprocess.read_pixels` that are not its defaults."""
    usual = {"grey": (reading.grey, False), "channels": (reading.channels, 3), "scales": (dict(reading.scales), {})}
    return {
        "decode_side": reading.decode_side,
        **({"crop_side": reading.crop_side} if crop else {}),
        **{name: value for name, (value, default) in usual.items() if value != default},
    }


def _call(opening: str, closing: str, options: Mapping[str, object]) -> tuple[str, ...]:
    return (opening, "    path,", *(f"    {name}={value!r}," for name, value in options.items()), closing)


def listed(names: Sequence[str]) -> str:
    """Names as a list in words."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)
