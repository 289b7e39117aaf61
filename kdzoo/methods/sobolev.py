"""Sobolev training: how the right class's score changes with each pixel (Czarnecki et al., 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import DifferentiableNetwork, Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import full_precision, method_rng, normalise, taught, wide


def sobolev(student_gradients: Tensor, teacher_gradients: Tensor) -> Tensor:
    """Mean of (g_s / ||g_s|| - g_t / ||g_t||)^2 over all of B x C x H x W.

    Gradients (B, C, H, W) of a score with respect to the images; the norm is each image's own, so their scale does not
    count.
    """
    s, t = normalise(wide(student_gradients).flatten(1)), normalise(taught(teacher_gradients).flatten(1))
    return (s - t).square().mean()


def saliency(network: DifferentiableNetwork, images: Tensor, targets: Tensor, *, differentiable: bool) -> Tensor:
    """The gradient of the targets' logits, summed over the batch, with respect to images (B, C, H, W) in 0..255.

    differentiable: whether it can itself be differentiated by the network's weights. Attention is computed by plain
    matrix products, since its fused kernels have no second derivative.
    """
    with torch.enable_grad(), full_precision(images), sdpa_kernel(SDPBackend.MATH):
        pixels = wide(images).detach().requires_grad_()
        score = wide(network(pixels)).gather(1, targets[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, pixels, create_graph=differentiable)
    return gradient


@register(
    "sobolev",
    needs=Needs(Need.NETWORK | Need.TARGETS, Need.NETWORK),
    scale=20.0,
    source=Source(
        "Sobolev Training for Neural Networks",
        2017,
        "https://arxiv.org/abs/1706.04859",
        equation="the term of first order, in the normalised form of Srinivas and Fleuret (arXiv 1803.00443)",
        weights="CE + 20 L as in Knowledge-Distillation-Zoo",
    ),
    formula="mean((g_s / ||g_s|| - g_t / ||g_t||)^2), g = d z_y / d x",
    zero_at_match=True,
    family="gradients",
    disagreements=(
        "The paper matches derivatives in random directions; Srinivas and Fleuret match the whole gradient of the right class's score, "
        "normalised, as here.",
        "Knowledge-Distillation-Zoo keeps the graph of the teacher's gradient too, which nothing reads; its author warns that the method "
        "is unstable by itself.",
    ),
)
class Sobolev(Method):
    """The direction in which each image would have to change for the right class's score to rise.

    The student is run once more, in float32, and differentiated twice; its batch norms see the batch a second time. In
    a batch norm an image's gradient has a part from the others of the batch.
    """

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        images, targets = batch.inputs, batch.targets
        teacher_map = saliency(teacher.network, images, targets, differentiable=False)
        with method_rng(batch):
            return sobolev(saliency(student.network, images, targets, differentiable=True), teacher_map)
