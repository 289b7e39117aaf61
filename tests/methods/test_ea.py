"""Entropy-adaptive distillation on Hinton's loss and on DKD, against the paper's weights in loops."""

import math

import numpy as np
import pytest
import torch
from drawn import batch_of, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.batch import Progress
from kdzoo.contract.methods import create_method
from kdzoo.functional import dkd, ea_dkd, ea_hinton, hinton
from kdzoo.methods.ea_hinton import entropy_weights

DKD = {"target_weight": 1.0, "nontarget_weight": 8.0, "temperature": 4.0}
ENTROPIES = {"entropy_temperature": 3.0, "most_entropy": None}


def entropy(z: list[float], temperature: float) -> float:
    powers = [math.exp((value - max(z)) / temperature) for value in z]
    return -sum(x / sum(powers) * math.log(x / sum(powers)) for x in powers)


def weight(student: list[float], teacher: list[float], temperature: float, most: float) -> float:
    return entropy(teacher, temperature) * (1 + entropy(student, temperature) / most) / 2


@settings(max_examples=25)
@given(batch=st.integers(1, 5), classes=st.integers(2, 8), temperature=st.floats(0.5, 8), seed=st.integers(0, 1000))
def test_both_losses_are_those_of_each_sample_times_its_weight(batch, classes, temperature, seed):
    s, t = pair(batch, classes, seed=seed, factor=2)
    y = torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(seed))
    weights = [weight(a, b, temperature, math.log(classes)) for a, b in zip(s.tolist(), t.tolist(), strict=True)]
    settings_of_entropy = {"entropy_temperature": temperature, "most_entropy": None}
    each = [hinton(s[i : i + 1], t[i : i + 1], temperature=4.0).item() for i in range(batch)]
    expected = sum(w * loss for w, loss in zip(weights, each, strict=True)) / batch
    assert ea_hinton(s, t, temperature=4.0, **settings_of_entropy).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    each = [dkd(s[i : i + 1], t[i : i + 1], y[i : i + 1], **DKD).item() for i in range(batch)]
    expected = sum(w * loss for w, loss in zip(weights, each, strict=True)) / batch
    assert ea_dkd(s, t, y, **DKD, **settings_of_entropy).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_weights_have_no_gradient_and_neither_has_the_teacher():
    s, t = (x.requires_grad_() for x in pair(4, 5))
    ea_hinton(s, t, temperature=4.0, **ENTROPIES).backward()
    got, s.grad = s.grad.clone(), None
    hinton(s, t, temperature=4.0).backward()
    weights = [weight(a, b, 3.0, math.log(5)) for a, b in zip(s.tolist(), t.tolist(), strict=True)]
    np.testing.assert_allclose(got.numpy(), np.array(weights)[:, None] * s.grad.numpy(), rtol=1e-9)
    assert t.grad is None


def test_a_weight_is_log_k_where_both_know_nothing_and_0_where_the_teacher_is_certain():
    nothing, certain = torch.zeros(1, 7), torch.tensor([[1e4] + [0.0] * 6])
    assert entropy_weights(nothing, nothing, temperature=3.0, most=None).item() == pytest.approx(math.log(7))
    assert entropy_weights(nothing, certain, temperature=3.0, most=None).item() == 0


def test_divided_by_100_the_students_entropy_hardly_counts():
    s, t = pair(4, 100)
    released = entropy_weights(s, t, temperature=3.0, most=100.0)
    teachers = torch.tensor([entropy(z, 3.0) for z in t.tolist()], dtype=torch.float64)
    assert (released / (teachers / 2)).max() <= 1 + math.log(100) / 100


def test_methods_are_their_functions_and_dkds_warm_up():
    s, t = pair(3, 4)
    y = torch.tensor([0, 3, 1])
    sides = outputs("student", logits=s), outputs("teacher", logits=t), batch_of(torch.arange(3), y), nn.Module()
    assert create_method("ea_hinton").loss(*sides).item() == ea_hinton(s, t, temperature=4.0, **ENTROPIES).item()
    assert create_method("ea_dkd", most_entropy=100).loss(*sides).item() == pytest.approx(
        ea_dkd(s, t, y, **DKD, entropy_temperature=3.0, most_entropy=100.0).item()
    )
    assert create_method("ea_dkd").ramp(Progress(4, 240, 0, 1)) == pytest.approx(0.25)
