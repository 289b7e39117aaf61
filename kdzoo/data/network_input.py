"""From pixels to what a network is given: the centre of an image, scaled and normalised, in training and in evaluation.

Needs torch alone: `kdzoo export` copies this file beside a network whose images have to be resized by torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def centre(images: Tensor, size: int | None) -> Tensor:
    """The central square of side `size` of images (B, C, H, W) uint8, resized first where they are smaller."""
    if size is None or tuple(images.shape[-2:]) == (size, size):
        return images
    if min(images.shape[-2:]) < size:
        scaled = F.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        return scaled.round().clamp(0, 255).to(torch.uint8)
    top, left = ((side - size) // 2 for side in images.shape[-2:])
    return images[..., top : top + size, left : left + size]


def normalise(images: Tensor, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor, side: int | None = None) -> Tensor:
    """Images (B, C, H, W) of 0 to 255 as float32: scaled to [0, 1], resized to `side`, less `mean`, over `std`.

    mean, std: one number per channel, or tensors of shape (1, C, 1, 1).
    """
    x = images.float() / 255
    if side is not None and x.shape[-1] != side:
        x = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    by_channel = [torch.as_tensor(part, device=x.device).view(1, -1, 1, 1) for part in (mean, std)]
    return (x - by_channel[0]) / by_channel[1]
