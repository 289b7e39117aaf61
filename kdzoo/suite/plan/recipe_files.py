"""Files of recipes: how networks are trained, with what belongs to the protocol beside it. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, field_validator

from kdzoo.contract.registry import Definition, Registry
from kdzoo.runs.fields import Count, Number, Share, Spec, parse
from kdzoo.runs.options import as_list
from kdzoo.runs.recipe import Recipe, steps_per_epoch
from kdzoo.runs.spec import Pairing
from kdzoo.suite.plan.yaml_files import read_yaml, shipped_files

LARGEST_VAL = 0.25
"""of the training images: validation takes no larger share, however few they are"""


class PairValues(Spec):
    """What is published of a method for one pair of networks: the factor on its loss (None for the declared one), hyper-parameters."""

    term: Annotated[Number, Field(gt=0)] | None = None
    hyperparameters: dict[str, JsonValue] = {}


class PublishedValues(Spec):
    """A method's values for single pairs: where they are published, and the values by the pair's name, `TEACHER/STUDENT`."""

    source: str
    pairs: dict[str, PairValues]


class Constants(Spec):
    """What images in [0, 1] are normalised with, one number per channel."""

    mean: Annotated[tuple[Number, ...], BeforeValidator(as_list)]
    std: Annotated[tuple[Number, ...], BeforeValidator(as_list)]


class FineTune(Spec):
    """What is different where a teacher that brings weights of other classes is trained on these first.

    recipe: keys of the recipe and their values. min_steps: as in a recipe's file.
    """

    recipe: dict[str, Any] = {}
    min_steps: Count | None = None


class RecipeFile(Spec):
    """A recipe with what belongs to its protocol beside it.

    lr_for: networks trained at another rate. normalise_for: data sets whose images are normalised with other constants
    than their own. pairing, refit, val_fraction, student_start: the protocol's own choices. published: by method, what
    single pairs have instead of the method's declared values.
    min_steps: training has as many epochs more as this takes, however few the images. min_val: how many images validation
    has at least, up to a quarter of them. sizes: the sides of images that `kdzoo distill` chooses from. pretrained: keys of
    the recipe that differ for a network that brings trained weights (null leaves a key out). fine_tune: what else differs
    for a teacher whose weights were made for other classes.
    """

    description: str
    source: str = ""
    recipe: dict[str, Any]
    lr_for: dict[str, Number] = {}
    normalise_for: dict[str, Constants] = {}
    published: dict[str, PublishedValues] = {}
    pairing: Pairing = "deep"
    refit: bool = False
    val_fraction: Share = 0.1
    student_start: Literal["random", "pretrained"] = "random"
    min_steps: Count | None = None
    min_val: Count | None = None
    sizes: Annotated[tuple[Count, ...], BeforeValidator(as_list)] = ()
    pretrained: dict[str, Any] = {}
    fine_tune: FineTune | None = None

    @field_validator("recipe")
    @classmethod
    def _with_keys_of_augment(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(augment := value.get("augment"), dict | None):
            raise ValueError(f"augment: expected keys and their values, got {augment!r}")
        return value

    @property
    def augment(self) -> Mapping[str, Any]:
        """What the recipe says of augmentation; nothing where its key is left empty."""
        return self.recipe.get("augment") or {}

    def published_for(self, pair: str) -> dict[str, PairValues]:
        """The values of their own that methods have for a pair."""
        return {method: values.pairs[pair] for method, values in self.published.items() if pair in values.pairs}

    def validation_share(self, images: int) -> float:
        """The share of `images` training images that is held out for validation: `val_fraction`, or more to reach `min_val`."""
        if not self.val_fraction or self.min_val is None:
            return self.val_fraction
        return max(self.val_fraction, min(LARGEST_VAL, self.min_val / max(images, 1)))

    def variant(self, *, trained: bool, fine_tuned: bool) -> RecipeFile:
        """The protocol for a network that brings trained weights, and for one that is fine-tuned to other classes before it teaches."""
        layers = [self.recipe, self.pretrained if trained else {}]
        steps = self.min_steps
        if fine_tuned and self.fine_tune is not None:
            layers.append(self.fine_tune.recipe)
            steps = self.fine_tune.min_steps
        keys = {key: value for layer in layers for key, value in layer.items()}
        recipe = {key: value for key, value in keys.items() if value is not None}
        return self.model_copy(update={"recipe": recipe, "min_steps": steps})

    def resolve(self, network: str, changes: Mapping[str, Any], data: str = "", images: int | None = None) -> Recipe:
        """The recipe for a network and a data set with `changes` (`epochs`, `augment.pad`, ...) applied.

        images: how many it is trained on; with them epochs come to `min_steps` at least, unless `changes` say how many.
        Milestones come to whole epochs of however many there are.
        """
        values: dict[str, Any] = {**self.recipe, "augment": dict(self.augment)}
        if network in self.lr_for:
            values["lr"] = self.lr_for[network]
        if data in self.normalise_for:
            values |= self.normalise_for[data].model_dump()
        for key, value in changes.items():
            place, _, last = key.rpartition(".")
            if place == "augment":
                values["augment"][last] = value
            else:
                values[key] = value
        if values.get("ema") is not None:
            values.setdefault("ema_warmup", True)
        recipe = parse(Recipe, values, "recipe")
        if self.min_steps is not None and images is not None and "epochs" not in changes:
            epochs = math.ceil(self.min_steps / max(steps_per_epoch(images, recipe.batch_size, drop_last=recipe.drop_last), 1))
            recipe = recipe.model_copy(update={"epochs": max(recipe.epochs, epochs)})
        return in_whole_epochs(recipe)


def in_whole_epochs(recipe: Recipe) -> Recipe:
    """The recipe with its milestones at the nearest ends of epochs, the first one at least.

    One that comes to the end of training is never reached and goes; where none is left the rate is constant.
    """
    ends = [max(1, math.floor(milestone * recipe.epochs + 0.5)) for milestone in recipe.milestones]
    shares = tuple(end / recipe.epochs for end in ends if end < recipe.epochs)
    if shares == recipe.milestones:
        return recipe
    return recipe.model_copy(update={"milestones": shares, "schedule": recipe.schedule if shares else "constant"})


def recipe_file(name: str) -> RecipeFile:
    """A recipe by its name or by a file's path."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES.get(name)
    return parse(RecipeFile, read_yaml(path), f"recipe {path.stem}")


def register_recipe(name: str, file: str | Path) -> None:
    """Make a user's recipe file known under a name; raises InputError where that names another file."""
    path = Path(file).resolve()
    RECIPES.add(name, path, Definition(str(path), name, str(path)))


def recipes() -> list[str]:
    return sorted(RECIPES)


RECIPES: Registry[Path] = Registry("recipe", shipped_files("recipes"))
"""the files of all recipes by name: kdzoo's own and a user's"""
