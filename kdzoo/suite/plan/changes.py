"""What --set, --epochs and --lr change, by dotted key. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdzoo.errors import did_you_mean
from kdzoo.runs.recipe import Recipe
from kdzoo.suite.plan.config import BenchConfig

KNOWN_PLACES = ("recipe", "teacher_recipe", "student", "teacher", "objective")


def read_changes(config: BenchConfig, problems: list[str]) -> dict[str, Any]:
    """Everything that --set, --epochs and --lr change, by dotted key; unknown keys are left out and added to `problems`."""
    changes = dict(config.set)
    own = ["stem", "image_size", "norm", "weights"]
    networks = {"student": own, "teacher": [*own, "seed"], "objective": ["pairing"]}
    recipe = [*Recipe.model_fields, *(f"augment.{name}" for name in type(Recipe.model_fields["augment"].default).model_fields)]
    known = [f"{place}.{key}" for place in KNOWN_PLACES for key in networks.get(place, recipe)]
    for key in [key for key in changes if key not in known]:
        problems.append(f"set: unknown {key!r}{did_you_mean(key, known) or '; known: recipe.*, teacher_recipe.*, student.stem, ...'}")
        del changes[key]
    if config.epochs is not None:
        changes["recipe.epochs"] = config.epochs
    if config.lr is not None:
        changes["recipe.lr"] = config.lr
    return changes


def below(changes: Mapping[str, Any], place: str) -> dict[str, Any]:
    return {key.removeprefix(f"{place}."): value for key, value in changes.items() if key.startswith(f"{place}.")}


def as_text(value: object) -> str | None:
    """A key's value as it would be typed: YAML reads `0.5` as a number."""
    return None if value is None else str(value)
