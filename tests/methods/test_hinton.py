"""Softened targets, against the equation of the paper in loops."""

import math

import numpy as np
import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import REGISTRY, create_method
from kdzoo.errors import InputError
from kdzoo.functional import hinton

quick = settings(max_examples=30)
seeds = st.integers(0, 1000)


def softened(z: np.ndarray, temperature: float) -> list[float]:
    powers = [math.exp((value - max(z)) / temperature) for value in z]
    return [power / sum(powers) for power in powers]


def oracle(s: np.ndarray, t: np.ndarray, temperature: float) -> float:
    """T^2 times the mean over the batch of sum_k p_k log(p_k / q_k)."""
    total = 0.0
    for student, teacher in zip(s, t, strict=True):
        q, p = softened(student, temperature), softened(teacher, temperature)
        total += sum(pk * math.log(pk / qk) for pk, qk in zip(p, q, strict=True))
    return temperature**2 * total / len(s)


@quick
@given(batch=st.integers(1, 6), classes=st.integers(2, 8), temperature=st.floats(0.5, 20), seed=seeds)
def test_it_is_the_papers_equation(batch, classes, temperature, seed):
    s, t = pair(batch, classes, seed=seed, factor=3)
    assert hinton(s, t, temperature=temperature).item() == pytest.approx(oracle(s.numpy(), t.numpy(), temperature), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_its_gradient_is_t_times_the_difference_of_probabilities(temperature):
    s, t = pair(5, 7)
    s.requires_grad_()
    hinton(s, t, temperature=temperature).backward()
    by_hand = [
        [temperature * (q - p) / 5 for q, p in zip(softened(a, temperature), softened(b, temperature), strict=True)]
        for a, b in zip(s.detach().numpy(), t.numpy(), strict=True)
    ]
    np.testing.assert_allclose(s.grad.numpy(), by_hand, rtol=1e-10)


def test_its_gradient_is_the_numerical_one():
    s, t = pair(3, 4)
    assert torch.autograd.gradcheck(lambda x: hinton(x, t, temperature=2.0), s.requires_grad_())


def test_at_high_temperature_it_is_half_the_squared_distance_of_centred_logits_over_the_classes():
    s, t = (z - z.mean(1, keepdim=True) for z in pair(4, 6))
    limit = sum((a - b) ** 2 for a, b in zip(s.flatten().tolist(), t.flatten().tolist(), strict=True)) / (2 * 4 * 6)
    assert hinton(s, t, temperature=1e4).item() == pytest.approx(limit, rel=1e-3)


@quick
@given(seed=seeds, shift=st.floats(-50, 50))
def test_the_order_of_the_batch_and_a_shift_of_all_classes_change_nothing(seed, shift):
    s, t = pair(6, 4, seed=seed)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    expected = hinton(s, t, temperature=3.0).item()
    assert hinton(s[order] + shift, t[order], temperature=3.0).item() == pytest.approx(expected, rel=1e-9)


@quick
@given(seed=seeds, temperature=st.floats(0.5, 10))
def test_it_is_positive_and_zero_only_where_the_two_agree(seed, temperature):
    s, t = pair(4, 5, seed=seed)
    assert hinton(s, t, temperature=temperature).item() > 0
    assert hinton(t, t, temperature=temperature).item() == pytest.approx(0, abs=1e-12)


def test_two_classes_and_one_sample_by_hand():
    s, t = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3), 0.0]])
    assert hinton(s, t, temperature=1.0).item() == pytest.approx(0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))


def test_certain_and_opposite_networks_differ_by_their_logits():
    s, t = torch.tensor([[1e4, 0.0, 0.0]]).requires_grad_(), torch.tensor([[0.0, 1e4, 0.0]])
    loss = hinton(s, t, temperature=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(1e4)
    assert s.grad.tolist() == [[1.0, -1.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_first(dtype):
    s, t = (z.to(dtype) for z in pair(4, 100, factor=5))
    loss = hinton(s, t, temperature=4.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(oracle(s.double().numpy(), t.double().numpy(), 4.0), rel=1e-5)


def test_the_teacher_gets_no_gradient():
    s, t = (z.requires_grad_() for z in pair(3, 4))
    hinton(s, t, temperature=4.0).backward()
    assert t.grad is None


def test_the_method_is_the_function_with_its_temperature():
    s, t = pair(3, 4)
    said = create_method("hinton", temperature=2.0).loss(outputs("student", logits=s), outputs("teacher", logits=t), None, nn.Module())
    assert said.item() == pytest.approx(oracle(s.numpy(), t.numpy(), 2.0))


@pytest.mark.parametrize("wrong", [0, -1.0, math.nan, math.inf, True, "4"])
def test_a_temperature_that_is_no_positive_number_is_refused_by_name(wrong):
    with pytest.raises(InputError, match=r"hinton\.temperature: "):
        create_method("hinton", temperature=wrong)


def test_its_published_setting_is_tried_first():
    card = REGISTRY.get("hinton").card
    tried = [(setting.hyperparameters["temperature"], setting.alpha) for setting in card.search]
    assert tried[0] == (create_method("hinton").temperature, 0.9) == (4.0, 0.9)
    assert len(set(tried)) == len(tried) >= 9


def test_more_classes_do_not_dilute_it():
    """Summed over the classes: the same two probabilities among a hundred impossible classes give the same loss."""
    s, t = drawn(1, 2), drawn(1, 2, seed=1)
    impossible = torch.full((1, 98), -1e3, dtype=torch.float64)
    wide = hinton(torch.cat([s, impossible], 1), torch.cat([t, impossible], 1), temperature=1.0)
    assert wide.item() == pytest.approx(hinton(s, t, temperature=1.0).item())
