"""Features: a teacher without classes, a student that is a backbone. A network's outputs are its embedding (N, D), of any width.

Nothing is learned of labels: the task's own loss is zero, and a student learns from the terms of methods that read neither labels nor
class scores. Labels of the data, where there are any, tell what an embedding is worth: every image of a part is named by its nearest
others of the same part, and by a linear probe fitted to the other four fifths of it. Importing it needs no torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kdzoo.tasks.classification import chance, count_against_chance
from kdzoo.tasks.task import AgainstChance, Case, Metric, Task

if TYPE_CHECKING:
    from torch import Tensor

SCALED_ON = 2000
"""how many training images the scales of joined teachers are measured on, unless another number is asked for"""


def loss(embedding: Tensor, targets: Tensor, shares: Tensor | None, label_smoothing: float) -> Tensor:
    """Zero, with a gradient of zero."""
    return embedding.float().sum() * 0


def predict(embedding: Tensor) -> Tensor:
    """The embedding in float32."""
    return embedding.float()


def strata(targets: Tensor) -> Tensor:
    """The classes."""
    return targets


def knn(case: Case) -> float:
    from kdzoo.tasks.probes import vote  # here, since it imports torch

    return float((vote(case.predictions, case.targets) == case.targets).double().mean())


def linear_probe(case: Case) -> float:
    from kdzoo.tasks.probes import probe

    return float((probe(case.predictions, case.targets) == case.targets).double().mean())


def neighbours(case: Case) -> float | None:
    from kdzoo.tasks.probes import neighbours_in_common

    return None if case.teacher is None else neighbours_in_common(case.predictions, case.teacher)


KNN = Metric(
    "knn",
    "share of images whose class is that of their 20 nearest others by cosine, each with exp(cosine / 0.07) votes",
    "top-1 (kNN)",
    knn,
    unit="share",
    least=0,
    most=1,
    per_sample=True,
)
PROBE = Metric(
    "probe",
    "share of images whose class a ridge regression names that is fitted to the embeddings of the other four fifths",
    "top-1 (probe)",
    linear_probe,
    unit="share",
    least=0,
    most=1,
    per_sample=True,
)
NEIGHBOURS = Metric(
    "neighbours",
    "share of an image's 20 nearest others (a fifth of them where there are fewer than 100) that are the same by the teacher's "
    "embeddings, mean over the first 2,000",
    "neighbours",
    neighbours,
    unit="share",
    least=0,
    most=1,
    null="without a teacher",
    of_teacher=True,
)


def against_chance(embeddings: Tensor, targets: Tensor) -> AgainstChance:
    """How the votes of nearest others stand against always naming the commonest class of (N,) targets."""
    from kdzoo.tasks.probes import vote

    right = int((vote(embeddings, targets) == targets).sum())
    return count_against_chance(KNN, right, len(targets), chance(targets, int(targets.max()) + 1))


def not_all_alike(embeddings: Tensor, targets: Tensor) -> AgainstChance:
    """Whether embeddings differ between images at all: without labels nothing else can be asked of a teacher."""
    spread = float((embeddings - embeddings.mean(0)).abs().max())
    return AgainstChance(NEIGHBOURS, value=1.0, chance=0.0, samples=len(embeddings), above=spread > 0, tells=True, test="embeddings differ")


FEATURES = Task(
    "features",
    metrics=(KNN, PROBE, NEIGHBOURS),
    headline=KNN,
    tie_break=PROBE,
    loss=loss,
    loss_name="nothing",
    predict=predict,
    strata=strata,
    against_chance=against_chance,
    of_features=True,
)
"""on images with labels, which are looked at in evaluation alone"""

UNLABELLED = replace(
    FEATURES, name="unlabelled_features", metrics=(NEIGHBOURS,), headline=NEIGHBOURS, tie_break=None, against_chance=not_all_alike
)
"""on images without labels: what can be measured is how the student agrees with its teacher"""
