"""Augmentation as a pure function of (seed, epoch, sample): the parameters are drawn for all samples at once.

How a sample looks therefore depends neither on its batch nor on where training was resumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from kdzoo.data.network_input import centre
from kdzoo.data.operations import (
    FULL,
    OPERATIONS,
    apply_operation,
    brightness,
    contrast,
    cutout,
    erase,
    erase_with_noise,
    mask_stripes,
    saturation,
    shift_columns,
)
from kdzoo.data.policy import apply_policy
from kdzoo.runs.recipe import Augment, Recipe
from kdzoo.runs.spec import Normalisation
from kdzoo.seeds import generator

ASPECT = (3 / 4, 4 / 3)
COLOURS = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
"""the fields of Augment that change colours and what they do, in this order"""

ERASED = (0.02, 1 / 3)
"""the share of an image that is erased"""
ERASED_ASPECT = (0.3, 1 / 0.3)
ATTEMPTS = 10
"""how often a rectangle that fits into the image is looked for; where none is found, nothing is erased"""
MOST_SEED = 2**63 - 1

MAGNITUDES = 30
"""the magnitude at which RandAugment's operations are at their strongest"""


@dataclass(frozen=True)
class Views:
    """How every sample of an epoch looks. top, left: the crop's corner, in pixels of the padded image or of the image;
    height, width: its size in pixels (None where it is the image's own); flip: mirrored from left to right. Each (N,).

    What is not asked for is None or empty. colours: a factor (N,) for each of COLOURS. operations, levels: places in
    OPERATIONS and how strongly, from -1 to 1, (N, rounds). cut: the row and column of cutout's centre, (N, 2). policy: the seed of
    each sample's draws of timm's policy, (N,). rectangles: what is erased, top, bottom, left, right, empty where none is,
    (N, 4); noise: the seed of what they are filled with, (N,). norm: the mean, and deviation, that a policy or erasing fills with.
    shift: columns to the right, (N,). masks: the first row and the end of a mask over bands, the first column and the end of one over
    time, (N, 4)."""

    top: Tensor
    left: Tensor
    flip: Tensor
    height: Tensor | None = None
    width: Tensor | None = None
    colours: Mapping[str, Tensor] = field(default_factory=dict)
    operations: Tensor | None = None
    levels: Tensor | None = None
    cut: Tensor | None = None
    policy: Tensor | None = None
    rectangles: Tensor | None = None
    noise: Tensor | None = None
    norm: Normalisation | None = None
    shift: Tensor | None = None
    masks: Tensor | None = None

    def to(self, device: torch.device) -> Views:
        """The same on a device, from which a batch takes its rows there; but for operations and seeds, which are read on the CPU."""
        tensors = {
            name: value.to(device)
            for name in ("top", "left", "flip", "height", "width", "cut", "rectangles", "shift", "masks")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **tensors, colours={name: factor.to(device) for name, factor in self.colours.items()})


def draw_views(
    augment: Augment,
    *,
    samples: int,
    height: int,
    width: int,
    seed: int,
    epoch: int,
    stream: str = "view",
    norm: Normalisation | None = None,
) -> Views:
    """The views of all samples in an epoch; streams of other names are independent, and so is each kind of augmentation.

    norm: the mean and deviation of the data; raises ValueError where there are none and `augment` fills with them.
    """
    if norm is None and (augment.auto_augment or augment.erase):
        raise ValueError("augment.auto_augment and augment.erase need the mean of the data, which they fill with")
    crops = _draw_crops(augment, samples, height, width, generator(seed, stream, epoch))
    colours = {}
    for name in (name for name in COLOURS if getattr(augment, name)):
        strength = getattr(augment, name)
        low = max(0.0, 1 - strength)
        colours[name] = low + (1 + strength - low) * torch.rand(samples, generator=generator(seed, stream, name, epoch))
    operations = levels = cutout_centre = None
    if augment.randaugment:
        random = generator(seed, stream, "randaugment", epoch)
        operations = torch.randint(len(OPERATIONS), (samples, augment.randaugment), generator=random)
        signs = 1 - 2 * torch.randint(2, (samples, augment.randaugment), generator=random)
        levels = signs * (augment.magnitude / MAGNITUDES)
    if augment.cutout:
        random = generator(seed, stream, "cutout", epoch)
        cutout_centre = torch.stack(
            [torch.randint(side, (samples,), generator=random) for side in output_shape(augment, height, width)], dim=1
        )
    policy = rectangles = noise = None
    if augment.auto_augment:
        policy = torch.randint(MOST_SEED, (samples,), generator=generator(seed, stream, "auto_augment", epoch))
    if augment.erase:
        sides = output_shape(augment, height, width)
        rectangles = _draw_rectangles(augment.erase, *sides, samples, generator(seed, stream, "erase", epoch))
    if augment.erase and augment.erase_fill == "noise":
        noise = torch.randint(MOST_SEED, (samples,), generator=generator(seed, stream, "erase noise", epoch))
    shift = masks = None
    if augment.time_shift:
        reach = 2 * augment.time_shift + 1
        shift = torch.randint(reach, (samples,), generator=generator(seed, stream, "time shift", epoch)) - augment.time_shift
    if augment.time_mask or augment.band_mask:
        random = generator(seed, stream, "masks", epoch)
        sides = output_shape(augment, height, width)
        mosts = (augment.band_mask, augment.time_mask)
        masks = torch.cat([_draw_masks(most, side, samples, random) for most, side in zip(mosts, sides, strict=True)], 1)
    return replace(
        crops,
        colours=colours,
        operations=operations,
        levels=levels,
        cut=cutout_centre,
        policy=policy,
        rectangles=rectangles,
        noise=noise,
        norm=norm,
        shift=shift,
        masks=masks,
    )


