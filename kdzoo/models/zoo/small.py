"""Small networks: the tutorial pair cnn128 and cnn64, the two for 8x8 digits that the default bench distils, and a DeiT for them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from timm.models.deit import VisionTransformerDistilled
from torch import nn

from kdzoo.models.zoo._staged import Stage, StagedNetwork, conv_bn_relu, register_networks


class TutorialCNN(StagedNetwork):
    """Two 3x3 convolutions, each followed by ReLU and 2x2 max-pooling, then a hidden layer with ReLU, then the classifier.

    There is no stem: both convolutions are stages, tapped after ReLU and before pooling. The embedding is the hidden
    layer's output. `img_size` is the side (or height and width) of the images that the hidden layer is made for.
    """

    def __init__(
        self, *, widths: Sequence[int], hidden: int, img_size: int | Sequence[int] = 32, num_classes: int = 10, in_chans: int = 3
    ) -> None:
        first, second = widths
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        shallow = [nn.Conv2d(in_chans, first, 3, padding=1), nn.ReLU()]
        deep = [nn.MaxPool2d(2), nn.Conv2d(first, second, 3, padding=1), nn.ReLU()]
        super().__init__(
            stem=nn.Identity(),
            stages=[Stage(nn.Sequential(*shallow), first, 1, shallow[-1]), Stage(nn.Sequential(*deep), second, 2, deep[-1])],
            neck=nn.MaxPool2d(2),
            head=nn.Sequential(nn.Flatten(), nn.Linear(second * (height // 4) * (width // 4), hidden), nn.ReLU()),
            num_features=hidden,
            num_classes=num_classes,
        )


class DigitsNet(StagedNetwork):
    """A small net for 8x8 grey images: a 3x3 stem, then two stages of 3x3 convolutions at 8x8 and 4x4, batch norm and ReLU."""

    def __init__(self, *, stem_width: int, widths: Sequence[int], depth: int, num_classes: int = 10, in_chans: int = 1) -> None:
        inputs, stages = stem_width, []
        for position, width in enumerate(widths):
            layers: list[nn.Sequential] = []
            for stride in [1 if position == 0 else 2] + [1] * (depth - 1):
                layers.append(conv_bn_relu(inputs, width, 3, stride))
                inputs = width
            stages.append(Stage(nn.Sequential(*layers), width, 2**position, layers[-1][-1]))
        super().__init__(stem=conv_bn_relu(in_chans, stem_width, 3), stages=stages, num_features=inputs, num_classes=num_classes)


TUTORIAL_NETWORKS = {
    "cnn128": partial(TutorialCNN, widths=(64, 128), hidden=512),
    "cnn64": partial(TutorialCNN, widths=(32, 64), hidden=256),
}
DIGITS_NETWORKS = {
    "digits_teacher": partial(DigitsNet, stem_width=16, widths=(32, 64), depth=2),
    "digits_student": partial(DigitsNet, stem_width=4, widths=(4, 8), depth=1),
}
DIGITS_TRANSFORMERS = {
    "digits_deit": partial(VisionTransformerDistilled, img_size=8, patch_size=2, in_chans=1, embed_dim=32, depth=2, num_heads=2),
}
"""with a distillation token; for other sides than 8 pixels made with `img_size`"""

_SMALL = {"num_classes": 10, "crop_pct": 1.0, "first_conv": "stem.0", "classifier": "classifier"}
register_networks(__name__, TUTORIAL_NETWORKS, {**_SMALL, "input_size": (3, 32, 32), "fixed_input_size": True})
register_networks(__name__, DIGITS_NETWORKS, {**_SMALL, "input_size": (1, 8, 8)})
register_networks(
    __name__,
    DIGITS_TRANSFORMERS,
    {**_SMALL, "input_size": (1, 8, 8), "fixed_input_size": True, "first_conv": "patch_embed.proj", "classifier": ("head", "head_dist")},
)
