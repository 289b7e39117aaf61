"""Several teachers without classes joined into one, each on the scale that it has on images of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from kdzoo.data.loader import fetch_once
from kdzoo.data.sources import load
from kdzoo.errors import InputError
from kdzoo.models.join import save_joined
from kdzoo.models.network import Network
from kdzoo.tasks.features import SCALED_ON


def join_teachers(
    teachers: Sequence[str], data: str, path: Path, *, images: int = SCALED_ON, root: Path | None = None, image_size: int | None = None
) -> Network:
    """Write one teacher out of several to a file for `--teacher FILE --task features`, and return it (`models.join.save_joined`).

    data: a data set of images, by name or `folder:PATH`. images: how many of its training images, drawn with seed 0, the scales are
    measured on; all where there are fewer. root, image_size: as `sources.load` takes them. Raises InputError for data without images.
    """
    if images < 2:
        raise InputError(f"images: expected 2 or more, got {images}")
    dataset = load(data, root=root, image_size=image_size)
    if dataset.holds_texts or dataset.holds_maps:
        raise InputError(f"data: {dataset.name} has {dataset.samples_in_words}; expected images")
    drawn = torch.randperm(len(dataset.train.targets), generator=torch.Generator().manual_seed(0))[:images]
    return save_joined(teachers, fetch_once(dataset.train.images, drawn, torch.device("cpu")), path)
