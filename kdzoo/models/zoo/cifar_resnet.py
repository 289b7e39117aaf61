"""Residual networks for 32x32 images: resnet8 to resnet110 and their wider forms, wide ResNets, ResNet18 and ResNet50."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from torch import Tensor, nn

from kdzoo.models.zoo._staged import (
    CIFAR,
    CONV_OR_NORM,
    Stage,
    StagedNetwork,
    conv_bn,
    conv_bn_relu,
    init_fan_out_without_groups,
    init_kaiming_fan_out,
    register_networks,
)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, added and passed through ReLU (He et al. 2016, figure 2)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(conv_bn_relu(inputs, width, 3, stride), conv_bn(width, width, 3))
        self.shortcut = _shortcut(inputs, width, stride)
        self.activate = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.activate(self.residual(x) + self.shortcut(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the last four times as wide, beside a shortcut (He et al. 2016, figure 5)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.residual = nn.Sequential(conv_bn_relu(inputs, width, 1), conv_bn_relu(width, width, 3, stride), conv_bn(width, outputs, 1))
        self.shortcut = _shortcut(inputs, outputs, stride)
        self.activate = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.activate(self.residual(x) + self.shortcut(x)))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Identity() if inputs == outputs and stride == 1 else conv_bn(inputs, outputs, 1, stride)


class CifarResNet(StagedNetwork):
    """A ResNet whose stem is a 3x3 convolution of stride 1 without pooling; stages end after the ReLU.

    https://arxiv.org/abs/1512.03385, section 4.2, with 1x1 convolutions where a shortcut changes shape.
    """

    published_names = (
        (r"conv1", "stem.0"),
        (r"bn1", "stem.1"),
        (r"layer(\d)\.(\d+)\.(conv|bn)(\d)", lambda m: f"stage{m[1]}.{m[2]}.residual.{int(m[4]) - 1}.{CONV_OR_NORM[m[3]]}"),
        (r"layer(\d)\.(\d+)\.(?:downsample|shortcut)\.([01])", r"stage\1.\2.shortcut.\3"),
        (r"fc|linear", "classifier"),
    )

    def __init__(
        self,
        *,
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock,
        depths: Sequence[int],
        widths: Sequence[int],
        stem_width: int,
        num_classes: int = 100,
        in_chans: int = 3,
    ) -> None:
        inputs, stages = stem_width, []
        for position, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            strides = [1 if position == 0 else 2] + [1] * (depth - 1)
            blocks: list[BasicBlock | Bottleneck] = []
            for stride in strides:
                blocks.append(block(inputs, width, stride))
                inputs = width * block.expansion
            stages.append(Stage(nn.Sequential(*blocks), inputs, 2**position, blocks[-1].activate))
        super().__init__(stem=conv_bn_relu(in_chans, stem_width, 3), stages=stages, num_features=inputs, num_classes=num_classes)
        init_kaiming_fan_out(self)


class PreActivationBlock(nn.Module):
    """BN-ReLU-conv twice beside a shortcut; where the shape changes, the shortcut starts after the first BN-ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.activate = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True))
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        )
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.activate(x)
        return cast(Tensor, self.residual(active) + (x if self.shortcut is None else self.shortcut(active)))


class WideResNet(StagedNetwork):
    """wrn_d_k: (d - 4) / 6 pre-activation blocks a stage, widths 16k, 32k, 64k; stages are raw residual sums.

    https://arxiv.org/abs/1605.07146
    """

    published_names = (
        (r"conv1", "stem.0"),
        (r"block(\d)\.layer\.(\d+)\.bn1", r"stage\1.\2.activate.0"),
        (r"block(\d)\.layer\.(\d+)\.conv1", r"stage\1.\2.residual.0"),
        (r"block(\d)\.layer\.(\d+)\.bn2", r"stage\1.\2.residual.1"),
        (r"block(\d)\.layer\.(\d+)\.conv2", r"stage\1.\2.residual.3"),
        (r"block(\d)\.layer\.(\d+)\.convShortcut", r"stage\1.\2.shortcut"),
        (r"bn1", "neck.0"),
        (r"fc", "classifier"),
    )

    def __init__(self, *, depth: int, widen: int, num_classes: int = 100, in_chans: int = 3) -> None:
        blocks_a_stage, inputs = (depth - 4) // 6, 16
        widths = (16 * widen, 32 * widen, 64 * widen)
        groups: list[list[PreActivationBlock]] = []
        for position, width in enumerate(widths):
            groups.append([])
            for stride in [1 if position == 0 else 2] + [1] * (blocks_a_stage - 1):
                groups[-1].append(PreActivationBlock(inputs, width, stride))
                inputs = width
        neck = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True))
        # What is active of a stage is what the next one sees first: its batch norm, then this ReLU.
        activations = [groups[1][0].activate[1], groups[2][0].activate[1], neck[1]]
        super().__init__(
            stem=nn.Sequential(nn.Conv2d(in_chans, 16, 3, 1, 1, bias=False)),
            stages=[
                Stage(nn.Sequential(*blocks), width, 2**position, activation)
                for position, (blocks, width, activation) in enumerate(zip(groups, widths, activations, strict=True))
            ],
            neck=neck,
            num_features=inputs,
            num_classes=num_classes,
        )
        init_fan_out_without_groups(self)


_THIN, _WIDE, _IMAGENET = (16, 32, 64), (64, 128, 256), (64, 128, 256, 512)

CIFAR_RESNETS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{6 * n + 2}": partial(CifarResNet, depths=[n] * 3, widths=_THIN, stem_width=16) for n in (1, 2, 3, 5, 7, 9, 18)},
    **{f"resnet{6 * n + 2}x4": partial(CifarResNet, depths=[n] * 3, widths=_WIDE, stem_width=32) for n in (1, 5)},
    **{f"wrn_{depth}_{widen}": partial(WideResNet, depth=depth, widen=widen) for depth in (16, 40) for widen in (1, 2)},
    "cifar_resnet18": partial(CifarResNet, depths=(2, 2, 2, 2), widths=_IMAGENET, stem_width=64),
    "cifar_resnet50": partial(CifarResNet, block=Bottleneck, depths=(3, 4, 6, 3), widths=_IMAGENET, stem_width=64),
}

register_networks(__name__, CIFAR_RESNETS, CIFAR)
