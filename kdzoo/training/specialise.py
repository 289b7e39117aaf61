"""Training specialists from a generalist, and putting them together as one network.

Hinton, Vinyals and Dean 2015, https://arxiv.org/abs/1503.02531, section 5.3: a specialist starts with the generalist's weights, and
learns with half of its images from its own classes and half drawn from all others, which are its dustbin.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdzoo.data.dataset import Subset
from kdzoo.data.epoch import batches
from kdzoo.data.loader import fetch
from kdzoo.data.views import apply_views, draw_views
from kdzoo.errors import InputError
from kdzoo.models.committee import Committee, committee_name
from kdzoo.models.network import Network
from kdzoo.models.specialists import draw_specialist_images, specialist_targets
from kdzoo.runs.recipe import Recipe, steps_per_epoch
from kdzoo.runs.spec import Normalisation
from kdzoo.seeds import generator
from kdzoo.training.optim import learning_rate, optimizer
from kdzoo.training.specialist_recipe import unused_keys


def fresh_specialist(generalist: Network, classes: Sequence[int]) -> nn.Module:
    """The generalist's model with outputs for some classes and, last, a dustbin.

    The rows of its classes are the generalist's; the dustbin's is the mean of the other rows, with the logarithm of their number
    added to its bias: together they had that much. Raises InputError for a classifier that is not a linear layer.
    """
    model = copy.deepcopy(generalist.model)
    heads = [name for name, module in generalist.model.named_modules() if module is generalist.classifier]
    head = generalist.classifier
    if not isinstance(head, nn.Linear) or head.bias is None or generalist.heads != 1:
        raise InputError(f"{type(generalist.model).__name__}: specialists need one linear layer with a bias as classifier")
    own = torch.tensor(classes, device=head.weight.device)
    rest = torch.ones(head.out_features, dtype=torch.bool, device=head.weight.device)
    rest[own] = False
    layer = nn.Linear(head.in_features, len(classes) + 1).to(head.weight)
    with torch.no_grad():
        layer.weight.copy_(torch.cat([head.weight[own], head.weight[rest].mean(0, keepdim=True)]))
        layer.bias.copy_(torch.cat([head.bias[own], head.bias[rest].mean(0, keepdim=True) + math.log(int(rest.sum()))]))
    parent, _, last = heads[0].rpartition(".")
    setattr(model.get_submodule(parent), last, layer)
    return model


def train_specialist(generalist: Network, images: Subset, classes: Sequence[int], recipe: Recipe, seed: int) -> tuple[nn.Module, float]:
    """A specialist trained on cross-entropy, and the correction of its dustbin's logit.

    images: all training images with their labels; of those of other classes it draws anew each epoch. recipe: its epochs, batches,
    optimiser, schedule and augmentation. Raises InputError for keys of it that are not used here, such as `clip` and `mixup`.
    """
    if problems := unused_keys(recipe):
        raise InputError(*problems)
    device = generalist.mean.device
    model = fresh_specialist(generalist, classes).train()
    height, width = images.images.shape[2:]
    diet = draw_specialist_images(images.targets, classes, generator(seed, "specialist's others", 0))
    mean, std = (tuple(part.flatten().tolist()) for part in (generalist.mean, generalist.std))
    norm = Normalisation(mean=mean, std=std)
    each = steps_per_epoch(len(diet.places), recipe.batch_size, drop_last=recipe.drop_last)
    sgd = optimizer(recipe, model)
    for epoch in range(recipe.epochs):
        places = draw_specialist_images(images.targets, classes, generator(seed, "specialist's others", epoch)).places
        targets = specialist_targets(images.targets[places], classes).to(device)
        views = draw_views(recipe.augment, samples=len(places), height=height, width=width, seed=seed, epoch=epoch, norm=norm).to(device)
        order = list(batches(len(places), recipe.batch_size, seed, epoch, drop_last=recipe.drop_last))
        pixels = fetch(images.images, [places[index].to(images.images.device) for index in order], device)
        for number, (index, batch) in enumerate(zip(order, pixels, strict=True), start=epoch * each):
            at = index.to(device)
            inputs: Tensor = generalist.normalise(apply_views(batch, views, at, recipe.augment, on_host=at))
            for group in sgd.param_groups:
                group["lr"] = learning_rate(recipe, number, each * recipe.epochs) * group["lr_factor"]
            sgd.zero_grad()
            F.cross_entropy(model(inputs).float(), targets[at]).backward()  # type: ignore[no-untyped-call]
            sgd.step()
    return model.eval(), diet.correction


def committee(
    generalist: Network, architecture: str, sets: Sequence[Sequence[int]], specialists: Sequence[tuple[nn.Module, float]]
) -> tuple[Network, str]:
    """A generalist and its specialists as one network, which takes images as the generalist does, and its name."""
    name = committee_name(len(sets), len(sets[0]), architecture)
    model = Committee(generalist.model, [one for one, _ in specialists], sets, [correction for _, correction in specialists])
    network = Network(
        model,
        channels=generalist.channels,
        mean=generalist.mean.flatten().tolist(),
        std=generalist.std.flatten().tolist(),
        image_size=generalist.image_size,
    )
    return network.to(generalist.mean.device).eval(), name
