"""Class scores of a teacher that knows classes by their names alone: its embeddings of images beside those of the names (CLIP)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kdzoo.data.class_names import name_key
from kdzoo.data.dataset import Subset
from kdzoo.data.sources import load
from kdzoo.data.unlabelled import ImageFormat, load_unlabelled
from kdzoo.errors import InputError
from kdzoo.models.backbone import load_backbone
from kdzoo.models.predict import predict
from kdzoo.runs.recipe import Augment
from kdzoo.tasks.features import FEATURES
from kdzoo.tasks.targets import no_targets
from kdzoo.teachers.file import CENTRE, SavedFile
from kdzoo.teachers.file_io import read_saved, require_new_saved_file, write_saved

CLIP_SCALE = 100.0
"""by which CLIP multiplies a cosine, the most that its training allows"""


def save_named_scores(
    teacher: str,
    classes: Path,
    data: str,
    path: Path,
    *,
    unlabelled: str | None = None,
    scale: float = CLIP_SCALE,
    root: Path | None = None,
    image_size: int | None = None,
) -> SavedFile:
    """Write a saved teacher's file: for every image scale times the cosine of its embedding with that of each class's name.

    teacher: as `load_backbone` takes it. classes: an npz file with `names` (K,) and `embeddings` (K, D), of the classes of the data in
    any order. data: a data set, by name or `folder:PATH`. unlabelled: further images, as `--transfer-data` takes them. root,
    image_size: as `sources.load` takes them. Raises InputError for a path that exists, names that are not those of the data's
    classes, and embeddings of another width than the teacher's.
    """
    require_new_saved_file(path)
    dataset = load(data, root=root, image_size=image_size)
    class_embeddings = read_class_embeddings(classes, dataset.classes)
    parts = [part for part in (dataset.train, dataset.val, dataset.test) if part is not None]
    if unlabelled is not None:
        images = load_unlabelled(unlabelled, ImageFormat.those_of(dataset), root=root, image_size=image_size, skip_unreadable=False)
        parts.append(Subset(images.pixels, no_targets(dataset.train.targets, images.count), images.keys))
    network = load_backbone(teacher, channels=dataset.channels, side=image_size or dataset.height)
    seen = Augment(size=image_size)
    embedding = torch.cat([predict(network, part, seen, torch.device("cpu"), FEATURES) for part in parts])
    if embedding.shape[1] != class_embeddings.shape[1]:
        raise InputError(f"{classes}: embeddings of width {class_embeddings.shape[1]}; {teacher} has {embedding.shape[1]}")
    keys = torch.cat([part.keys for part in parts if part.keys is not None])
    arrays = {
        "keys": keys,
        "views": torch.full((len(keys),), CENTRE),
        "logits": scale * F.normalize(embedding, dim=1) @ F.normalize(class_embeddings, dim=1).T,
        "embedding": embedding,
    }
    facts = {"name": f"{network_name(teacher)}_by_names", "classes": str(len(dataset.classes))}
    write_saved(path, arrays, {**facts, "class_names": json.dumps(list(dataset.classes))})
    return read_saved(path)


def network_name(text: str) -> str:
    """The name of a network in the words of the command line."""
    return text.partition(":")[0].partition("@")[0]


def read_class_embeddings(path: Path, expected: Sequence[str]) -> Tensor:
    """The embeddings (K, D) of classes' names in a file, in the order that is expected; raises InputError for other names."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            names, embeddings = [str(name) for name in archive["names"]], torch.from_numpy(archive["embeddings"].astype(np.float32))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: expected an npz file with names (K,) and embeddings (K, D): {error}") from error
    key_of = name_key(names, expected)
    places = {key_of(name): place for place, name in enumerate(names)}
    missing = [name for name in expected if key_of(name) not in places]
    if missing or len(places) != len(expected) or embeddings.ndim != 2 or len(embeddings) != len(names):
        problem = f"it lacks {', '.join(missing[:3])}" if missing else f"it has {len(names)} names and embeddings {tuple(embeddings.shape)}"
        raise InputError(f"{path}: expected an embedding for each of {len(expected)} classes; {problem}")
    return embeddings[[places[key_of(name)] for name in expected]]
