"""Images that are given from Python, as a data set with a name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from kdzoo.data.canonical import Raw
from kdzoo.data.known import FOLDER
from kdzoo.data.labels import map_labels
from kdzoo.data.sources import register_source
from kdzoo.errors import InputError


def data_name(data: str | Path | tuple[tuple[Any, Any], tuple[Any, Any]]) -> str:
    """The name of a data set; arrays are registered under a name of their content.

    Raises InputError for arrays that are not images, and labels that do not name classes (`labels.map_labels`).
    """
    if isinstance(data, tuple):
        train, test = ((_pixels(images), labels) for images, labels in data)
        labels = map_labels(train[1], test[1])
        digest = hashlib.blake2b(digest_size=6)
        for images, numbers in ((train[0], labels.train), (test[0], labels.test)):
            digest.update(images.tobytes() + numbers.tobytes())
        if labels.classes != tuple(map(str, range(len(labels.classes)))):
            digest.update(repr(labels.classes).encode())
        name = f"arrays-{digest.hexdigest()}"
        register_source(name, lambda: Raw(train, test), "arrays given from Python")
        return name
    if isinstance(data, Path) or Path(data).is_dir():
        return f"{FOLDER}{data}"
    return data


def _pixels(images: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Images as (N, H, W[, C]) uint8."""
    array = images.cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    if array.dtype != np.uint8:
        raise InputError(f"data: expected uint8 images in 0..255, got {array.dtype}")
    channels_first = array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] not in (1, 3)
    return array.transpose(0, 2, 3, 1) if channels_first else array
