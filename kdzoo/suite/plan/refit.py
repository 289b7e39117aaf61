"""Whether the chosen settings are trained again on all images, and with which seeds. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable

from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.recipe_files import recipe_file


def validation_share(config: BenchConfig) -> float:
    """The share of the training images that is held out for validation: as asked for, or else the recipe's."""
    return recipe_file(config.recipe).val_fraction if config.val_fraction is None else config.val_fraction


def wants_refit(config: BenchConfig) -> bool:
    """Whether the chosen settings are trained again on all images: where asked, or the recipe's way and something is held out."""
    protocol = recipe_file(config.recipe)  # an unknown recipe is an error whatever was asked for
    return protocol.refit and validation_share(config) > 0 if config.refit is None else config.refit


def refit_seeds(method: str, config: BenchConfig) -> tuple[int, ...]:
    """The seeds of a method in a refit, before they are moved behind those of all sweeps."""
    if config.refit_seeds is None:
        return config.seeds_for(method)
    return tuple(range(min(config.seeds), min(config.seeds) + config.refit_seeds))


def fresh_seeds(method: str, config: BenchConfig, used: Iterable[int] = ()) -> tuple[int, ...]:
    """The seeds of a method in a refit, behind those of this sweep and of others in its folder (`used`)."""
    behind = max([*config.seeds_of_controls, *used]) + 1 - min(config.seeds)
    return tuple(seed + behind for seed in refit_seeds(method, config))
