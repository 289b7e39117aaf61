"""Several teachers whose softened probabilities are averaged (Hinton, Vinyals and Dean, 2015)."""

from __future__ import annotations

import math
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
from kdzoo.methods._ops import taught, wide


def ensemble_probabilities(student_logits: Tensor, members: Sequence[Tensor], *, temperature: float) -> Tensor:
    """T^2 KL(mean_m softmax(t_m / T) || softmax(s / T)), summed over the K classes, mean over the batch.

    Logits (B, K) of the student and of each teacher; T > 0. The mean is that of probabilities (arithmetic); a mean of
    logits would be their geometric mean. With one teacher this is Hinton's loss.
    """
    log_s = (wide(student_logits) / temperature).log_softmax(1)
    each = torch.stack([(taught(member) / temperature).log_softmax(1) for member in members])
    log_t = each.logsumexp(0) - math.log(len(members))
    return temperature**2 * (log_t.exp() * (log_t - log_s)).sum(1).mean()


@register(
    "ensemble_probabilities",
    needs=Needs(Need.LOGITS, Need.MEMBERS),
    published=Coefficients(task=0.1, term=0.9),
    source=Source(
        "Distilling the Knowledge in a Neural Network",
        2015,
        "https://arxiv.org/abs/1503.02531",
        equation="sections 1 and 2, an arithmetic mean of the teachers' distributions",
        weights="those of Hinton's loss with one teacher",
    ),
    formula="{temperature}^2 * KL(mean over teachers of softmax(t / {temperature}) || softmax(s / {temperature}))",
    zero_at_match=True,
    family="logits",
    disagreements=("The paper allows the arithmetic or the geometric mean of the teachers; here it is the arithmetic one.",),
    per_sample=True,
)
class EnsembleProbabilities(Method):
    """The mean of several teachers' softened probabilities as targets."""

    temperature: float = Field(4.0, gt=0, description="softens all softmaxes")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return ensemble_probabilities(student.logits, teacher.members, temperature=self.temperature)
