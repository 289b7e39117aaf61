"""Measurements of a network: the shapes of its outputs, its parameters, its multiply-accumulates."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import Shapes, StageShape
from kdzoo.errors import InputError
from kdzoo.models.examine import quietly
from kdzoo.models.network import Network, heads_of
from kdzoo.seeds import generator


@dataclass(frozen=True)
class NetworkCost:
    """parameters, and multiply-accumulates of one image (convolutions, matrix products, attention)."""

    parameters: int
    macs: int


def measure_shapes(network: Network, image_shape: tuple[int, int, int]) -> Shapes:
    """What a network's outputs measure for images (C, H, W), found by one forward that changes nothing in it.

    Raises InputError for images that are not square where the network is made for squares of one side.
    """
    images = torch.zeros(1, *image_shape, dtype=torch.uint8, device=network.mean.device)
    try:
        return measure_outputs(network, images, image_shape[1])
    except Exception as error:
        if problems := _oblong(network, *image_shape[1:]):
            raise InputError(*problems) from error
        raise


def measure_outputs(network: Network, inputs: Tensor, height: int) -> Shapes:
    """What a network's outputs measure for inputs of a height, found by one forward that changes nothing in it."""
    out: Outputs = quietly(network, lambda: network(inputs, Need.LOGITS | Need.STAGES | Need.EMBEDDING))
    stages = tuple(StageShape(m.shape[1], m.shape[2], m.shape[3], height / m.shape[2]) for m in out.stages)
    return Shapes(
        classes=0 if network.headless else out.logits.shape[1],
        embedding=0 if out.embedding is None else out.embedding.shape[1],
        stages=stages,
        preact=network.gives_preactivations,
        distilled=network.has_distillation_token,
        sequences=network.gives_sequences,
        joined=network.joined,
        tokeniser=network.tokeniser,
        classifier=_classifier_copy(network, out),
    )


def _oblong(network: Network, height: int, width: int) -> list[str]:
    """A sentence for each network (of an ensemble each member) that is made for square images and is given others."""
    if height == width:
        return []
    parts = [part for part in network.modules() if isinstance(part, Network) and hasattr(part.model, "pretrained_cfg")]
    not_resized = [part for part in parts if part.image_size in (None, width)]  # `normalise` resizes the images of the others
    configs = [cast("dict[str, Any]", part.model.pretrained_cfg) for part in not_resized]
    names = sorted({str(config.get("architecture")) for config in configs if config.get("fixed_input_size")})
    return [
        f"{name}: is made for square images, but these have height {height} and width {width}; {name}@{height} resizes them to "
        f"{height}x{height}"
        for name in names
    ]


def _classifier_copy(network: Network, out: Outputs) -> nn.Module | None:
    """A frozen copy of the module from embedding to logits, where there is one and its scores are the network's."""
    if out.embedding is None or network.headless or (network.is_timm and len(heads_of(network.model)) > 1):
        return None
    whole = copy.deepcopy(network.classifier_module()).requires_grad_(False).eval()
    with torch.no_grad():
        scores = whole(out.embedding)
    if scores.shape != out.logits.shape:
        return None
    expected, own = (out.logits, scores) if network.gives == "scores" else (out.logits.log_softmax(1), scores.log_softmax(1))
    return whole if torch.allclose(own, expected, atol=1e-4, rtol=1e-3) else None


def network_cost(network: Network, image_shape: tuple[int, int, int]) -> NetworkCost:
    """Parameters of the wrapped model and the multiply-accumulates of one image."""
    return NetworkCost(sum(p.numel() for p in network.model.parameters()), multiply_accumulates(network, network, image_shape))


def multiply_accumulates(scored: nn.Module, network: Network, image_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one image through `scored.logits`: the network's own, or of what is made of it."""
    from torch.utils.flop_counter import FlopCounterMode  # here: it loads triton, which no plan waits for

    images = torch.zeros(1, *image_shape, dtype=torch.uint8, device=network.mean.device)
    counter = FlopCounterMode(display=False)
    with attention_as_products(), counter:
        quietly(scored, lambda: scored.logits(images))  # type: ignore[operator]
    return counter.get_total_flops() // 2


@contextmanager
def attention_as_products() -> Iterator[None]:
    """A block in which attention is computed by plain matrix products on every device, so that a counter of operations sees them.

    Of fused kernels it knows some and not others (the CPU's among these), and torch's own transformer layers run whole as one.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def with_random_embeddings(shapes: Shapes, seed: int = 0) -> Shapes:
    """The shapes of a network that is not trained yet, whose embeddings of samples are drawn: what is built of them is thrown away."""

    def draw(positions: Tensor) -> Tensor:
        return torch.randn(len(positions), shapes.embedding, generator=generator(seed, "untrained", "embeddings"))

    return replace(shapes, embed=draw)
