"""Networks for phones, fitted to 32x32 images as the distillation literature does: MobileNetV2 half, ShuffleNetV1 and V2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from kdzoo.models.zoo._staged import (
    CIFAR,
    CONV_OR_NORM,
    Stage,
    StagedNetwork,
    conv_bn,
    conv_bn_relu,
    init_fan_out_without_groups,
    register_networks,
)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection; added to the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.residual = nn.Sequential(
            conv_bn_relu(inputs, hidden, 1), conv_bn_relu(hidden, hidden, 3, stride, groups=hidden), conv_bn(hidden, outputs, 1)
        )
        self.adds = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        residual = cast(Tensor, self.residual(x))
        return x + residual if self.adds else residual


_GROUPS = ("stage1.0", "stage1.1", "stage2", "stage3.0", "stage3.1", "stage4.0", "stage4.1")
"""where the seven groups of blocks stand among the four stages"""


class CifarMobileNetV2(StagedNetwork):
    """MobileNetV2 of half width: ReLU, a stem of stride 2, 1280 last channels; stages are linear bottlenecks (signed).

    https://arxiv.org/abs/1801.04381, table 2, with group strides 1, 1, 2, 2, 1, 2, 1. As in the distillation
    literature the first group, of expansion 1, keeps its 1x1 expansion convolution.
    """

    published_names = (
        (r"conv1\.([01])", r"stem.\1"),
        (r"blocks\.(\d)\.(\d+)\.conv\.([013467])", lambda m: f"{_GROUPS[int(m[1])]}.{m[2]}.residual.{int(m[3]) // 3}.{int(m[3]) % 3}"),
        (r"conv2\.([01])", r"neck.\1"),
        (r"classifier(?:\.0)?", "classifier"),
    )

    def __init__(self, *, num_classes: int = 100, in_chans: int = 3) -> None:
        inputs, groups = 16, []
        for expand, width, depth, stride in (
            (1, 8, 1, 1),
            (6, 12, 2, 1),
            (6, 16, 3, 2),
            (6, 32, 4, 2),
            (6, 48, 3, 1),
            (6, 80, 3, 2),
            (6, 160, 1, 1),
        ):
            blocks: list[nn.Module] = []
            for step in [stride] + [1] * (depth - 1):
                blocks.append(InvertedResidual(inputs, width, step, expand))
                inputs = width
            groups.append(nn.Sequential(*blocks))
        super().__init__(
            stem=conv_bn_relu(in_chans, 16, 3, 2),
            stages=[
                Stage(nn.Sequential(groups[0], groups[1]), 12, 2),
                Stage(groups[2], 16, 4),
                Stage(nn.Sequential(groups[3], groups[4]), 48, 8),
                Stage(nn.Sequential(groups[5], groups[6]), 160, 16),
            ],
            neck=conv_bn_relu(inputs, 1280, 1),
            num_features=1280,
            num_classes=num_classes,
        )
        init_fan_out_without_groups(self, linear_std=0.01)


class ShuffleV1Block(nn.Module):
    """Grouped 1x1, channel shuffle, 3x3 depthwise, grouped 1x1; joined to the shortcut by adding, or by stacking at stride 2."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, groups: int, groups_in: int) -> None:
        super().__init__()
        new = outputs - inputs if stride == 2 else outputs
        hidden = new // 4
        self.residual = nn.Sequential(
            conv_bn_relu(inputs, hidden, 1, groups=groups_in),
            nn.ChannelShuffle(groups_in),
            conv_bn_relu(hidden, hidden, 3, stride, groups=hidden),
            conv_bn(hidden, new, 1, groups=groups),
        )
        self.pool = nn.AvgPool2d(3, 2, 1) if stride == 2 else None
        self.activate = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        residual = cast(Tensor, self.residual(x))
        return cast(Tensor, self.activate(x + residual if self.pool is None else torch.cat([residual, self.pool(x)], 1)))