def _draw_rectangles(share: float, height: int, width: int, samples: int, random: torch.Generator) -> Tensor:
    """A rectangle for this share of the samples, (N, 4: top, bottom, left, right): the first of ten that fits, none where none does.

    Its area is evenly drawn and its aspect evenly in logarithms, as by timm's RandomErasing.
    """

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random, dtype=torch.float64)

    chosen = draw(samples) < share
    low, high = ERASED
    area = height * width * (low + (high - low) * draw(samples, ATTEMPTS))
    log_low, log_high = (math.log(bound) for bound in ERASED_ASPECT)
    aspect = (log_low + (log_high - log_low) * draw(samples, ATTEMPTS)).exp()
    h, w = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (h < height) & (w < width)
    first = fits.int().argmax(1, keepdim=True)
    h, w = (side.gather(1, first).squeeze(1) for side in (h, w))
    top, left = ((draw(samples) * (length - side + 1)).floor() for length, side in ((height, h), (width, w)))
    boxes = torch.stack([top, top + h, left, left + w], 1).long()
    return boxes * (chosen & fits.any(1))[:, None]


def _draw_masks(most: int, side: int, samples: int, random: torch.Generator) -> Tensor:
    """Where a mask of 0 to `most` rows or columns begins and ends within a side, each length and each place equally likely, (N, 2)."""
    length = torch.randint(min(most, side) + 1, (samples,), generator=random)
    share = torch.rand(samples, generator=random, dtype=torch.float64)
    start = (share * (side - length + 1)).long()
    return torch.stack([start, start + length], 1)


def output_shape(augment: Augment, height: int, width: int) -> tuple[int, int]:
    """Height and width of what is seen of an image."""
    return augment.size or height, augment.size or width


def _draw_crops(augment: Augment, samples: int, height: int, width: int, random: torch.Generator) -> Views:
    """What part of the image is seen, and whether mirrored."""
    flip = torch.rand(samples, generator=random) < 0.5 if augment.flip else torch.zeros(samples, dtype=torch.bool)
    if augment.crop == "resized":
        return _draw_resized_crops(augment, samples, height, width, random, flip)
    reach = 2 * augment.pad + 1
    top, left = (torch.randint(reach, (samples,), generator=random) for _ in range(2))
    return Views(top, left, flip)


def _draw_resized_crops(augment: Augment, samples: int, height: int, width: int, random: torch.Generator, flip: Tensor) -> Views:
    """Crops of a random area and aspect (log-uniform between 3/4 and 4/3), cut down to what fits into the image."""
    area = height * width * (augment.min_area + (1 - augment.min_area) * torch.rand(samples, generator=random, dtype=torch.float64))
    low, high = (torch.tensor(bound, dtype=torch.float64).log() for bound in ASPECT)
    aspect = (low + (high - low) * torch.rand(samples, generator=random, dtype=torch.float64)).exp()
    h = (area / aspect).sqrt().round().clamp(1, height)
    w = (area * aspect).sqrt().round().clamp(1, width)
    top = (torch.rand(samples, generator=random, dtype=torch.float64) * (height - h + 1)).floor()
    left = (torch.rand(samples, generator=random, dtype=torch.float64) * (width - w + 1)).floor()
    return Views(top.long(), left.long(), flip, h.long(), w.long())


