"""Data sets by name: images in canonical order with a fingerprint of their content, wherever the files came from."""

from __future__ import annotations

import hashlib
import os
import socket
import urllib.error
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdzoo.data.folder import load_folder
from kdzoo.data.images import Images, Subset, statistics
from kdzoo.errors import InputError, unknown
from kdzoo.plugins import origin
from kdzoo.store import user_cache

Array = NDArray[Any]
DOWNLOAD_TIMEOUT_SECONDS = 15


@dataclass(frozen=True)
class Raw:
    """What a source reads: images (N, H, W[, C]) uint8 and labels (N,) of train and test, and the classes' names."""

    train: tuple[Array, Array]
    test: tuple[Array, Array]
    classes: tuple[str, ...]


STATISTICS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
"""mean and standard deviation of the train images, as the literature rounds them"""

DATA: dict[str, str] = {
    "digits": "1,797 handwritten digits of 8x8 grey pixels, shipped inside scikit-learn",
    "mnist": "60,000 + 10,000 handwritten digits of 28x28 grey pixels",
    "cifar10": "50,000 + 10,000 photographs of 32x32 pixels in 10 classes",
    "cifar100": "50,000 + 10,000 photographs of 32x32 pixels in 100 classes",
    "folder:PATH": "your own images: one sub-folder a class, or train/, test/ and val/ with one a class below",
}

SHIPPED = frozenset(DATA)
"""the names that no data set of a user's may take"""

_SOURCES: dict[str, Callable[[], Raw]] = {}

_PLUGINS: dict[str, str] = {}
"""the plugin file that registered each of them; empty for one that this process alone knows"""


def register_source(name: str, read: Callable[[], Raw], description: str = "") -> None:
    """Make a data set of your own known under a name; `read` returns its arrays. The same name again replaces it.

    Raises InputError for the name of one of kdzoo's own.
    """
    if name in SHIPPED:
        raise InputError(f"data: {name!r} is one of kdzoo's own data sets; choose another name")
    _SOURCES[name] = read
    _PLUGINS[name] = origin()
    DATA[name] = description


def found_in(name: str) -> str | None:
    """Where other processes find a data set: None for kdzoo's own, else a plugin's file, or empty for nowhere."""
    return _PLUGINS.get(name)


def load(
    request: str, *, root: Path | None = None, image_size: int | None = None, resident: int | None = None, allow_download: bool = True
) -> Images:
    """A data set by name, or `folder:PATH`.

    Looked for as `{root}/{name}/{train,test}.npz`, then as torchvision's own files below the root, then downloaded and
    checked by torchvision. root: given, else KDZOO_DATA, else a cache folder. image_size, resident: what the images of a
    folder are decoded for, and the bytes that this may take (`folder.load_folder`).
    Raises InputError for an unknown name, and for a set that is not there, with where it looked and the two ways to
    provide it.
    """
    if request.startswith("folder:"):
        return load_folder(Path(request.removeprefix("folder:")), image_size, resident)
    if request == "digits":
        return canonical("digits", _digits())
    if request in _SOURCES:
        return canonical(request, _SOURCES[request]())
    if request not in TORCHVISION:
        raise InputError(unknown("data", request, DATA))
    folder = data_root(root)
    return canonical(request, _packed(folder, request) or _from_torchvision(folder, request, allow_download))


def data_root(root: Path | None) -> Path:
    """Where data sets are looked for."""
    named = os.environ.get("KDZOO_DATA")
    if root is not None or named:
        return Path(root or str(named)).expanduser()
    return user_cache() / "kdzoo" / "data"


def canonical(name: str, raw: Raw) -> Images:
    """The same images whatever order their files had: sorted by content, fingerprinted, channels first."""
    train, test = (_sorted(*part) for part in (raw.train, raw.test))
    digest = hashlib.blake2b(f"{len(raw.classes)} classes".encode(), digest_size=16)
    for *_, digests in (train, test):
        digest.update(len(digests).to_bytes(8, "big"))
        digest.update(digests.tobytes())
    mean, std = STATISTICS.get(name) or statistics(train[0])
    subsets = [Subset(images, targets, keys_of(digests)) for images, targets, digests in (train, test)]
    return Images(name, subsets[0], subsets[1], raw.classes, digest.hexdigest(), mean, std)


