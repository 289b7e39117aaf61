"""Factor transfer, against its definition in loops, and the paraphraser that it takes over."""

import math

import numpy as np
import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.card import PretrainStage
from kdzoo.contract.methods import REGISTRY, create_method
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.functional import ft

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
STUDENT = Shapes(5, 8, (StageShape(3, 4, 4, 1), StageShape(5, 4, 6, 1)))
TEACHER = Shapes(5, 6, (StageShape(4, 4, 4, 1), StageShape(6, 2, 3, 2)))


def oracle(student: np.ndarray, teacher: np.ndarray) -> float:
    apart = []
    for s, t in zip(student, teacher, strict=True):
        norms = [math.sqrt(sum(value**2 for value in factor.ravel())) for factor in (s, t)]
        apart += [abs(a / norms[0] - b / norms[1]) for a, b in zip(s.ravel(), t.ravel(), strict=True)]
    return sum(apart) / len(apart)


@settings(max_examples=20)
@given(shape=st.tuples(*[st.integers(1, 4)] * 4), factor=st.floats(0.01, 100), seed=st.integers(0, 1000))
def test_it_is_the_mean_difference_of_whole_normalised_factors_whatever_their_strength(shape, factor, seed):
    s, t = drawn(*shape, seed=seed), drawn(*shape, seed=seed + 1)
    expected = oracle(s.numpy(), t.numpy())
    assert ft([s], [t]).item() == pytest.approx(expected, rel=1e-9)
    assert ft([factor * s], [t]).item() == pytest.approx(expected, rel=1e-9)


def test_channels_are_told_apart():
    """A factor with its channels in another order has the same attention map, and is another factor."""
    s = drawn(2, 4, 3, 3)
    assert ft([s], [s]).item() == 0
    assert ft([s.flip(1)], [s]).item() > 0.05


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = (z.requires_grad_() for z in pair(2, 3, 2, 4))
    assert torch.autograd.gradcheck(lambda x: ft([x], [t]), s)
    ft([s], [t]).backward()
    assert t.grad is None


def test_a_factor_of_zeros_gives_a_finite_loss_and_gradient():
    s = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = ft([s], [drawn(2, 3, 4, 4).float()])
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(s.grad).all()


def loss_of(module: nn.Module, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return create_method("ft").loss(outputs("student", stages=[student]), outputs("teacher", stages=[teacher]), None, module)


def test_the_method_compares_the_translation_of_the_pooled_map_with_the_frozen_factor():
    module = create_method("ft").build(STUDENT, TEACHER, FACTS).double().eval()
    s, t = drawn(2, 5, 4, 6), drawn(2, 6, 2, 3, seed=1)
    pooled = torch.tensor(s.numpy().reshape(2, 5, 2, 2, 3, 2).mean((3, 5)))
    with torch.no_grad():
        translated, factor = module.translator(pooled), module.paraphraser.encode(t)
    assert translated.shape == factor.shape == (2, 3, 2, 3)
    assert loss_of(module, s, t).item() == pytest.approx(oracle(translated.numpy(), factor.numpy()))


def test_the_translator_learns_and_the_paraphraser_does_not():
    method = create_method("ft")
    module = method.build(STUDENT, TEACHER, FACTS).double()
    loss_of(module, drawn(2, 5, 4, 6), drawn(2, 6, 2, 3, seed=1)).backward()
    assert all(p.grad is not None for p in module.translator.parameters())
    assert all(p.grad is None for p in module.paraphraser.parameters())
    optimised = {id(p) for group in method.groups(module) for p in group.parameters}
    assert optimised == {id(p) for p in module.translator.parameters()}


@pytest.mark.parametrize("rate", [0.5, 0.75])
def test_what_the_first_stage_trained_fits_under_the_same_name(rate):
    first, second = (create_method(name, rate=rate).build(STUDENT, TEACHER, FACTS) for name in ("ft_paraphraser", "ft"))
    before, after = first.state_dict(), second.state_dict()
    assert {name: value.shape for name, value in before.items()} == {
        name: value.shape for name, value in after.items() if name.startswith("paraphraser.")
    }
    assert REGISTRY.get("ft").card.pretrain == PretrainStage("ft_paraphraser", share=1 / 8)


def test_it_has_the_published_number_of_parameters_for_256_channels():
    same = Shapes(100, 256, (StageShape(256, 8, 8, 4),))
    module = create_method("ft").build(same, same, FACTS)
    assert sum(p.numel() for p in module.translator.parameters()) == 1_033_728


def test_one_image_of_one_cell_trains():
    one = Shapes(5, 6, (StageShape(6, 1, 1, 8),))
    module = create_method("ft").build(one, one, FACTS).double()
    s = drawn(1, 6, 1, 1).requires_grad_()
    loss_of(module, s, drawn(1, 6, 1, 1, seed=1)).backward()
    assert torch.isfinite(s.grad).all()


def test_autocast_does_not_lower_the_factors():
    module = create_method("ft").build(STUDENT, TEACHER, FACTS).eval()
    s, t = drawn(2, 5, 4, 6).float(), drawn(2, 6, 2, 3, seed=1).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = loss_of(module, s, t)
    assert lowered.item() == loss_of(module, s, t).item()
