"""The optimiser, the learning rate as a pure function of the step, and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kdzoo.spec import Recipe


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The rate at `step` of `steps`: a linear warm-up over the first share, then constant, in steps, or a half cosine."""
    warmup = recipe.warmup * steps
    if step < warmup:
        return recipe.lr * (step + 1) / (warmup + 1)
    if recipe.schedule == "cosine":
        done = (step - warmup) / max(steps - warmup, 1)
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * done))
    return recipe.lr * recipe.gamma ** sum(step >= milestone * steps for milestone in recipe.milestones)


def optimizer(recipe: Recipe, *modules: nn.Module) -> torch.optim.Optimizer:
    """SGD or AdamW over the modules' parameters, biases and norms without decay where the recipe says `weights`."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for parameter in _parameters(*modules):
        (free if recipe.decay == "weights" and parameter.ndim <= 1 else decayed).append(parameter)
    groups = [{"params": group, "weight_decay": decay} for group, decay in ((decayed, recipe.weight_decay), (free, 0.0)) if group]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999))
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)


def moving_average(recipe: Recipe, network: nn.Module) -> AveragedModel | None:
    """A copy of the network that follows its weights and buffers with the recipe's decay, or None."""
    if recipe.ema is None:
        return None
    follow = get_ema_multi_avg_fn(recipe.ema)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=follow, use_buffers=True)


def _parameters(*modules: nn.Module) -> Iterator[nn.Parameter]:
    for module in modules:
        yield from (parameter for parameter in module.parameters() if parameter.requires_grad)
