"""Attention distillation of learning without memorizing: where the right class is seen, by Grad-CAM (Dhar et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from kdzoo.errors import InputError
from kdzoo.method import Method, Source, register
from kdzoo.methods._ops import full_precision, normalised, same_size, taught, wide
from kdzoo.signals import Batch, DataFacts, Need, Needs, Outputs, Shapes


def lwm(student_cams: Tensor, teacher_cams: Tensor) -> Tensor:
    """Mean of |Q_s / ||Q_s|| - Q_t / ||Q_t||| over all of B x H x W (equation 2, as a mean).

    Class activation maps Q (B, H, W), not negative; of two sizes the larger is average-pooled, before the norm. A map
    of zeros stays one.
    """
    s, t = same_size(wide(student_cams)[:, None], taught(teacher_cams)[:, None])
    return (normalised(s.flatten(1)) - normalised(t.flatten(1))).abs().mean()


def grad_cam(features: Tensor, gradients: Tensor) -> Tensor:
    """relu(sum_c w_c F_c) of maps F (B, C, H, W), w_c the mean over the cells of their gradients: (B, H, W)."""
    weights = wide(gradients).mean((2, 3))
    return torch.einsum("bc,bchw->bhw", weights, wide(features)).relu()


def scored(features: Tensor, logits: Tensor, targets: Tensor, *, differentiable: bool) -> Tensor:
    """The gradients of the targets' logits (B, K) with respect to a stage (B, C, H, W) from which they were computed."""
    score = logits.gather(1, targets[:, None]).sum()
    (gradients,) = torch.autograd.grad(score, features, create_graph=differentiable, retain_graph=differentiable, allow_unused=True)
    if gradients is None:
        raise InputError(
            f"reads the gradient of the class scores at a stage ({'x'.join(map(str, features.shape[1:]))}), but this network does not "
            "compute them from that map: ViTs, Swin transformers and mixers give a copy of their tokens"
        )
    return gradients


@register(
    "lwm",
    needs=Needs(Need.STAGES | Need.LOGITS | Need.NETWORK | Need.TARGETS, Need.NETWORK),
    scale=0.4,
    source=Source(
        "Learning without Memorizing",
        2019,
        "https://arxiv.org/abs/1811.08051",
        equation="2, with Grad-CAM's maps (arXiv 1610.02391)",
        weights="CE + 0.4 L as in Knowledge-Distillation-Zoo",
    ),
    formula="mean |Q_s / ||Q_s|| - Q_t / ||Q_t|||, Q = relu(sum_c mean(d z_y / d F_c) F_c)",
    zero_at_match=True,
    family="gradients",
    disagreements=(
        "Knowledge-Distillation-Zoo weighs the gradients by their own means, not the activations, which is no Grad-CAM.",
        "Knowledge-Distillation-Zoo takes the second stage; the paper the last map, as here, unless told otherwise or unless that has a "
        "single cell.",
        "The paper sums over the map, and Knowledge-Distillation-Zoo takes the mean, as here, which its weight goes with.",
        "The paper takes the class that the earlier network holds for most probable, because it has no score for the new classes; here it "
        "is the right one.",
        "The paper adds a distillation loss on the logits; `lwm+hinton` is that.",
    ),
)
class LwM(Method):
    """Where in a stage the right class is seen, by Grad-CAM in both networks.

    The teacher is run once more, in float32, for its gradients; the student's own forward serves for its. Refused where
    class scores are not computed from the stage's map itself, and where no pair of maps has more than one cell.
    """

    stage: int | None = Field(
        None, ge=0, description="which of the paired stages, from 0 at the shallow end; the deepest of several cells unless given"
    )

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        sizes = [tuple((s.height, s.width) for s in shapes.stages) for shapes in (student, teacher)]
        listed = ", ".join(f"{s} under {t}" for s, t in zip(student.stages, teacher.stages, strict=True)) or "none"
        if self.stage is not None and self.stage >= len(student.stages):
            raise InputError(f"stage: expected 0 to {len(student.stages) - 1}, got {self.stage}; the paired stages are {listed}")
        several = localising(*sizes)
        if not several or self.stage not in (None, *several):
            raise InputError(f"compares where two maps look, for which both need several cells; the paired stages are {listed}")
        return nn.Module()

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        with full_precision(student.logits):
            with torch.enable_grad():
                seen = teacher.network.outputs(wide(batch.inputs).requires_grad_(), Need.STAGES | Need.LOGITS)
            stage = self._stage_of(student.stages, seen.stages)
            gradients = scored(seen.stages[stage], seen.logits, batch.targets, differentiable=False)
            said = grad_cam(seen.stages[stage].detach(), gradients)
            features = student.stages[stage]
            return lwm(grad_cam(features, scored(features, student.logits, batch.targets, differentiable=True)), said)

    def _stage_of(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> int:
        """The stage that is meant."""
        sizes = [[(features.shape[2], features.shape[3]) for features in stages] for stages in (student, teacher)]
        return localising(*sizes)[-1] if self.stage is None else self.stage


def localising(student: Sequence[tuple[int, int]], teacher: Sequence[tuple[int, int]]) -> list[int]:
    """The pairs of maps, given by their heights and widths, that have more than one cell at the size to which both are pooled."""
    pairs = zip(student, teacher, strict=True)
    return [position for position, (s, t) in enumerate(pairs) if min(s[0], t[0]) * min(s[1], t[1]) > 1]
