"""The data sets that are known by name: what is in them and where they lie. Free of torch, so that they are listed at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdzoo.contract.registry import Registry
from kdzoo.files import cache_folder
from kdzoo.runs.licences import UNKNOWN, licence_in, spelled


@dataclass(frozen=True)
class DataSource:
    """What a data set holds, as far as it is known before it is read; shape: channels, height, width.

    files: what its own files have below the root, where kdzoo does not pack them; None for a set that needs no files there.
    get: how to get them; empty for what `kdzoo data prepare` downloads. read: reads its arrays (`sources.Raw`); None for
    the sets that `sources` reads itself. licence: an SPDX identifier, as those say who publish it; None where they do not.
    installed: where a package of the system puts its files; None where there is no such package.
    """

    description: str
    train: int | None = None
    test: int | None = None
    classes: int | None = None
    shape: tuple[int, int, int] | None = None
    files: str | None = None
    get: str = ""
    read: Callable[[], Any] | None = None
    licence: str | None = None
    installed: str | None = None


_OWN = {
    "digits": DataSource("handwritten digits, part of scikit-learn", 1438, 359, 10, (1, 8, 8), licence="CC-BY-4.0"),
    "mnist": DataSource("handwritten digits", 60_000, 10_000, 10, (1, 28, 28), "MNIST/raw"),
    "cifar10": DataSource("photographs", 50_000, 10_000, 10, (3, 32, 32), "cifar-10-batches-py"),
    "cifar100": DataSource("photographs", 50_000, 10_000, 100, (3, 32, 32), "cifar-100-python"),
    "cifar10_16": DataSource("cifar10, each pixel the mean of 2x2", 50_000, 10_000, 10, (3, 16, 16), "cifar-10-batches-py"),
    "cifar100_16": DataSource("cifar100, each pixel the mean of 2x2", 50_000, 10_000, 100, (3, 16, 16), "cifar-100-python"),
    "spoken_digits": DataSource(
        "spoken digits as log-mel maps, tested on two other speakers",
        2_000,
        1_000,
        10,
        (1, 32, 32),
        "fsdd/recordings",
        "git clone https://github.com/Jakobovski/free-spoken-digit-dataset fsdd",
        licence="CC-BY-SA-4.0",
    ),
    "fsdd": DataSource(
        "spoken digits and their speakers as float32 log-mel maps",
        2_700,
        300,
        10,
        (1, 32, 32),
        "fsdd/recordings",
        licence="CC-BY-SA-4.0",
    ),
    "glosses": DataSource(
        "definitions of WordNet's nouns, by 19 kinds of things (texts)",
        77_418,
        1_987,
        19,
        None,
        "wordnet/data.noun",
        "apt-get install wordnet-base (Debian), or copy WordNet 3.0's data.noun there",
        licence="LicenseRef-WordNet-3.0",
        installed="/usr/share/wordnet/data.noun",
    ),
    "text:PATH": DataSource("your own texts: a CSV file with the columns text and label, or a folder with train.csv and test.csv"),
    "folder:PATH": DataSource("your own images, one sub-folder for each class, perhaps in train/, test/ and val/"),
    "images:PATH": DataSource("your own images without labels, whatever sub-folders they are in; for --task features"),
}

FOLDER = "folder:"
"""what stands before the path of a folder with a sub-folder for each class"""
TEXT = "text:"
"""what stands before the path of a file, or a folder, of labelled texts"""
UNLABELLED = "images:"
"""what stands before the path of a folder whose images have no labels"""

HALVED = {"cifar10_16": "cifar10", "cifar100_16": "cifar100"}
"""data sets that are another's images at half their side, read from its files"""


LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt", "LICENCE.md")

DATA: Registry[DataSource] = Registry("data", _OWN)
"""every data set by name: kdzoo's own and a user's"""


def data_root(root: Path | None) -> Path:
    """Where data sets are looked for: the folder given, else KDZOO_DATA, else `data` in the cache folder (KDZOO_CACHE)."""
    variable = os.environ.get("KDZOO_DATA")
    if root is not None or variable:
        return Path(root or str(variable)).expanduser()
    return cache_folder() / "data"


def folder_of(request: str) -> Path | None:
    """The folder of `folder:PATH` and `images:PATH`; None for a data set by name."""
    kind, colon, path = request.partition(":")
    return Path(os.path.expanduser(path)) if colon and f"{kind}:" in (FOLDER, UNLABELLED) else None


def path_of(request: str) -> Path | None:
    """The same of `text:PATH` too, which may be a file."""
    if request.startswith(TEXT):
        return Path(os.path.expanduser(request.removeprefix(TEXT)))
    return folder_of(request)


def absolute(request: str) -> str:
    """The same data in words that mean them in any working folder: a path is written out, a name stays."""
    path = path_of(request)
    return request if path is None else f"{request.partition(':')[0]}:{os.path.abspath(path)}"


def location_of(name: str, root: Path | None) -> str | None:
    """Where a data set lies, or None where it has to be downloaded; a download that failed leaves an empty folder."""
    files = DATA.get(name).files
    if files is None:
        return "built in"
    installed = DATA.get(name).installed
    places: list[Path] = [data_root(root) / HALVED.get(name, name) / "train.npz", data_root(root) / files]
    places += [Path(installed)] if installed else []
    return next((str(place) for place in places if place.is_file() or (place.is_dir() and any(place.iterdir()))), None)


def licence_of_data(request: str) -> str:
    """The licence of a data set by name, or of a folder whose LICENSE names one (`SPDX-License-Identifier: CC-BY-4.0`)."""
    folder = path_of(request)
    if folder is None:
        source = DATA.find(HALVED.get(request, request))
        return spelled(source.licence if source is not None else None)
    return next((name for file in LICENCE_FILES if (name := licence_in(folder / file)) is not None), UNKNOWN)


def has_labels(request: str) -> bool:
    """Whether a data set that is asked for has labels: all but folders that are read without any."""
    return not request.startswith(UNLABELLED)


def no_such_folder(folder: str | Path) -> str:
    """The message for a folder of images that is missing."""
    return f"data: folder:{folder}: no such folder"


def no_such_transfer_folder(request: str) -> str:
    """The message for a folder of images without labels that is missing."""
    return f"transfer_data: {request}: no such folder"


def no_such_texts(file: str | Path) -> str:
    """The message for a file of texts that is missing."""
    return f"data: {file}: no such file; expected a CSV file with the columns text and label"


def missing_data(name: str, places: str, how: str) -> str:
    """The message for a data set that is not on this machine."""
    return (
        f"data: {name} is not on this machine; looked for {places}. "
        f"Give the folder that has it (--data-root DIR or KDZOO_DATA=DIR), or {how}"
    )
