"""Similarity preserving, against products of samples in loops over pairs."""

import numpy as np
import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.functional import sp

quick = settings(max_examples=25)
seeds = st.integers(0, 1000)


def rows(maps: np.ndarray) -> np.ndarray:
    size = len(maps)
    products = np.array([[(maps[i] * maps[j]).sum() for j in range(size)] for i in range(size)])
    return np.array([row / np.sqrt((row**2).sum()) if row.any() else row for row in products])


def oracle(students: list[np.ndarray], teachers: list[np.ndarray]) -> float:
    return sum(float(((rows(s) - rows(t)) ** 2).sum()) / len(s) ** 2 for s, t in zip(students, teachers, strict=True))


@quick
@given(
    batch=st.integers(1, 6),
    student=st.tuples(*[st.integers(1, 4)] * 3),
    teacher=st.tuples(*[st.integers(1, 4)] * 3),
    stages=st.integers(1, 3),
    seed=seeds,
)
def test_it_is_the_papers_loss_for_maps_of_any_two_shapes(batch, student, teacher, stages, seed):
    s = [drawn(batch, *student, seed=seed + i) for i in range(stages)]
    t = [drawn(batch, *teacher, seed=seed + i + stages, factor=3) for i in range(stages)]
    expected = oracle([m.numpy() for m in s], [m.numpy() for m in t])
    assert sp(s, t).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_by_hand():
    """The student sees two different images, the teacher twice the same: rows (1, 0), (0, 1) against (1, 1) / sqrt 2 both."""
    s = torch.eye(2, dtype=torch.float64).reshape(2, 2, 1, 1)
    t = torch.ones(2, 3, 1, 1, dtype=torch.float64)
    half = 0.5**0.5
    assert sp([s], [t]).item() == pytest.approx(2 * ((1 - half) ** 2 + half**2) / 4)


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = (z.requires_grad_() for z in pair(4, 3, 2, 3))
    assert torch.autograd.gradcheck(lambda x: sp([x], [t]), s)
    sp([s], [t]).backward()
    assert t.grad is None


@quick
@given(seed=seeds, factor=st.floats(0.1, 10))
def test_the_order_and_strength_of_features_do_not_count(seed, factor):
    s, t = pair(4, 3, 2, 2, seed=seed)
    expected = sp([s], [t]).item()
    shuffled = s.flatten(1)[:, torch.randperm(12, generator=torch.Generator().manual_seed(seed))].reshape(s.shape)
    assert sp([factor * shuffled], [t]).item() == pytest.approx(expected, rel=1e-8)


def test_one_sample_is_like_itself_alone():
    s, t = pair(1, 3, 2, 2)
    s.requires_grad_()
    loss = sp([s], [t])
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-15)
    assert s.grad.abs().max() < 1e-12


@pytest.mark.parametrize("dead", [[0], [0, 1], [0, 1, 2]])
def test_dead_samples_are_like_none_and_give_a_finite_gradient(dead):
    s, t = (z.float() for z in pair(3, 4, 2, 2))
    s[dead] = 0
    s.requires_grad_()
    loss = sp([s], [t])
    loss.backward()
    assert loss.item() == pytest.approx(oracle([s.detach().double().numpy()], [t.double().numpy()]), rel=1e-5)
    assert torch.isfinite(s.grad).all()


def test_strong_half_precise_maps_are_widened_before_they_are_multiplied():
    s, t = (z.half() for z in pair(4, 8, 4, 4, factor=1e4))
    loss = sp([s], [t])
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(oracle([s.double().numpy()], [t.double().numpy()]), rel=1e-4)


def test_autocast_does_not_lower_the_products():
    s, t = (z.float() for z in pair(6, 8, 4, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = sp([s], [t])
    assert lowered.item() == sp([s], [t]).item()


def test_the_method_looks_at_the_last_map_alone():
    s, t = [drawn(3, 2, 4, 4), drawn(3, 4, 2, 2)], [drawn(3, 5, 4, 4, seed=1), drawn(3, 6, 1, 3, seed=1)]
    said = create_method("sp").loss(outputs("student", stages=s), outputs("teacher", stages=t), None, nn.Module())
    assert said.item() == pytest.approx(oracle([s[1].numpy()], [t[1].numpy()]))
