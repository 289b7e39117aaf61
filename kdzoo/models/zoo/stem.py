"""A stem for small images: timm's networks for 224 pixels shrink 32 pixels to one before their last stage."""

from __future__ import annotations

from torch import nn

from kdzoo.errors import InputError


def small_stem(model: nn.Module, name: str) -> None:
    """Make the first convolutions of a timm network keep the size of the images, in place.

    Strides become 1 and the pooling after them goes. A 3x3 convolution keeps its weights; a larger one (7x7, or the
    4x4 patches of ConvNeXt) becomes a fresh 3x3. Raises InputError for networks whose stem is none of these.
    """
    features, stem = getattr(model, "features", None), getattr(model, "stem", None)
    if hasattr(model, "maxpool") and _set_stride_one(model, "conv1"):  # ResNets and their kin
        model.maxpool = nn.Identity()
    elif hasattr(features, "pool0") and _set_stride_one(features, "conv0"):  # DenseNets
        features.pool0 = nn.Identity()  # type: ignore[union-attr]
    elif _set_stride_one(model, "conv_stem"):  # EfficientNets, MobileNets, GhostNets
        pass
    elif _set_stride_one(stem, "conv"):  # RegNets, ResNets with pre-activation
        if hasattr(stem, "pool"):
            stem.pool = nn.Identity()  # type: ignore[union-attr]
    elif not (isinstance(stem, nn.Sequential) and hasattr(model, "stages") and _set_stride_one(stem, "0")):  # ConvNeXts
        raise InputError(
            f"{name}: has no stem that --small-stem can change; "
            "this works for ResNets, DenseNets, EfficientNets, MobileNets, GhostNets, RegNets and ConvNeXts"
        )


def _set_stride_one(owner: nn.Module | None, name: str) -> bool:
    """Set the stride of the convolution `name`, or of the first in a sequence of that name, to 1; returns whether there is one."""
    layer = getattr(owner, name, None)
    if isinstance(layer, nn.Sequential) and len(layer):
        return _set_stride_one(layer, "0")
    if owner is None or not isinstance(layer, nn.Conv2d):
        return False
    if layer.kernel_size == (3, 3):
        layer.stride = (1, 1)
    else:
        setattr(owner, name, nn.Conv2d(layer.in_channels, layer.out_channels, 3, 1, 1, bias=layer.bias is not None))
    return True
