"""Several teachers, each with a Hinton loss of its own, averaged (You et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Coefficients, Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods.hinton import hinton


def ensemble_losses(student_logits: Tensor, members: Sequence[Tensor], *, temperature: float) -> Tensor:
    """The mean over teachers of T^2 KL(softmax(t_m / T) || softmax(s / T)), summed over classes, mean over the batch.

    Logits (B, K) of the student and of each teacher; T > 0. Its gradient is that of averaged probabilities; its value
    is larger by the spread of the teachers, T^2 times the mean KL from each to their mean.
    """
    return torch.stack([hinton(student_logits, member, temperature=temperature) for member in members]).mean()


@register(
    "ensemble_losses",
    needs=Needs(Need.LOGITS, Need.MEMBERS),
    published=Coefficients(task=0.1, term=0.9),
    source=Source(
        "Learning from Multiple Teacher Networks",
        2017,
        "https://doi.org/10.1145/3097983.3098135",
        equation="the loss on softened outputs, averaged over teachers",
        weights="those of Hinton's loss with one teacher",
    ),
    formula="mean over teachers of {temperature}^2 * KL(softmax(t / {temperature}) || softmax(s / {temperature}))",
    zero_at_match=True,
    family="logits",
    disagreements=("The paper adds a loss on the order of intermediate representations, which is left out here.",),
    per_sample=True,
)
class EnsembleLosses(Method):
    """The mean of the Hinton losses under each of several teachers."""

    temperature: float = Field(4.0, gt=0, description="softens all softmaxes")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return ensemble_losses(student.logits, teacher.members, temperature=self.temperature)
