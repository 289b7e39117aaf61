"""A kept teacher's answers written to a file, and a sample of a file's rows compared with the live teacher."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need, Pass
from kdzoo.data.columns import learned_columns
from kdzoo.data.dataset import Dataset, Subset
from kdzoo.data.loader import fetch
from kdzoo.data.split import Splits
from kdzoo.data.views import apply_views, evaluation_view, view_count, views_by_number
from kdzoo.errors import InputError
from kdzoo.models.network import Network
from kdzoo.models.predict import batch_of
from kdzoo.runs.recipe import Augment
from kdzoo.teachers.answers import TOLERANCE
from kdzoo.teachers.file import CENTRE, SavedFile, as_values
from kdzoo.teachers.file_io import read_saved, require_new_saved_file, write_saved
from kdzoo.teachers.saved import views_of_epochs
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.run_data import load_run_data
from kdzoo.training.run_student import load_trained_student

ViewsSaved = Literal["centre", "all"] | Sequence[LocatedRun]
"""the centre view of every image; also every numbered view of every training image; or the views that the epochs of runs show"""


@dataclass(frozen=True)
class Comparison:
    """A sample of a file's rows beside the live teacher. difference: the largest, relative to the largest value, of what it holds."""

    rows: int
    difference: float
    same_class: float

    @property
    def agrees(self) -> bool:
        return self.difference <= TOLERANCE


@dataclass(frozen=True)
class _Rows:
    """Rows of a file that are all of one part of the data: the images (M,) and their views (M,) by number."""

    part: Subset
    images: Tensor
    views: Tensor


def save_teacher(
    located: LocatedRun, path: Path, *, k: int | None = None, embedding: bool = False, views: ViewsSaved = "centre"
) -> SavedFile:
    """Write the outputs of a run's trained network for every image of its data: class scores, or the k largest.

    Every image has a row of its centre view; of training images further rows are of their numbered views. Runs whose epochs are
    saved need be neither trained nor of this teacher. Raises InputError for a path that exists or ends otherwise than in .npz or
    .safetensors, for a k that is no number of classes, for a network without an embedding that can be asked for, for views
    without numbers, and for runs on other images.
    """
    require_new_saved_file(path)
    dataset, splits, network = _trained_network(located)
    if k is not None and not 0 < k <= len(dataset.classes):
        raise InputError(f"top: expected a number from 1 to {len(dataset.classes)}, the number of classes, got {k}")
    if k is not None and dataset.task.several:
        raise InputError(f"top: {located.run.id} scores several columns of targets, whose largest scores are no whole; leave --top out")
    if embedding and not isinstance(network, Network):
        raise InputError(f"embedding: {located.run.id} ships with parts of its method, which have none; leave --embedding out")
    facts = {
        "name": located.run.student.name,
        "classes": str(dataset.scores),
        "class_names": json.dumps([name for column in learned_columns(dataset) for name in column.classes]),
        "teacher": located.run.id,
    }
    centres = [_Rows(part, torch.arange(len(part.targets)), torch.full((len(part.targets),), CENTRE)) for part in _subsets(dataset)]
    augment, numbered_rows = located.run.recipe.augment, list[_Rows]()
    if views != "centre":
        runs = [located] if views == "all" else list(views)
        _require_same_images(located, runs)
        augment = _shared_augment(runs)
        numbered_rows = [_every_view(splits, augment)] if views == "all" else _views_of_runs(dataset, runs)
        facts["augment"] = json.dumps(augment.model_dump(mode="json"))
    rows = [*centres, *numbered_rows]
    size = located.run.recipe.augment
    chunks = [_arrays(scores, pooled, k) for one in rows for scores, pooled in _answers(network, one, augment, size, embedding=embedding)]
    arrays = {
        "keys": torch.cat([_keys_of(one.part)[one.images] for one in rows]),
        "views": torch.cat([one.views for one in rows]),
        **{name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]},
    }
    if k is not None:
        facts["k"] = str(k)
    write_saved(path, arrays, facts)
    return read_saved(path)


