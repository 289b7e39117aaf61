"""What is measured of a network's log-probabilities: accuracy, likelihood, calibration, agreement with the teacher."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

CALIBRATION_BINS = 15

Metrics = dict[str, float | int | None]


def measure(log_probs: Tensor, targets: Tensor, teacher_log_probs: Tensor | None = None) -> Metrics:
    """Every metric of (N, K) log-probabilities against (N,) targets, each a mean over the N samples.

    top1, top5 (None for fewer than six classes): shares. balanced: the mean over classes of the share right.
    nll: in nats. ece: expected calibration error over 15 equal bins. agreement: the share of samples on which student
    and teacher name the same class; teacher_kl: KL(teacher || student) in nats; both None without a teacher.
    """
    classes = log_probs.shape[1]
    predicted = log_probs.argmax(1)
    best5 = log_probs.topk(5, dim=1).indices if classes > 5 else None
    agreement = kl = None
    if teacher_log_probs is not None:
        agreement = float((predicted == teacher_log_probs.argmax(1)).double().mean())
        kl = float((teacher_log_probs.exp() * (teacher_log_probs - log_probs)).double().sum(1).mean())
    return {
        "top1": float((predicted == targets).double().mean()),
        "top5": None if best5 is None else float((best5 == targets[:, None]).any(1).double().mean()),
        "balanced": float(multiclass_accuracy(predicted, targets, num_classes=classes, average="macro", validate_args=False)),
        "nll": float(-log_probs.double().gather(1, targets[:, None]).mean()),
        "ece": float(
            multiclass_calibration_error(log_probs.exp(), targets, num_classes=classes, n_bins=CALIBRATION_BINS, validate_args=False)
        ),
        "n": len(targets),
        "agreement": agreement,
        "teacher_kl": kl,
    }


def chance(targets: Tensor, classes: int) -> float:
    """The top-1 that always naming the commonest class would reach."""
    return float(torch.bincount(targets, minlength=classes).max()) / len(targets)


def above_chance(top1: float, targets: Tensor, classes: int) -> bool:
    """Whether `top1` is more than three standard errors above always naming the commonest class."""
    p = chance(targets, classes)
    return bool(top1 > p + 3 * (p * (1 - p) / len(targets)) ** 0.5)
