"""A kept teacher's answers written to a file, and a sample of a file's rows compared with the living teacher."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kdzoo.contract.needs import Need
from kdzoo.data.dataset import Images, Subset
from kdzoo.data.loader import fetch
from kdzoo.data.views import center
from kdzoo.errors import InputError
from kdzoo.models.network import Network
from kdzoo.models.predict import batch_of
from kdzoo.runs.spec import Augment
from kdzoo.teachers.answers import TOLERANCE
from kdzoo.teachers.file import CENTRE, SavedFile, read_saved, write_saved
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.run_data import data_of
from kdzoo.training.run_student import load_trained_student


@dataclass(frozen=True)
class Comparison:
    """A sample of a file's rows beside the living teacher. difference: the largest, of log-probabilities relative to their largest."""

    rows: int
    difference: float
    same_class: float

    @property
    def agrees(self) -> bool:
        return self.difference <= TOLERANCE


def save_teacher(bound: LocatedRun, path: Path, *, k: int | None = None, embedding: bool = False) -> SavedFile:
    """Write what a run's trained network says of the centre view of every image of its data: class scores, or the k largest.

    Raises InputError for a path that exists or ends otherwise than in .npz or .safetensors, for a k that is no number of
    classes, and for a network without an embedding that can be asked for.
    """
    images, network = _living(bound)
    if path.exists():
        raise InputError(f"{path}: exists already; remove it, or name another file")
    if k is not None and not 0 < k <= len(images.classes):
        raise InputError(f"top: expected a number from 1 to {len(images.classes)}, the number of classes, got {k}")
    if embedding and not isinstance(network, Network):
        raise InputError(f"embedding: {bound.run.id} ships with parts of its method, which have none; leave --embedding out")
    subsets = [part for part in (images.train, images.val, images.test) if part is not None]
    keys = torch.cat([_keys_of(part) for part in subsets])
    scores, pooled = _answers(network, subsets, bound.run.recipe.augment, embedding=embedding)
    arrays = {"keys": keys, "views": torch.full((len(keys),), CENTRE)}
    facts = {
        "name": bound.run.student.name,
        "classes": str(len(images.classes)),
        "class_names": json.dumps(list(images.classes)),
        "teacher": bound.run.id,
    }
    if k is None:
        arrays["logits"] = scores
    else:
        top = scores.double().log_softmax(1).topk(k, dim=1)
        arrays |= {"top_log_probs": top.values.float(), "top_classes": top.indices}
        facts["k"] = str(k)
    if pooled is not None:
        arrays["embedding"] = pooled
    write_saved(path, arrays, facts)
    return read_saved(path)


def compare_saved(file: SavedFile, bound: LocatedRun, count: int) -> Comparison:
    """Compare up to `count` rows of a file, drawn at random, with the network that a run has trained; rows of the centre view alone.

    Raises InputError where none of the rows is of an image of the run's data.
    """
    images, network = _living(bound)
    subsets = [part for part in (images.train, images.val, images.test) if part is not None]
    samples: list[tuple[Subset, Tensor]] = []
    for part in subsets:
        rows = file.find(_keys_of(part))
        indices = (rows >= 0).nonzero().flatten()
        samples.append((Subset(part.images[indices.to(part.images.device)], part.targets[indices]), rows[indices]))
    total = sum(len(rows) for _, rows in samples)
    if not total:
        raise InputError(f"{file.path}: none of its rows is of an image of {images.name}, in its centre view")
    mask = torch.zeros(total, dtype=torch.bool)
    mask[torch.randperm(total, generator=torch.Generator().manual_seed(0))[:count]] = True
    differences, same = [], []
    for (part, rows), sample in zip(samples, torch.split(mask, [len(rows) for _, rows in samples]), strict=True):
        if not sample.any():
            continue
        at = sample.nonzero().flatten()
        some = Subset(part.images[at.to(part.images.device)], part.targets[at])
        live = _answers(network, [some], bound.run.recipe.augment)[0].double().log_softmax(1)
        saved = file.logits(rows[at]).double().log_softmax(1)
        same.append(live.argmax(1) == saved.argmax(1))
        if file.top_classes is not None:  # what lies beyond the k largest the file does not know
            live, saved = (scores.gather(1, file.top_classes[rows[at]]) for scores in (live, saved))
        differences.append(float((live - saved).abs().max() / live.abs().max().clamp(min=1e-6)))
    return Comparison(int(mask.sum()), max(differences), float(torch.cat(same).double().mean()))


def _living(bound: LocatedRun) -> tuple[Images, nn.Module]:
    """The data of a run, and its trained network as it is kept."""
    images, parts = data_of(bound)
    return images, load_trained_student(bound, images, parts, Modules()).eval()


def _keys_of(part: Subset) -> Tensor:
    if part.keys is None:
        raise InputError("teachers: the images of this data set have no keys, by which a saved teacher knows them")
    return part.keys


@torch.no_grad()
def _answers(network: nn.Module, subsets: list[Subset], augment: Augment, *, embedding: bool = False) -> tuple[Tensor, Tensor | None]:
    """Class scores (N, K) and, where asked for, embeddings (N, D) of the centre view of every image, on the CPU."""
    scores, pooled, cpu = [], [], torch.device("cpu")
    for part in subsets:
        chunks = torch.split(torch.arange(len(part.targets), device=part.images.device), batch_of(network, part, augment))
        for images in fetch(part.images, chunks, cpu):
            inputs = center(images, augment)
            if embedding:
                outputs = network(inputs, Need.LOGITS | Need.EMBEDDING)
                pooled.append(outputs.embedding.float())
                scores.append(outputs.logits.float())
            else:
                scores.append(network.logits(inputs).float())  # type: ignore[operator]
    return torch.cat(scores), torch.cat(pooled) if embedding else None
