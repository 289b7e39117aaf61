"""Attention transfer as the paper has it, against equation 2 in loops over images, rows and columns."""

import math

import numpy as np
import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.functional import at, at_paper

quick = settings(max_examples=20)


def attention(image: np.ndarray, power: int) -> np.ndarray:
    energy = np.array(
        [sum(abs(image[c, i, j]) ** power for c in range(len(image))) for i in range(image.shape[1]) for j in range(image.shape[2])]
    )
    return energy / math.sqrt(sum(energy**2))


def oracle(student: np.ndarray, teacher: np.ndarray, power: int) -> float:
    distances = [math.sqrt(sum((attention(s, power) - attention(t, power)) ** 2)) for s, t in zip(student, teacher, strict=True)]
    return sum(distances) / len(distances)


@quick
@given(
    batch=st.integers(1, 4),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    sides=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    power=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_it_is_equation_2_for_any_channels_and_sides(batch, channels, sides, power, seed):
    s = [drawn(batch, channels[0], *sides, seed=seed), drawn(batch, 3, 2, 3, seed=seed + 1)]
    t = [drawn(batch, channels[1], *sides, seed=seed + 2), drawn(batch, 2, 2, 3, seed=seed + 3)]
    expected = sum(oracle(a.numpy(), b.numpy(), power) for a, b in zip(s, t, strict=True))
    assert at_paper(s, t, power=power).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_larger_map_is_average_pooled_whichever_it_is():
    large, small = drawn(2, 3, 4, 6), drawn(2, 3, 2, 3, seed=1)
    halved = large.numpy().reshape(2, 3, 2, 2, 3, 2).mean((3, 5))
    expected = oracle(halved, small.numpy(), 2)
    assert at_paper([large], [small]).item() == pytest.approx(expected)
    assert at_paper([small], [large]).item() == pytest.approx(expected)


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = (z.requires_grad_() for z in pair(2, 3, 4, 4))
    assert torch.autograd.gradcheck(lambda x: at_paper([x], [t]), s)
    at_paper([s], [t]).backward()
    assert t.grad is None


def test_two_opposite_images_of_one_cell_are_as_far_apart_as_can_be():
    s, t = torch.tensor([[[[3.0, 0.0]]]]), torch.tensor([[[[0.0, 0.5]]]])
    assert at_paper([s], [t]).item() == pytest.approx(math.sqrt(2))


def test_the_distance_is_not_squared_unlike_in_the_authors_code():
    s, t = pair(1, 3, 4, 4)
    assert at_paper([s], [t]).item() ** 2 / 16 == pytest.approx(at([s], [t]).item())


@pytest.mark.parametrize("start", [torch.zeros(2, 3, 4, 4), drawn(2, 3, 4, 4).float()])
def test_where_the_two_agree_or_nothing_is_active_the_gradient_is_finite(start):
    s = start.clone().requires_grad_()
    loss = at_paper([s], [drawn(2, 3, 4, 4).float()])
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(s.grad).all()


def test_half_precision_is_widened_before_the_power():
    s, t = torch.full((1, 2, 2, 2), 300.0, dtype=torch.float16), torch.ones(1, 2, 2, 2, dtype=torch.float16)
    s[0, :, 0, 0] = 600.0
    loss = at_paper([s], [t])
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(oracle(s.double().numpy(), t.double().numpy(), 2), rel=1e-5)


def test_the_method_divides_half_of_beta_by_the_cells_of_each_map():
    """beta / 2 with beta = 10^3 over the number of elements of the attention map (section 4.1)."""
    s, t = [drawn(2, 3, 4, 4), drawn(2, 4, 2, 3, seed=1)], [drawn(2, 5, 4, 4, seed=2), drawn(2, 4, 4, 3, seed=3)]
    said = create_method("at_paper").loss(outputs("student", stages=s), outputs("teacher", stages=t), None, nn.Module())
    small = t[1].numpy().reshape(2, 4, 2, 2, 3).mean(3)
    expected = oracle(s[0].numpy(), t[0].numpy(), 2) / 32 + oracle(s[1].numpy(), small, 2) / 12
    assert said.item() == pytest.approx(expected)


def test_one_stage_is_a_sum_of_one():
    s, t = drawn(2, 3, 4, 4), drawn(2, 5, 4, 4, seed=2)
    loss = create_method("at_paper").loss(outputs("student", stages=[s]), outputs("teacher", stages=[t]), None, nn.Module())
    assert loss.item() == pytest.approx(oracle(s.numpy(), t.numpy(), 2) / 32)
