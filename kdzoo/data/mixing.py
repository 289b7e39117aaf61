"""Mixup and CutMix: every sample with the one before it in its batch, at a share drawn for all samples of an epoch.

Of the two images of a mix the one with the larger share counts as the sample, whose index and hard label go on: which of
two images of a shuffled batch is called the first changes no distribution of mixes and their soft labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kdzoo.runs.recipe import Recipe
from kdzoo.seeds import generator, stream


@dataclass(frozen=True)
class MixPlan:
    """How every sample of an epoch is mixed. inside, outside: its weight within the box and elsewhere; box: top, bottom,
    left, right, in pixels of what is seen, empty where there is none; share: of the sample in all, from 0.5 to 1, where
    it is left alone. (N,), (N,), (N, 4), (N,)."""

    inside: Tensor
    outside: Tensor
    box: Tensor
    share: Tensor

    def to(self, device: torch.device) -> MixPlan:
        """The same on a device, from which a batch takes its rows there."""
        return MixPlan(*(part.to(device) for part in (self.inside, self.outside, self.box, self.share)))


def draw_mixes(recipe: Recipe, *, samples: int, height: int, width: int, seed: int, epoch: int) -> MixPlan | None:
    """How all samples of an epoch are mixed, a pure function of (seed, epoch, sample); None where the recipe mixes none.

    height, width: of what is seen. Where a recipe has both, each mixed sample is as likely to have one as the other.
    """
    if not recipe.mixes:
        return None
    random = generator(seed, "mix", epoch)
    is_mixed = torch.rand(samples, generator=random) < recipe.mix_prob
    first = torch.rand(samples, generator=random) < 0.5
    by_mixup = is_mixed & (first if recipe.mixup is not None and recipe.cutmix is not None else recipe.mixup is not None)
    by_cutmix = is_mixed & ~by_mixup
    share = torch.ones(samples, dtype=torch.float64)
    inside, outside = share.clone(), share.clone()
    box = torch.zeros(samples, 4, dtype=torch.int64)
    if recipe.mixup is not None:
        lam = _beta(recipe.mixup, samples, stream(seed, "mixup", epoch))
        share = torch.where(by_mixup, torch.maximum(lam, 1 - lam), share)
        inside, outside = torch.where(by_mixup, share, inside), torch.where(by_mixup, share, outside)
    if recipe.cutmix is not None:
        area = 1 - _beta(recipe.cutmix, samples, stream(seed, "cutmix", epoch))
        box = torch.where(by_cutmix[:, None], _boxes(area, height, width, generator(seed, "cutmix box", epoch)), box)
        area = (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2]) / (height * width)  # what lies within the image
        box_is_larger = by_cutmix & (area > 0.5)
        inside, outside = torch.where(by_cutmix & ~box_is_larger, 0.0, inside), torch.where(box_is_larger, 0.0, outside)
        share = torch.where(by_cutmix, torch.maximum(area, 1 - area), share)
    return MixPlan(inside.float(), outside.float(), box, share.float())


def _beta(alpha: float, samples: int, seed: int) -> Tensor:
    """Draws of Beta(alpha, alpha), (samples,) float64; torch has none from a generator of one's own."""
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).beta(alpha, alpha, samples))


def _boxes(area: Tensor, height: int, width: int, random: torch.Generator) -> Tensor:
    """CutMix's boxes (N, 4) of these shares (N,) of the image, centred anywhere and cut off at borders."""
    edges = []
    for length in (height, width):
        half = torch.div((length * area.sqrt()).long(), 2, rounding_mode="floor")
        centre = torch.randint(length, (len(area),), generator=random)
        edges += [(centre - half).clamp(0, length), (centre + half).clamp(0, length)]
    return torch.stack(edges, dim=1)


def mix(images: Tensor, mixes: MixPlan, index: Tensor) -> Tensor:
    """A batch (B, C, H, W) of its own dtype, each image mixed with the one before it; `index` (B,) says which samples they are."""
    device, (height, width) = images.device, images.shape[-2:]
    top, bottom, left, right = (edge[:, None] for edge in mixes.box[index].to(device).unbind(1))
    y, x = torch.arange(height, device=device), torch.arange(width, device=device)
    in_box = ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None, :]
    inside, outside = (part[index].to(device)[:, None, None] for part in (mixes.inside, mixes.outside))
    weight = torch.where(in_box, inside, outside)[:, None]
    other = images.roll(1, 0).float()
    mixed = (images.float() - other).mul_(weight).add_(other)  # maps are floats themselves, which stay as they are
    return mixed if images.is_floating_point() else mixed.round_().to(torch.uint8)


def soft_targets(targets: Tensor, mixes: MixPlan, index: Tensor, classes: int) -> Tensor:
    """The share of every class in each mix, (B, classes) float32; the share of an image without a label (-1) is no class's."""
    share = mixes.share[index].to(targets.device)
    soft = torch.zeros(len(targets), classes, device=targets.device)
    for labels, part in ((targets, share), (targets.roll(1), 1 - share)):
        soft.scatter_add_(1, labels.clamp(min=0)[:, None], (part * (labels >= 0))[:, None])
    return soft
