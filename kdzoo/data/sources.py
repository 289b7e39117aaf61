"""Data sets by name: images in canonical order with a fingerprint of their content, wherever the files came from."""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
import struct
import urllib.error
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdzoo.contract.registry import definition_of
from kdzoo.data.dataset import Images, Subset, statistics
from kdzoo.data.folder import load_folder
from kdzoo.data.known import DATA, HALVED, DataSet, data_root, where
from kdzoo.data.labels import map_labels
from kdzoo.data.repeats import find_repeats
from kdzoo.errors import InputError, KdzooError, unknown
from kdzoo.text import number_of

Array = NDArray[Any]
DOWNLOAD_TIMEOUT_SECONDS = 15


@dataclass(frozen=True)
class Raw:
    """What a source reads: images (N, H, W[, C]) uint8 and labels (N,) of train and test, and the classes' names.

    Labels are numbers from 0 or names where `classes` names them; without names they say themselves which classes there
    are (`labels.map_labels`). notes: what was passed over in reading, a sentence each.
    """

    train: tuple[Array, Any]
    test: tuple[Array, Any]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


STATISTICS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
"""mean and standard deviation of the train images, as the literature rounds them"""


def register_source(name: str, read: Callable[[], Raw], description: str = "") -> None:
    """Make a data set of your own known under a name; `read` returns its arrays.

    The same function again, as when a notebook's cell is run again, replaces it; raises InputError for a name that another has.
    """
    DATA.add(name, DataSet(description, read=read), definition_of(read))


def load(
    request: str,
    *,
    root: Path | None = None,
    image_size: int | None = None,
    image_cache: int | None = None,
    allow_download: bool = True,
    skip_unreadable: bool = False,
) -> Images:
    """A data set by name, or `folder:PATH`.

    Looked for as `{root}/{name}/{train,test}.npz`, then as torchvision's own files below the root, then downloaded and
    checked by torchvision; spoken digits as their recordings below the root. root: as `data_root` takes it. image_size,
    image_cache: what the images of a folder are decoded for, and the bytes that this may take; skip_unreadable: whether
    unreadable files of a folder are left out (`folder.load_folder`). Raises InputError for an unknown name, and for a set
    that is not there, with where it looked and the two ways to provide it.
    """
    if request.startswith("folder:"):
        folder = Path(os.path.expanduser(request.removeprefix("folder:")))
        return load_folder(folder, image_size, image_cache, skip_unreadable=skip_unreadable)
    if request == "digits":
        images = canonical("digits", _digits(), "scikit-learn")
        return replace(images, origins={"train": "", "test": "a fifth, by content"})
    if request == "spoken_digits":
        return _spoken_digits(data_root(root))
    known = DATA.find(request)
    if known is not None and known.read is not None:
        return canonical(request, _own(request, known.read), known.description or "a source of your own")
    whole = HALVED.get(request, request)
    if whole not in TORCHVISION:
        raise InputError(unknown("data", request, DATA))
    folder = data_root(root)
    packed = _packed(folder, whole)
    raw = _from_torchvision(folder, whole, allow_download) if packed is None else packed
    source = f"{'files of torchvision' if packed is None else whole} in the data folder"  # its path would name a machine in every run
    return canonical(request, raw if request == whole else halved(raw), source)


def halved(raw: Raw) -> Raw:
    """The same with images of half the side: each pixel the mean of 2x2, to the nearest level, halves upwards."""
    (train, train_labels), (test, test_labels) = raw.train, raw.test
    return replace(raw, train=(_halved(train), train_labels), test=(_halved(test), test_labels))


