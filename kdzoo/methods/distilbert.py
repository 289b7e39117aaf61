"""DistilBERT's triple loss: cross-entropy, softened class scores and the direction of hidden states (Sanh et al., 2019)."""

from __future__ import annotations

from typing import cast

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
from kdzoo.methods._ops import taught, wide
from kdzoo.methods.hinton import hinton

LEAST_SQUARE = 1e-12
"""added to each squared norm, as torch's CosineEmbeddingLoss does"""


def distilbert(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_states: Tensor,
    teacher_states: Tensor,
    *,
    temperature: float,
    soft_weight: float,
    cosine_weight: float,
) -> Tensor:
    """soft_weight T^2 KL(softmax(t / T) || softmax(s / T)) + cosine_weight mean(1 - cos(h_s, h_t)).

    Logits (B, K), or of all tokens that count (N, V). States are sequence maps (B, D, 1, L) of one shape; the mean is over the
    tokens of the whole batch, so that long texts weigh more. Where the teacher's state is zero there is no token.
    """
    soft = hinton(student_logits, teacher_logits, temperature=temperature)
    return soft_weight * soft + cosine_weight * cosine_distance(student_states, teacher_states)


def cosine_distance(student_states: Tensor, teacher_states: Tensor) -> Tensor:
    """The mean of 1 - cos over all positions of maps (B, D, H, W) where the teacher's vector is not zero; 0 where all are."""
    s, t = wide(student_states), taught(teacher_states)
    squares = [(states.square().sum(1) + LEAST_SQUARE) for states in (s, t)]
    cosine = (s * t).sum(1) * (squares[0] * squares[1]).rsqrt()
    is_token = (t != 0).any(1).to(cosine.dtype)
    return ((1 - cosine) * is_token).sum() / is_token.sum().clamp(min=1)


@register(
    "distilbert",
    needs=Need.LOGITS | Need.STAGES,
    published=Coefficients(task=2.0, term=1.0),
    source=Source(
        "DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter",
        2019,
        "https://arxiv.org/abs/1910.01108",
        equation="section 3, the triple loss",
        weights="2 CE + 5 KD + 1 cosine at T = 2, as the authors' example says of masked words",
    ),
    formula="{soft_weight} * {temperature}^2 * KL(softmax(t / {temperature}) || softmax(s / {temperature})) + {cosine_weight} * "
    "mean over tokens of (1 - cos(h_s, h_t))",
    zero_at_match=True,
    stages="last",
    maps="sequences",
    family="features",
    disagreements=(
        "The paper's cross-entropy is of masked words and its class scores are of all tokens' words, before any fine-tuning; here both are "
        "of the text's class, as where a classifier is distilled.",
        "The paper gives no weights. The authors' example for one device has 5, 2 and 1, that for several a third each.",
        "The authors' student is as wide as its teacher; where the widths differ here, a linear layer on its states learns with it.",
    ),
)
class DistilBERT(Method):
    """The class scores and the direction of every token's last hidden state.

    The authors start the student from layers of its teacher, evenly spaced: `hf:FOLDER@layers=N` does. As each state is compared with
    that of the same token, both networks have to have one tokeniser and read one number of tokens.
    """

    temperature: float = Field(2.0, gt=0, description="softens both softmaxes")
    soft_weight: float = Field(5.0, ge=0, description="factor on the divergence of the class scores")
    cosine_weight: float = Field(1.0, ge=0, description="factor on the distance of the hidden states")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        ours, theirs = student.stages[-1], teacher.stages[-1]
        if ours.width != theirs.width:
            raise InputError(f"compares token by token, but the student reads {ours.width} of a text and the teacher {theirs.width}")
        if None not in (student.tokeniser, teacher.tokeniser) and student.tokeniser != teacher.tokeniser:
            raise InputError("compares token by token, but the two networks split a text into tokens by different tokenisers")
        return nn.Identity() if ours.channels == theirs.channels else projector(ours, theirs)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return distilbert(
            student.logits,
            teacher.logits,
            cast(Tensor, module(student.stages[-1])),
            teacher.stages[-1],
            temperature=self.temperature,
            soft_weight=self.soft_weight,
            cosine_weight=self.cosine_weight,
        )
