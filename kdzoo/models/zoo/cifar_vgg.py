"""VGG with batch norm for 32x32 images: three poolings, global average pooling and one linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from kdzoo.models.zoo._staged import CIFAR, Stage, StagedNetwork, conv_bn_relu, init_fan_out_without_groups, register_networks

_WIDTHS = (64, 128, 256, 512, 512)


class CifarVGG(StagedNetwork):
    """Five groups of 3x3 convolutions of widths 64 to 512; the first is the stem, each stage ends after its ReLU.

    The last two stages have the same resolution: there is no pooling between them.
    https://arxiv.org/abs/1409.1556, configurations A, B, D, E; vgg8 has one convolution a group.
    """

    published_names = (
        (r"block0\.(\d+)", r"stem.\1"),
        (r"block([123])\.(\d+)", lambda m: f"stage{m[1]}.{int(m[2]) + 1}"),  # here a stage begins with its pooling
        (r"block4\.(\d+)", r"stage4.\1"),
        (r"classifier", "classifier"),
    )

    def __init__(self, *, depths: Sequence[int], num_classes: int = 100, in_chans: int = 3) -> None:
        inputs, groups = in_chans, []
        for depth, width in zip(depths, _WIDTHS, strict=True):
            layers: list[nn.Module] = []
            for _ in range(depth):
                layers.extend(conv_bn_relu(inputs, width, 3, bias=True))
                inputs = width
            groups.append(layers)
        pooled = [[nn.MaxPool2d(2), *layers] for layers in groups[1:4]] + groups[4:]
        super().__init__(
            stem=nn.Sequential(*groups[0]),
            stages=[
                Stage(nn.Sequential(*layers), width, reduction, layers[-1])
                for layers, width, reduction in zip(pooled, _WIDTHS[1:], (2, 4, 8, 8), strict=True)
            ],
            num_features=inputs,
            num_classes=num_classes,
        )
        init_fan_out_without_groups(self, linear_std=0.01)


CIFAR_VGGS = {
    "vgg8": partial(CifarVGG, depths=(1, 1, 1, 1, 1)),
    "cifar_vgg11": partial(CifarVGG, depths=(1, 1, 2, 2, 2)),
    "cifar_vgg13": partial(CifarVGG, depths=(2, 2, 2, 2, 2)),
    "cifar_vgg16": partial(CifarVGG, depths=(2, 2, 3, 3, 3)),
    "cifar_vgg19": partial(CifarVGG, depths=(2, 2, 4, 4, 4)),
}
register_networks(__name__, CIFAR_VGGS, CIFAR)
