"""Operations on batches of uint8 images (B, C, H, W), each sample at a strength of its own, as RandAugment has them.

Every function is pure and changes a sample as if it were alone. What is not a whole grey level is rounded to the nearest
(PIL and torchvision cut it off, and differ by up to one level). Sums are of whole numbers and everything else is one IEEE
operation after the other, so that the pixels are the same in every batch and on every device.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kdzoo.data.copies import send

FULL = 255


def blend(images: Tensor, base: Tensor, factor: Tensor) -> Tensor:
    """base + factor (images - base), rounded and clamped to 0..255; base is float and broadcasts, factor (B,)."""
    return images.float().sub_(base).mul_(factor[:, None, None, None]).add_(base).round_().clamp_(0, FULL).to(torch.uint8)


def grey(images: Tensor) -> Tensor:
    """Luma (B, 1, H, W) int32 of three channels by ITU-R 601 as PIL rounds it; of any other number their mean."""
    whole = images.int()
    if images.shape[1] != 3:
        return (2 * whole.sum(1, keepdim=True, dtype=torch.int32) + images.shape[1]) // (2 * images.shape[1])
    luma = 19595 * whole[:, :1] + 38470 * whole[:, 1:2] + 7471 * whole[:, 2:] + 32768
    return luma >> 16


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Black for a factor (B,) of 0, the image for 1, beyond it for more."""
    return blend(images, torch.zeros((), device=images.device), factor)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """The image's mean grey for a factor (B,) of 0, the image for 1."""
    luma = grey(images).flatten(1)
    mean = (2 * luma.sum(1) + luma.shape[1]) // (2 * luma.shape[1])
    return blend(images, mean.float()[:, None, None, None], factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Grey for a factor (B,) of 0, the image for 1; images of one channel stay as they are."""
    return blend(images, grey(images).float(), factor)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Smoothed by (1 1 1, 1 5 1, 1 1 1) / 13 for a factor (B,) of 0, the image for 1; the outermost pixels stay."""
    smooth = images.float()
    rows = smooth[..., :-2, :] + smooth[..., 1:-1, :] + smooth[..., 2:, :]
    inner = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * smooth[..., 1:-1, 1:-1]
    smooth[..., 1:-1, 1:-1] = (inner / 13).round_()
    return blend(images, smooth, factor)


def posterise(images: Tensor, bits: Tensor) -> Tensor:
    """The `bits` (B,) highest bits of every pixel, the others 0."""
    dropped = 2 ** (8 - bits.long())
    return images & (256 - dropped).to(torch.uint8)[:, None, None, None]


def solarise(images: Tensor, threshold: Tensor) -> Tensor:
    """Pixels from the threshold (B,) on inverted; none for 256."""
    return torch.where(images.float() >= threshold[:, None, None, None], images.bitwise_not(), images)


def autocontrast(images: Tensor) -> Tensor:
    """Every channel stretched to 0..255; one of a single grey level stays."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    reach = (high - low).float()
    stretched = (images - low).float().mul_(FULL).div_(reach.clamp(min=1)).round_().to(torch.uint8)
    return torch.where(reach > 0, stretched, images)


def equalise(images: Tensor) -> Tensor:
    """Every channel's histogram made flat, by whole numbers as PIL does; one of a single grey level stays."""
    levels = images.flatten(2).long()
    counts = torch.zeros(*levels.shape[:2], 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    pixels = levels.shape[2]
    last = counts.gather(2, levels.amax(2, keepdim=True))
    step = torch.div(pixels - last, FULL, rounding_mode="floor")
    below = counts.cumsum(2) - counts
    table = torch.div(below + torch.div(step, 2, rounding_mode="floor"), step.clamp(min=1), rounding_mode="floor").clamp_(0, FULL)
    table = torch.where(step > 0, table, torch.arange(256, device=images.device))
    return table.to(torch.uint8).gather(2, levels).view_as(images)


def affine(images: Tensor, matrix: Tensor) -> Tensor:
    """The pixel of the image at M (x, y, 1) for the pixel whose centre is (x, y); black from outside. No interpolation.

    matrix (B, 2, 3), in pixels from the upper left corner: the map from what is shown to the image, as PIL has it.
    """
    _, channels, height, width = images.shape
    x = torch.arange(width, device=images.device, dtype=torch.float32) + 0.5
    y = torch.arange(height, device=images.device, dtype=torch.float32)[:, None] + 0.5
    entries = matrix[..., None, None]
    column, row = ((entries[:, i, 0] * x + entries[:, i, 1] * y + entries[:, i, 2]).floor() for i in (0, 1))
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    place = (row.clamp_(0, height - 1) * width + column.clamp_(0, width - 1)).long().flatten(1)
    moved = images.flatten(2).gather(2, place[:, None].expand(-1, channels, -1)).view_as(images)
    return moved.masked_fill_(~inside[:, None], 0)


def cutout(images: Tensor, centre: Tensor, side: int) -> Tensor:
    """A black square of `side` pixels around `centre` (B, 2: row, column), as much of it as lies in the image.

    Published code fills after normalisation, with the mean of the data; here, before it, with black, like padding.
    """
    height, width = images.shape[-2:]
    corner = centre - side // 2
    rows, columns = (torch.arange(length, device=images.device) - corner[:, i, None] for i, length in enumerate((height, width)))
    down, across = (((part >= 0) & (part < side)) for part in (rows, columns))
    return images.masked_fill((down[:, :, None] & across[:, None, :])[:, None], 0)


def erase(images: Tensor, boxes: Tensor, colour: Tensor) -> Tensor:
    """A colour (C,) uint8 within a box of each image, `boxes` (B, 4: top, bottom, left, right); an empty box changes nothing."""
    return torch.where(_within(boxes, images), colour.to(images.device)[:, None, None], images)


def erase_with_noise(images: Tensor, boxes: Tensor, seeds: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normal noise of a mean and deviation (C,), in grey levels, within a box of each image, drawn on the CPU from `seeds` (B,).

    Rounded, and cut off at 0 and 255, where timm's comes after normalisation and is cut off nowhere.
    """
    noise = torch.zeros(images.shape, dtype=torch.uint8)
    for number, (seed, (top, bottom, left, right)) in enumerate(zip(seeds.tolist(), boxes.tolist(), strict=True)):
        if bottom > top:
            draws = torch.randn(images.shape[1], bottom - top, right - left, generator=torch.Generator().manual_seed(seed))
            levels = (mean[:, None, None] + std[:, None, None] * draws).round_().clamp_(0, FULL)
            noise[number, :, top:bottom, left:right] = levels.to(torch.uint8)
    return torch.where(_within(boxes, images), noise.to(images.device), images)


def _within(boxes: Tensor, images: Tensor) -> Tensor:
    """Which pixels lie in a box, (B, 1, H, W)."""
    height, width = images.shape[-2:]
    top, bottom, left, right = (edge[:, None] for edge in boxes.to(images.device).unbind(1))
    rows, columns = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    down, across = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    return (down[:, :, None] & across[:, None, :])[:, None]


def shift_columns(images: Tensor, shift: Tensor) -> Tensor:
    """Images (B, C, H, W) moved by `shift` (B,) columns to the right, to the left where it is negative, with 0 from outside."""
    width = images.shape[-1]
    columns = torch.arange(width, device=images.device) - shift[:, None]
    outside = ((columns < 0) | (columns >= width))[:, None, None]
    place = columns.clamp(0, width - 1)[:, None, None].expand(images.shape)
    return images.gather(3, place).masked_fill(outside, 0)


def mask_stripes(images: Tensor, masks: Tensor) -> Tensor:
    """The mean of each image (B, C, H, W) on its rows from `masks[:, 0]` to before `masks[:, 1]`, and its columns from 2 to before 3.

    SpecAugment fills with the mean as well: it masks maps whose mean is 0.
    """
    mean = images.float().mean((1, 2, 3), keepdim=True)
    first_row, row_end, first_column, column_end = (edge[:, None] for edge in masks.unbind(1))
    rows, columns = (torch.arange(length, device=images.device) for length in images.shape[-2:])
    in_rows, in_columns = (rows >= first_row) & (rows < row_end), (columns >= first_column) & (columns < column_end)
    hidden = (in_rows[:, :, None] | in_columns[:, None, :])[:, None]
    filled = mean if images.is_floating_point() else mean.round().to(images.dtype)
    return torch.where(hidden, filled, images)


def matrices(operation: Tensor, level: Tensor, height: int, width: int) -> Tensor:
    """The maps (B, 2, 3) of operations (B,) that move pixels, at levels (B,) in [-1, 1]: places in GEOMETRIC.

    Rotations by up to 30 degrees about the centre, counter-clockwise; shears by up to 0.3 from the upper left corner;
    translations to the right and down by up to 150 / 331 of a side. Signs are torchvision's; at level 0 all is the identity.
    """
    wide = level.double()
    rotate, shear_x, shear_y, translate_x, translate_y = (torch.where(operation == i, wide, 0.0) for i in range(len(GEOMETRIC)))
    angle = torch.deg2rad(30 * rotate)
    cosine, sine = angle.cos(), angle.sin()
    x, y = width / 2, height / 2
    reach = 150 / 331
    first = (cosine, 0.3 * shear_x - sine, x - cosine * x + sine * y - reach * width * translate_x)
    second = (0.3 * shear_y + sine, cosine, y - sine * x - cosine * y - reach * height * translate_y)
    return torch.stack([torch.stack(first, dim=1), torch.stack(second, dim=1)], dim=1).float()


def _enhanced(enhance: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda images, level: enhance(images, 1 + 0.9 * level)


PHOTOMETRIC: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": lambda images, level: images,
    "autocontrast": lambda images, level: autocontrast(images),
    "equalise": lambda images, level: equalise(images),
    "brightness": _enhanced(brightness),
    "contrast": _enhanced(contrast),
    "colour": _enhanced(saturation),
    "sharpness": _enhanced(sharpness),
    "posterise": lambda images, level: posterise(images, 8 - (4 * level.abs()).round()),
    "solarise": lambda images, level: solarise(images, 256 * (1 - level.abs())),
}
"""RandAugment's operations that leave pixels where they are, at levels (B,) in [-1, 1]"""

GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
OPERATIONS = (*PHOTOMETRIC, *GEOMETRIC)


def apply_operation(images: Tensor, operation: Tensor, level: Tensor) -> Tensor:
    """One of OPERATIONS for each sample: `operation` (B,) int64 says which, `level` (B,) in [-1, 1] how strongly.

    Both lie on the CPU, where it is known without asking the device how many samples each operation has: samples are
    sorted by operation, so that each is computed for those alone that it was drawn for.
    """
    order, device = operation.argsort(stable=True), images.device
    counts = operation.bincount(minlength=len(OPERATIONS))
    sizes = [*counts[: len(PHOTOMETRIC)].tolist(), int(counts[len(PHOTOMETRIC) :].sum())]
    *photometric, geometric = torch.split(images.index_select(0, send(order, device)), sizes)
    levels = torch.split(send(level[order], device), sizes)
    pieces = [change(*part) for change, *part in zip(PHOTOMETRIC.values(), photometric, levels, strict=False) if len(part[0])]
    if len(geometric):
        last = order[len(order) - len(geometric) :]
        maps = matrices(operation[last] - len(PHOTOMETRIC), level[last], *images.shape[-2:])
        pieces.append(affine(geometric, send(maps, device)))
    return torch.cat(pieces).index_select(0, send(order.argsort(), device))
