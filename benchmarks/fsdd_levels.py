"""The maps of `fsdd` rounded to the 256 levels of an image, under the name fsdd_levels: what rounding costs.

kdzoo bench --plugin benchmarks/fsdd_levels.py --data fsdd_levels ...
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

import kdzoo
from kdzoo.data.fsdd import read_maps
from kdzoo.data.known import DATA, data_root


def read_levels() -> kdzoo.Raw:
    """The same split and columns; uint8 in place of float32."""
    raw = read_maps(data_root(None) / Path(str(DATA.get("fsdd").files)))
    (train, train_labels), (test, test_labels) = raw.train, raw.test
    return replace(raw, train=(_rounded(train), train_labels), test=(_rounded(test), test_labels))


def _rounded(maps: np.ndarray) -> np.ndarray:
    return np.round(maps).astype(np.uint8)


kdzoo.register_source("fsdd_levels", read_levels, "the maps of fsdd, rounded to 256 levels", licence="CC-BY-SA-4.0")
