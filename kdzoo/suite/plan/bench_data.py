"""The data of a bench: its images, which of them are used for what, and what is recorded of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdzoo.data.columns import learn, task_for
from kdzoo.data.dataset import Dataset
from kdzoo.data.known import folder_of, has_labels
from kdzoo.data.listing import names_a_part
from kdzoo.data.report import data_record, transfer_record
from kdzoo.data.split import split
from kdzoo.data.transfer import class_numbers
from kdzoo.data.unlabelled import ImageFormat, UnlabelledImages, refuse_test_images
from kdzoo.errors import InputError, collect_problems
from kdzoo.runs.fields import MOST_SIDE
from kdzoo.runs.spec import DataSpec, TransferSpec
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.recipe_files import RecipeFile
from kdzoo.tasks.features import FEATURES, UNLABELLED
from kdzoo.training.run_data import load_dataset, load_transfer_images


@dataclass(frozen=True)
class BenchData:
    """The images of a bench, and their specification in its students' runs.

    record: what is recorded of them beside a student's run. teacher_record: beside its teacher's, which may learn more of them.
    Both are empty where the images cannot be divided as asked for.
    """

    dataset: Dataset
    spec: DataSpec
    record: Mapping[str, Any]
    teacher_record: Mapping[str, Any]

    def record_of(self, spec: DataSpec) -> Mapping[str, Any]:
        """What is recorded beside a run with this specification of the data."""
        return self.record if spec == self.spec else self.teacher_record


def image_size(protocol: RecipeFile | None, changes: Mapping[str, Any]) -> int | None:
    """The side that folders are decoded for; a size that is none is the recipe's fault, and reported as that."""
    own = protocol.augment.get("size") if protocol is not None else None
    size = changes.get("recipe.augment.size", own)
    return size if isinstance(size, int) and not isinstance(size, bool) and 0 < size <= MOST_SIDE else None


def read_images(config: BenchConfig, side: int | None) -> Dataset:
    """The images of a bench with the targets that it learns, decoded for a side where that is given."""
    dataset = load_dataset(config.data, config.data_root, side, config.image_cache, config.skip_unreadable)
    if config.task is not None:
        if dataset.holds_texts:
            raise InputError(f"task: features needs images, {dataset.name} has texts")
        return learn(dataset, FEATURES if has_labels(config.data) else UNLABELLED)
    if not has_labels(config.data):
        raise InputError(f"data: {config.data} has no labels; --task features distils embeddings without any")
    return learn(dataset, task_for(dataset, config.columns))


def results_among_images(config: BenchConfig) -> list[str]:
    """Why a bench may not be kept where it is asked to be: within a folder of its images, where it would be taken for a class of them."""
    return [
        f"results: {config.results} lies in the folder of the images, {folder}, and would be read as a class of them; name a folder outside"
        for request in (config.data, config.transfer_data)
        if request is not None
        and (folder := folder_of(request)) is not None
        and _is_read(Path(config.results).resolve(), folder.resolve(), has_labels(request))
    ]


def _is_read(place: Path, folder: Path, labelled: bool) -> bool:
    """Whether a place is among the images of a folder, of which only the parts are read where it has any (train/, test/, val/)."""
    if not place.is_relative_to(folder):
        return False
    below = place.relative_to(folder).parts[:1]
    has_parts = labelled and folder.is_dir() and any(names_a_part(child.name) for child in folder.iterdir() if child.is_dir())
    return not has_parts or not below or names_a_part(below[0])


def plan_data(config: BenchConfig, protocol: RecipeFile, dataset: Dataset, side: int | None, problems: list[str]) -> BenchData:
    """The data of a bench; what is wrong with their division is added to `problems`."""
    share = _validation_share(config, protocol, dataset, problems)
    spec = DataSpec(
        name=dataset.name,
        fingerprint=dataset.fingerprint,
        classes=len(dataset.classes),
        val_fraction=share,
        split_seed=config.split_seed,
        limit=config.limit,
        label_fraction=config.label_fraction,
        task=dataset.task.name,
    )
    unlabelled: UnlabelledImages | None = None
    with collect_problems(problems):
        unlabelled = _unlabelled(config, dataset, side)
        spec = spec.model_copy(update={"transfer": _transfer(config, dataset, unlabelled)})
    with collect_problems(problems):
        splits = split(dataset, spec, unlabelled)
        record = {**data_record(dataset, splits), **transfer_record(dataset, splits, spec.transfer, unlabelled)}
        of_teacher = record if spec == spec.of_teacher else data_record(dataset, split(dataset, spec.of_teacher))
        return BenchData(dataset, spec, record, of_teacher)
    return BenchData(dataset, spec, {}, {})


def _validation_share(config: BenchConfig, protocol: RecipeFile, dataset: Dataset, problems: list[str]) -> float:
    """The share of the training images held out for validation; a refit without any is added to `problems`."""
    share = config.val_fraction
    if share is None:
        share = protocol.validation_share(config.limit or len(dataset.train.targets))
    if config.refit and not share:
        problems.append(
            f"refit: no validation images are held out to choose settings on, and the sweep already trains on all images; leave it "
            f"out, or hold out a share (--val-fraction 0.1; {Path(config.recipe).stem} has {protocol.val_fraction:g})"
        )
    return share


def _unlabelled(config: BenchConfig, dataset: Dataset, side: int | None) -> UnlabelledImages | None:
    """The images without labels that the student is taught on; raises InputError where some of them are test images."""
    if config.transfer_data is None:
        return None
    if dataset.holds_texts:
        raise InputError(f"transfer_data: has images, {dataset.name} has texts; --label-fraction and --transfer-classes are for both")
    unlabelled = load_transfer_images(config.transfer_data, ImageFormat.those_of(dataset), config.data_root, side, config.skip_unreadable)
    refuse_test_images(dataset, unlabelled)
    return unlabelled


def _transfer(config: BenchConfig, dataset: Dataset, unlabelled: UnlabelledImages | None) -> TransferSpec | None:
    """What the student is taught on; None where that is all training images and nothing else."""
    if config.transfer_classes is not None and not dataset.task.of_classes:
        raise InputError(f"transfer_classes: needs targets that are classes, the task of {dataset.name} is {dataset.task.name}")
    classes = None if config.transfer_classes is None else class_numbers(config.transfer_classes, dataset.classes)
    if classes is None and unlabelled is None:
        return None
    return TransferSpec(classes=classes, images=None if unlabelled is None else unlabelled.fingerprint, only=config.transfer_only)
