"""Regularisation beside the optimiser's steps: dropout by epoch, and max-norm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from kdzoo.contract.batch import Progress
from kdzoo.errors import InputError
from kdzoo.models.network import Network
from kdzoo.runs.recipe import Recipe


def dropout_rates(recipe: Recipe, epoch: int) -> tuple[float, float]:
    """The shares of inputs and of hidden units that are dropped in an epoch, counted from 0.

    With a linear schedule both fall by the same step from epoch to epoch: of E epochs the first has the recipe's rates, the
    last 1/E of them.
    """
    remainder = 1 - epoch / recipe.epochs if recipe.dropout_schedule == "linear" else 1.0
    return recipe.input_dropout * remainder, recipe.dropout * remainder


def set_dropout(recipe: Recipe, clock: Progress, networks: Iterable[Network]) -> None:
    """Set networks' dropout to the recipe's rates of the present epoch; a recipe without dropout changes and reads nothing."""
    if not recipe.drops:
        return
    inputs, hidden = dropout_rates(recipe, clock.epoch)
    for network in networks:
        network.model.set_dropout(inputs=inputs, hidden=hidden)  # type: ignore[operator]


@torch.no_grad()
def limit_norms(weights: Iterable[torch.Tensor], largest: float) -> None:
    """Scale the incoming weights of every unit whose norm is larger than `largest` down to it, in place.

    weights: (units, ...), one row per unit. After each step, as in Srivastava et al. 2014
    (https://jmlr.org/papers/v15/srivastava14a.html), section 5.1; biases are left alone.
    """
    for weight in weights:
        norms = weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1))
        weight.mul_((largest / norms).clamp(max=1.0))  # a unit without weights: infinity, and so 1


def learning_networks(network: Network, objective: nn.Module) -> list[Network]:
    """The student's network and those that a method trains beside it (the peers of mutual learning)."""
    return [network, *(part for part in objective.modules() if isinstance(part, Network) and not part.frozen)]


def limited_weights(networks: Sequence[Network]) -> list[torch.Tensor]:
    """The incoming weights of networks' hidden units that learn."""
    return [layer.weight for network in networks for layer in network.hidden_layers if layer.weight.requires_grad]


def refuse_regularisation(recipe: Recipe, name: str, network: Network) -> None:
    """Raises InputError for dropout or max-norm that a network has no place for."""
    problems = []
    if recipe.drops and not hasattr(network.model, "set_dropout"):
        key = "dropout" if recipe.dropout else "input_dropout"
        problems.append(
            f"recipe.{key}: {name} has no dropout that a recipe can set; expected a fully connected network such as mlp_1200_1200"
        )
    if recipe.max_norm is not None and not network.hidden_layers:
        problems.append(f"recipe.max_norm: {name} has no linear or convolutional layer below its classifier")
    if problems:
        raise InputError(*problems)
