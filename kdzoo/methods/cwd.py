"""Channel-wise distillation: where each channel is active, as a distribution over pixels (Shu et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.methods._ops import Size, channel_adapter, divergence, full_precision, last_of_several, same_size, several, taught, wide


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
    stages=lambda method: "own" if method.stage is None else "paired",
    family="features",
    disagreements=(
        "The paper distils segmentation networks, at maps of the same size and channels; mmrazor's settings have a temperature of 1 and a "
        "weight of 5 on the logits.",
        "A channel of a single pixel is always certain, so maps of one cell carry nothing; each network's last stage that has more is "
        "taken.",
    ),
    per_sample=True,
)
class CWD(Method):
    """Where each channel of one stage is active, as a distribution over the pixels.

    Each network's own last map of more than one cell, unless a pair of stages is named. Where channels differ, a 1x1
    convolution carries the student's map to the teacher's. Refused where a network has no such map.
    """

    temperature: float = Field(4.0, gt=0, description="softens the distributions over pixels")
    stage: int | None = Field(
        None, ge=0, description="which of the paired stages, from 0 at the shallow end; each network's own last unless given"
    )

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        ours, theirs = ([(stage.height, stage.width) for stage in shapes.stages] for shapes in (student, teacher))
        places = self._stages_of(ours, theirs)
        if places is None and self.stage is None:
            names = " and ".join(", ".join(map(str, shapes.stages)) or "none" for shapes in (student, teacher))
            raise InputError(f"compares distributions over the cells of a map, but not both networks have one of several: {names}")
        if places is None:
            usable = " or ".join(map(str, several(ours, theirs))) or "none"
            names = ", ".join(f"{s} under {t}" for s, t in zip(student.stages, teacher.stages, strict=True))
            raise InputError(f"stage: expected one of more than one cell, {usable}, got {self.stage}; the paired stages are {names}")
        return channel_adapter(student.stages[places[0]].channels, teacher.stages[places[1]].channels)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        places = self._stages_of(*([(maps.shape[2], maps.shape[3]) for maps in outputs.stages] for outputs in (student, teacher)))
        assert places is not None  # or it would have been refused when it was built
        s, t = same_size(wide(student.stages[places[0]]), taught(teacher.stages[places[1]]))
        with full_precision(s):
            return cwd([module(s)], [t], temperature=self.temperature)

    def _stages_of(self, student: Sequence[Size], teacher: Sequence[Size]) -> tuple[int, int] | None:
        """The two maps that are compared, from all sizes (height, width); None where they are none of more than one cell."""
        if self.stage is not None:
            return (self.stage, self.stage) if self.stage in several(student, teacher) else None
        return last_of_several(student, teacher)
