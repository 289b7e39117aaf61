"""A trial input for networks whose outputs' shapes a method has to know before the first batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kdzoo.contract.shapes import DataFacts
from kdzoo.errors import InputError


def example_input(shape: tuple[int, ...], model: nn.Module) -> Tensor:
    """Two samples (2, *shape) for a trial forward, random and always the same, of the dtype of a model's weights."""
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).to(torch.float32 if weight is None else weight.dtype)


def stated_shape(data: DataFacts | None) -> tuple[int, ...] | None:
    """The shape of one input that the facts of the data state; raises InputError for one that is none."""
    shape = getattr(data, "input_shape", None)
    if shape is None:
        return None
    sizes = tuple(shape) if isinstance(shape, tuple | list | torch.Size) else ()
    if not sizes or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
        raise InputError(f"data.input_shape: expected the shape of one sample as the networks take it, such as (3, 32, 32), got {shape!r}")
    return sizes


def default_shape(*models: nn.Module | None) -> tuple[int, ...] | None:
    """The input (C, H, W) for which the first of these networks that is timm's was made; None where none of them is."""
    for model in models:
        config = getattr(model, "pretrained_cfg", None)
        size = config.get("input_size") if isinstance(config, Mapping) else None
        if size is not None:
            return tuple(size)
    return None
