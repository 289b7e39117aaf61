"""DeiT's soft distillation, against the divergence written out, and which head learns what."""

import math

import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.errors import InputError
from kdzoo.functional import deit_soft


def oracle(distilled: list[list[float]], teacher: list[list[float]], temperature: float) -> float:
    total = 0.0
    for d, t in zip(distilled, teacher, strict=True):
        q, p = ([math.exp(z / temperature) for z in row] for row in (d, t))
        total += sum(b / sum(p) * math.log(b / sum(p) / (a / sum(q))) for a, b in zip(q, p, strict=True))
    return temperature**2 * total / len(distilled)


@settings(max_examples=20)
@given(batch=st.integers(1, 4), classes=st.integers(2, 6), temperature=st.floats(0.5, 8), seed=st.integers(0, 1000))
def test_it_is_the_softened_divergence_summed_over_classes(batch, classes, temperature, seed):
    d, t = pair(batch, classes, seed=seed, factor=2)
    expected = oracle(d.tolist(), t.tolist(), temperature)
    assert deit_soft(d, t, temperature=temperature).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_logits_of_ten_thousand_give_numbers():
    d, t = pair(4, 5, factor=1e4)
    assert torch.isfinite(deit_soft(d, t, temperature=3.0))


def test_the_method_teaches_the_distillation_token_alone_with_the_papers_weights():
    d, t = (z.requires_grad_() for z in pair(4, 3))
    s = drawn(4, 3, seed=9).requires_grad_()
    student = outputs("student", logits=s, distilled=d)
    loss = create_method("deit_soft").loss(student, outputs("teacher", logits=t), None, nn.Module())
    loss.backward()
    assert loss.item() == pytest.approx(oracle(d.tolist(), t.tolist(), 3.0))
    assert d.grad.any()
    assert s.grad is None
    assert t.grad is None
    with pytest.raises(InputError, match=r"deit_soft\.temperature: expected a number > 0, got 0"):
        create_method("deit_soft", temperature=0.0)
