"""Checks of what a loss is: finite, float32 at least, at any size, scale and precision, zero where it says so, continuous in alpha."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from kdzoo.conformance.case import CLASSES, STUDENT, TEACHER, Fault, backward, case, tensors_of
from kdzoo.contract.method import LossWithAux, Method
from kdzoo.contract.needs import PER_SAMPLE, Need
from kdzoo.contract.objective import Objective, Term
from kdzoo.contract.shapes import Shapes, StageShape


def is_a_finite_scalar(method: Method) -> None:
    loss = case(method).loss()
    if loss.dtype not in (torch.float32, torch.float64):
        raise Fault(f"expected float32 or float64, got {loss.dtype}: compute in float32, for example with student.logits.float()")
    if not torch.isfinite(loss):
        raise Fault(
            f"the loss of random logits and maps around zero is {loss.item()}: is there a log, a root or a division of something that is "
            "zero or negative?"
        )


def survives_large_logits(method: Method) -> None:
    for scale in (1e2, 1e4):
        trial = case(method, scale=scale)
        loss = backward(trial)
        gradients = [t.grad for t in tensors_of(trial.student[Need.LOGITS]) if t.grad is not None]
        if not torch.isfinite(loss) or not all(bool(torch.isfinite(g).all()) for g in gradients):
            raise Fault(
                f"logits of {scale:g} give NaN or infinity: write F.log_softmax(x) instead of F.softmax(x).log(), x.logsumexp() instead of "
                "x.exp().sum().log()"
            )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def returns_float32_from_half_precision(method: Method) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        loss = case(method, dtype=dtype).loss()
        if loss.dtype not in (torch.float32, torch.float64):
            raise Fault(
                f"outputs in {_short(dtype)} give a loss in {_short(loss.dtype)}: convert first, for example student.logits.float()"
            )
        if not torch.isfinite(loss):
            raise Fault(f"outputs in {_short(dtype)} give the loss {loss.item()}: convert first, for example student.logits.float()")


def returns_float32_under_autocast(method: Method) -> None:
    trial = case(method)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = trial.loss()
    if loss.dtype not in (torch.float32, torch.float64):
        raise Fault(f"under autocast the loss is {_short(loss.dtype)}: convert the result of matrix products, for example (a @ b).float()")
    if not torch.isfinite(loss):
        raise Fault(f"under autocast the loss is {loss.item()}")


def has_a_finite_gradient_everywhere(method: Method) -> None:
    """Where student and teacher are equal, for a batch of one repeated image, and for all-zero maps and vectors, as from a dead ReLU."""
    for words, change in DEGENERATE.items():
        trial = case(method, student=TEACHER, teacher=TEACHER)
        for need in PER_SAMPLE:
            changed = [
                change(s, t).detach().requires_grad_()
                for s, t in zip(tensors_of(trial.student[need]), tensors_of(trial.teacher[need]), strict=True)
            ]
            trial.student[need] = changed if isinstance(trial.student[need], list) else changed[0]
        loss = backward(trial)
        gradients = [t.grad for need in PER_SAMPLE for t in tensors_of(trial.student[need]) if t.grad is not None]
        if not torch.isfinite(loss) or not all(bool(torch.isfinite(g).all()) for g in gradients):
            raise Fault(
                f"where {words} its loss or gradient is NaN or infinite: keep sqrt, log, norms and divisions away from zero, "
                "for example with .clamp(min=1e-12)"
            )


DEGENERATE: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "the student agrees with the teacher": lambda student, teacher: teacher.clone(),
    "all images of the batch look the same to the student": lambda student, teacher: student[:1].expand_as(student).clone(),
    "the student's outputs are all zero": lambda student, teacher: torch.zeros_like(student),
}


def takes_batches_of_any_size(method: Method) -> None:
    for batch in (2, 7, 16):
        loss = case(method, batch=batch).loss()
        if not torch.isfinite(loss):
            raise Fault(f"a batch of {batch} gives the loss {loss.item()}")


def takes_equal_and_different_shapes(method: Method) -> None:
    flat = Shapes(CLASSES, 4, (StageShape(3, 6, 10, 1), StageShape(4, 3, 5, 2)))
    for student, teacher in ((TEACHER, TEACHER), (TEACHER, STUDENT), (flat, flat)):
        loss = case(method, student=student, teacher=teacher).loss()
        if not torch.isfinite(loss):
            raise Fault(f"stages {student.stages} under {teacher.stages} give the loss {loss.item()}")


def is_zero_at_match(method: Method) -> None:
    trial = case(method, student=TEACHER, teacher=TEACHER)
    for need in PER_SAMPLE:
        trial.student[need] = copy.deepcopy(trial.teacher[need])
    loss = trial.distilled()
    if abs(loss.item()) > 1e-6:
        raise Fault(
            f"zero_at_match=True is declared, but the loss is {loss.item():g} where student and teacher agree: "
            "leave it out, or fix the loss"
        )


def is_a_mean_over_samples(method: Method) -> None:
    """The losses of two parts of a batch, weighed by their sizes, add up to that of the whole."""
    whole, parts = _loss_of_rows(method, slice(0, 8)), [_loss_of_rows(method, rows) for rows in (slice(0, 3), slice(3, 8))]
    if not torch.allclose(whole, (3 * parts[0] + 5 * parts[1]) / 8, rtol=1e-4, atol=1e-7):
        raise Fault(
            f"per_sample=True is declared, but the loss of 8 samples is {whole.tolist()}, and those of 3 and 5 of them are "
            f"{parts[0].tolist()} and {parts[1].tolist()}: leave it out, unless the loss is a mean over samples"
        )


def _loss_of_rows(method: Method, rows: slice) -> Tensor:
    """The loss of some rows of one batch of 8, and the auxiliary loss where there is one."""
    trial = case(method, batch=8)
    student, teacher, batch = trial.inputs()

    def cut(tensor: Tensor) -> Tensor:
        return tensor[rows]

    result = method.loss(student.map(cut), teacher.map(cut), batch.map(cut), trial.module)
    return torch.stack(list(result)) if isinstance(result, LossWithAux) else result[None]


def is_continuous_in_alpha(method: Method) -> None:
    """Near each end of an alpha grid the weighted sum is near what it is at that end."""
    at_0, at_1 = _weighted(method, 0.0), _weighted(method, 1.0)
    for alpha, limit in ((1e-7, at_0), (1 - 1e-7, at_1)):
        total = _weighted(method, alpha)
        if not abs(total - limit) <= 1e-4 * max(1.0, abs(at_0), abs(at_1)):
            raise Fault(f"alpha = {alpha:g} gives {total:g}, but its limit is {limit:g}: the loss jumps at the end of an alpha grid")


def _weighted(method: Method, alpha: float) -> float:
    """The real weighted sum (1 - alpha) CE + alpha scale D of one batch."""
    trial = case(method)
    terms = [Term(method, alpha * method.card.scale)] if alpha else []
    stages = [(i, i) for i in range(len(STUDENT.stages))]
    objective = Objective(1 - alpha, terms, {method.card.name: trial.module}, stages=stages, label_smoothing=0.0, seed=0)
    student, teacher, batch = trial.inputs()
    return float(objective(student, teacher, batch).total.item())
