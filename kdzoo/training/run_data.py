"""The data of a run, checked against what it was planned with."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from kdzoo.data.columns import learn
from kdzoo.data.dataset import Dataset
from kdzoo.data.known import folder_of
from kdzoo.data.sources import load
from kdzoo.data.split import Splits, split
from kdzoo.data.unlabelled import ImageFormat, UnlabelledImages, load_unlabelled
from kdzoo.data.views import output_shape
from kdzoo.errors import InputError
from kdzoo.runs.recipe import Recipe
from kdzoo.tasks.known import task_named
from kdzoo.training.located import LocatedRun


@lru_cache(maxsize=2)
def load_dataset(
    request: str, root: str | None, image_size: int | None, image_cache: int | None = None, skip_unreadable: bool = False
) -> Dataset:
    """A data set, kept for the next run of this process."""
    place = Path(root) if root else None
    return load(request, root=place, image_size=image_size, image_cache=image_cache, skip_unreadable=skip_unreadable)


@lru_cache(maxsize=2)
def load_transfer_images(
    request: str, like: ImageFormat, root: str | None, image_size: int | None, skip_unreadable: bool = False
) -> UnlabelledImages:
    """The images without labels of a transfer set, kept for the next run of this process."""
    place = Path(root) if root else None
    return load_unlabelled(request, like, root=place, image_size=image_size, skip_unreadable=skip_unreadable)


def load_run_data(located: LocatedRun, image_cache: int | None = None) -> tuple[Dataset, Splits]:
    """The data set of a run and its splits; raises InputError when they are not those it was planned with.

    image_cache: the bytes that a folder's decoded images may take, which changes no pixel (`folder.load_folder`).
    """
    spec = located.run.data
    paths, size = located.paths, located.run.recipe.augment.size
    skip = bool(paths.get("skip_unreadable", False))
    request = str(paths.get("data", spec.name))
    if (place := folder_of(request)) is not None and not place.is_dir():
        raise InputError(
            f"data: {place.absolute()}: no such folder, where the images of {located.run.id} were; put them back, or tell `kdzoo export`, "
            "`evaluate` or `verify` their new place with --data folder:PATH"
        )
    dataset = load_dataset(request, paths.get("data_root"), size, image_cache, skip)
    if dataset.fingerprint != spec.fingerprint:
        raise InputError(
            f"data: {spec.name} has changed since {located.run.id} was planned ({spec.fingerprint} is now {dataset.fingerprint})"
        )
    dataset = learn(dataset, task_named(spec.task))
    extra = None
    if spec.transfer is not None and spec.transfer.images is not None:
        extra = load_transfer_images(str(paths.get("transfer_data")), ImageFormat.those_of(dataset), paths.get("data_root"), size, skip)
        if extra.fingerprint != spec.transfer.images:
            raise InputError(
                f"transfer_data: {extra.source} has changed since {located.run.id} was planned ({spec.transfer.images} is now "
                f"{extra.fingerprint})"
            )
    return with_recipe_norm(dataset, located.run.recipe), split(dataset, spec, extra)


def with_recipe_norm(dataset: Dataset, recipe: Recipe) -> Dataset:
    """The data set with the constants that a recipe normalises with, where it has its own."""
    if recipe.mean is None or recipe.std is None:
        return dataset
    if len(recipe.mean) != dataset.channels:
        raise InputError(
            f"recipe.mean: expected as many numbers as {dataset.name} has channels, {dataset.channels}, got {list(recipe.mean)}"
        )
    return replace(dataset, mean=recipe.mean, std=recipe.std)


def input_shape(dataset: Dataset, recipe: Recipe) -> tuple[int, int, int]:
    """Channels, height and width of what the networks see."""
    return (dataset.channels, *output_shape(recipe.augment, dataset.height, dataset.width))
