"""Decoupled distillation, against the paper's two divergences in loops over samples and classes."""

import math

import numpy as np
import pytest
import torch
from drawn import batch_of, drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.batch import Progress
from kdzoo.contract.methods import create_method
from kdzoo.errors import InputError
from kdzoo.functional import dkd, hinton

quick = settings(max_examples=30)
seeds = st.integers(0, 1000)
PUBLISHED = {"target_weight": 1.0, "nontarget_weight": 8.0, "temperature": 4.0}


def softened(z: list[float], temperature: float) -> list[float]:
    powers = [math.exp((value - max(z)) / temperature) for value in z]
    return [power / sum(powers) for power in powers]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def oracle(s: np.ndarray, t: np.ndarray, y: list[int], target_weight: float, nontarget_weight: float, temperature: float) -> float:
    total = 0.0
    for student, teacher, target in zip(s.tolist(), t.tolist(), y, strict=True):
        p, q = softened(teacher, temperature)[target], softened(student, temperature)[target]
        others = [softened([z for k, z in enumerate(one) if k != target], temperature) for one in (teacher, student)]
        total += target_weight * divergence([p, 1 - p], [q, 1 - q]) + nontarget_weight * divergence(*others)
    return temperature**2 * total / len(s)


def labels(batch: int, classes: int, seed: int) -> torch.Tensor:
    return torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(seed))


@quick
@given(
    batch=st.integers(1, 6),
    classes=st.integers(2, 8),
    weights=st.tuples(st.floats(0, 5), st.floats(0, 10)),
    temperature=st.floats(0.5, 20),
    seed=seeds,
)
def test_it_is_the_papers_equation(batch, classes, weights, temperature, seed):
    s, t = pair(batch, classes, seed=seed, factor=3)
    y = labels(batch, classes, seed)
    expected = oracle(s.numpy(), t.numpy(), y.tolist(), *weights, temperature)
    got = dkd(s, t, y, target_weight=weights[0], nontarget_weight=weights[1], temperature=temperature)
    assert got.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@quick
@given(seed=seeds, temperature=st.floats(0.5, 10))
def test_weighed_by_the_teachers_doubt_it_is_hintons_loss(seed, temperature):
    s, t = pair(1, 6, seed=seed, factor=2)
    y = labels(1, 6, seed)
    doubt = 1 - (t / temperature).softmax(1)[0, y[0]].item()
    decoupled = dkd(s, t, y, target_weight=1.0, nontarget_weight=doubt, temperature=temperature)
    assert decoupled.item() == pytest.approx(hinton(s, t, temperature=temperature).item(), rel=1e-9)


def test_its_gradient_is_the_numerical_one():
    s, t = pair(4, 5)
    assert torch.autograd.gradcheck(lambda x: dkd(x, t, labels(4, 5, 0), **PUBLISHED), s.requires_grad_())


def test_of_two_classes_only_the_target_is_left():
    s, t = pair(3, 2)
    y = torch.tensor([0, 1, 0])
    apart = dkd(s, t, y, target_weight=0.0, nontarget_weight=8.0, temperature=2.0)
    assert apart.item() == pytest.approx(0, abs=1e-12)
    assert dkd(s, t, y, target_weight=1.0, nontarget_weight=8.0, temperature=2.0).item() == pytest.approx(
        hinton(s, t, temperature=2.0).item()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [120.0, 1e4])
def test_logits_far_apart_give_what_their_gap_says(dtype, size):
    """A logarithm of summed probabilities would be infinite here, and a mask of -1000 would mask nothing."""
    s = torch.tensor([[size, 0.0, -size]], dtype=dtype).requires_grad_()
    t = torch.tensor([[0.0, 0.0, size]], dtype=dtype)
    loss = dkd(s, t, torch.tensor([0]), target_weight=1.0, nontarget_weight=1.0, temperature=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(size + size, rel=1e-5)
    assert torch.isfinite(s.grad).all()


def test_the_targets_logits_do_not_reach_the_other_classes_part():
    s, t = pair(3, 5)
    y = torch.tensor([0, 4, 2])
    part = {"target_weight": 0.0, "nontarget_weight": 1.0, "temperature": 1.0}
    expected = dkd(s, t, y, **part).item()
    s[torch.arange(3), y] += 5000
    t[torch.arange(3), y] -= 5000
    assert dkd(s, t, y, **part).item() == pytest.approx(expected, rel=1e-12)


def test_half_precision_is_widened_first():
    s, t = (z.half() for z in pair(4, 100, factor=5))
    y = labels(4, 100, 0)
    loss = dkd(s, t, y, **PUBLISHED)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(oracle(s.double().numpy(), t.double().numpy(), y.tolist(), 1.0, 8.0, 4.0), rel=1e-5)


def test_it_is_zero_where_the_two_agree_and_the_teacher_gets_no_gradient():
    s, t = (z.requires_grad_() for z in pair(3, 4))
    y = labels(3, 4, 0)
    assert dkd(t, t, y, **PUBLISHED).item() == pytest.approx(0, abs=1e-12)
    dkd(s, t, y, **PUBLISHED).backward()
    assert t.grad is None


@pytest.mark.parametrize(("epoch", "expected"), [(0, 1 / 20), (9, 0.5), (19, 1.0), (239, 1.0)])
def test_its_weight_rises_over_twenty_epochs(epoch, expected):
    assert create_method("dkd").ramp(Progress(epoch, 240, 0, 1)) == pytest.approx(expected)
    assert create_method("dkd", warmup=1).ramp(Progress(epoch, 240, 0, 1)) == 1


def test_the_method_is_the_function():
    s, t = pair(3, 4)
    y = labels(3, 4, 0)
    said = create_method("dkd").loss(outputs("student", logits=s), outputs("teacher", logits=t), batch_of(torch.arange(3), y), nn.Module())
    assert said.item() == pytest.approx(oracle(s.numpy(), t.numpy(), y.tolist(), 1.0, 8.0, 4.0))
    for wrong in ({"nontarget_weight": -1.0}, {"temperature": 0.0}, {"warmup": 0}):
        with pytest.raises(InputError, match=rf"dkd\.{next(iter(wrong))}: "):
            create_method("dkd", **wrong)


def test_the_order_of_the_batch_and_a_shift_of_all_classes_change_nothing():
    s, t = pair(6, 4)
    y, order = labels(6, 4, 1), torch.randperm(6, generator=torch.Generator().manual_seed(0))
    expected = dkd(s, t, y, **PUBLISHED).item()
    assert dkd(s[order] + 7, t[order] - drawn(6, 1), y[order], **PUBLISHED).item() == pytest.approx(expected, rel=1e-9)