def compare_saved(file: SavedFile, located: LocatedRun, count: int) -> Comparison:
    """Compare up to `count` rows of a file, drawn at random, with the network that a run has trained, each in the row's own view.

    Raises InputError where none of the rows is of an image of the run's data.
    """
    dataset, _, network = _trained_network(located)
    augment = located.run.recipe.augment if file.augment is None else Augment.model_validate(dict(file.augment))
    random = np.random.default_rng(0)
    rows_of = {id(part): _rows_of_part(file, part) for part in _subsets(dataset)}
    total = sum(len(rows) for rows, _ in rows_of.values())
    if not total:
        raise InputError(f"{file.path}: none of its rows is of an image of {dataset.name}")
    in_sample = torch.zeros(total, dtype=torch.bool)
    in_sample[torch.from_numpy(random.permutation(total)[:count])] = True
    differences, same = [0.0], []
    for part, mask in zip(_subsets(dataset), torch.split(in_sample, [len(rows) for rows, _ in rows_of.values()]), strict=True):
        rows, places = (one[mask] for one in rows_of[id(part)])
        sample = _Rows(part, places, torch.from_numpy(file.views)[rows])
        wants_embedding = file.embedding is not None and isinstance(network, Network)
        start = 0
        for scores, pooled in _answers(network, sample, augment, located.run.recipe.augment, embedding=wants_embedding):
            at = rows[start : start + len(scores)]
            start += len(scores)
            live, saved = scores.double().log_softmax(1), file.logits(at).double().log_softmax(1)
            same.append(live.argmax(1) == saved.argmax(1))
            if file.top_classes is not None:  # what lies beyond the k largest the file does not know
                live, saved = (one.gather(1, file.top_classes[at]) for one in (live, saved))
            differences.append(_relative_difference(saved, live))
            if pooled is not None and file.embedding is not None:
                differences.append(_relative_difference(file.embedding[at], pooled))
    return Comparison(int(in_sample.sum()), max(differences), float(torch.cat(same).double().mean()))


def _relative_difference(saved: Tensor, live: Tensor) -> float:
    if saved.shape != live.shape:
        return float("inf")
    return float((live - saved).abs().max() / live.abs().max().clamp(min=1e-6))


def _trained_network(located: LocatedRun) -> tuple[Dataset, Splits, nn.Module]:
    """The data of a run, and its trained network as it is kept."""
    dataset, splits = load_run_data(located)
    return dataset, splits, load_trained_student(located, dataset, splits, Modules()).eval()


def _subsets(dataset: Dataset) -> list[Subset]:
    return [part for part in (dataset.train, dataset.val, dataset.test) if part is not None]


def _keys_of(part: Subset) -> Tensor:
    if part.keys is None:
        raise InputError("teachers: the images of this data set have no keys, by which a saved teacher knows them")
    return part.keys


def _rows_of_part(file: SavedFile, part: Subset) -> tuple[Tensor, Tensor]:
    """The rows (M,) of a file that are of images of a part, and which images (M,) these are."""
    keys, row_keys = as_values(_keys_of(part).numpy()), as_values(file.keys)
    order = np.argsort(keys, kind="stable")
    place = np.searchsorted(keys[order], row_keys).clip(max=len(keys) - 1)
    rows = np.flatnonzero(keys[order[place]] == row_keys)
    return torch.from_numpy(rows), torch.from_numpy(order[place[rows]])


def _require_same_images(teacher: LocatedRun, runs: Sequence[LocatedRun]) -> None:
    """Raise InputError, naming all of them, for runs on other images than the teacher's."""
    data = teacher.run.data
    others = [f"{located.run.id} ({located.run.data.name})" for located in runs if located.run.data.fingerprint != data.fingerprint]
    if others:
        raise InputError(f"views: expected runs on the teacher's images, {data.name}; these are on others: {', '.join(others)}")


