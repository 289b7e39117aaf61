"""Boundary supporting samples: images moved to the teacher's decision boundary (Heo et al., 2019)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import DifferentiableNetwork, Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import divergence, full_precision, method_rng, taught, wide

UNIT = 0.2 * 255
"""one unit of the paper's normalised images, whose standard deviation is 0.2 of the range of pixel values"""
OVERSHOOT = 1e-4
"""added to the gap between two scores, so that the boundary is crossed"""


def bss(student_logits: Tensor, teacher_logits: Tensor, valid: Tensor, *, temperature: float) -> Tensor:
    """KL(softmax(t / T) || softmax(s / T)), summed over the classes, mean over the valid samples, 0 without one (L_BS).

    Logits (B, K) of the attacked images, valid (B,) bool. There is no T^2, as in the paper.
    """
    log_s = (wide(student_logits) / temperature).log_softmax(1)
    log_t = (taught(teacher_logits) / temperature).log_softmax(1)
    return divergence(log_s, log_t).masked_fill(~valid, 0).sum() / valid.sum().clamp(min=1)


def base_samples(student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, *, count: int) -> tuple[Tensor, Tensor]:
    """The `count` samples, of those that both networks get right, that differ most in sum_{k != y} (p_t - p_s)^2.

    Logits (B, K), targets (B,). Indices (count,) into the batch, and whether each is a base sample, (count,) bool:
    where fewer qualify, the rest are others, marked False.
    """
    s, t = taught(student_logits), taught(teacher_logits)
    apart = (t.softmax(1) - s.softmax(1)).square()
    right = (s.argmax(1) == targets) & (t.argmax(1) == targets)
    score = (apart.sum(1) - apart.gather(1, targets[:, None])[:, 0]).masked_fill(~right, -torch.inf)
    indices = score.topk(count).indices
    return indices, right[indices]


def other_classes(teacher_logits: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
    """For each row of (B, K) a class other than the target, drawn with the teacher's probabilities: (B,).

    The largest of log p_k - log E_k, E_k exponential, falls on k with probability p_k, which asks nothing of the host.
    """
    t = taught(teacher_logits)
    noise = torch.empty(t.shape, dtype=torch.float64, device=generator.device).exponential_(generator=generator).to(t.device)
    noisy = t.log_softmax(1) - noise.clamp(min=1e-300).log()
    return noisy.scatter(1, targets[:, None], -torch.inf).argmax(1)


def attack(network: DifferentiableNetwork, images: Tensor, base: Tensor, other: Tensor, *, steps: int, rate: float) -> Tensor:
    """Images (B, C, H, W) in 0..255 moved from the class `base` (B,) towards `other` (B,) until they leave `base`.

    A step goes `rate` (z_base - z_other + OVERSHOOT) units of the paper's normalised images along the gradient of
    z_other - z_base, divided by its L2 norm, and stays in 0..255. An image that has left its class stays where it is.
    """
    pixels = wide(images).detach()
    for _ in range(steps):
        with torch.enable_grad(), full_precision(pixels):
            here = pixels.requires_grad_()
            logits = wide(network(here))
            gap = (logits.gather(1, base[:, None]) - logits.gather(1, other[:, None]))[:, 0]
            (gradient,) = torch.autograd.grad(gap.sum(), here)
        length = torch.linalg.vector_norm(gradient, dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
        step = (UNIT * rate * (gap.detach() + OVERSHOOT)).masked_fill(logits.argmax(1) != base, 0)
        pixels = (here.detach() - step[:, None, None, None] * (gradient / length)).clamp(0, 255)
    return pixels


@register(
    "bss",
    needs=Needs(Need.LOGITS | Need.NETWORK | Need.TARGETS, Need.LOGITS | Need.NETWORK),
    scale=2.0,
    source=Source(
        "Knowledge Distillation with Adversarial Samples Supporting Decision Boundary",
        2019,
        "https://arxiv.org/abs/1805.05532",
        equation="L_BS, base samples and the iterative attack",
        weights="CE + 2 L, falling to 0 at three quarters of the training, with T = 3, 10 steps of 0.3 and a quarter of the batch, as in "
        "the authors' code",
    ),
    formula="KL(softmax(t(x') / {temperature}) || softmax(s(x') / {temperature})), x' attacked in {steps} steps of {rate}, times "
    "max(0, 1 - progress / {until})",
    zero_at_match=True,
    family="gradients",
    pixels="it moves images and keeps them in 0..255",
    disagreements=(
        "The paper and the authors' code distil from the images themselves too, with a weight that falls from 4 to 1; "
        "Knowledge-Distillation-Zoo does not, as here. `bss+hinton` does.",
        "The authors' code attacks the logits, as here; Knowledge-Distillation-Zoo the probabilities, whose gaps are below 1, so that its "
        "steps are shorter.",
        "The authors' code asks of base samples that the teacher is right; the paper and Knowledge-Distillation-Zoo, as here, that both "
        "networks are.",
        "The authors' code clamps normalised images to -2.5 and 2.5, some of which are no images; here pixels stay in 0..255.",
        "The authors' code and Knowledge-Distillation-Zoo draw the class to attack in a loop over samples and classes that waits for the "
        "device at each; here they are drawn at once.",
        "Knowledge-Distillation-Zoo begins after ten epochs and ends at four fifths of the training.",
    ),
)
class BSS(Method):
    """What the teacher says of images that are moved across its own decision boundary.

    The images that both networks get right and differ most on are moved by gradients of the teacher, each towards a
    class drawn with the teacher's probabilities. The teacher is run forward and backward `steps` times on a share of
    the batch, and both networks once more, in float32; the student's batch norms see the moved images too, as in the
    authors' code.
    """

    temperature: float = Field(3.0, gt=0, description="softens both softmaxes")
    share: float = Field(0.25, gt=0, le=1, description="the largest share of the batch that is attacked")
    steps: int = Field(10, ge=1, description="of the attack")
    rate: float = Field(0.3, gt=0, description="length of a step over the gap between the two scores, in units of normalised images")
    until: float = Field(0.75, gt=0, le=1, description="the share of the training after which the weight is 0")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        size = len(batch.targets)
        count = min(size, max(2, round(self.share * size)))
        indices, valid = base_samples(student.logits, teacher.logits, batch.targets, count=count)
        base = batch.targets[indices]
        other = other_classes(teacher.logits[indices], base, batch.generator)
        attacks = attack(teacher.network, batch.inputs[indices], base, other, steps=self.steps, rate=self.rate)
        with torch.no_grad(), full_precision(attacks):
            teacher_scores = teacher.network(attacks)
        with method_rng(batch), full_precision(attacks):
            return bss(student.network(attacks), teacher_scores, valid, temperature=self.temperature)

    def ramp(self, clock: Progress) -> float:
        return max(0.0, 1 - clock.progress / self.until)
