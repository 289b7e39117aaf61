"""Channel-wise distillation: where each channel is active, as a distribution over pixels (Shu et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor, nn

from kdzoo.errors import InputError
from kdzoo.method import Method, Source, register
from kdzoo.methods._ops import carrier, divergence, full_precision, same_size, taught, wide
from kdzoo.signals import Batch, DataFacts, Need, Outputs, Shapes


def cwd(student_stages: Sequence[Tensor], teacher_stages: Sequence[Tensor], *, temperature: float) -> Tensor:
    """T^2 KL(phi_t || phi_s), phi a channel's softmax over its H x W pixels at T, mean over B x C, summed over stages.

    Maps (B, C, H, W), one to one with equal channels; of two sizes the larger is average-pooled before the softmax.
    Nats.
    """
    total = wide(student_stages[0]).new_zeros(())
    for student, teacher in zip(student_stages, teacher_stages, strict=True):
        s, t = (maps.flatten(2).flatten(0, 1) for maps in same_size(wide(student), taught(teacher)))
        apart = divergence((s / temperature).log_softmax(1), (t / temperature).log_softmax(1))
        total = total + temperature**2 * apart.mean()
    return total


@register(
    "cwd",
    needs=Need.STAGES,
    scale=50.0,
    source=Source(
        "Channel-wise Knowledge Distillation for Dense Prediction",
        2021,
        "https://arxiv.org/abs/2011.13256",
        equation="channel-wise divergence",
        weights="CE + 50 L on the last map at T = 4 as published for segmentation, 3 on a map of logits; none is published for "
        "classification",
    ),
    formula="{temperature}^2 * mean over images and channels of KL(phi_t || phi_s), phi = softmax over pixels at one stage",
    zero_at_match=True,
    family="features",
    disagreements=(
        "The paper distils segmentation networks, at maps of the same size and channels; mmrazor's settings have a temperature of 1 and a "
        "weight of 5 on the logits.",
        "A channel of a single pixel is always certain, so maps of one cell carry nothing; the last stage that has more is taken.",
    ),
)
class CWD(Method):
    """Where each channel of one stage is active, as a distribution over the pixels.

    Where channels differ, a 1x1 convolution carries the student's map to the teacher's. Refused where no paired stage
    has more than one cell.
    """

    temperature: float = Field(4.0, gt=0, description="softens the distributions over pixels")
    stage: int | None = Field(
        None, ge=0, description="which of the paired stages, from 0 at the shallow end; the last of more than one cell unless given"
    )

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        pairs = list(zip(student.stages, teacher.stages, strict=True))
        usable = several([((s.height, s.width), (t.height, t.width)) for s, t in pairs])
        listed = ", ".join(f"{s} under {t}" for s, t in pairs)
        if not usable:
            raise InputError(f"compares distributions over the cells of a map, but no paired stage has several; they are {listed}")
        if self.stage is not None and self.stage not in usable:
            expected = " or ".join(map(str, usable))
            raise InputError(f"stage: expected one of more than one cell, {expected}, got {self.stage}; the paired stages are {listed}")
        s, t = pairs[usable[-1] if self.stage is None else self.stage]
        return carrier(s.channels, t.channels)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        sizes = [((s.shape[2], s.shape[3]), (t.shape[2], t.shape[3])) for s, t in zip(student.stages, teacher.stages, strict=True)]
        stage = several(sizes)[-1] if self.stage is None else self.stage
        s, t = same_size(wide(student.stages[stage]), taught(teacher.stages[stage]))
        with full_precision(s):
            return cwd([module(s)], [t], temperature=self.temperature)


def several(sizes: Sequence[tuple[tuple[int, int], tuple[int, int]]]) -> list[int]:
    """Which pairs of heights and widths have more than one cell in common."""
    return [i for i, (ours, theirs) in enumerate(sizes) if max(map(min, ours, theirs)) > 1]