def _shared_augment(runs: Sequence[LocatedRun]) -> Augment:
    """The augmentation that numbers the views of all these runs; raises InputError where there is none, or several."""
    augments = {str(located.run.recipe.augment): located.run.recipe.augment for located in runs}
    if len(augments) > 1:
        raise InputError("views: expected runs of one augmentation, which numbers the views of a file; these have several")
    (augment,) = augments.values()
    if view_count(augment) is None or any(located.run.recipe.mixes for located in runs):
        raise InputError("views: only padded crops and flips have numbers; images that are changed or mixed otherwise have endless views")
    return augment


def _every_view(splits: Splits, augment: Augment) -> _Rows:
    """Every numbered view of every training image."""
    samples, views = len(splits.train.targets), view_count(augment) or 1
    return _Rows(splits.train, torch.arange(samples).repeat_interleave(views), torch.arange(views).repeat(samples))


def _views_of_runs(dataset: Dataset, runs: Sequence[LocatedRun]) -> list[_Rows]:
    """The views that the epochs of runs show, in all passes that are read of a teacher; each once, whichever runs show it."""
    earlier_pairs: set[bytes] = set()
    rows = []
    for located in runs:
        splits = load_run_data(located)[1]
        passes = Pass.FIRST
        for term in located.run.objective.all_terms:
            passes |= REGISTRY.get(term.method).card.needs.teacher.passes
        samples, views = views_of_epochs(splits, located.run.recipe, located.run.seed, passes)
        keys = _keys_of(splits.train)
        pairs = [key + view.tobytes() for key, view in zip(map(bytes, keys[samples].numpy()), views.numpy(), strict=True)]
        fresh = torch.tensor([pair not in earlier_pairs for pair in pairs])
        earlier_pairs.update(pairs)
        rows.append(_Rows(splits.train, samples[fresh], views[fresh]))
    return rows


def _arrays(scores: Tensor, pooled: Tensor | None, k: int | None) -> dict[str, Tensor]:
    """The arrays of a chunk of rows: class scores, or the k largest log-probabilities with their classes; and the embedding."""
    arrays = {"logits": scores}
    if k is not None:
        top = scores.double().log_softmax(1).topk(k, dim=1)
        arrays = {"top_log_probs": top.values.float(), "top_classes": top.indices}
    return arrays if pooled is None else {**arrays, "embedding": pooled}


@torch.no_grad()
def _answers(
    network: nn.Module, rows: _Rows, augment: Augment, size: Augment, *, embedding: bool
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Class scores (B, K) and, where asked for, embeddings (B, D) of rows, a chunk at a time, on the CPU.

    augment: what numbers the views; size: the augmentation whose size the centre view has.
    """
    chunk = batch_of(network, rows.part, size, torch.device("cpu"))
    pieces = [piece for piece in torch.split(torch.arange(len(rows.images)), chunk) if len(piece)]
    places = (rows.images[piece].to(rows.part.images.device) for piece in pieces)
    for piece, images in zip(pieces, fetch(rows.part.images, places, torch.device("cpu")), strict=True):
        inputs = _inputs(images, rows.views[piece], augment, size)
        if embedding:
            outputs = network(inputs, Need.LOGITS | Need.EMBEDDING)
            yield outputs.logits.float(), outputs.embedding.float()
        else:
            yield network.logits(inputs).float(), None  # type: ignore[operator]


def _inputs(images: Tensor, views: Tensor, augment: Augment, size: Augment) -> Tensor:
    """Images (B, C, H, W), each in its view."""
    if bool((views == CENTRE).all()):
        return evaluation_view(images, size)
    if bool((views == CENTRE).any()):
        halves = [_inputs(images[one], views[one], augment, size) for one in (views == CENTRE, views != CENTRE)]
        whole = halves[0].new_empty((len(images), *halves[0].shape[1:]))
        whole[views == CENTRE], whole[views != CENTRE] = halves
        return whole
    return apply_views(images, views_by_number(views, augment), torch.arange(len(images)), augment)
