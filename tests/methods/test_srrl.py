"""Softmax regression representation, against the two means of squares, and the connector to the teacher's classifier."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn import drawn, outputs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.functional import srrl

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
HEAD = nn.Linear(6, 5)
STUDENT, TEACHER = Shapes(5, 4, ()), Shapes(5, 6, (), classifier=HEAD)


def mean_square(a: np.ndarray, b: np.ndarray) -> float:
    squares = [(a[place] - b[place]) ** 2 for place in np.ndindex(a.shape)]
    return sum(squares) / len(squares)


@settings(max_examples=20)
@given(batch=st.integers(1, 4), width=st.integers(1, 5), classes=st.integers(2, 5), seed=st.integers(0, 1000))
def test_it_is_the_two_means_of_squares(batch, width, classes, seed):
    h_s, h_t = drawn(batch, width, seed=seed), drawn(batch, width, seed=seed + 1)
    z_s, z_t = drawn(batch, classes, seed=seed + 2), drawn(batch, classes, seed=seed + 3)
    expected = mean_square(h_s.numpy(), h_t.numpy()) + mean_square(z_s.numpy(), z_t.numpy())
    assert srrl(h_s, h_t, z_s, z_t).item() == pytest.approx(expected)


def test_the_teacher_gets_no_gradient():
    tensors = [drawn(2, 3, seed=i).requires_grad_() for i in range(4)]
    srrl(*tensors).backward()
    assert [t.grad is not None for t in tensors] == [True, False, True, False]


def built() -> nn.Module:
    return create_method("srrl").build(STUDENT, TEACHER, FACTS).double()


def loss_of(module: nn.Module, student: torch.Tensor, embedding: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return create_method("srrl").loss(
        outputs("student", embedding=student), outputs("teacher", embedding=embedding, logits=logits), None, module
    )


@pytest.mark.parametrize("signed", [False, True])
def test_the_method_connects_cuts_and_classifies(signed):
    module = built()
    module.connector.eval()
    s, t, z = drawn(3, 4), drawn(3, 6, seed=1), drawn(3, 5, seed=2)
    t = t if signed else t.abs()
    weight = module.connector[0].weight.detach().numpy()[:, :, 0, 0]
    connected = np.maximum(s.numpy() @ weight.T / np.sqrt(1 + 1e-5), min(0.0, t.min().item()))
    logits = connected @ HEAD.weight.detach().double().numpy().T + HEAD.bias.detach().double().numpy()
    expected = mean_square(connected, t.numpy()) + mean_square(logits, z.numpy())
    assert loss_of(module, s, t, z).item() == pytest.approx(expected, rel=1e-6)


def test_the_cut_is_at_the_smallest_value_ever_seen_and_kept_in_the_state():
    module = built()
    for least in (-0.5, -2.0, -1.0):
        t = torch.ones(2, 6, dtype=torch.float64)
        t[0, 0] = least
        loss_of(module, drawn(2, 4), t, drawn(2, 5))
    assert module.state_dict()["rectifier.least"].tolist() == [-2.0]


def test_the_teachers_classifier_is_a_frozen_copy():
    module = built()
    loss_of(module, drawn(3, 4).requires_grad_(), drawn(3, 6, seed=1), drawn(3, 5, seed=2)).backward()
    assert all(p.grad is None for p in module.classifier.parameters())
    assert all(p.grad is not None for p in module.connector.parameters())
    with torch.no_grad():
        module.classifier.weight.zero_()
    assert HEAD.weight.any()
    assert HEAD.weight.requires_grad


def test_one_image_trains():
    s = drawn(1, 4).requires_grad_()
    loss_of(built(), s, drawn(1, 6, seed=1), drawn(1, 5, seed=2)).backward()
    assert torch.isfinite(s.grad).all()


def test_it_has_the_published_number_of_parameters():
    wide = Shapes(100, 256, ())
    module = create_method("srrl").build(wide, replace(wide, classifier=nn.Linear(256, 100)), FACTS)
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == 66_048


def test_a_teacher_without_a_classifier_is_refused():
    with pytest.raises(InputError, match="no single layer that maps its embedding to its logits"):
        create_method("srrl").build(STUDENT, replace(TEACHER, classifier=None), FACTS)
