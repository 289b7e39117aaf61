"""The weighted sum against sums written by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from kdzoo.method import create_method
from kdzoo.objective import Objective, Term, cross_entropy
from kdzoo.signals import Batch, Clock, Need, Outputs, UndeclaredNeed


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def batch(targets: torch.Tensor) -> Batch:
    return Batch(
        inputs=torch.zeros(len(targets), 3, 4, 4, dtype=torch.uint8),
        targets=targets,
        index=torch.arange(len(targets)),
        clock=Clock(0, 1, 0, 1),
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
    losses = made(Outputs({Need.LOGITS: s}, owner="student"), Outputs({Need.LOGITS: t}, owner="teacher"), batch(TARGETS))
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


def test_a_method_sees_nothing_that_it_did_not_declare(logits):
    s, t = logits
    outputs = Outputs({Need.LOGITS: s, Need.EMBEDDING: s}, owner="student").only(Need.LOGITS)
    with pytest.raises(
        UndeclaredNeed, match=r"the student's embedding was read but not asked for: declare needs=Need.LOGITS \| Need.EMBEDDING"
    ):
        _ = outputs.embedding
    with pytest.raises(UndeclaredNeed, match="targets were read but not asked for"):
        _ = batch(TARGETS).only(Need.LOGITS, torch.Generator()).targets
    assert t is not None


def test_a_ramp_multiplies_the_term_and_not_the_task(logits):
    from kdzoo.methods.logits import Logits

    class Ramped(Logits):
        def ramp(self, clock: Clock) -> float:
            return 0.25

    s, t = logits
    losses = objective(1.0, Term(Ramped(), 2.0))(Outputs({Need.LOGITS: s}, owner="s"), Outputs({Need.LOGITS: t}, owner="t"), batch(TARGETS))
    assert losses.total.item() == pytest.approx(losses.parts["ce"].item() + 2 * 0.25 * losses.parts["logits"].item())
