"""A generalist and its specialists: which classes belong together, what a specialist learns from, and what all of them say together.

Hinton, Vinyals and Dean 2015, https://arxiv.org/abs/1503.02531, section 5. A specialist names the classes of its own set, and
calls every other class its dustbin, which is the last of its outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdzoo.errors import InputError

ROUNDS = 300
"""steps of `combine`; ten active specialists, which leave 1 - 1/11 of the error each step, come within 1e-12"""


def class_covariance(log_probs: Tensor) -> Tensor:
    """How the probabilities of classes move together over images: the covariance (K, K) float64 of predictions (N, K)."""
    probabilities = log_probs.detach().double().exp()
    return torch.cov(probabilities.T, correction=0)


def confusable_classes(log_probs: Tensor, count: int, size: int, seed: int = 0) -> tuple[tuple[int, ...], ...]:
    """The classes of `count` specialists, `size` each in ascending order, from a generalist's log-probabilities (N, K).

    K-means on the columns of `class_covariance`, as in the paper, which needs no labels. Columns have unit length here: with their own
    length, classes that the generalist seldom names, whose columns are short, lie near every centre, and one set of hard classes
    became the bulk of every specialist. A specialist takes the `size` classes whose columns lie nearest to a cluster's centre, so
    that a class may have no specialist or several, as there (61 specialists of 300 among 15,000 classes). Raises InputError for more
    clusters than classes, and for a specialist of fewer than two classes or of all.
    """
    classes = log_probs.shape[1]
    problems = []
    if not 1 <= count <= classes:
        problems.append(f"count: expected 1 to {classes} specialists for {classes} classes, got {count}")
    if not 2 <= size < classes:
        problems.append(f"size: expected 2 to {classes - 1} of the {classes} classes, got {size}")
    if problems:
        raise InputError(*problems)
    from sklearn.cluster import KMeans

    columns = F.normalize(class_covariance(log_probs), dim=0).T.numpy()
    distances = torch.from_numpy(KMeans(count, n_init=10, random_state=seed).fit(columns).transform(columns))  # (K, count)
    nearest = distances.argsort(dim=0, stable=True)[:size].T
    return tuple(tuple(sorted(row)) for row in nearest.tolist())


def specialist_targets(targets: Tensor, classes: Sequence[int]) -> Tensor:
    """Targets (N,) as a specialist names them: places in `classes`, `len(classes)` for the dustbin."""
    own = torch.tensor(classes, device=targets.device)
    matches = targets[:, None] == own
    return torch.where(matches.any(1), matches.int().argmax(1), len(classes))


@dataclass(frozen=True)
class SpecialistImages:
    """The images that a specialist learns from in an epoch: places (M,) int64 in ascending order.

    correction: what is added to the dustbin's logit after training, the logarithm of how many times more often the
    specialist's own classes were shown than they occur.
    """

    places: Tensor
    correction: float


def draw_specialist_images(targets: Tensor, classes: Sequence[int], generator: torch.Generator) -> SpecialistImages:
    """All images of a specialist's own classes, and as many of the others, drawn without replacement: half and half, as in the paper.

    Where fewer others are left, all of them. targets (N,) on the CPU; raises InputError where one side has no image.
    """
    own = torch.isin(targets, torch.tensor(classes))
    rest = (~own).nonzero().flatten()
    count = int(own.sum())
    if not count or not len(rest):
        raise InputError(f"a specialist needs images of its {len(classes)} classes and of others; there are {count} and {len(rest)}")
    sample = rest[torch.randperm(len(rest), generator=generator)[:count]]
    return SpecialistImages(torch.cat([own.nonzero().flatten(), sample]).sort().values, math.log(len(rest) / len(sample)))


def membership(sets: Sequence[Sequence[int]], classes: int) -> Tensor:
    """Which classes (M, K) bool the specialists have."""
    table = torch.zeros(len(sets), classes, dtype=torch.bool)
    for row, own in zip(table, sets, strict=True):
        row[list(own)] = True
    return table


def active_specialists(generalist: Tensor, sets: Sequence[Sequence[int]]) -> Tensor:
    """Which specialists (N, M) bool are active for an image: those that have the class that the generalist names (N, K)."""
    return membership(sets, generalist.shape[1]).to(generalist.device)[:, generalist.argmax(1)].T


def combine(generalist: Tensor, specialists: Sequence[Tensor], sets: Sequence[Sequence[int]], active: Tensor) -> Tensor:
    """The log-probabilities (N, K) float64 that minimise KL(p_g, q) + sum_m KL(p_m, q) over the active specialists: equation 5.

    generalist (N, K) and specialists (N, len(set) + 1) each: log-probabilities p_g and p_m; KL(p_m, q) compares a specialist with
    what q gives to its classes and, together, to all others. active (N, M) bool. Where no specialist is active, q is p_g.

    As a function of q it is convex, so that there is one minimum. The paper descends the gradient in the logits z of
    q = softmax(z), at temperature 1, for each image. With A active specialists that gradient is (1 + A) (q - r), where r is the
    mean over the generalist and these specialists of their probabilities, each dustbin shared among its classes as q does.
    A step here is q := r, which never raises the objective and has no rate to choose: it is the EM algorithm.
    """
    counts = [len(own) for own in sets]
    shapes = [tuple(log_probs.shape) for log_probs in specialists]
    if shapes != [(len(generalist), count + 1) for count in counts] or active.shape != (len(generalist), len(sets)):
        expectation = f"{len(generalist)} rows with {', '.join(str(count + 1) for count in counts)} columns"
        raise InputError(
            f"combine: expected log-probabilities of {len(sets)} specialists, {expectation}; got {shapes}, {tuple(active.shape)}"
        )
    own = generalist.double().softmax(1)
    weights = active.to(own)
    outside = (~membership(sets, own.shape[1])).to(own)
    scores, dustbin = own.clone(), own.new_zeros(weights.shape)
    for place, (log_probs, classes) in enumerate(zip(specialists, sets, strict=True)):
        probabilities = log_probs.double().softmax(1) * weights[:, place, None]
        scores[:, list(classes)] += probabilities[:, :-1]
        dustbin[:, place] = probabilities[:, -1]
    voices = 1 + weights.sum(1, keepdim=True)
    q = own
    for _ in range(ROUNDS):
        shares = dustbin / (q @ outside.T).clamp_min(torch.finfo(q.dtype).tiny)
        q = (scores + q * (shares @ outside)) / voices
    return q.clamp_min(torch.finfo(q.dtype).tiny).log()


def disagreement(q: Tensor, generalist: Tensor, specialists: Sequence[Tensor], sets: Sequence[Sequence[int]], active: Tensor) -> Tensor:
    """KL(p_g, q) + sum_m KL(p_m, q) of every image (N,) float64, for log-probabilities as `combine` takes them and q (N, K)."""
    total = _kl(generalist.double(), q.double())
    for place, (log_probs, classes) in enumerate(zip(specialists, sets, strict=True)):
        rest = (~membership([classes], q.shape[1])[0]).to(q.device)
        coarse = torch.cat([q.double()[:, list(classes)], q.double()[:, rest].logsumexp(1, keepdim=True)], 1)
        total = total + active[:, place].double() * _kl(log_probs.double(), coarse)
    return total


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p, q) of log-probabilities, row by row."""
    return (p.exp() * (p - q)).sum(1)