def apply_views(images: Tensor, views: Views, index: Tensor, augment: Augment, on_host: Tensor | None = None) -> Tensor:
    """Images, or maps, (B, C, H, W) as their views show them; `index` (B,), where the views are, says which samples they are.

    on_host: the same index on the CPU, where operations and seeds are read; without it a GPU is asked for it.
    Cropped and flipped first, then timm's policy, colours, RandAugment's operations, cutout and erasing, then shifted in time and masked.
    """
    device, there = images.device, index.cpu() if on_host is None else on_host
    augmented = _crop_and_flip(images, views, index, augment)
    if augment.auto_augment is not None and views.policy is not None and views.norm is not None:
        augmented = apply_policy(augmented, augment.auto_augment, views.policy[there], views.norm.mean)
    for name, factor in views.colours.items():
        augmented = COLOURS[name](augmented, factor[index].to(device))
    if views.operations is not None and views.levels is not None:
        for operation, level in zip(views.operations[there].unbind(1), views.levels[there].unbind(1), strict=True):
            augmented = apply_operation(augmented, operation, level)
    if views.cut is not None:
        augmented = cutout(augmented, views.cut[index].to(device), augment.cutout)
    if views.rectangles is not None and views.norm is not None:
        augmented = _erase(augmented, views.rectangles[index], None if views.noise is None else views.noise[there], views.norm)
    if views.shift is not None:
        augmented = shift_columns(augmented, views.shift[index].to(device))
    return augmented if views.masks is None else mask_stripes(augmented, views.masks[index].to(device))


def _erase(images: Tensor, boxes: Tensor, seeds: Tensor | None, norm: Normalisation) -> Tensor:
    """The images with their boxes (B, 4) in the mean colour, or with noise from `seeds` (B,) around it."""
    mean, std = (FULL * torch.tensor(part).expand(images.shape[1]) for part in (norm.mean, norm.std))
    if seeds is None:
        return erase(images, boxes, mean.round().clamp(0, FULL).to(torch.uint8))
    return erase_with_noise(images, boxes, seeds, mean, std)


def _crop_and_flip(images: Tensor, views: Views, index: Tensor, augment: Augment) -> Tensor:
    """The images cropped, resized and flipped."""
    device = images.device
    top, left, flip = (part[index].to(device) for part in (views.top, views.left, views.flip))
    if views.height is not None and views.width is not None:
        size = augment.size or images.shape[-1]
        return _resample(images, top, left, views.height[index].to(device), views.width[index].to(device), flip, size)
    whole = evaluation_view(images, augment)
    if augment.crop == "none" and not augment.flip:
        return whole
    return _crop_padded(whole, top, left, flip, augment)


def _crop_padded(images: Tensor, top: Tensor, left: Tensor, flip: Tensor, augment: Augment) -> Tensor:
    """Crops of the padded images at their own size, by one gather."""
    _, channels, height, width = images.shape
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    sides = (augment.pad,) * 4
    if not augment.pad:
        padded = images
    elif augment.padding == "reflect":
        padded = F.pad(images.float(), sides, mode="reflect").to(images.dtype)
    else:
        padded = F.pad(images, sides)
    place = (rows[:, :, None] * padded.shape[-1] + columns[:, None, :]).flatten(1)
    return padded.flatten(2).gather(2, place[:, None].expand(-1, channels, -1)).view(-1, channels, height, width)


def _resample(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, flip: Tensor, size: int) -> Tensor:
    """Boxes of the images, resized to `size` by bilinear sampling at pixel centres, rounded to whole grey levels."""
    full_height, full_width = images.shape[-2:]
    steps = (torch.arange(size, device=images.device, dtype=torch.float32) + 0.5) / size
    x_steps = torch.where(flip[:, None], steps.flip(0)[None], steps[None])
    y = (top[:, None] + steps[None] * height[:, None]) / full_height * 2 - 1
    x = (left[:, None] + x_steps * width[:, None]) / full_width * 2 - 1
    grid = torch.stack([x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1)
    sampled = F.grid_sample(images.float(), grid.float(), mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.round().clamp(0, 255).to(torch.uint8)


def evaluation_view(images: Tensor, augment: Augment) -> Tensor:
    """The view at evaluation: the central square of side `augment.size`, resized first where images are smaller."""
    return centre(images, augment.size)


def view_count(augment: Augment) -> int | None:
    """How many views a sample has; None where they are as good as endless: more than crops and flips."""
    if not augment.has_few_views:
        return None
    return (2 * augment.pad + 1) ** 2 * (2 if augment.flip else 1)


def view_number(views: Views, augment: Augment) -> Tensor | None:
    """A number below `view_count` for each sample's view, (N,) int64, where there are few; None where they are as good as endless."""
    if view_count(augment) is None:
        return None
    reach = 2 * augment.pad + 1
    return views.top * reach + views.left + reach**2 * views.flip.long()


def views_by_number(codes: Tensor, augment: Augment) -> Views:
    """The views (N,) that these numbers (N,) stand for: padded crops and flips, the reverse of `view_number`."""
    reach = 2 * augment.pad + 1
    corner = codes % reach**2
    return Views(corner // reach, corner % reach, codes >= reach**2)


def has_numbered_views(recipe: Recipe) -> bool:
    """Whether a sample and its `view_number` determine the image that is shown: not where views have none, nor where images are mixed.

    A mixed image is determined by (seed, epoch, sample) and the recipe, whose batch size decides which sample came before.
    """
    return view_count(recipe.augment) is not None and not recipe.mixes
