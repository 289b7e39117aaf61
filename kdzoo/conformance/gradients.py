"""Checks of where a loss sends its gradient, and that it is the derivative."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError
from torch.overrides import TorchFunctionMode

from kdzoo.conformance.case import Case, Fault, backward, case, tensors_of
from kdzoo.contract.method import Method
from kdzoo.contract.needs import PER_SAMPLE
from kdzoo.text import first_line


def gradient_reaches_the_student(method: Method) -> None:
    trial = case(method)
    backward(trial)
    declared = [need for need in PER_SAMPLE if need in method.card.needs.student]
    reached = [need for need in declared if any(t.grad is not None and bool(t.grad.any()) for t in tensors_of(trial.student[need]))]
    if declared and not reached:
        names = " and ".join(f"student.{str(need.name).lower()}" for need in declared)
        raise Fault(f"no gradient reaches {names}: is it detached (.detach(), torch.no_grad(), .argmax()), or not used?")


def gradient_reaches_every_built_parameter(method: Method) -> None:
    trial = case(method)
    backward(trial)
    idle = [name for name, p in trial.module.named_parameters() if p.requires_grad and p.grad is None]
    if idle:
        raise Fault(f"no gradient reaches {', '.join(idle)} of what build() made: use them in loss(), or do not build them")


def no_gradient_reaches_the_teacher(method: Method) -> None:
    trial = case(method)
    backward(trial)
    for need in PER_SAMPLE:
        if any(t.grad is not None and bool(t.grad.any()) for t in tensors_of(trial.teacher[need])):
            name = str(need.name).lower()
            raise Fault(f"the teacher received a gradient through its {name}: detach it, teacher.{name}.detach()")


def gradient_is_right(method: Method) -> None:
    trial = _for_differences(method)
    declared = [need for need in PER_SAMPLE if need in method.card.needs.student]
    tensors = [t for need in declared for t in tensors_of(trial.student[need])]

    def loss(*inputs: Tensor) -> Tensor:
        values = (value.to(tensors[0].dtype) for value in inputs)
        for need in declared:
            value = trial.student[need]
            trial.student[need] = [next(values) for _ in value] if isinstance(value, list) else next(values)
        with constants:
            return trial.loss().double()

    constants: AbstractContextManager[object] = FrozenDetach() if method.card.detaches else nullcontext()
    exact = tensors[0].dtype == torch.float64
    eps, atol, rtol = (1e-6, 1e-4, 1e-3) if exact else (1e-3, 1e-3 * max(1.0, abs(trial.loss().item())), 5e-2)
    inputs = [t.detach().double().requires_grad_() for t in tensors]
    try:
        torch.autograd.gradcheck(loss, inputs, eps=eps, atol=atol, rtol=rtol, fast_mode=True, nondet_tol=1e-12)
    except GradcheckError as error:
        raise Fault(
            "the gradient is not the derivative of the loss: is a part of the student detached? (register it with detaches=... where that "
            f"is intended; torch.autograd.gradcheck: {first_line(error).rstrip(',')})"
        ) from error


class FrozenDetach(TorchFunctionMode):
    """Gives back, call by call, what `detach` gave in the first block: constants that numerical differences must not move.

    For methods registered with `detaches`: the derivative to compare theirs with is the one in which what they detach is constant.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first: list[Tensor] | None = None
        self.constants: list[Tensor] = []
        self.calls = 0

    def __enter__(self) -> None:
        self.constants, self.calls = ([], 0) if self.first is None else (self.first, 0)
        super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: object) -> None:
        self.first = self.constants
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.detach:
            return func(*args, **(kwargs or {}))
        if self.first is None:
            self.constants.append(func(*args).clone())
        self.calls += 1
        return self.constants[self.calls - 1]


def _for_differences(method: Method) -> Case:
    """A small case in evaluation mode and float64 for gradcheck; in float32 for a method that computes in float32 whatever comes in."""
    for dtype in (torch.float64, torch.float32):
        trial = case(method, batch=3, dtype=dtype)
        trial.module.to(dtype).eval()
        for buffer in trial.module.buffers():
            if buffer.is_floating_point() and buffer.ndim == 0:
                buffer.fill_(1.0)  # constants that the first batch would set, and that numerical differences must not move
        try:
            if trial.loss().dtype == dtype:
                return trial
        except RuntimeError:  # it makes float32 tensors, and its module is float64; any other fault shows again in float32
            continue
    return trial
