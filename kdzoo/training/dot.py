"""Distillation-oriented training: two gradients with two momenta (Zhao et al., 2023)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class DOT(torch.optim.Optimizer):
    """SGD whose task gradient decays faster than its distillation gradient (https://arxiv.org/abs/2307.08436, equation 7).

    v_task <- (momentum - gap) v_task + g_task + weight_decay w
    v_distilled <- (momentum + gap) v_distilled + g_distilled
    w <- w - lr (v_task + v_distilled)

    A parameter that only one of the two losses reaches (the parts of methods, say) has that gradient with the plain
    momentum, as in the authors' code; a buffer starts as its first gradient. `backward` must be called before `step`.
    """

    def __init__(self, groups: Iterable[Mapping[str, Any]], *, lr: float, momentum: float, gap: float) -> None:
        super().__init__([dict(group) for group in groups], {"lr": lr, "momentum": momentum, "gap": gap, "weight_decay": 0.0})

    def backward(self, task: Tensor | None, distilled: Tensor) -> None:
        """Keep the gradients of the two losses; their sum becomes each parameter's `grad`."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        of_task = _gradients(task, parameters, retain=True)
        of_distilled = _gradients(distilled, parameters, retain=False)
        for parameter, first, second in zip(parameters, of_task, of_distilled, strict=True):
            self.state[parameter]["gradients"] = (first, second)
            parameter.grad = first if second is None else second if first is None else first + second

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter by its two velocities."""
        for group in self.param_groups:
            for parameter in group["params"]:
                self._move(parameter, group)

    def _move(self, parameter: nn.Parameter, group: Mapping[str, Any]) -> None:
        state = self.state[parameter]
        task, distilled = state.pop("gradients", (None, None))
        both = task is not None and distilled is not None
        if task is not None and group["weight_decay"]:
            task = task.add(parameter, alpha=group["weight_decay"])
        elif task is None and distilled is not None and group["weight_decay"]:
            distilled = distilled.add(parameter, alpha=group["weight_decay"])
        gap = group["gap"] if both else 0.0
        for name, gradient, momentum in (("task", task, group["momentum"] - gap), ("distilled", distilled, group["momentum"] + gap)):
            if gradient is None:
                continue
            velocity = state.get(name)
            state[name] = gradient.clone() if velocity is None else velocity.mul_(momentum).add_(gradient)
            parameter.add_(state[name], alpha=-group["lr"])


def _gradients(loss: Tensor | None, parameters: list[nn.Parameter], *, retain: bool) -> tuple[Tensor | None, ...]:
    if loss is None or not loss.requires_grad:
        return (None,) * len(parameters)
    return torch.autograd.grad(loss, parameters, retain_graph=retain, allow_unused=True)
