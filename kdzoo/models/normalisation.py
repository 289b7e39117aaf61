"""Normalisations of images by the names that people use, and in their own numbers. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kdzoo.errors import InputError, add_clause, did_you_mean
from kdzoo.runs.fields import parse
from kdzoo.runs.spec import Normalisation

USUAL: Mapping[str, Normalisation] = {
    "unit": Normalisation(mean=(0.0,), std=(1.0,)),
    "0.5": Normalisation(mean=(0.5,), std=(0.5,)),
    "imagenet": Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "cifar10": Normalisation(mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)),
    "cifar100": Normalisation(mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761)),
    "mnist": Normalisation(mean=(0.1307,), std=(0.3081,)),
    "clip": Normalisation(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)),
    "pixels": Normalisation(mean=(0.0,), std=(1 / 255,)),
    "centred": Normalisation(mean=(128 / 255,), std=(1 / 255,)),
}
"""`unit` is x / 255, `pixels` is 0..255 as it is, `centred` is pixels - 128. cifar10 and cifar100 are as most public programs
have them (the deviations of CIFAR-10 are those within an image, not those of the set)"""

HOW_TO_NAME = "imagenet, clip, 0.5, another usual name, or MEAN/STD"
"""what stands behind `norm=` where a user has to say it"""

AUTO, DATA = "auto", "data"
NUMBERS = re.compile(r"^[\d.,eE+-]+(/[\d.,eE+-]+)?$")


def normalisation_of(text: str) -> Normalisation | None:
    """What `norm=TEXT` means: a usual name, `data` for the data's own (None), M for mean and deviation M, or MEAN/STD.

    MEAN and STD are one number, or one a channel joined with commas, of pixels in [0, 1]. Raises InputError for anything else.
    """
    if text == DATA:
        return None
    if text in USUAL:
        return USUAL[text]
    if not NUMBERS.match(text):
        names = [AUTO, DATA, *USUAL]
        known = f"known: {', '.join(names)}, or MEAN/STD such as 0.5/0.25"
        raise InputError(add_clause(f"norm: unknown {text!r}{did_you_mean(text, names)}", known))
    mean, _, std = text.partition("/")
    try:
        numbers = [tuple(float(number) for number in part.split(",")) for part in (mean, std or mean)]
    except ValueError:
        raise InputError(f"norm: expected MEAN/STD such as 0.5/0.25, got {text!r}") from None
    alike = all(len(set(part)) == 1 for part in numbers) and len(numbers[0]) == len(numbers[1])  # one number says as much
    means, deviations = [part[:1] for part in numbers] if alike else numbers
    return parse(Normalisation, {"mean": means, "std": deviations}, "norm")


def in_words(norm: Normalisation) -> str:
    """A normalisation as a user would write it: its usual name, else its numbers."""
    for name, usual in USUAL.items():
        if _spread(usual, len(norm.mean)) == _spread(norm, len(norm.mean)):
            return name
    return "/".join(",".join(f"{value:.4g}" for value in part) for part in (norm.mean, norm.std))


def _spread(norm: Normalisation, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel, also where one number stands for all."""
    mean, std = (part * channels if len(part) == 1 else part for part in (norm.mean, norm.std))
    return mean, std


def usual_for(channels: int, own: Normalisation | None = None) -> dict[str, Normalisation]:
    """The usual normalisations that fit so many channels, by name, and the architecture's own where that is another one."""
    fitting = {name: norm for name, norm in USUAL.items() if len(norm.mean) in (1, channels) and (name != "mnist" or channels == 1)}
    nothing_more = own is None or own in fitting.values() or len(own.mean) not in (1, channels)
    return fitting if nothing_more or own is None else {**fitting, in_words(own): own}
