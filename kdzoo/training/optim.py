"""The optimiser, the learning rate as a pure function of the step, and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import PARAM_LIST, AveragedModel, get_ema_multi_avg_fn

from kdzoo.contract.method import ParamGroup
from kdzoo.runs.recipe import Recipe
from kdzoo.training.dot import DOT


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The rate at `step` of `steps`: a linear warm-up over the first share, then constant, in steps, a line to 0, or a half cosine.

    A milestone is a share: rounding must not put it after the step that it means.
    """
    warmup = recipe.warmup * steps
    if step < warmup:
        return recipe.lr * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(steps - warmup, 1)
    if recipe.schedule == "linear":
        return recipe.lr * (1 - progress)
    if recipe.schedule == "cosine":
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * progress))
    return recipe.lr * recipe.gamma ** sum(step + 1e-6 >= milestone * steps for milestone in recipe.milestones)


def optimizer(recipe: Recipe, network: nn.Module, of_methods: Sequence[ParamGroup] = ()) -> torch.optim.Optimizer:
    """SGD, Adam, AdamW or DOT over a network's parameters and those of methods; each group has a factor `lr_factor` on the rate.

    Biases and norms are without decay where the recipe says `weights`. All but DOT are torch's fused ones: one pass over
    the parameters, a fifth of the time of a loop on a CPU.
    """
    own = ParamGroup([parameter for parameter in network.parameters() if parameter.requires_grad])
    by_kind: dict[tuple[float, float], list[nn.Parameter]] = {}
    for group in (own, *of_methods):
        decay = recipe.weight_decay if group.weight_decay is None else group.weight_decay
        for parameter in group.parameters:
            free = recipe.decay == "weights" and parameter.ndim <= 1
            by_kind.setdefault((group.lr, 0.0 if free else decay), []).append(parameter)
    groups = [{"params": parameters, "weight_decay": decay, "lr_factor": factor} for (factor, decay), parameters in by_kind.items()]
    if recipe.dot is not None:
        return DOT(groups, lr=recipe.lr, momentum=recipe.momentum, gap=recipe.dot)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=True)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=True)
    sgd = torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)
    if recipe.momentum:
        if recipe.precision == "float16":
            _start_momentum(sgd, [parameter for group in sgd.param_groups for parameter in group["params"]])
        sgd.register_step_pre_hook(LateMomentum())
    return sgd


def _start_momentum(sgd: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Give parameters the momentum zero, from which the first step comes to the gradient itself, as it does without.

    Without it, a fused step allocates momenta and, where gradients overflow and the scaler has it skipped, leaves them
    unwritten: the next step moves the weights by whatever the memory held.
    """
    for parameter in parameters:
        sgd.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter, memory_format=torch.preserve_format))


class LateMomentum:
    """A hook before each step, for parameters that get their first gradient later than others: fused SGD cannot take these."""

    def __init__(self) -> None:
        self.waiting: list[nn.Parameter] | None = None

    def __call__(self, sgd: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        everything = [parameter for group in sgd.param_groups for parameter in group["params"]]
        if self.waiting is None:
            begun = any("momentum_buffer" in sgd.state.get(parameter, {}) for parameter in everything)
            self.waiting = [p for p in everything if "momentum_buffer" not in sgd.state.get(p, {}) and (begun or p.grad is None)]
        if self.waiting:
            _start_momentum(sgd, [parameter for parameter in self.waiting if parameter.grad is not None])
            self.waiting = [parameter for parameter in self.waiting if parameter.grad is None]


class SkippedSteps:
    """The number of steps that a GradScaler has skipped, counted on the gradients' device: nothing waits for it."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.steps: Tensor | int = 0
        optimizer.register_step_pre_hook(self._count)

    def _count(self, optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        overflow = getattr(optimizer, "found_inf", None)
        if overflow is not None:
            self.steps = self.steps + overflow.detach().flatten()[0]


WARMUP_POWER = 2 / 3
"""of the average's decay, as timm's ModelEmaV3 has it by default (warmup_power, with a warmup_gamma of 1)"""


def decay_at(recipe: Recipe, averaged: int) -> float:
    """The decay of the moving average after `averaged` steps: `recipe.ema`, or less while it rises to that.

    min(ema, 1 - (1 + averaged) ** (-2 / 3)): the average spans a growing part of what was trained, never its random start.
    """
    assert recipe.ema is not None
    return min(recipe.ema, 1 - (1 + averaged) ** -WARMUP_POWER) if recipe.ema_warmup else recipe.ema


def moving_average(recipe: Recipe, network: nn.Module) -> AveragedModel | None:
    """A copy of the network that follows its weights and buffers with the recipe's decay, or None."""
    if recipe.ema is None:
        return None

    def follow(averages: PARAM_LIST, weights: PARAM_LIST, averaged: Tensor | int) -> None:
        decay = decay_at(recipe, int(average.n_averaged))  # the module's own count lies on the CPU, so that nothing waits for a device
        get_ema_multi_avg_fn(decay)(averages, weights, averaged)  # type: ignore[no-untyped-call]

    average = AveragedModel(network, multi_avg_fn=follow, use_buffers=True)
    return average
