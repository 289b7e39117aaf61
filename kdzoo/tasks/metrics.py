"""Balanced accuracy and calibration error, bit for bit as torchmetrics computes them, which takes a second to import."""

from __future__ import annotations

import torch
from torch import Tensor


def balanced_accuracy(predicted: Tensor, targets: Tensor, classes: int) -> float:
    """The mean over classes of the share of their images that are named rightly, for (N,) predictions and targets.

    A class that is named but has no image counts as 0; one that is neither named nor has an image does not count.
    """
    confusion = torch.bincount(targets * classes + predicted, minlength=classes**2).reshape(classes, classes)
    right, images, answers = confusion.diag(), confusion.sum(1), confusion.sum(0)
    shares = torch.where(images > 0, right.float() / images.float(), 0.0)
    counts = (images + answers > 0).float()
    return float((counts * shares / counts.sum()).sum())


def calibration_error(probabilities: Tensor, targets: Tensor, bins: int) -> float:
    """The mean distance of confidence and accuracy over equal bins, weighed by their images (Naeini et al. 2015; Guo et al. 2017).

    probabilities: (N, K); targets: (N,). A bin holds its lower edge, so that a confidence of exactly 1 has a bin of its own.
    """
    confidences, predicted = probabilities.max(dim=1)
    confidences = confidences.float()
    edges = torch.linspace(0, 1, bins + 1, dtype=confidences.dtype, device=confidences.device)
    place = torch.bucketize(confidences, edges, right=True) - 1

    def sums(values: Tensor) -> Tensor:
        return torch.zeros_like(edges).scatter_add_(0, place, values)

    images = sums(torch.ones_like(confidences))
    confidence = torch.nan_to_num(sums(confidences) / images)
    accuracy = torch.nan_to_num(sums((predicted == targets).float()) / images)
    return float(((accuracy - confidence).abs() * (images / images.sum())).sum())
