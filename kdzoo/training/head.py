"""Start a replaced classifier as a logistic regression on the frozen network's embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kdzoo.contract.needs import Need
from kdzoo.data.dataset import Subset
from kdzoo.data.loader import fetch
from kdzoo.data.views import evaluation_view
from kdzoo.models.network import Network
from kdzoo.models.predict import batch_of
from kdzoo.runs.recipe import Augment

INVERSE_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""scikit-learn's C, the inverse of the regularisation's strength, to cross-validate; features have a root mean square of 1"""
USUAL_C = 1e-2
FOLDS = 5
STEPS = 1000


def start_head(network: Network, subset: Subset, augment: Augment, device: torch.device) -> bool:
    """Give a network's classifier the weights of a logistic regression on its embeddings of labelled images; returns whether it could.

    It cannot where the network has several classifiers, or one that is not linear, or where fewer than two classes have a
    labelled image. Only the classifier changes.
    """
    rows = (subset.targets >= 0).nonzero().flatten()
    if len(set(subset.targets[rows].tolist())) < 2:
        return False
    classifier = network.classifier
    if not isinstance(classifier, nn.Linear | nn.Conv2d) or classifier.bias is None or (network.is_timm and network.heads > 1):
        return False
    part = Subset(subset.images[rows.to(subset.images.device)], subset.targets[rows])
    features = embeddings(network, part, augment, device).double().numpy()
    weight, bias = regression(features, part.targets.numpy(), classifier.weight.shape[0])
    with torch.no_grad():
        classifier.weight.copy_(torch.from_numpy(weight).view_as(classifier.weight))
        classifier.bias.copy_(torch.from_numpy(bias))
    return True


@torch.no_grad()
def embeddings(network: Network, subset: Subset, augment: Augment, device: torch.device) -> Tensor:
    """The embeddings (N, D) of a network in evaluation mode of the images as they are seen at evaluation, on the CPU."""
    training = network.training
    network.eval()
    indices = torch.split(torch.arange(len(subset.targets), device=subset.images.device), batch_of(network, subset, augment, device))
    batches = [
        network(evaluation_view(images, augment), Need.EMBEDDING).embedding.float().cpu()
        for images in fetch(subset.images, indices, device)
    ]
    network.train(training)
    return torch.cat(batches)


def regression(features: NDArray[Any], targets: NDArray[Any], classes: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Weights (K, D) and biases (K,) of a logistic regression of targets (N,) on features (N, D), with the cross-validated C.

    A class without a sample has a bias below all others and no weights.
    """
    scale = float(np.sqrt((features**2).mean())) or 1.0
    model = _fit(features / scale, targets, best_c(features / scale, targets))
    weight, bias = np.zeros((classes, features.shape[1])), np.zeros(classes)
    present = model.classes_
    rows, offsets = model.coef_, model.intercept_
    if len(present) == 2:  # scikit-learn keeps the second class's scores less the first's
        rows, offsets = np.concatenate([-rows, rows]) / 2, np.concatenate([-offsets, offsets]) / 2
    weight[present], bias[present] = rows / scale, offsets
    bias[np.setdiff1d(np.arange(classes), present)] = bias.min() - 1
    return weight, bias


def best_c(features: NDArray[Any], targets: NDArray[Any]) -> float:
    """The C with the lowest cross-validated loss; the usual one where a class has a single sample."""
    folds = folds_of(targets)
    if folds < 2:
        return USUAL_C
    losses = {c: -np.log(np.clip(out_of_fold(features, targets, c, folds), 1e-12, None)).mean() for c in INVERSE_STRENGTHS}
    return min(losses, key=lambda c: float(losses[c]))


def folds_of(targets: NDArray[Any]) -> int:
    """How many parts cross-validation can have: five, or as many as the smallest class has samples."""
    return min(FOLDS, int(np.unique(targets, return_counts=True)[1].min()))


def out_of_fold(features: NDArray[Any], targets: NDArray[Any], c: float, folds: int) -> NDArray[Any]:
    """The probability (N,) of each sample's own class under a regression that was not fitted to it."""
    return cross_validated(features, targets, c, folds)[0]


def cross_validated(features: NDArray[Any], targets: NDArray[Any], c: float, folds: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """For each sample, under a regression that was not fitted to it: the probability of its class, and whether that is the largest."""
    from sklearn.model_selection import StratifiedKFold

    own, right = np.zeros(len(targets)), np.zeros(len(targets), dtype=bool)
    for train, held_out in StratifiedKFold(folds, shuffle=True, random_state=0).split(features, targets):
        model = _fit(features[train], targets[train], c)
        probabilities = model.predict_proba(features[held_out])
        own[held_out] = probabilities[np.arange(len(held_out)), np.searchsorted(model.classes_, targets[held_out])]
        right[held_out] = model.classes_[probabilities.argmax(1)] == targets[held_out]
    return own, right


def _fit(features: NDArray[Any], targets: NDArray[Any], c: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, max_iter=STEPS).fit(features, targets)
