"""Multi-level logit distillation as the authors' code behaves, for comparisons with published numbers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Coefficients, Source, in_doses
from kdzoo.contract.needs import Need, Needs, Pass
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import wide
from kdzoo.methods.hinton import hinton
from kdzoo.methods.mlld import FURTHER_TEMPERATURES, MLLD, levels, rare, unsure


def mlld_released(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_second_logits: Tensor,
    teacher_second_logits: Tensor,
    *,
    temperature: float,
) -> Tensor:
    """Sum over T in {temperature, 3, 5, 2, 6} of q_s KD + q_s BC + q_c CC of the first view, and of KD again.

    KD, BC and CC are `mlld`'s losses of samples, batch and classes as means without masks; q_s and q_c are the shares of
    samples and of classes that its masks would keep, about a half. KD again is the second view's at T in {temperature, 3, 5}
    and the first view's at 2 and 6. Logits (B, K) of the first view and of the second.
    """
    samples, classes = unsure(teacher_logits).mean(), rare(teacher_logits).mean()
    total = wide(student_logits).new_zeros(())
    for t in (temperature, *FURTHER_TEMPERATURES):
        of_samples, of_batch, of_classes = (level.mean() for level in levels(student_logits, teacher_logits, t))
        total = total + samples * (of_samples + of_batch) + classes * of_classes
    first, second = (student_logits, teacher_logits), (student_second_logits, teacher_second_logits)
    for t, view in ((temperature, second), (3.0, second), (5.0, second), (2.0, first), (6.0, first)):
        total = total + hinton(*view, temperature=t)
    return total


@register(
    "mlld_released",
    needs=Needs(Need.LOGITS | Pass.SECOND_VIEW | Need.TARGETS, Need.LOGITS | Pass.SECOND_VIEW),
    published=Coefficients(task=0.1, term=0.9),
    source=Source(
        "Multi-Level Logit Distillation",
        2023,
        "https://openaccess.thecvf.com/content/CVPR2023/html/Jin_Multi-Level_Logit_Distillation_CVPR_2023_paper.html",
        equation="the authors' code, and the same code in logit standardisation",
        weights="0.1 CE + 0.9 L at T = 4, of which 0.1 CE of the second view: the defaults for CIFAR-100 of mdistiller, on which the "
        "authors' code is built",
    ),
    formula="sum over T in {temperature}, 3, 5, 2, 6 of q_s (KD + BC) + q_c CC + KD of the second view (of the first at 2 and 6), "
    "+ {second_label_weight} * CE of the second view",
    search=in_doses(1.0, 0.3, 0.1, 0.03, 3.0),
    family="logits",
    disagreements=(
        "This is the authors' code with its faults: masks that only scale, the first view's logits in the second view's sum, and no "
        "relations of the second view. `mlld` is without them.",
        "The authors' code finds the medians on the processor in every step; the numbers are the same.",
        "The code of logit standardisation takes a weight of 9 and a base temperature of 2.",
        "The published runs take 480 epochs, or 960, where other methods have 240, and a stronger augmentation for the second view; here "
        "the two views are two draws of the recipe's augmentation.",
    ),
)
class MLLDReleased(MLLD):
    """Multi-level logit distillation with the faults of the authors' code, of which none is in `mlld`."""

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        student_second, teacher_second = student.second.logits, teacher.second.logits
        labels = F.cross_entropy(wide(student_second), batch.targets)
        distillation = mlld_released(student.logits, teacher.logits, student_second, teacher_second, temperature=self.temperature)
        return distillation + self.second_label_weight * labels
