"""The weighted sum against sums written by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.methods import create_method
from kdzoo.contract.needs import Need, Needs, UndeclaredNeed
from kdzoo.contract.objective import Objective, Term
from kdzoo.contract.outputs import Outputs
from kdzoo.tasks.cross_entropy import cross_entropy, soft_cross_entropy


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def batch(targets: torch.Tensor, soft: torch.Tensor | None = None) -> Batch:
    return Batch(
        soft_targets=soft,
        inputs=torch.zeros(len(targets), 3, 4, 4, dtype=torch.uint8),
        targets=targets,
        index=torch.arange(len(targets)),
        clock=Progress(0, 1, 0, 1),
        generator=torch.Generator(),
    )


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(6, 5, generator=random, dtype=torch.float64), torch.randn(6, 5, generator=random, dtype=torch.float64)


TARGETS = torch.tensor([0, 1, 2, 3, 4, 0])


def objective(task: float, *terms: Term) -> Objective:
    return Objective(task, terms, {t.name: nn.Module() for t in terms}, stages=[], label_smoothing=0.0, seed=0)


def test_the_total_is_the_sum_of_its_parts_by_hand(logits):
    s, t = logits
    made = objective(0.3, Term(create_method("hinton", temperature=2.0), 0.7), Term(create_method("logits"), 5.0))
    losses = made(Outputs.of({Need.LOGITS: s}, owner="student"), Outputs.of({Need.LOGITS: t}, owner="teacher"), batch(TARGETS))
    zs, zt = s.numpy(), t.numpy()
    ce = -np.log(softmax(zs)[np.arange(6), TARGETS.numpy()]).mean()
    p, q = softmax(zt / 2), softmax(zs / 2)
    kd = 4 * (p * np.log(p / q)).sum(1).mean()
    l2 = ((zs - zt) ** 2).mean()
    assert losses.total.item() == pytest.approx(0.3 * ce + 0.7 * kd + 5 * l2, rel=1e-12)
    assert {name: part.item() for name, part in losses.parts.items()} == pytest.approx({"ce": ce, "hinton": kd, "logits": l2}, rel=1e-12)


def test_cross_entropy_counts_only_labelled_samples(logits):
    s, _ = logits
    some = torch.tensor([0, -1, 2, -1, -1, 0])
    expected = -np.log(softmax(s.numpy())[[0, 2, 5], [0, 2, 0]]).mean()
    assert cross_entropy(s, some, 0.0).item() == pytest.approx(expected)
    assert cross_entropy(s, torch.full((6,), -1), 0.0).item() == 0.0


def test_label_smoothing_mixes_with_the_uniform_distribution(logits):
    s, _ = logits
    log_q = np.log(softmax(s.numpy()))
    target = np.full((6, 5), 0.1 / 5)
    target[np.arange(6), TARGETS.numpy()] += 0.9
    assert cross_entropy(s, TARGETS, 0.1).item() == pytest.approx(-(target * log_q).sum(1).mean())


SHARES = torch.tensor(
    [[0.7, 0.3, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0.5, 0, 0.5], [0, 0, 0, 0.9, 0.1], [0.2, 0, 0, 0, 0.8], [1, 0, 0, 0, 0]]
)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_soft_targets_are_weighed_by_their_shares_and_smoothed_alike(logits, smoothing):
    s, _ = logits
    target = (1 - smoothing) * SHARES.double().numpy() + smoothing / 5
    expected = -(target * np.log(softmax(s.numpy()))).sum(1).mean()
    assert soft_cross_entropy(s, SHARES, smoothing).item() == pytest.approx(expected, rel=1e-7)
    hard = torch.nn.functional.one_hot(TARGETS, 5).double()
    assert soft_cross_entropy(s, hard, smoothing).item() == pytest.approx(cross_entropy(s, TARGETS, smoothing).item(), rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_what_has_no_label_in_a_mix_weighs_nothing(logits, smoothing):
    """0.7 of sample 0 with a label, all of sample 1, nothing of sample 2: as the labelled parts on their own."""
    s, _ = logits
    shares = torch.tensor([[0.7, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.float64)
    each = [cross_entropy(s[i : i + 1], torch.tensor([i]), smoothing).item() for i in (0, 1)]
    assert soft_cross_entropy(s[:3], shares, smoothing).item() == pytest.approx((0.7 * each[0] + each[1]) / 1.7, rel=1e-12)
    assert soft_cross_entropy(s[:3], torch.zeros_like(shares), smoothing).item() == 0


def test_the_task_takes_soft_targets_where_images_are_mixed_and_methods_see_both(logits):
    s, t = logits
    seen = []

    class Looking(type(create_method("logits"))):
        def loss(self, student, teacher, batch, module):
            seen.append((batch.targets, batch.soft_targets))
            return student.logits.sum() * 0

    Looking.card = replace(Looking.card, needs=Needs(Need.LOGITS | Need.TARGETS, Need.NOTHING))
    mixed = batch(TARGETS, SHARES)
    losses = objective(1.0, Term(Looking(), 1.0))(Outputs.of({Need.LOGITS: s}, owner="s"), Outputs.of({Need.LOGITS: t}, owner="t"), mixed)
    assert losses.total.item() == pytest.approx(-(SHARES.double().numpy() * np.log(softmax(s.numpy()))).sum(1).mean(), rel=1e-7)
    assert torch.equal(seen[0][0], TARGETS)
    assert torch.equal(seen[0][1], SHARES)
    assert batch(TARGETS).soft_targets is None
    with pytest.raises(UndeclaredNeed, match=r"batch\.soft_targets is read"):
        _ = mixed.restrict_to(Need.LOGITS, torch.Generator()).soft_targets


def test_a_method_sees_nothing_that_it_did_not_declare(logits):
    s, t = logits
    outputs = Outputs.of({Need.LOGITS: s, Need.EMBEDDING: s}, owner="student").restrict_to(Need.LOGITS)
    with pytest.raises(
        UndeclaredNeed, match=r"student\.embedding is read, but needs= does not declare it: write needs=Need.LOGITS \| Need.EMBEDDING"
    ):
        _ = outputs.embedding
    with pytest.raises(UndeclaredNeed, match=r"batch\.targets is read"):
        _ = batch(TARGETS).restrict_to(Need.LOGITS, torch.Generator()).targets
    assert t is not None


def test_a_ramp_multiplies_the_term_and_not_the_task(logits):
    from kdzoo.methods.logits import Logits

    class Ramped(Logits):
        def ramp(self, clock: Progress) -> float:
            return 0.25

    s, t = logits
    losses = objective(1.0, Term(Ramped(), 2.0))(
        Outputs.of({Need.LOGITS: s}, owner="s"), Outputs.of({Need.LOGITS: t}, owner="t"), batch(TARGETS)
    )
    assert losses.total.item() == pytest.approx(losses.parts["ce"].item() + 2 * 0.25 * losses.parts["logits"].item())
