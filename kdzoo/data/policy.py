"""timm's augmentation policies (AutoAugment, RandAugment, AugMix, DeiT III's) on batches, each sample by draws of its own.

timm draws from the global generators of Python and of numpy, from which threads of loggers and launchers draw too. Here its file is
loaded once more under a private name and draws from generators that nobody else has, so that pixels depend on their own seed alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

FULL = 255
TRANSLATION = 0.45
"""the largest translation, as a share of the smaller side"""
AUGMIX_TRANSLATION = 0.3
CHANNELS = (1, 3)
"""of the images that a policy takes: grey or RGB"""


def apply_policy(images: Tensor, text: str, seeds: Tensor, mean: Sequence[float]) -> Tensor:
    """Images (B, C, H, W) uint8, grey or RGB, as timm's policy shows them; on their device, computed on the CPU.

    text: the policy (`kdzoo.runs.policy_text`). seeds (B,) int64: of each sample's draws. mean: of the data's pixels in [0, 1], a number
    a channel or one for all, with which moves fill what comes from outside. What depends on sizes is as in timm's own training.
    """
    draws = _Draws()
    timm_file = _load_file(draws)
    colour = tuple(min(FULL, round(FULL * share)) for share in (mean if len(mean) > 1 else [*mean] * images.shape[1]))
    policy = _build(timm_file, text, {"translate_const": int(min(images.shape[-2:]) * TRANSLATION), "img_mean": colour})
    pixels = images.permute(0, 2, 3, 1).cpu().numpy()
    augmented = np.empty_like(pixels)
    for number, seed in enumerate(seeds.tolist()):
        draws.start(seed)
        image = Image.fromarray(pixels[number] if pixels.shape[3] == 3 else pixels[number, :, :, 0])
        augmented[number] = np.asarray(policy(image)).reshape(pixels[number].shape)
    return torch.from_numpy(augmented).permute(0, 3, 1, 2).contiguous().to(images.device)


def policy_versions() -> dict[str, str]:
    """The versions of the programs that decide which pixels a policy makes."""
    return {"timm": version("timm"), "pillow": version("pillow")}


class _Draws:
    """What a sample's numbers are drawn from, in place of the modules `random` and `numpy.random`."""

    def __init__(self) -> None:
        self.python = random.Random()
        self.numpy = np.random.RandomState()

    def start(self, seed: int) -> None:
        """Stand at the start of a seed's numbers, where the modules would stand after it was given to them."""
        self.python.seed(seed)
        self.numpy.seed(seed % 2**32)


class _Numpy:
    """numpy, but for its random numbers."""

    def __init__(self, draws: np.random.RandomState) -> None:
        self.random = draws

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def _load_file(draws: _Draws) -> ModuleType:
    """timm's file of policies as a module of its own, with these draws."""
    import timm.data.auto_augment

    spec = timm.data.auto_augment.__spec__
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module).update(random=draws.python, np=_Numpy(draws.numpy))
    module.NAME_TO_OP.update({name: _posterise_or_black for name, operation in module.NAME_TO_OP.items() if operation is module.posterize})
    return module


def _posterise_or_black(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """timm's posterising, which asks Pillow for no bits at all at its strongest: a black image, as older versions of Pillow gave."""
    mask = (FULL << (8 - min(max(bits, 0), 8))) & FULL
    return image.point([level & mask for level in range(FULL + 1)] * len(image.getbands()))


def _build(timm_file: ModuleType, text: str, settings: dict[str, Any]) -> Any:
    """timm's transform of an image for the text of a policy."""
    kind = text.partition("-")[0]
    if kind == "rand":
        return timm_file.rand_augment_transform(text, settings)
    if kind == "augmix":
        return timm_file.augment_and_mix_transform(text, settings | {"translate_pct": AUGMIX_TRANSLATION})
    return timm_file.auto_augment_transform(text, settings)
