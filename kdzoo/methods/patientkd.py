"""Patient knowledge distillation: the first token's state in the layers below the last (Sun et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Coefficients, Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.projection import projector
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.methods._ops import normalise, taught, wide
from kdzoo.methods.hinton import hinton

Layers = Literal["skip", "last"]


def patientkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_tokens: Sequence[Tensor],
    teacher_tokens: Sequence[Tensor],
    *,
    temperature: float,
    soft_weight: float,
    patience_weight: float,
) -> Tensor:
    """soft_weight T^2 KL(softmax(t / T) || softmax(s / T)) / K + patience_weight mean((n(h_s) - n(h_t))^2).

    Logits (B, K). Tokens: the first token's state in each of L layers, (B, D), n dividing it by its norm. Both parts are means over all
    elements, as the authors' program has them: over K classes too, and over layers and widths.
    """
    soft = hinton(student_logits, teacher_logits, temperature=temperature) / student_logits.shape[1]
    pairs = zip(student_tokens, teacher_tokens, strict=True)
    apart = torch.stack([(normalise(wide(ours)) - normalise(taught(theirs))).square().mean() for ours, theirs in pairs])
    return soft_weight * soft + patience_weight * apart.mean()


def teachers_layers(layers: Layers, student: int, teacher: int) -> list[int]:
    """Which of the teacher's layers, from 0, each of the student's below its last is compared with.

    `skip`: evenly spaced, 2, 4, 6, 8 and 10 of 12 (counted from 1) for a student of 6. `last`: those before the last, 7 to 11.
    """
    numbers = range(1, student)
    chosen = [round(number * teacher / student) if layers == "skip" else teacher - student + number for number in numbers]
    return [max(number, 1) - 1 for number in chosen]


@register(
    "patientkd",
    needs=Need.LOGITS | Need.STAGES,
    published=Coefficients(task=0.3, term=1.0),
    source=Source(
        "Patient Knowledge Distillation for BERT Model Compression",
        2019,
        "https://arxiv.org/abs/1908.09355",
        equation="(4) to (7)",
        weights="0.3 CE + 0.7 KD + 500 patience at T = 5, from the authors' grids and example",
    ),
    formula="{soft_weight} * {temperature}^2 * KL(softmax(t / {temperature}) || softmax(s / {temperature})) / K + {patience_weight} * "
    "mean over layers and widths of (n(h_s) - n(h_t))^2, n dividing by the norm",
    zero_at_match=True,
    stages="own",
    maps="sequences",
    family="features",
    disagreements=(
        "The authors' program averages the divergence over classes as well, so that it is K times smaller than KD's; so it is here.",
        "The paper sums the squared distances; the program takes the mean over layers and widths, hence weights of hundreds; so here.",
        "The program's patience is computed in half precision whatever the run; here in float32 at least.",
        "Dividing by the norm is an option of the program that is off by default; the paper has it, and so it is here.",
        "The authors' student is as wide as its teacher; where the widths differ here, linear layers on its states learn with it.",
    ),
)
class PatientKD(Method):
    """The class scores, and the first token's state in all layers of the student but the last."""

    temperature: float = Field(5.0, gt=0, description="softens both softmaxes")
    soft_weight: float = Field(0.7, ge=0, description="factor on the divergence of the class scores (alpha of the paper)")
    patience_weight: float = Field(500.0, ge=0, description="factor on the distance of the tokens (beta of the paper)")
    layers: Layers = Field("skip", description="the teacher's layers: evenly spaced (skip), or those before the last (last)")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        if len(student.stages) < 2:
            raise InputError("compares the layers below the student's last, and that network has none")
        places = teachers_layers(self.layers, len(student.stages), len(teacher.stages))
        widths = [(ours.channels, teacher.stages[place].channels) for ours, place in zip(student.stages, places, strict=False)]
        return nn.ModuleList(nn.Identity() if ours == theirs else projector(ours, theirs) for ours, theirs in widths)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        assert isinstance(module, nn.ModuleList)
        places = teachers_layers(self.layers, len(student.stages), len(teacher.stages))
        of_student = [layer(states[:, :, 0, 0]) for layer, states in zip(module, student.stages[:-1], strict=True)]
        return patientkd(
            student.logits,
            teacher.logits,
            of_student,
            [teacher.stages[place][:, :, 0, 0] for place in places],
            temperature=self.temperature,
            soft_weight=self.soft_weight,
            patience_weight=self.patience_weight,
        )
