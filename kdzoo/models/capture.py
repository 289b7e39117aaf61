"""Inputs and outputs of modules inside a network, captured by hooks during a forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn


class CaptureInputs:
    """The first inputs of modules during a forward, in the order of the modules; None for None."""

    def __init__(self, hooks: ExitStack, modules: Sequence[nn.Module | None]) -> None:
        self.values: list[Tensor | None] = [None] * len(modules)
        for position, module in enumerate(modules):
            if module is not None:
                hooks.callback(module.register_forward_pre_hook(self._keep(position)).remove)

    def _keep(self, position: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
            # an activation that works in place would change what it was given
            self.values[position] = args[0].clone() if getattr(module, "inplace", False) else args[0]

        return keep


class CaptureOutputs:
    """The outputs of modules during a forward, in the order of the modules."""

    def __init__(self, hooks: ExitStack, modules: Sequence[nn.Module]) -> None:
        self.values: list[Tensor] = [torch.empty(0)] * len(modules)
        for position, module in enumerate(modules):
            hooks.callback(module.register_forward_hook(self._keep(position)).remove)

    def _keep(self, position: int) -> Callable[[nn.Module, Any, Tensor], None]:
        def keep(module: nn.Module, args: Any, output: Tensor) -> None:
            self.values[position] = output

        return keep
