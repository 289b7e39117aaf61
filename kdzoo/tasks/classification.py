"""What is measured of a network's log-probabilities: accuracy, likelihood, calibration, agreement with the teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdzoo.tasks.metrics import balanced_accuracy, calibration_error

CALIBRATION_BINS = 15
CHANCE_SIZE = 1e-3
"""the size of the test against chance: so often a network that only names the commonest class passes for one that knows more"""
CHANCE_POWER = 0.99
"""how often a network half-way between chance and perfection must pass the test, for its verdict to count"""

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
        "balanced": balanced_accuracy(predicted, targets, classes),
        "nll": float(-log_probs.double().gather(1, targets[:, None]).mean()),
        "ece": calibration_error(log_probs.exp(), targets, CALIBRATION_BINS),
        "n": len(targets),
        "agreement": agreement,
        "teacher_kl": kl,
    }


def per_class(log_probs: Tensor, targets: Tensor) -> dict[str, list[Any]]:
    """Of each class: its images among (N,) targets, how many of them (N, K) log-probabilities name wrongly, and the share named rightly.

    The share is None for a class without images.
    """
    classes = log_probs.shape[1]
    wrong = targets[log_probs.argmax(1) != targets]
    images, errors = (torch.bincount(labels, minlength=classes).tolist() for labels in (targets, wrong))
    return {
        "images_per_class": images,
        "errors_per_class": errors,
        "accuracy_per_class": [1 - error / count if count else None for error, count in zip(errors, images, strict=True)],
    }


def chance(targets: Tensor, classes: int) -> float:
    """The top-1 that always naming the commonest class would reach."""
    return float(torch.bincount(targets, minlength=classes).max()) / len(targets)


@dataclass(frozen=True)
class AgainstChance:
    """A network's top-1 beside the share of the commonest class, on so many images.

    above: whether naming the commonest class reaches as much with a probability of at most CHANCE_SIZE (the binomial tail).
    tells: whether the images are enough for that: a network half-way between chance and 1 passes with CHANCE_POWER.
    """

    top1: float
    chance: float
    images: int
    above: bool
    tells: bool


def against_chance(log_probs: Tensor, targets: Tensor) -> AgainstChance:
    """How (N, K) log-probabilities stand against always naming the commonest class of (N,) targets."""
    count, share = len(targets), chance(targets, log_probs.shape[1])
    right = int((log_probs.argmax(1) == targets).sum())
    enough = next((k for k in range(count + 1) if binomial_tail(k, count, share) <= CHANCE_SIZE), count + 1)
    return AgainstChance(
        top1=right / count,
        chance=share,
        images=count,
        above=right >= enough,
        tells=binomial_tail(enough, count, (1 + share) / 2) >= CHANCE_POWER,
    )


def binomial_tail(k: int, n: int, p: float) -> float:
    """The probability of k successes or more among n, each with probability p."""
    from scipy.special import bdtrc

    return 1.0 if k <= 0 else 0.0 if k > n else float(bdtrc(k - 1, n, p))
