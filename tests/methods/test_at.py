"""Attention transfer, against its definition in loops over images, rows and columns."""

import math

import numpy as np
import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.errors import InputError
from kdzoo.functional import at

quick = settings(max_examples=20)
sides = st.integers(1, 6)


def pooled(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(C, H, W) averaged over the windows [floor(i H / h), ceil((i + 1) H / h))."""
    _, old_height, old_width = image.shape
    small = np.zeros((len(image), height, width))
    for i in range(height):
        rows = slice(i * old_height // height, -(-(i + 1) * old_height // height))
        for j in range(width):
            columns = slice(j * old_width // width, -(-(j + 1) * old_width // width))
            small[:, i, j] = image[:, rows, columns].mean((1, 2))
    return small


def attention(image: np.ndarray, power: int) -> list[float]:
    channels, height, width = image.shape
    energy = [sum(abs(image[c, i, j]) ** power for c in range(channels)) / channels for i in range(height) for j in range(width)]
    norm = math.sqrt(sum(value**2 for value in energy))
    return [value / norm for value in energy]


def oracle(students: list[np.ndarray], teachers: list[np.ndarray], power: int) -> float:
    total = 0.0
    for s, t in zip(students, teachers, strict=True):
        height, width = min(s.shape[2], t.shape[2]), min(s.shape[3], t.shape[3])
        squares = [
            (a - b) ** 2
            for one, other in zip(s, t, strict=True)
            for a, b in zip(attention(pooled(one, height, width), power), attention(pooled(other, height, width), power), strict=True)
        ]
        total += sum(squares) / len(squares)
    return total


@quick
@given(
    batch=st.integers(1, 4),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    student=st.tuples(sides, sides),
    teacher=st.tuples(sides, sides),
    power=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_it_is_its_definition_for_any_channels_and_sides(batch, channels, student, teacher, power, seed):
    s = [drawn(batch, channels[0], *student, seed=seed), drawn(batch, channels[0] + 1, 2, 3, seed=seed + 1)]
    t = [drawn(batch, channels[1], *teacher, seed=seed + 2), drawn(batch, channels[1] + 2, 2, 3, seed=seed + 3)]
    expected = oracle([m.numpy() for m in s], [m.numpy() for m in t], power)
    assert at(s, t, power=power).item() == pytest.approx(expected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("power", [1, 2, 3])
def test_its_gradient_is_the_numerical_one_also_through_pooling(power):
    s, t = drawn(2, 3, 4, 6), drawn(2, 5, 2, 3, seed=1)
    assert torch.autograd.gradcheck(lambda x: at([x], [t], power=power), s.requires_grad_(), atol=1e-7)


@quick
@given(seed=st.integers(0, 1000), factor=st.floats(0.01, 100))
def test_only_the_place_counts_not_strength_sign_or_order_of_channels(seed, factor):
    s, t = pair(3, 4, 5, 3, seed=seed)
    expected = at([s], [t]).item()
    assert at([s * factor], [t]).item() == pytest.approx(expected, rel=1e-9)
    assert at([-s], [t]).item() == pytest.approx(expected, rel=1e-9)
    assert at([s.flip(1)], [t]).item() == pytest.approx(expected, rel=1e-9)


@quick
@given(seed=st.integers(0, 1000))
def test_the_order_of_the_batch_changes_nothing(seed):
    s, t = pair(5, 2, 3, 3, seed=seed)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    assert at([s[order]], [t[order]]).item() == pytest.approx(at([s], [t]).item(), rel=1e-9)


def test_stages_are_summed_and_not_averaged():
    s, t = pair(2, 3, 4, 4)
    assert at([s, s, s], [t, t, t]).item() == pytest.approx(3 * at([s], [t]).item())


def test_features_are_pooled_before_the_power():
    """A student whose signs cancel within the pooling window attends to nothing there."""
    s = torch.tensor([[[[1.0, -1.0, 1.0, 1.0]]]])
    t = torch.tensor([[[[0.0, 1.0]]]])
    assert at([s], [t]).item() == pytest.approx(0)


def test_by_hand_for_one_image_of_two_pixels():
    s, t = torch.tensor([[[[3.0, 0.0]]]]), torch.tensor([[[[0.0, 0.5]]]])
    assert at([s], [t]).item() == pytest.approx(((1 - 0) ** 2 + (0 - 1) ** 2) / 2)


def test_it_is_zero_where_the_two_agree():
    t = [drawn(2, 3, 4, 4), drawn(2, 6, 2, 2)]
    assert at(t, t).item() == 0


def test_a_map_of_zeros_gives_a_finite_loss_and_gradient():
    s = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = at([s], [drawn(2, 3, 4, 4).float()])
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(s.grad).all()


def test_half_precision_is_widened_before_the_power():
    s, t = torch.full((1, 2, 2, 2), 300.0, dtype=torch.float16), torch.full((1, 2, 2, 2), 1.0, dtype=torch.float16)
    s[0, :, 0, 0] = 600.0
    loss = at([s], [t])
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(oracle([s.double().numpy()], [t.double().numpy()], 2), rel=1e-5)


def test_an_unequal_number_of_stages_is_refused():
    s, t = pair(1, 2, 2, 2)
    with pytest.raises(ValueError, match="zip"):
        at([s, s], [t])


def test_the_teacher_gets_no_gradient():
    s, t = (z.requires_grad_() for z in pair(2, 3, 4, 4))
    at([s], [t]).backward()
    assert t.grad is None
    assert s.grad.any()


def test_the_method_is_the_function():
    s, t = pair(2, 3, 4, 4)
    said = create_method("at", power=1).loss(outputs("student", stages=[s]), outputs("teacher", stages=[t]), None, nn.Module())
    assert said.item() == pytest.approx(oracle([s.numpy()], [t.numpy()], 1))
    with pytest.raises(InputError, match=r"at\.power: expected a number >= 1, got 0"):
        create_method("at", power=0)
