"""DeiT's hard distillation, against the cross-entropy written out, and which head learns what."""

import math

import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.functional import deit_hard


def oracle(distilled: list[list[float]], teacher: list[list[float]]) -> float:
    total = 0.0
    for d, t in zip(distilled, teacher, strict=True):
        decision = t.index(max(t))
        total -= d[decision] - math.log(sum(math.exp(z) for z in d))
    return total / len(distilled)


@settings(max_examples=20)
@given(batch=st.integers(1, 4), classes=st.integers(2, 6), seed=st.integers(0, 1000))
def test_it_is_the_cross_entropy_at_the_teachers_decision(batch, classes, seed):
    d, t = pair(batch, classes, seed=seed, factor=2)
    assert deit_hard(d, t).item() == pytest.approx(oracle(d.tolist(), t.tolist()), rel=1e-9)


def test_how_sure_the_teacher_is_does_not_count():
    d, t = pair(4, 5)
    assert deit_hard(d, t).item() == deit_hard(d, 0.01 * t).item() == deit_hard(d, 1e4 * t).item()


def test_logits_of_ten_thousand_give_numbers():
    d, t = pair(4, 5, factor=1e4)
    d.requires_grad_()
    loss = deit_hard(d, t)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(d.grad).all()


def test_the_method_teaches_the_distillation_token_alone_with_the_papers_weights():
    d, t = (z.requires_grad_() for z in pair(4, 3))
    s = drawn(4, 3, seed=9).requires_grad_()
    student = outputs("student", logits=s, distilled=d)
    loss = create_method("deit_hard").loss(student, outputs("teacher", logits=t), None, nn.Module())
    loss.backward()
    assert loss.item() == pytest.approx(oracle(d.tolist(), t.tolist()))
    assert d.grad.any()
    assert s.grad is None
    assert t.grad is None
