"""Classification: one label a sample, log-probabilities of K classes; accuracy, likelihood, calibration, agreement with the teacher.

Importing it needs no torch: every metric asks the tensors that it is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdzoo.tasks.task import CHANCE_POWER, CHANCE_SIZE, AgainstChance, Case, ClassList, Metric, Task

if TYPE_CHECKING:
    from torch import Tensor

CALIBRATION_BINS = 15


def loss(logits: Tensor, targets: Tensor, shares: Tensor | None, label_smoothing: float) -> Tensor:
    """Cross-entropy, with the shares of the classes where images are mixed."""
    from kdzoo.tasks.cross_entropy import cross_entropy, soft_cross_entropy  # here, since it imports torch

    return cross_entropy(logits, targets, label_smoothing) if shares is None else soft_cross_entropy(logits, shares, label_smoothing)


def predict(logits: Tensor) -> Tensor:
    """Log-probabilities in float32."""
    return logits.float().log_softmax(1)


def strata(targets: Tensor) -> Tensor:
    """The classes."""
    return targets


def top1(case: Case) -> float:
    return float((case.predictions.argmax(1) == case.targets).double().mean())


def top5(case: Case) -> float | None:
    if case.predictions.shape[1] <= 5:
        return None
    likeliest = case.predictions.topk(5, dim=1).indices
    return float((likeliest == case.targets[:, None]).any(1).double().mean())


def balanced(case: Case) -> float:
    from kdzoo.tasks.metrics import balanced_accuracy  # here, since it imports torch

    return balanced_accuracy(case.predictions.argmax(1), case.targets, case.predictions.shape[1])


def nll(case: Case) -> float:
    return float(-case.predictions.double().gather(1, case.targets[:, None]).mean())


def ece(case: Case) -> float:
    from kdzoo.tasks.metrics import calibration_error

    return calibration_error(case.predictions.exp(), case.targets, CALIBRATION_BINS)


def agreement(case: Case) -> float | None:
    return None if case.teacher is None else float((case.predictions.argmax(1) == case.teacher.argmax(1)).double().mean())


def teacher_kl(case: Case) -> float | None:
    if case.teacher is None:
        return None
    return float((case.teacher.exp() * (case.teacher - case.predictions)).double().sum(1).mean())


def count_classes(case: Case) -> dict[str, list[Any]]:
    """Of each class: its images, how many of them are named wrongly, and the share named rightly (None for a class without images)."""
    classes = case.predictions.shape[1]
    wrong = case.targets[case.predictions.argmax(1) != case.targets]
    images, errors = (labels.bincount(minlength=classes).tolist() for labels in (case.targets, wrong))
    return {
        "images_per_class": images,
        "errors_per_class": errors,
        "accuracy_per_class": [1 - error / count if count else None for error, count in zip(errors, images, strict=True)],
    }


TOP1 = Metric(
    "top1",
    "share of images whose class is named",
    "top-1",
    top1,
    unit="share",
    least=0,
    most=1,
    per_sample=True,
    aliases=("accuracy",),
)
TOP5 = Metric(
    "top5",
    "share of images whose class is among the five likeliest",
    "top-5",
    top5,
    unit="share",
    least=0,
    most=1,
    null="for fewer than six classes",
    per_sample=True,
    in_leaderboard=False,
)
BALANCED = Metric("balanced", "mean over classes of the share named rightly", "balanced", balanced, unit="share", least=0)
"""without an upper bound, since the mean of float32 may be 1.0000001"""
NLL = Metric("nll", "negative log-likelihood, in nats, mean over images", "NLL", nll, unit="nats", better="lower")
ECE = Metric(
    "ece",
    f"expected calibration error over {CALIBRATION_BINS} bins of equal width",
    "ECE",
    ece,
    unit="share",
    better="lower",
    least=0,
)
AGREEMENT = Metric(
    "agreement",
    "share of images on which student and teacher name the same class",
    "agreement",
    agreement,
    unit="share",
    least=0,
    most=1,
    null="without a teacher",
    of_teacher=True,
)
TEACHER_KL = Metric(
    "teacher_kl",
    "KL(teacher || student) in nats, mean over images",
    "KL to teacher",
    teacher_kl,
    unit="nats",
    better="lower",
    null="without a teacher",
    of_teacher=True,
)


def chance(targets: Tensor, classes: int) -> float:
    """The accuracy that always naming the commonest class would reach."""
    return float(targets.bincount(minlength=classes).max()) / len(targets)


def against_chance(log_probs: Tensor, targets: Tensor) -> AgainstChance:
    """How (N, K) log-probabilities stand against always naming the commonest class of (N,) targets."""
    right = int((log_probs.argmax(1) == targets).sum())
    return count_against_chance(TOP1, right, len(targets), chance(targets, log_probs.shape[1]))


def count_against_chance(metric: Metric, right: int, count: int, share: float) -> AgainstChance:
    """How `right` of `count` samples, the value of a metric, stand against the share that chance names rightly."""
    enough = next((k for k in range(count + 1) if binomial_tail(k, count, share) <= CHANCE_SIZE), count + 1)
    return AgainstChance(
        metric,
        value=right / count,
        chance=share,
        samples=count,
        above=right >= enough,
        tells=binomial_tail(enough, count, (1 + share) / 2) >= CHANCE_POWER,
        test=f"binomial test of size {CHANCE_SIZE:g}",
    )


def binomial_tail(k: int, n: int, p: float) -> float:
    """The probability of k successes or more among n, each with probability p."""
    from scipy.special import bdtrc

    return 1.0 if k <= 0 else 0.0 if k > n else float(bdtrc(k - 1, n, p))


CLASSIFICATION = Task(
    "classification",
    metrics=(TOP1, TOP5, BALANCED, NLL, ECE, AGREEMENT, TEACHER_KL),
    headline=TOP1,
    tie_break=NLL,
    loss=loss,
    loss_name="ce",
    predict=predict,
    strata=strata,
    against_chance=against_chance,
    of_classes=True,
    class_lists=(
        ClassList("images_per_class", "test images of each class", "count", since=2),
        ClassList("errors_per_class", "how many of them are named wrongly", "count", since=2),
        ClassList(
            "accuracy_per_class", "share of them that is named rightly; null for a class without test images", "share or null", since=2
        ),
    ),
    count_classes=count_classes,
)
