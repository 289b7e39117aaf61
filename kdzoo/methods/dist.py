"""Distillation from a stronger teacher: correlated predictions instead of equal ones (Huang et al., 2022)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import normalise, taught, wide


def dist(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float, inter_weight: float, intra_weight: float) -> Tensor:
    """T^2 (inter_weight (1 - mean_b r_b) + intra_weight (1 - mean_k r_k)), r being Pearson's correlations (the losses L_inter and L_intra).

    Logits (B, K). r_b correlates the softened probabilities of a sample over the classes, r_k those of a class over the
    batch, norms being 1e-8 at least. The intra-class part depends on the batch and is zero for one sample.
    """
    s, t = ((z / temperature).softmax(1) for z in (wide(student_logits), taught(teacher_logits)))
    inter = 1 - correlation(s, t).mean()
    intra = 1 - correlation(s.T, t.T).mean() if len(s) > 1 else s.new_zeros(())
    return temperature**2 * (inter_weight * inter + intra_weight * intra)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of each row of (N, M) with its like: (N,); 0 where a row is constant."""
    a, b = (normalise(z - z.mean(1, keepdim=True), eps=1e-8) for z in (a, b))
    return (a * b).sum(1)


@register(
    "dist",
    needs=Need.LOGITS,
    scale=2.0,
    source=Source(
        "Knowledge Distillation from A Stronger Teacher",
        2022,
        "https://arxiv.org/abs/2205.10536",
        equation="L_inter and L_intra",
        weights="CE + 2 L with beta = gamma = 1 as in mmrazor and torchdistill for ImageNet, where T = 1; T = 4 is from the code of "
        "TTM for CIFAR-100",
    ),
    formula="{temperature}^2 * ({inter_weight} * (1 - mean_b pearson_b) + {intra_weight} * (1 - mean_k pearson_k))",
    family="logits",
    disagreements=(
        "The paper gives both parts the weight 2; mmrazor and torchdistill give both 1 and the sum 2, which is the same.",
        "The authors' code adds 1e-8 to the product of the norms, which leaves a loss where the two agree; here, as in torchdistill, norms "
        "are kept from falling below it. It shows where classes have next to no probability: with 100 classes and logits of deviation 4 "
        "the loss differs by 0.005 % and its gradient by 0.6 %, with usual logits by less.",
        "torchdistill's DIST+ adds correlations of channels with the wrong sign, so that it drives them down; that variant is not here.",
    ),
)
class DIST(Method):
    """Correlation of the teacher's and the student's probabilities, over classes and over the batch."""

    temperature: float = Field(4.0, gt=0, description="softens both softmaxes")
    inter_weight: float = Field(1.0, ge=0, description="factor on the correlation over classes (beta of the paper)")
    intra_weight: float = Field(1.0, ge=0, description="factor on the correlation over the batch (gamma of the paper)")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        weights = {"inter_weight": self.inter_weight, "intra_weight": self.intra_weight}
        return dist(student.logits, teacher.logits, temperature=self.temperature, **weights)