def keys_of(digests: Array) -> Tensor:
    """Digests of 16 bytes each as the keys of a subset, (N, 16) uint8."""
    return torch.from_numpy(np.ascontiguousarray(digests).view(np.uint8).reshape(len(digests), 16).copy())


def _sorted(images: Array, labels: Array) -> tuple[Tensor, Tensor, Array]:
    """Images (N, C, H, W) and labels in the order of their digests, and the digests."""
    if images.dtype != np.uint8 or len(images) != len(labels):
        raise InputError(f"data: expected uint8 images and as many labels, got {images.dtype} {images.shape} and {labels.shape}")
    images = images[..., None] if images.ndim == 3 else images
    flat = np.ascontiguousarray(images).reshape(len(images), -1)
    digests = [
        hashlib.blake2b(row.tobytes() + int(label).to_bytes(8, "big"), digest_size=16).digest()
        for row, label in zip(flat, labels, strict=True)
    ]
    keys = np.frombuffer(b"".join(digests), dtype=">u8").reshape(-1, 2)
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    pixels = torch.from_numpy(np.ascontiguousarray(images[order].transpose(0, 3, 1, 2)))
    return pixels, torch.from_numpy(labels[order].astype(np.int64)), keys[order]


def _digits() -> Raw:
    """scikit-learn's digits, their 16 grey levels spread over 0 to 255; a fifth of each class, chosen by content, is the test part."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    ranks = [hashlib.blake2b(b"test part" + image.tobytes(), digest_size=8).digest() for image in images]
    test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        members = sorted(np.flatnonzero(labels == label), key=lambda i: ranks[i])
        test[members[: round(len(members) / 5)]] = True
    return Raw((images[~test], labels[~test]), (images[test], labels[test]), tuple(map(str, range(10))))


def _packed(folder: Path, name: str) -> Raw | None:
    """`{folder}/{name}/{train,test}.npz` with images, labels and classes, or None."""
    files = [folder / name / f"{part}.npz" for part in ("train", "test")]
    if not all(file.is_file() for file in files):
        return None
    parts = []
    classes: tuple[str, ...] = ()
    for file in files:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                parts.append((arrays["images"], arrays["labels"]))
                classes = tuple(map(str, arrays["classes"])) if "classes" in arrays else classes
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"data: {file} is damaged: expected arrays images, labels, classes ({error})") from error
    return Raw(parts[0], parts[1], classes or tuple(map(str, range(int(parts[0][1].max()) + 1))))


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
    raise InputError(
        f"data: {name} is not on this machine; looked for {folder / name / 'train.npz'} and torchvision's files below {folder}. "
        f"Give the folder that has it (--data-root DIR or KDZOO_DATA=DIR), or download it where there is a network: "
        f"kdzoo data prepare {name}"
    )


def prepare(name: str, root: Path | None) -> Raw:
    """Download a data set and check its archives, through torchvision, unless `{root}/{name}/{train,test}.npz` are there.

    Raises OSError or RuntimeError where the download fails, and InputError for what is there and damaged.
    """
    if name not in TORCHVISION:
        raise InputError(unknown("data", name, TORCHVISION))
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

    parts = [getattr(datasets, TORCHVISION[name])(str(folder), train=train, download=download) for train in (True, False)]
    train, test = ((np.asarray(part.data), np.asarray(part.targets)) for part in parts)
    return Raw(train, test, tuple(str(label).partition(" - ")[0] for label in parts[0].classes))


_TORCHVISION_FOLDERS = {"mnist": "MNIST/raw", "cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}


def where(name: str, root: Path | None) -> str | None:
    """Where a data set lies, or None where it would have to be downloaded."""
    if name == "digits" or name in _SOURCES:
        return "built in"
    places = [data_root(root) / name / "train.npz", data_root(root) / _TORCHVISION_FOLDERS[name]]
    return next((str(place) for place in places if place.exists()), None)
