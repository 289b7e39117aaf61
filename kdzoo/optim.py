"""The optimiser, the learning rate as a pure function of the step, and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kdzoo.dot import DOT
from kdzoo.method import Group
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


def optimizer(recipe: Recipe, network: nn.Module, of_methods: Sequence[Group] = ()) -> torch.optim.Optimizer:
    """SGD, AdamW or DOT over a network's parameters and those of methods; each group has a factor `lr_factor` on the rate.

    Biases and norms are without decay where the recipe says `weights`. SGD and AdamW are torch's fused ones: one pass over
    the parameters, a fifth of the time of a loop on a CPU.
    """
    own = Group([parameter for parameter in network.parameters() if parameter.requires_grad])
    by_kind: dict[tuple[float, float], list[nn.Parameter]] = {}
    for group in (own, *of_methods):
        decay = recipe.weight_decay if group.weight_decay is None else group.weight_decay
        for parameter in group.parameters:
            free = recipe.decay == "weights" and parameter.ndim <= 1
            by_kind.setdefault((group.lr, 0.0 if free else decay), []).append(parameter)
    groups = [{"params": found, "weight_decay": decay, "lr_factor": factor} for (factor, decay), found in by_kind.items()]
    if recipe.dot is not None:
        return DOT(groups, lr=recipe.lr, momentum=recipe.momentum, gap=recipe.dot)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=True)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)


def moving_average(recipe: Recipe, network: nn.Module) -> AveragedModel | None:
    """A copy of the network that follows its weights and buffers with the recipe's decay, or None."""
    if recipe.ema is None:
        return None
    follow = get_ema_multi_avg_fn(recipe.ema)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=follow, use_buffers=True)
