"""Progressive self-distillation, against its cross-entropy in loops, and what is remembered of each sample."""

import math

import pytest
import torch
import torch.nn.functional as F
from drawn import drawn, outputs
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.methods import create_method
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.functional import pskd

TARGETS = torch.tensor([0, 1, 2, 0, 1, 2, 0])
FACTS = DataFacts(7, 3, TARGETS)
SHAPES = Shapes(3, 4, ())
NOBODY = Outputs(owner="teacher")


def batch_of(index: list[int], epoch: int = 0, epochs: int = 4) -> Batch:
    found = torch.tensor(index)
    return Batch(
        inputs=torch.zeros(len(index), 1, 2, 2, dtype=torch.uint8),
        targets=TARGETS[found],
        index=found,
        clock=Progress(epoch, epochs, 0, 1),
        generator=torch.Generator(),
    )


def log_softmax(row: list[float]) -> list[float]:
    top = max(row)
    return [z - top - math.log(sum(math.exp(other - top) for other in row)) for z in row]


def oracle(logits: list[list[float]], past: list[list[float]], targets: list[int], share: float) -> float:
    total = 0.0
    for row, before, target in zip(logits, past, targets, strict=True):
        soft = [(1 - share) * (k == target) + share * before[k] for k in range(len(row))]
        total -= sum(q * z for q, z in zip(soft, log_softmax(row), strict=True))
    return total / len(logits)


@settings(max_examples=20)
@given(batch=st.integers(1, 5), classes=st.integers(2, 5), share=st.floats(0, 1), seed=st.integers(0, 1000))
def test_it_is_the_cross_entropy_with_the_softened_label(batch, classes, share, seed):
    s, past = drawn(batch, classes, seed=seed, factor=3), drawn(batch, classes, seed=seed + 1).softmax(1)
    targets = torch.arange(batch) % classes
    expected = oracle(s.tolist(), past.tolist(), targets.tolist(), share)
    assert pskd(s, past, targets, share=share).item() == pytest.approx(expected, rel=1e-9)


def test_without_a_share_of_the_past_it_is_the_labels_cross_entropy():
    s, targets = drawn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    assert pskd(s, torch.full((5, 3), 1 / 3), targets, share=0.0).item() == pytest.approx(F.cross_entropy(s, targets).item())


def test_its_gradient_is_the_students_probabilities_less_the_softened_label():
    s, past, targets = drawn(4, 3).requires_grad_(), drawn(4, 3, seed=1).softmax(1), torch.tensor([0, 1, 2, 0])
    pskd(s, past, targets, share=0.6).backward()
    soft = 0.4 * F.one_hot(targets, 3) + 0.6 * past
    assert torch.allclose(s.grad, (s.softmax(1) - soft).detach() / 4)


def test_logits_of_ten_thousand_give_numbers():
    s = drawn(4, 3, factor=1e4).requires_grad_()
    loss = pskd(s, drawn(4, 3).softmax(1), torch.tensor([0, 1, 2, 0]), share=0.8)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(s.grad).all()


def test_in_the_first_epoch_the_past_is_the_label():
    method = create_method("pskd")
    memory = method.build(SHAPES, SHAPES, FACTS)
    s = drawn(3, 3)
    loss = method.loss(outputs("student", logits=s), NOBODY, batch_of([4, 0, 2]), memory)
    assert loss.item() == pytest.approx(F.cross_entropy(s, TARGETS[[4, 0, 2]]).item())


def test_each_sample_meets_in_the_next_epoch_what_was_said_of_it_in_whatever_order():
    method = create_method("pskd", last=0.8)
    memory = method.build(SHAPES, SHAPES, FACTS)
    first, second = drawn(7, 3), drawn(3, 3, seed=1)
    method.loss(outputs("student", logits=first[:4]), NOBODY, batch_of([0, 1, 2, 3]), memory)
    method.loss(outputs("student", logits=first[4:]), NOBODY, batch_of([4, 5, 6]), memory)
    loss = method.loss(outputs("student", logits=second), NOBODY, batch_of([6, 0, 5], epoch=1), memory)
    past = first[[6, 0, 5]].softmax(1)
    assert loss.item() == pytest.approx(oracle(second.tolist(), past.tolist(), TARGETS[[6, 0, 5]].tolist(), 0.8 * 2 / 4), rel=1e-6)
    assert torch.allclose(memory.said[[6, 0, 5]], second.softmax(1).float())
    assert torch.allclose(memory.said[4], first[4].softmax(0).float())


def test_the_share_rises_to_the_last_epochs():
    method = create_method("pskd", last=0.8)
    assert [method.share(Progress(epoch, 4, 0, 1)) for epoch in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_what_is_remembered_is_kept_with_the_run_and_not_changed_while_not_training():
    method = create_method("pskd")
    memory, other = (method.build(SHAPES, SHAPES, FACTS) for _ in range(2))
    method.loss(outputs("student", logits=drawn(3, 3)), NOBODY, batch_of([1, 2, 3]), memory)
    other.load_state_dict(memory.state_dict())
    assert torch.equal(other.said, memory.said)
    assert not torch.equal(other.said, F.one_hot(TARGETS).float())
    other.eval()
    method.loss(outputs("student", logits=drawn(3, 3, seed=1)), NOBODY, batch_of([1, 2, 3]), other)
    assert torch.equal(other.said, memory.said)
    assert not memory.said.requires_grad


def test_it_stands_alone_with_the_papers_share():
    assert create_method("pskd").last == 0.8
    with pytest.raises(InputError, match=r"pskd\.last: expected a number <= 1, got 1\.5"):
        create_method("pskd", last=1.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_first(dtype):
    s = drawn(7, 100, factor=5).to(dtype)
    past = drawn(7, 100, seed=1).softmax(1).to(dtype)
    expected = oracle(s.double().tolist(), past.double().tolist(), TARGETS.tolist(), 0.7)
    assert pskd(s, past, TARGETS, share=0.7).item() == pytest.approx(expected, rel=1e-5)
