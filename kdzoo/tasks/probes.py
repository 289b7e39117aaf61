"""What embeddings are worth without training on them: nearest neighbours, their votes, and a linear probe by ridge regression."""

from __future__ import annotations

import torch
from torch import Tensor

NEIGHBOURS = 20
VOTE_TEMPERATURE = 0.07
"""of the votes of neighbours by their cosines (Wu et al., 2018; DINO, Caron et al., 2021)"""
FOLDS = 5
RIDGE = 1e-2
"""the penalty of the probe, in mean variances of its standardised features"""
QUERIES = 2000
"""samples whose neighbours by two networks are compared"""
OTHERS_PER_NEIGHBOUR = 5
"""others of a sample for each of its nearest that are compared: of few samples any two networks would share most of 20"""
ROWS = 1000
"""queries that are compared with all others at once"""


def nearest(embeddings: Tensor, count: int = NEIGHBOURS, queries: int | None = None) -> tuple[Tensor, Tensor]:
    """Of each of (N, D) embeddings the `count` most alike others by cosine, fewer where there are fewer: indices and cosines (N, k).

    queries: of so many of the first alone; None for all.
    """
    unit = torch.nn.functional.normalize(embeddings.float(), dim=1)
    k = min(count, len(unit) - 1)
    found: list[tuple[Tensor, Tensor]] = []
    for first in range(0, min(queries or len(unit), len(unit)), ROWS):
        cosines = unit[first : first + ROWS] @ unit.T
        rows = torch.arange(len(cosines))
        cosines[rows, first + rows] = -torch.inf
        top = cosines.topk(k, dim=1)
        found.append((top.indices, top.values))
    return torch.cat([indices for indices, _ in found]), torch.cat([values for _, values in found])


def vote(embeddings: Tensor, targets: Tensor) -> Tensor:
    """The class (N,) that each sample's nearest others vote for, each with exp(cosine / 0.07), for embeddings (N, D) and classes (N,)."""
    indices, cosines = nearest(embeddings)
    votes = torch.zeros(len(targets), int(targets.max()) + 1, dtype=torch.float64)
    return votes.scatter_add_(1, targets[indices], (cosines.double() / VOTE_TEMPERATURE).exp()).argmax(1)


def neighbours_compared(samples: int) -> int:
    """How many nearest others of each of so many samples two networks are compared by: NEIGHBOURS, at most a fifth of the others."""
    return min(NEIGHBOURS, max(1, (samples - 1) // OTHERS_PER_NEIGHBOUR))


def neighbours_in_common(embeddings: Tensor, others: Tensor) -> float:
    """Which share of the nearest others of a sample is the same for two networks' embeddings (N, D) and (N, D'), mean over samples.

    Of each sample `neighbours_compared` others. The mean is over the first QUERIES samples, whose others are all; 0 for a sample
    that has none.
    """
    count = neighbours_compared(len(embeddings))
    (ours, _), (theirs, _) = (nearest(one, count, queries=QUERIES) for one in (embeddings, others))
    if not ours.numel():
        return 0.0
    return float((ours[:, :, None] == theirs[:, None, :]).any(2).double().mean())


def probe(embeddings: Tensor, targets: Tensor) -> Tensor:
    """The class (N,) that a linear probe fitted to the other folds names for each sample, for embeddings (N, D) and classes (N,).

    A ridge regression of the classes' indicators on the standardised embeddings; every FOLDS-th sample is in one fold.
    """
    x = embeddings.double()
    x = (x - x.mean(0)) / x.std(0, correction=0).clamp(min=1e-12)
    x = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1)
    y = torch.nn.functional.one_hot(targets, int(targets.max()) + 1).double()
    gram, moments = x.T @ x, x.T @ y
    penalty = torch.full((x.shape[1],), RIDGE * len(x), dtype=torch.float64)
    penalty[-1] = 1e-9  # the constant, which is free but where nothing is left to fit it to
    predictions = torch.empty_like(targets)
    for fold in range(min(FOLDS, len(x))):
        part = slice(fold, None, FOLDS)
        inner, outer = gram - x[part].T @ x[part], moments - x[part].T @ y[part]
        inner.diagonal().add_(penalty)
        predictions[part] = (x[part] @ torch.linalg.solve(inner, outer)).argmax(1)
    return predictions
