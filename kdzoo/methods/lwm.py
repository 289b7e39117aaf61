"""Attention distillation of learning without memorizing: where the right class is seen, by Grad-CAM (Dhar et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.methods._ops import Size, full_precision, last_of_several, normalise, same_size, several, taught, wide


def lwm(student_cams: Tensor, teacher_cams: Tensor) -> Tensor:
    """Mean of |Q_s / ||Q_s|| - Q_t / ||Q_t||| over all of B x H x W (equation 2, as a mean).

    Class activation maps Q (B, H, W), not negative; of two sizes the larger is average-pooled, before the norm. A map
    of zeros stays one.
    """
    s, t = same_size(wide(student_cams)[:, None], taught(teacher_cams)[:, None])
    return (normalise(s.flatten(1)) - normalise(t.flatten(1))).abs().mean()


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
    stages=lambda method: "own" if method.stage is None else "paired",
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

    The teacher is run once more, in float32, for its gradients; the student's own forward serves for its. Each
    network's own last map of more than one cell is read, unless a pair of stages is named. Refused where class scores
    are not computed from the map itself, and where a network has none of more than one cell.
    """

    stage: int | None = Field(
        None, ge=0, description="which of the paired stages, from 0 at the shallow end; each network's own last unless given"
    )

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        ours, theirs = ([(stage.height, stage.width) for stage in shapes.stages] for shapes in (student, teacher))
        if self._stages_of(ours, theirs) is not None:
            return nn.Module()
        if self.stage is None:
            names = " and ".join(", ".join(map(str, shapes.stages)) or "none" for shapes in (student, teacher))
            raise InputError(f"compares where two maps look, for which both need several cells; the stages are {names}")
        names = ", ".join(f"{s} under {t}" for s, t in zip(student.stages, teacher.stages, strict=True)) or "none"
        if self.stage >= len(student.stages):
            raise InputError(f"stage: expected 0 to {len(student.stages) - 1}, got {self.stage}; the paired stages are {names}")
        raise InputError(f"compares where two maps look, for which both need several cells; the paired stages are {names}")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        with full_precision(student.logits):
            with torch.enable_grad():
                teacher_outputs = teacher.network.outputs(wide(batch.inputs).requires_grad_(), Need.STAGES | Need.LOGITS)
            places = self._stages_of(
                *([(maps.shape[2], maps.shape[3]) for maps in stages] for stages in (student.stages, teacher_outputs.stages))
            )
            assert places is not None  # or it would have been refused when it was built
            features, looked_at = student.stages[places[0]], teacher_outputs.stages[places[1]]
            teacher_map = grad_cam(looked_at.detach(), scored(looked_at, teacher_outputs.logits, batch.targets, differentiable=False))
            return lwm(grad_cam(features, scored(features, student.logits, batch.targets, differentiable=True)), teacher_map)

    def _stages_of(self, student: Sequence[Size], teacher: Sequence[Size]) -> tuple[int, int] | None:
        """The two maps that are compared, from all sizes (height, width); None where they are none of more than one cell."""
        if self.stage is not None:
            return (self.stage, self.stage) if self.stage in several(student, teacher) else None
        return last_of_several(student, teacher)
