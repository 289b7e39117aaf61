"""Keys of a recipe that the training of specialists does not use. Free of torch, so that they are refused before anything is trained."""

from __future__ import annotations

from kdzoo.runs.recipe import Recipe

UNUSED = (
    "clip", "precision", "label_smoothing", "ema", "dot", "mixup", "cutmix", "view_epochs", "learns", "dropout", "input_dropout",
    "max_norm",
)  # fmt: skip
"""keys of a recipe that the training of a specialist does not read"""


def unused_keys(recipe: Recipe) -> list[str]:
    """A problem for each key that the training of specialists would ignore."""
    usual = {key: Recipe.model_fields[key].default for key in UNUSED}
    return [
        f"recipe.{key}: not used in the training of specialists; expected {_word(default)}, got {_word(value)}"
        for key, default in usual.items()
        if (value := getattr(recipe, key)) != default
    ]


def _word(value: object) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
