"""From a data set to its train, validation and test parts: stratified draws that depend on content and seed alone."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdzoo.contract.shapes import DataFacts
from kdzoo.data.dataset import Dataset, Subset
from kdzoo.data.transfer import classes_in_words
from kdzoo.data.unlabelled import UnlabelledImages, append_unlabelled
from kdzoo.errors import InputError
from kdzoo.runs.spec import DataSpec, Normalisation, TransferSpec
from kdzoo.seeds import generator
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.targets import is_labelled, no_targets
from kdzoo.tasks.task import Task
from kdzoo.text import number_of

LABELLED_IMAGES = 2000
"""labelled training images that are enough to see what a network knows of them"""


@dataclass(frozen=True)
class Splits:
    """The parts of a data set; val is None where nothing is held out.

    train is what the student is taught on, the transfer set. original_index: the place of each of its samples in the
    training images of the data set, -1 for other images. description: all that decides which images are where, in a few
    words. norm: mean and deviation of the pixels of the data set. of_teacher: where the teacher learns other training images,
    their places in `all_train`, in order.
    """

    train: Subset
    val: Subset | None
    test: Subset
    facts: DataFacts
    original_index: Tensor
    description: str
    all_train: Subset
    norm: Normalisation
    of_teacher: Tensor | None = None
    task: Task = CLASSIFICATION

    def truncate_eval(self, count: int) -> Splits:
        """The same with the first images of validation and test alone."""
        shorter = [part and Subset(part.images[:count], part.targets[:count]) for part in (self.val, self.test)]
        assert shorter[1] is not None
        return replace(self, val=shorter[0], test=shorter[1], description=f"{self.description}, first {count}")


def _too_few(images: int, classes: int, share: float) -> str:
    """Why so many training images cannot be divided into those that train and those that validate, and how many could."""
    enough = next(count for count in itertools.count(2 * classes + 1) if max(round(share * count), classes) < count - classes)
    return (
        f"val_fraction: {number_of(images, 'training image')} of {number_of(classes, 'class', 'classes')} are too few to hold out "
        f"{share:g} of them for validation and to keep one of each class; expected at least {enough}"
    )


def split(dataset: Dataset, spec: DataSpec, extra: UnlabelledImages | None = None) -> Splits:
    """Limit, hold out, take the transfer set's classes, unlabel, in this order; draws are stratified by the task's `strata`, with its seed.

    extra: the images without labels of the transfer set, which follow the training images or stand in their place.

    A set that brings its own validation part keeps it where val_fraction > 0. Training samples without a label have
    no target (`is_labelled`). Validation and test have all classes, whatever the transfer set has. Raises InputError for a limit
    that the set cannot serve, and where no image of the transfer set's classes is left to train on.
    """
    classes = dataset.groups
    targets, strata = dataset.train.targets, dataset.strata
    places = torch.arange(len(targets))
    if spec.limit is not None:
        if not classes <= spec.limit <= len(targets):
            raise InputError(
                f"limit: expected {classes} (one per class) to {len(targets)} training images of {dataset.name}, got {spec.limit}"
            )
        places = stratified(strata, spec.limit, spec.split_seed, "limit")
    train, val = places, None
    if spec.val_fraction > 0 and dataset.val is None:
        count = max(round(spec.val_fraction * len(places)), classes)
        if count >= len(places) - classes:
            raise InputError(_too_few(len(places), classes, spec.val_fraction))
        held_out = stratified(strata[places], count, spec.split_seed, "val")
        mask = torch.zeros(len(places), dtype=torch.bool)
        mask[held_out] = True
        train, val = places[~mask], take(dataset.train, places[mask])
    elif spec.val_fraction > 0:
        val = dataset.val
    description = f"{dataset.fingerprint}, limit {spec.limit}, val_fraction {spec.val_fraction:g}, split_seed {spec.split_seed}"
    if dataset.task.columns:
        description += f", columns {dataset.task.name}"
    of_teacher, taught_classes = None, classes
    if spec.transfer is not None:
        of_teacher, train = train, _of_classes(dataset, train, spec.transfer)
        taught_classes = len(spec.transfer.classes) if spec.transfer.classes else classes
        description += f", transfer {spec.transfer}"
    part = take(dataset.train, train)
    if spec.label_fraction < 1 and len(train):
        count = max(round(spec.label_fraction * len(train)), taught_classes)
        with_label = stratified(strata[train], count, spec.split_seed, "labels")
        targets_left = no_targets(part.targets, len(part.targets))
        targets_left[with_label] = part.targets[with_label]
        part = replace(part, targets=targets_left)
    if spec.transfer is not None and spec.transfer.images is not None:
        assert extra is not None, "the images of a transfer set are loaded with the data"
        part = append_unlabelled(part, extra)
        train = torch.cat([train, torch.full((extra.count,), -1)])
    return Splits(
        part,
        val,
        dataset.test,
        DataFacts(len(part.targets), len(dataset.classes), part.targets),
        train,
        description,
        dataset.train,
        Normalisation(mean=dataset.mean, std=dataset.std),
        of_teacher,
        dataset.task,
    )


def _of_classes(dataset: Dataset, places: Tensor, transfer: TransferSpec) -> Tensor:
    """Those of the training images at `places` that are of the transfer set; InputError where none is of its classes."""
    if transfer.only:
        return places[:0]
    if transfer.classes is None:
        return places
    chosen = places[torch.isin(dataset.train.targets[places], torch.tensor(transfer.classes))]
    if not len(chosen):
        raise InputError(f"transfer_classes: {dataset.name} has no training image of {classes_in_words(transfer.classes, dataset.classes)}")
    return chosen


def labelled_subset(splits: Splits) -> Subset:
    """The first LABELLED_IMAGES training images with a label, of those that a teacher learns.

    Where its students are taught on a transfer set, they are taken from all that it learns: on the images of a few classes a
    network may seem to be at chance that is not.
    """
    if splits.of_teacher is not None:
        first = splits.of_teacher[:LABELLED_IMAGES]
        return Subset(splits.all_train.images[first.to(splits.all_train.images.device)], splits.all_train.targets[first])
    places = is_labelled(splits.train.targets).nonzero().flatten()[:LABELLED_IMAGES]
    return Subset(splits.train.images[places], splits.train.targets[places])


def take(subset: Subset, index: Tensor) -> Subset:
    if len(index) == len(subset.targets):
        return subset
    return Subset(subset.images[index], subset.targets[index], None if subset.keys is None else subset.keys[index])


def stratified(strata: Tensor, count: int, seed: int, name: str) -> Tensor:
    """`count` of the samples, each group in its share (largest remainders, at least one), in ascending order.

    strata: the group of each sample, (N,) int64, numbered from 0.
    """
    groups = int(strata.max()) + 1
    sizes = torch.bincount(strata, minlength=groups).double()
    shares = sizes * count / len(strata)
    counts = torch.minimum(shares.floor().clamp(min=1), sizes)
    while (short := count - int(counts.sum())) != 0:
        room = (counts < sizes) if short > 0 else (counts > 1)
        priority = torch.where(room, (shares - counts) * (1 if short > 0 else -1), torch.tensor(-torch.inf, dtype=torch.float64))
        if not bool(room.any()):
            break
        counts[int(priority.argmax())] += 1 if short > 0 else -1
    random = generator(seed, "split", name)
    indices = []
    for group in range(groups):
        members = (strata == group).nonzero().flatten()
        picks = torch.randperm(len(members), generator=random)[: int(counts[group])]
        indices.append(members[picks])
    return torch.cat(indices).sort().values
