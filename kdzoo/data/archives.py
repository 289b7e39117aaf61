"""Data sets in archives of the data folder: `{train,test}.npz`, or torchvision's own files, which it downloads."""

from __future__ import annotations

import os
import pickle
import socket
import struct
import urllib.error
import zipfile
import zlib
from pathlib import Path

import numpy as np

from kdzoo.data.canonical import Array, Raw
from kdzoo.data.known import DATA, HALVED, data_root, missing_data
from kdzoo.data.labels import map_labels
from kdzoo.errors import InputError, unknown

DOWNLOAD_TIMEOUT_SECONDS = 15

DAMAGED = (OSError, ValueError, LookupError, EOFError, TypeError, AssertionError, MemoryError, NotImplementedError)
"""what reading damaged arrays raises, beside the errors of their packing"""


def read_packed(folder: Path, name: str) -> Raw | None:
    """`{folder}/{name}/{train,test}.npz` with images, labels and classes, or None.

    Classes that stand in another order in the two are matched by name. Raises InputError for one file without the
    other, for damaged ones, and for classes of the test part alone.
    """
    files = {part: folder / name / f"{part}.npz" for part in ("train", "test")}
    present = [file for file in files.values() if os.path.isfile(file)]
    if not present:
        return None
    if len(present) == 1:
        absent = next(file for file in files.values() if file not in present)
        raise InputError(f"data: {present[0]} is there and {absent} is not; expected both")
    contents = {part: _read_archive(file) for part, file in files.items()}
    names = {part: classes for part, (_, _, classes) in contents.items()}
    if bool(names["train"]) != bool(names["test"]):
        names = dict.fromkeys(names, names["train"] or names["test"])
    labels = {part: content[1] for part, content in contents.items()}
    if names["train"] != names["test"]:
        labels["test"] = _renumber(files["test"], labels["test"], names["test"], names["train"])
    return Raw((contents["train"][0], labels["train"]), (contents["test"][0], labels["test"]), names["train"])


def _read_archive(file: Path) -> tuple[Array, Array, tuple[str, ...]]:
    """Images, labels and classes of an archive; InputError for a damaged one."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return arrays["images"], arrays["labels"], tuple(map(str, arrays["classes"])) if "classes" in arrays else ()
    except (*DAMAGED, zipfile.BadZipFile, zlib.error, struct.error) as error:
        raise InputError(f"data: {file} is damaged: expected arrays images, labels, classes ({error})") from error


def _renumber(file: Path, labels: Array, own: tuple[str, ...], names: tuple[str, ...]) -> Array:
    """Labels that number the file's `own` class names as labels that number the train part's `names`."""
    if strangers := sorted(set(own) - set(names)):
        raise InputError(f"data: {file}: its classes differ from those of the train part: {', '.join(strangers)}")
    numbers = map_labels(labels, labels, own).train
    return np.array([names.index(own[number]) for number in numbers], dtype=np.int64)


TORCHVISION = {"mnist": "MNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}


def from_torchvision(folder: Path, name: str, allow_download: bool) -> Raw:
    """A data set from torchvision's own files below a folder, downloaded where it may be; raises InputError where it is not there."""
    try:
        return _read_torchvision(folder, name, download=False)
    except RuntimeError:
        pass  # not there: torchvision says no more than that
    if allow_download:
        try:
            return _download(folder, name)
        except (OSError, RuntimeError, urllib.error.URLError):
            pass  # no network, or a host that does not answer: the message below is what helps
    places = f"{folder / name / 'train.npz'} and torchvision's files below {folder}"
    raise InputError(missing_data(name, places, f"download it where there is a network: kdzoo data prepare {name}"))


def prepare(name: str, root: Path | None) -> Raw:
    """Download a data set and check its archives, images through torchvision, unless `{root}/{name}/{train,test}.npz` are there.

    Raises OSError or RuntimeError where the download fails, and InputError for what is there and damaged.
    """
    name = HALVED.get(name, name)
    if (source := DATA.find(name)) is not None and (command := source.get):
        raise InputError(f"data: {name} is not downloaded by kdzoo; fetch it in {data_root(root)}: {command}")
    if name == "fsdd":
        from kdzoo.data import fsdd

        fsdd.prepare(data_root(root))
        return fsdd.read_maps(data_root(root) / str(DATA.get(name).files))
    if name not in TORCHVISION:
        raise InputError(unknown("data", name, [*TORCHVISION, *HALVED, "fsdd"]))
    packed = read_packed(data_root(root), name)
    return _download(data_root(root), name) if packed is None else packed


def _download(folder: Path, name: str) -> Raw:
    """A data set from torchvision's own files, downloaded; raises OSError or RuntimeError where that fails."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)
    try:
        return _read_torchvision(folder, name, download=True)
    finally:
        socket.setdefaulttimeout(before)


def _read_torchvision(folder: Path, name: str, *, download: bool) -> Raw:
    from torchvision import datasets

    try:
        parts = [getattr(datasets, TORCHVISION[name])(str(folder), train=train, download=download) for train in (True, False)]
    except (*DAMAGED, pickle.UnpicklingError, zlib.error) as error:
        if download and isinstance(error, OSError):
            raise
        raise InputError(f"data: torchvision's files of {name} below {folder} are damaged ({type(error).__name__}: {error})") from error
    train, test = ((np.asarray(part.data), np.asarray(part.targets)) for part in parts)
    return Raw(train, test, tuple(str(label).partition(" - ")[0] for label in parts[0].classes))
