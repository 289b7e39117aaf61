"""Biases of single classes, chosen after training on data that is not the test set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdzoo.errors import InputError

ROUNDS = 100
"""how often every bias is looked at again at most; it ends as soon as a round changes none"""


def calibrate_biases(logits: Any, targets: Any, classes: Sequence[int]) -> Tensor:
    """The biases, one for each of `classes`, that make the most predictions right when they are added to these classes' logits.

    logits (N, K), class scores or log-probabilities; targets (N,), class numbers; both tensors or arrays. Returns float64
    (len(classes),); `logits[:, classes] += biases` applies it, to any logits of the same network.

    For classes that were missing from the transfer set: a student knows them from the teacher's soft targets, but its
    biases for them are too low (Hinton et al. 2015, https://arxiv.org/abs/1503.02531, section 3). The paper chooses the
    bias that makes the fewest errors on the test set. The criterion is the same here; the data must be others: training
    images that were held out with their labels, or any images with the teacher's predictions as targets. The number of
    errors, and not the bias at which a class is predicted as often as it occurs: a class that the student confuses with
    another would be predicted for images of that other one, only to reach its number.

    One bias is the exact optimum: 0 where none is better, else the middle of the best interval, the nearest to 0 of
    several. Of several biases, all are moved together to their optimum, as in the paper, then each alone given the
    others, until neither helps any more. Raises InputError for other shapes, logits that are not finite, and a class
    without an example in the targets.
    """
    scores, labels = torch.as_tensor(logits).detach().double(), torch.as_tensor(targets)
    _refuse(scores, labels, classes)
    scores, labels = scores.cpu(), labels.cpu().long()
    biases = torch.zeros(scores.shape[1], dtype=torch.float64)
    groups = [list(classes), *([label] for label in classes)]
    for _ in range(ROUNDS):
        before = biases.clone()
        for group in (one for one in groups if len(one) < len(biases)):  # moving every class moves none
            biases[group] += _best_shift(scores + biases, labels, group)
        if torch.equal(before, biases):
            break
    return biases[list(classes)]


def _best_shift(scores: Tensor, labels: Tensor, group: Sequence[int]) -> float:
    """The offset on the scores of a group of classes with which most predictions are right; 0 where no other is better.

    A sample is given to the group once the shift exceeds its margin, the best score outside the group less the best one in
    it. Between two margins next to each other every shift gives the same predictions.
    """
    inside = torch.zeros(scores.shape[1], dtype=torch.bool)
    inside[list(group)] = True
    without, best = scores.masked_fill(inside, -torch.inf).max(1)
    within, instead = scores.masked_fill(~inside, -torch.inf).max(1)
    margins, order = (without - within).sort()
    gain = (instead == labels).long() - (best == labels).long()
    outside = (best == labels).sum()[None]
    right = torch.cat([outside, outside + gain[order].cumsum(0)])  # with the first n samples given to the group
    edges = torch.cat([margins.new_tensor([-torch.inf]), margins, margins.new_tensor([torch.inf])])
    lows, highs = edges[:-1], edges[1:]
    real = highs > lows  # samples of one margin change together
    current = int((scores.argmax(1) == labels).sum())  # as the scores are read: of equal ones, the first class counts
    top = int(right[real].max())
    if top <= current:
        return 0.0
    shifts = [_middle(float(low), float(high)) for low, high in zip(lows[real & (right == top)], highs[real & (right == top)], strict=True)]
    return min(shifts, key=abs)


def _middle(low: float, high: float) -> float:
    """The middle of an interval; of one without an end, 1 beyond the end that it has."""
    if low == -torch.inf:
        return high - 1.0
    return low + 1.0 if high == torch.inf else (low + high) / 2


def _refuse(scores: Tensor, labels: Tensor, classes: Sequence[int]) -> None:
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or labels.is_floating_point() or not len(labels):
        shapes = f"{tuple(scores.shape)} and {tuple(labels.shape)} of {labels.dtype}"
        raise InputError(f"calibrate_biases: expected logits (N, K) and N class numbers, got {shapes}")
    problems = []
    expectation = f"expected class numbers from 0 to {scores.shape[1] - 1}"
    if not bool(torch.isfinite(scores).all()):
        problems.append("logits: expected finite numbers, got NaN or infinities")
    if strange := sorted(label for label in set(labels.tolist()) if not 0 <= label < scores.shape[1]):
        problems.append(f"targets: {expectation}, got {strange}")
    if not len(classes) or len(set(classes)) < len(classes):
        problems.append(f"classes: expected at least one class and none twice, got {list(classes)}")
    for label in classes:
        if not 0 <= label < scores.shape[1]:
            problems.append(f"classes: {expectation}, got {label}")
        elif not bool((labels == label).any()):
            problems.append(f"class {label} has no example among the targets, so that its bias cannot be chosen")
    if problems:
        raise InputError(*[f"calibrate_biases: {problem}" for problem in problems])
