"""A stem for small images: timm's networks for 224 pixels shrink 32 pixels to one before their last stage."""

from __future__ import annotations

from torch import nn

from kdzoo.errors import InputError


def small_stem(model: nn.Module, name: str) -> None:
    """Make the first convolutions of a timm network keep the size of the images, in place.

    A 7x7 convolution becomes 3x3, strides become 1, and the pooling after it goes: ResNets and their kin. Networks
    with a single strided `conv_stem` (EfficientNet, MobileNet, GhostNet, ...) or `stem.conv` (RegNet) get stride 1.
    Raises InputError for others.
    """
    if isinstance(getattr(model, "conv1", None), nn.Conv2d) and hasattr(model, "maxpool"):
        model.conv1 = _unstrided(model.conv1)  # type: ignore[arg-type]
        model.maxpool = nn.Identity()
    elif isinstance(getattr(model, "conv_stem", None), nn.Conv2d):
        model.conv_stem = _unstrided(model.conv_stem)  # type: ignore[arg-type]
    elif isinstance(getattr(getattr(model, "stem", None), "conv", None), nn.Conv2d):
        model.stem.conv = _unstrided(model.stem.conv)  # type: ignore[union-attr,arg-type]
    else:
        raise InputError(f"{name}: has no stem that can be made small; this works for ResNets, EfficientNets, MobileNets and RegNets")


def _unstrided(convolution: nn.Conv2d) -> nn.Conv2d:
    """A 3x3 convolution of stride 1 with the same channels."""
    return nn.Conv2d(convolution.in_channels, convolution.out_channels, 3, 1, 1, bias=convolution.bias is not None)
