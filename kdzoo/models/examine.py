"""What a network that has just been built gives: found by forwards that leave it as it is."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kdzoo.errors import InputError
from kdzoo.models import generic
from kdzoo.models.network import Gives, Network
from kdzoo.models.zoo._staged import StagedNetwork

Head = Literal["kept", "fresh"]
SUMS_TO_ONE = 1e-5
"""how far from 1 the sum of a row of probabilities in float32 may be"""
STEM = re.compile(r"^(stem|conv_stem|act1|act2|bn1|conv_?0|conv1|level0|features\.(norm0|conv0|conv1_1)|conv2d_2b|Conv2d_2b)")
"""the first entries of feature_info that are a stem's output, not a stage's"""


def examine(network: Network, x: Tensor, *, name: str, classes: int | None, head: Head) -> None:
    """Find which outputs are stages (the last map of each resolution, the stem left out), and what the model gives.

    x: what the model itself takes, several samples. classes: how many class scores are expected; None for any number, 0
    for a backbone, which gives an embedding of any width.
    Raises InputError for a model that gives no class scores of the classes that are asked for, and for one that is about
    to be trained and ends in a softmax.
    """
    if network.is_timm:
        _find_taps(network, x)
        output = _trial(network, lambda: network._forward_stages(x)[0], name)
    else:
        network.layout = _trial(network, lambda: generic.find_layout(network.model, lambda: network.model(x)), name)
        output = generic.scores_of(_trial(network, lambda: network.model(x), name), name)
    refuse_shape(output, classes, name)
    network.gives = "scores" if classes == 0 else kind_of_scores(output)
    if head == "kept":
        return
    if network.gives == "probabilities":
        raise InputError(f"{name}: its forward ends in a softmax; a network that is trained must return class scores: remove the softmax")
    if not network.is_timm:
        learner = copy.deepcopy(network)
        in_training = _trial(learner, lambda: learner.model.train()(x), name)
        refuse_shape(generic.scores_of(in_training, name), classes, name)


def _find_taps(network: Network, x: Tensor) -> None:
    """Which of a timm network's outputs are its stages; of a network of the literature all that the literature taps."""
    info = network.model.feature_info
    entries: Sequence[dict[str, Any]] = info if isinstance(info, list) else info.info  # type: ignore[union-attr,assignment]
    maps = quietly(network, lambda: network.model.forward_intermediates(x[:2], intermediates_only=True))  # type: ignore[operator]
    if isinstance(network.model, StagedNetwork):
        network.taps = list(range(len(maps)))
        return
    names = [str(entry.get("module", "")) for entry in entries]
    candidates = [
        (position, tuple(m.shape[-2:]))
        for position, m in enumerate(maps)
        if m.ndim == 4 and not (position < len(names) and STEM.match(names[position]))
    ]
    network.taps = [p for p, size in candidates if not any(later > p and s == size for later, s in candidates)] or [len(maps) - 1]


def _trial(network: Network, act: Callable[[], Any], name: str) -> Any:
    """A trial forward; raises InputError for whatever a model raises in it."""
    try:
        return quietly(network, act)
    except InputError:
        raise
    except Exception as error:  # a user's own code may raise anything
        raise InputError(f"{name}: a forward pass on a trial image fails: {type(error).__name__}: {error}") from error


def refuse_shape(output: Tensor, classes: int | None, name: str) -> None:
    """Raises InputError for an output (N, ...) that is not one score per class."""
    if output.ndim == 2 and output.shape[1] == (classes or max(output.shape[1], 2)):
        return
    if classes == 0:
        raise InputError(f"{name}: its output has the shape {tuple(output.shape[1:])} per image; expected an embedding (D,), D > 1")
    if output.ndim == 1 or tuple(output.shape[1:]) == (1,):
        hint = "; two classes need one score each" if classes in (None, 2) else ""
        raise InputError(f"{name}: its output is one number per image; expected {classes or 'several'} class scores{hint}")
    got = f"{output.shape[1]} values" if output.ndim == 2 else f"values of shape {tuple(output.shape[1:])}"
    raise InputError(f"{name}: its output is {got} per image; expected {classes or '(K,)'}, one score per class of the data")


def kind_of_scores(rows: Tensor) -> Gives:
    """Whether rows (N, K) are class scores, probabilities (none negative, each row sums to 1), or logarithms of such."""
    rows = rows.detach().double()
    if bool((rows >= 0).all()) and bool(((rows.sum(1) - 1).abs() < SUMS_TO_ONE).all()):
        return "probabilities"
    if bool((rows <= 0).all()) and bool(((rows.exp().sum(1) - 1).abs() < SUMS_TO_ONE).all()):
        return "log-probabilities"
    return "scores"


def quietly(network: nn.Module, act: Callable[[], Any]) -> Any:
    """Do something in evaluation mode, without gradients and without a draw from the global generator."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return act()
    except RuntimeError as error:
        name = type(getattr(network, "model", network)).__name__
        raise InputError(f"{name}: a forward pass on an image of this size fails: {error}") from error
    finally:
        for module, mode in modes:
            module.training = mode
