"""Class-wise self-distillation, against the divergence written out, and the side that takes no gradient."""

import math

import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import REGISTRY, create_method
from kdzoo.contract.needs import Need, Needs, Pass
from kdzoo.contract.outputs import Outputs
from kdzoo.errors import InputError
from kdzoo.functional import cskd


def oracle(own: list[list[float]], partner: list[list[float]], temperature: float) -> float:
    total = 0.0
    for s, p in zip(own, partner, strict=True):
        q, r = ([math.exp(z / temperature) for z in row] for row in (s, p))
        q, r = [v / sum(q) for v in q], [v / sum(r) for v in r]
        total += sum(b * math.log(b / a) for a, b in zip(q, r, strict=True))
    return temperature**2 * total / len(own)


@settings(max_examples=20)
@given(batch=st.integers(1, 4), classes=st.integers(2, 6), temperature=st.floats(0.5, 8), seed=st.integers(0, 1000))
def test_it_is_the_softened_divergence_from_the_partner(batch, classes, temperature, seed):
    s, p = pair(batch, classes, seed=seed, factor=2)
    expected = oracle(s.tolist(), p.tolist(), temperature)
    assert cskd(s, p, temperature=temperature).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_partner_is_the_target_and_gets_no_gradient():
    s, p = (z.requires_grad_() for z in pair(4, 3))
    cskd(s, p, temperature=4.0).backward()
    assert p.grad is None
    assert torch.allclose(s.grad, 4.0 * ((s / 4).softmax(1) - (p / 4).softmax(1)).detach() / 4)


def test_it_is_not_symmetric():
    s, p = pair(4, 3, factor=3)
    assert cskd(s, p, temperature=1.0).item() != pytest.approx(cskd(p, s, temperature=1.0).item(), rel=1e-3)


def test_logits_of_ten_thousand_give_numbers():
    s, p = pair(4, 5, factor=1e4)
    assert torch.isfinite(cskd(s, p, temperature=4.0))


def test_the_method_reads_the_partner_and_no_teacher():
    s, p = pair(4, 3)
    student = outputs("student", logits=s).with_pass(Pass.PARTNER, outputs("partner", logits=p))
    loss = create_method("cskd").loss(student, Outputs(owner="teacher"), None, nn.Module())
    assert loss.item() == pytest.approx(oracle(s.tolist(), p.tolist(), 4.0))
    card = REGISTRY.get("cskd").card
    assert card.needs == Needs(Need.LOGITS | Pass.PARTNER, Need.NOTHING)
    with pytest.raises(InputError, match=r"cskd\.temperature: expected a number > 0, got -1"):
        create_method("cskd", temperature=-1.0)


def test_an_image_that_is_its_own_partner_teaches_nothing():
    s = drawn(3, 4).requires_grad_()
    loss = cskd(s, s, temperature=4.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert s.grad.abs().max() == pytest.approx(0, abs=1e-12)
