"""Data sets by name: images in canonical order with a fingerprint of their content, wherever the files came from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from kdzoo.contract.registry import definition_of
from kdzoo.data.archives import TORCHVISION, from_torchvision, read_packed
from kdzoo.data.canonical import Array, FurtherColumn, Raw, make_dataset
from kdzoo.data.dataset import Dataset
from kdzoo.data.folder import load_folder
from kdzoo.data.known import DATA, HALVED, TEXT, DataSource, data_root, folder_of, has_labels, location_of, missing_data, path_of
from kdzoo.data.labels import map_labels
from kdzoo.data.listing import list_images, list_without_classes
from kdzoo.data.superclasses import SUPERCLASSES, superclass_of
from kdzoo.data.texts import read_glosses, read_texts
from kdzoo.errors import InputError, KdzooError, unknown
from kdzoo.text import number_of


def register_source(name: str, read: Callable[[], Raw], description: str = "", licence: str | None = None) -> None:
    """Make a data set of your own known under a name; `read` returns its arrays. licence: an SPDX identifier such as CC-BY-4.0.

    The same function again, as when a notebook's cell is run again, replaces it; raises InputError for a name that another has.
    """
    DATA.add(name, DataSource(description, read=read, licence=licence), definition_of(read))


def load(
    request: str,
    *,
    root: Path | None = None,
    image_size: int | None = None,
    image_cache: int | None = None,
    allow_download: bool = True,
    skip_unreadable: bool = False,
) -> Dataset:
    """A data set by name, `folder:PATH`, `images:PATH` for a folder whose images have no labels, or `text:PATH`.

    Looked for as `{root}/{name}/{train,test}.npz`, then as torchvision's own files below the root, then downloaded and
    checked by torchvision; spoken digits as their recordings below the root. root: as `data_root` takes it. image_size,
    image_cache: what the images of a folder are decoded for, and the bytes that this may take; skip_unreadable: whether
    unreadable files of a folder are left out (`folder.load_folder`). Raises InputError for an unknown name, and for a set
    that is not there, with where it looked and the two ways to provide it.
    """
    if (place := folder_of(request)) is not None:
        lists = list_images if has_labels(request) else list_without_classes
        return load_folder(place, image_size, image_cache, skip_unreadable=skip_unreadable, list_files=lists)
    if request.startswith(TEXT) and (place := path_of(request)) is not None:
        divided = "" if place.is_dir() else "a fifth of each class, by content"
        return replace(make_dataset("text", read_texts(place), place.name), origins={"train": "", "test": divided})
    if request == "glosses":
        return _glosses(root)
    if request == "digits":
        dataset = make_dataset("digits", _digits(), "scikit-learn")
        return replace(dataset, origins={"train": "", "test": "a fifth, by content"})
    if request == "spoken_digits":
        return _spoken_digits(data_root(root))
    if request == "fsdd":
        return _fsdd(data_root(root))
    source_entry = DATA.find(request)
    if source_entry is not None and source_entry.read is not None:
        return make_dataset(request, _read_own(request, source_entry.read), source_entry.description or "a source of your own")
    whole = HALVED.get(request, request)
    if whole not in TORCHVISION:
        raise InputError(_unknown_source(request))
    folder = data_root(root)
    packed = read_packed(folder, whole)
    raw = from_torchvision(folder, whole, allow_download) if packed is None else packed
    source = f"{'files of torchvision' if packed is None else whole} in the data folder"  # its path would name a machine in every run
    raw = with_superclasses(raw) if whole == "cifar100" else raw
    return make_dataset(request, raw if request == whole else halved(raw), source)


def _unknown_source(request: str) -> str:
    """Why a name is none of a data set; a folder without its prefix, and a misspelt prefix, are the usual reasons."""
    prefix, colon, path = request.partition(":")
    if request and Path(os.path.expanduser(request)).is_dir():
        return f"data: {request} is a folder; write folder:{request}"
    if colon and get_close_matches(prefix, ["folder"]):
        return f"data: unknown {request!r}; did you mean 'folder:{path}'?"
    return unknown("data", request, DATA)


def with_superclasses(raw: Raw) -> Raw:
    """CIFAR-100 with its 20 superclasses as a second column; as it is where its files do not name their classes as the set does."""
    if set(raw.classes) != {name for members in SUPERCLASSES.values() for name in members.split()}:
        return raw
    number_of_class = np.array(superclass_of(raw.classes))
    train, test = (number_of_class[map_labels(labels, labels, raw.classes).train] for _, labels in (raw.train, raw.test))
    return replace(raw, further=(FurtherColumn("superclass", train, test, tuple(SUPERCLASSES)),))


def halved(raw: Raw) -> Raw:
    """The same with images of half the side: each pixel the mean of 2x2, to the nearest level, halves upwards."""
    (train, train_labels), (test, test_labels) = raw.train, raw.test
    return replace(raw, train=(_halved(train), train_labels), test=(_halved(test), test_labels))


def _halved(images: Array) -> Array:
    count, height, width = images.shape[:3]
    blocks = images.reshape(count, height // 2, 2, width // 2, 2, *images.shape[3:])
    means: Array = ((blocks.sum(axis=(2, 4), dtype=np.uint16) + 2) // 4).astype(np.uint8)
    return means


def _read_own(name: str, read: Callable[[], Any]) -> Raw:
    """Read a source of a user's; raises InputError for what it raises, and for anything but a Raw."""
    try:
        raw = read()
    except KdzooError:
        raise
    except Exception as error:
        raise InputError(f"data: the source {name!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(raw, Raw):
        raise InputError(f"data: the source {name!r} gave a {type(raw).__name__}; expected a kdzoo.Raw")
    return raw


def _digits() -> Raw:
    """scikit-learn's digits, their 16 grey levels spread over 0 to 255; a fifth of each class, chosen by content, is the test part."""
    rows = np.loadtxt(_digits_file(), delimiter=",")
    images = np.round(rows[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    labels = rows[:, -1].astype(np.int64)
    ranks = [hashlib.blake2b(b"test part" + image.tobytes(), digest_size=8).digest() for image in images]
    test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        members = sorted(np.flatnonzero(labels == label), key=lambda i: ranks[i])
        test[members[: round(len(members) / 5)]] = True
    return Raw((images[~test], labels[~test]), (images[test], labels[test]), tuple(map(str, range(10))))


def _digits_file() -> Path:
    """The file that scikit-learn reads its digits from: to import scikit-learn for it takes as long as to import torch."""
    package = find_spec("sklearn")
    folders = (package and package.submodule_search_locations) or ()
    for folder in folders:
        if (file := Path(folder) / "datasets" / "data" / "digits.csv.gz").is_file():
            return file
    raise InputError("data: digits are a file of scikit-learn, datasets/data/digits.csv.gz, which is not installed")


def _spoken_digits(folder: Path) -> Dataset:
    """Log-mel maps of spoken digits (`data.spoken`); two of the six speakers are the test part."""
    from kdzoo.data import spoken

    source_entry = DATA.get("spoken_digits")
    place = folder / str(source_entry.files)
    if not place.is_dir():
        raise InputError(missing_data("spoken_digits", str(place), f"fetch it where there is a network, in {folder}: {source_entry.get}"))
    recordings = spoken.read_recordings(place)
    spoken.require_speakers(recordings, spoken.TEST_SPEAKERS)
    train_speakers = sorted(set(recordings.speakers) - set(spoken.TEST_SPEAKERS))
    cut = f"cut off after {spoken.LENGTH / spoken.RATE:g} s: {number_of(recordings.cut, 'recording')}"
    raw = Raw(recordings.of(train_speakers), recordings.of(spoken.TEST_SPEAKERS), spoken.DIGITS, (cut,) if recordings.cut else ())
    origins = {"train": ", ".join(train_speakers), "test": f"{' and '.join(spoken.TEST_SPEAKERS)}, who are not in train"}
    return replace(make_dataset("spoken_digits", raw, f"{source_entry.files} in the data folder"), origins=origins)


def _fsdd(folder: Path) -> Dataset:
    """Float32 log-mel maps of spoken digits (`data.fsdd`), by the set's own split."""
    from kdzoo.data.fsdd import read_maps

    files = str(DATA.get("fsdd").files)
    if not (folder / files).is_dir():
        raise InputError(missing_data("fsdd", str(folder / files), "download it where there is a network: kdzoo data prepare fsdd"))
    origins = {"train": "takes 5 and more", "test": "takes 0 to 4"}
    return replace(make_dataset("fsdd", read_maps(folder / files), f"{files} in the data folder"), origins=origins)


def _glosses(root: Path | None) -> Dataset:
    """The glosses of WordNet's nouns (`data.texts`)."""
    place = location_of("glosses", root)
    if place is None:
        entry = DATA.get("glosses")
        raise InputError(missing_data("glosses", f"{data_root(root) / str(entry.files)} and {entry.installed}", entry.get))
    dataset = make_dataset("glosses", read_glosses(Path(place)), "WordNet's data.noun")
    return replace(dataset, origins={"train": "", "test": "one in 40 of each class, by content"})


def data_files(request: str, root: Path | None) -> list[Path]:
    """Where the files of a data set lie: folders, or none for one that is built in."""
    if (place := path_of(request)) is not None:
        return [place.parent if place.is_file() else place]
    location = location_of(request, root)
    if location in (None, "built in"):
        return []
    place = Path(str(location))
    return [place if place.is_dir() else place.parent]