def _halved(images: Array) -> Array:
    count, height, width = images.shape[:3]
    blocks = images.reshape(count, height // 2, 2, width // 2, 2, *images.shape[3:])
    means: Array = ((blocks.sum(axis=(2, 4), dtype=np.uint16) + 2) // 4).astype(np.uint8)
    return means


def _own(name: str, read: Callable[[], Any]) -> Raw:
    """What a source of a user's reads; raises InputError for what it raises, and for anything but a Raw."""
    try:
        raw = read()
    except KdzooError:
        raise
    except Exception as error:
        raise InputError(f"data: the source {name!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(raw, Raw):
        raise InputError(f"data: the source {name!r} gave a {type(raw).__name__}; expected a kdzoo.Raw")
    return raw


def canonical(name: str, raw: Raw, source: str = "") -> Images:
    """The same images whatever order their files had: sorted by content, fingerprinted, channels first.

    Raises InputError for arrays that are not images, or labels that do not name classes.
    """
    arrays = {part: _images(given[0], part) for part, given in (("train", raw.train), ("test", raw.test))}
    labels = map_labels(raw.train[1], raw.test[1], raw.classes)
    numbers = {"train": labels.train, "test": labels.test}
    problems = [
        f"data: expected as many {part} labels as images, got {len(numbers[part])} and {len(images)}"
        for part, images in arrays.items()
        if len(images) != len(numbers[part])
    ]
    if arrays["train"].shape[1:] != arrays["test"].shape[1:]:
        shapes = " and ".join(f"{part} images of {images.shape[1:]}" for part, images in arrays.items())
        problems.append(f"data: expected one shape of all images (H, W, C), got {shapes}")
    if problems:
        raise InputError(*problems)
    digest = hashlib.blake2b(f"{len(labels.classes)} classes".encode(), digest_size=16)
    parts = {part: _sorted(images, numbers[part]) for part, images in arrays.items()}
    for part in parts.values():
        digest.update(len(part.digests).to_bytes(8, "big"))
        digest.update(part.digests.tobytes())
    train, test = parts["train"], parts["test"]
    mean, std = STATISTICS.get(name) or statistics(train.pixels)
    return Images(
        name=name,
        train=Subset(train.pixels, train.targets, keys_of(train.digests)),
        test=Subset(test.pixels, test.targets, keys_of(test.digests)),
        classes=labels.classes,
        fingerprint=digest.hexdigest(),
        mean=mean,
        std=std,
        notes=(*raw.notes, *labels.notes, *_repeats(train, test), *_plain(train, test)),
        source=source,
    )


def keys_of(digests: Array) -> Tensor:
    """Digests of 16 bytes each as the keys of a subset, (N, 16) uint8."""
    return torch.from_numpy(np.ascontiguousarray(digests).view(np.uint8).reshape(len(digests), 16).copy())


def _images(images: Any, part: str) -> Array:
    """Images as (N, H, W, C); InputError for an array that holds none."""
    array = np.asarray(images)
    if array.dtype != np.uint8:
        raise InputError(f"data: expected uint8 images in 0..255, got {array.dtype} in {part}")
    array = array[..., None] if array.ndim == 3 else array
    if array.ndim != 4 or array.shape[3] not in (1, 3):
        raise InputError(f"data: expected {part} images (N, H, W) or (N, H, W, C) of 1 or 3 channels, got the shape {np.shape(images)}")
    return array


@dataclass(frozen=True)
class _Part:
    """A part in canonical order.

    pixels (N, C, H, W). digests: of pixels and label; keys: of pixels alone, (N, 2) each. places: in the source.
    """

    pixels: Tensor
    targets: Tensor
    digests: Array
    keys: Array
    places: Array


def _sorted(images: Array, labels: Array) -> _Part:
    """Images (N, H, W, C) and labels in the order of their digests."""
    flat = np.ascontiguousarray(images).reshape(len(images), -1)
    digests, keys = [], []
    for row, label in zip(flat, labels, strict=True):
        pixels = hashlib.blake2b(row.data, digest_size=16)
        keys.append(pixels.digest())
        pixels.update(int(label).to_bytes(8, "big"))
        digests.append(pixels.digest())
    found = np.frombuffer(b"".join(digests), dtype=">u8").reshape(-1, 2)
    order = np.lexsort((found[:, 1], found[:, 0]))
    return _Part(
        pixels=torch.from_numpy(np.ascontiguousarray(images[order].transpose(0, 3, 1, 2))),
        targets=torch.from_numpy(labels[order].astype(np.int64)),
        digests=found[order],
        keys=np.frombuffer(b"".join(keys), dtype=">u8").reshape(-1, 2)[order],
        places=order,
    )


def _repeats(train: _Part, test: _Part) -> list[str]:
    """What is said of images that stand twice, named by their number in the source."""
    count = len(train.keys)
    places = {"train": range(count), "test": range(count, count + len(test.keys))}

    def name(place: int) -> str:
        return f"train {train.places[place]}" if place < count else f"test {test.places[place - count]}"

    keys = np.concatenate([train.keys, test.keys])
    labels = torch.cat([train.targets, test.targets]).numpy()
    return find_repeats(keys, labels, list(places.items())).sentences(name)


def _plain(train: _Part, test: _Part) -> list[str]:
    """What is said of images that are of one colour."""
    examples, count = [], 0
    for part, one in (("train", train), ("test", test)):
        flat = one.pixels.flatten(2)
        plain = (flat.amax(2) == flat.amin(2)).all(1).nonzero().flatten().tolist()
        count += len(plain)
        examples += [f"{part} {one.places[place]}" for place in plain[:2]]
    return [f"of one colour: {number_of(count, 'image')} ({', '.join(examples[:2])})"] if count else []


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


def _spoken_digits(folder: Path) -> Images:
    """Log-mel maps of spoken digits (`data.spoken`); two of the six speakers are the test part."""
    from kdzoo.data import spoken

    known = DATA.get("spoken_digits")
    recordings = folder / str(known.files)
    if not recordings.is_dir():
        raise InputError(missing("spoken_digits", str(recordings), f"fetch it where there is a network, in {folder}: {known.get}"))
    found = spoken.read_recordings(recordings)
    spoken.require_speakers(found, spoken.TEST_SPEAKERS)
    learned = sorted(set(found.speakers) - set(spoken.TEST_SPEAKERS))
    cut = f"cut off after {spoken.LENGTH / spoken.RATE:g} s: {number_of(found.cut, 'recording')}"
    raw = Raw(found.of(learned), found.of(spoken.TEST_SPEAKERS), spoken.DIGITS, (cut,) if found.cut else ())
    origins = {"train": ", ".join(learned), "test": f"{' and '.join(spoken.TEST_SPEAKERS)}, who are not in train"}
    return replace(canonical("spoken_digits", raw, f"{known.files} in the data folder"), origins=origins)


def missing(name: str, looked: str, how: str) -> str:
    """What is told of a data set that is not on this machine."""
    return (
        f"data: {name} is not on this machine; looked for {looked}. "
        f"Give the folder that has it (--data-root DIR or KDZOO_DATA=DIR), or {how}"
    )


DAMAGED = (OSError, ValueError, LookupError, EOFError, TypeError, AssertionError, MemoryError, NotImplementedError)
"""what reading damaged arrays raises, beside the errors of their packing"""


def _packed(folder: Path, name: str) -> Raw | None:
    """`{folder}/{name}/{train,test}.npz` with images, labels and classes, or None.

    Classes that stand in another order in the two are matched by name. Raises InputError for one file without the
    other, for damaged ones, and for classes of the test part alone.
    """
    files = {part: folder / name / f"{part}.npz" for part in ("train", "test")}
    there = [file for file in files.values() if os.path.isfile(file)]
    if not there:
        return None
    if len(there) == 1:
        missing = next(file for file in files.values() if file not in there)
        raise InputError(f"data: {there[0]} is there and {missing} is not; expected both")
    read = {part: _archive(file) for part, file in files.items()}
    names = {part: classes for part, (_, _, classes) in read.items()}
    if bool(names["train"]) != bool(names["test"]):
        names = dict.fromkeys(names, names["train"] or names["test"])
    labels = {part: one[1] for part, one in read.items()}
    if names["train"] != names["test"]:
        labels["test"] = _by_name(files["test"], labels["test"], names["test"], names["train"])
    return Raw((read["train"][0], labels["train"]), (read["test"][0], labels["test"]), names["train"])


def _archive(file: Path) -> tuple[Array, Array, tuple[str, ...]]:
    """Images, labels and classes of an archive; InputError for a damaged one."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return arrays["images"], arrays["labels"], tuple(map(str, arrays["classes"])) if "classes" in arrays else ()
    except (*DAMAGED, zipfile.BadZipFile, zlib.error, struct.error) as error:
        raise InputError(f"data: {file} is damaged: expected arrays images, labels, classes ({error})") from error


def _by_name(file: Path, labels: Array, theirs: tuple[str, ...], names: tuple[str, ...]) -> Array:
    """Labels that count `theirs` as labels that are names, where the train part's names are others or stand in another order."""
    if strangers := sorted(set(theirs) - set(names)):
        raise InputError(f"data: {file}: its classes differ from those of the train part: {', '.join(strangers)}")
    numbers = map_labels(labels, labels, theirs).train
    return np.array([names.index(theirs[number]) for number in numbers], dtype=np.int64)


TORCHVISION = {"mnist": "MNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}


def _from_torchvision(folder: Path, name: str, allow_download: bool) -> Raw:
    try:
        return _read_torchvision(folder, name, download=False)
    except RuntimeError:
        pass  # not there: torchvision says no more than that
    if allow_download:
        try:
            return prepare(name, folder)
        except (OSError, RuntimeError, urllib.error.URLError):
            pass  # no network, or a host that does not answer: the message below is what helps
    looked = f"{folder / name / 'train.npz'} and torchvision's files below {folder}"
    raise InputError(missing(name, looked, f"download it where there is a network: kdzoo data prepare {name}"))


def prepare(name: str, root: Path | None) -> Raw:
    """Download a data set and check its archives, through torchvision, unless `{root}/{name}/{train,test}.npz` are there.

    Raises OSError or RuntimeError where the download fails, and InputError for what is there and damaged.
    """
    name = HALVED.get(name, name)
    if (known := DATA.find(name)) is not None and (how := known.get):
        raise InputError(f"data: {name} is not downloaded by kdzoo; fetch it in {data_root(root)}: {how}")
    if name not in TORCHVISION:
        raise InputError(unknown("data", name, [*TORCHVISION, *HALVED]))
    if (packed := _packed(data_root(root), name)) is not None:
        return packed
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)
    try:
        return _read_torchvision(data_root(root), name, download=True)
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


def data_files(request: str, root: Path | None) -> list[Path]:
    """Where the files of a data set lie: folders, or none for one that is built in."""
    if request.startswith("folder:"):
        return [Path(os.path.expanduser(request.removeprefix("folder:")))]
    found = where(request, root)
    if found in (None, "built in"):
        return []
    place = Path(str(found))
    return [place if place.is_dir() else place.parent]