class CifarShuffleNetV1(StagedNetwork):
    """ShuffleNet of 3 groups: a 1x1 stem of stride 1, widths 240, 480, 960, stages after the ReLU.

    https://arxiv.org/abs/1707.01083, with a ReLU after the depthwise convolution as in the distillation literature.
    """

    published_names = (
        (r"conv1", "stem.0"),
        (r"bn1", "stem.1"),
        (r"layer(\d)\.(\d+)\.(conv|bn)1", lambda m: f"stage{m[1]}.{m[2]}.residual.0.{CONV_OR_NORM[m[3]]}"),
        (r"layer(\d)\.(\d+)\.(conv|bn)([23])", lambda m: f"stage{m[1]}.{m[2]}.residual.{m[4]}.{CONV_OR_NORM[m[3]]}"),
        (r"linear", "classifier"),
    )

    def __init__(self, *, depths: Sequence[int], widths: Sequence[int], groups: int, num_classes: int = 100, in_chans: int = 3) -> None:
        stem_width = inputs = 24
        stages = []
        for position, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks: list[ShuffleV1Block] = []
            for stride in [2] + [1] * (depth - 1):
                groups_in = 1 if inputs == stem_width else groups
                blocks.append(ShuffleV1Block(inputs, width, stride, groups=groups, groups_in=groups_in))
                inputs = width
            stages.append(Stage(nn.Sequential(*blocks), width, 2 ** (position + 1), blocks[-1].activate))
        super().__init__(stem=conv_bn_relu(in_chans, stem_width, 1), stages=stages, num_features=inputs, num_classes=num_classes)


class ShuffleV2Block(nn.Module):
    """Half of the channels pass through, the others through 1x1, 3x3 depthwise, 1x1; then the halves are shuffled.

    The last ReLU comes after the shuffle, where it serves both halves: what passed through is active already.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.right = _shuffle_branch(width // 2, width // 2, 1)
        self.shuffle = nn.ChannelShuffle(2)
        self.activate = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        return cast(Tensor, self.activate(self.shuffle(torch.cat([left, self.right(right)], 1))))


class ShuffleV2Down(nn.Module):
    """Both branches see all channels at stride 2, each gives half of the output."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.left = nn.Sequential(conv_bn(inputs, inputs, 3, 2, groups=inputs), conv_bn(inputs, outputs // 2, 1))
        self.right = _shuffle_branch(inputs, outputs // 2, 2)
        self.shuffle = nn.ChannelShuffle(2)
        self.activate = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.activate(self.shuffle(torch.cat([self.left(x), self.right(x)], 1))))


def _shuffle_branch(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        conv_bn_relu(inputs, outputs, 1), conv_bn(outputs, outputs, 3, stride, groups=outputs), conv_bn(outputs, outputs, 1)
    )


class CifarShuffleNetV2(StagedNetwork):
    """ShuffleNetV2 1.0x: a 1x1 stem of stride 1, widths 116, 232, 464, a last 1x1 convolution to 1024.

    https://arxiv.org/abs/1807.11164; stages after the shuffle that follows their last ReLU.
    """

    published_names = (
        (r"conv1", "stem.0"),
        (r"bn1", "stem.1"),
        (r"layer(\d)\.0\.(conv|bn)([12])", lambda m: f"stage{m[1]}.0.left.{int(m[3]) - 1}.{CONV_OR_NORM[m[2]]}"),
        (r"layer(\d)\.0\.(conv|bn)([345])", lambda m: f"stage{m[1]}.0.right.{int(m[3]) - 3}.{CONV_OR_NORM[m[2]]}"),
        (r"layer(\d)\.(\d+)\.(conv|bn)([123])", lambda m: f"stage{m[1]}.{m[2]}.right.{int(m[4]) - 1}.{CONV_OR_NORM[m[3]]}"),
        (r"conv2", "neck.0"),
        (r"bn2", "neck.1"),
        (r"linear", "classifier"),
    )

    def __init__(self, *, depths: Sequence[int], widths: Sequence[int], num_classes: int = 100, in_chans: int = 3) -> None:
        inputs, stages = 24, []
        for position, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks: list[ShuffleV2Down | ShuffleV2Block] = [ShuffleV2Down(inputs, width), *(ShuffleV2Block(width) for _ in range(depth))]
            stages.append(Stage(nn.Sequential(*blocks), width, 2 ** (position + 1), blocks[-1].activate))
            inputs = width
        super().__init__(
            stem=conv_bn_relu(in_chans, 24, 1),
            stages=stages,
            neck=conv_bn_relu(inputs, 1024, 1),
            num_features=1024,
            num_classes=num_classes,
        )


CIFAR_MOBILES: dict[str, Callable[..., nn.Module]] = {
    "mobilenetv2_half": CifarMobileNetV2,
    "shufflenetv1": partial(CifarShuffleNetV1, depths=(4, 8, 4), widths=(240, 480, 960), groups=3),
    "shufflenetv2": partial(CifarShuffleNetV2, depths=(3, 7, 3), widths=(116, 232, 464)),
}
register_networks(__name__, CIFAR_MOBILES, CIFAR)
