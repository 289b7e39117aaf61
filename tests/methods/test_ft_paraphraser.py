"""The paraphraser: what it reconstructs, what it is made of, and whom it teaches."""

import numpy as np
import pytest
import torch
from drawn import drawn, outputs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import REGISTRY, create_method
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.errors import InputError
from kdzoo.functional import ft_paraphraser
from kdzoo.methods.ft_paraphraser import Paraphraser

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
STUDENT = Shapes(5, 8, (StageShape(3, 4, 4, 1), StageShape(5, 2, 3, 2)))
TEACHER = Shapes(5, 6, (StageShape(4, 4, 4, 1), StageShape(6, 2, 3, 2)))


@settings(max_examples=20)
@given(shape=st.tuples(*[st.integers(1, 4)] * 4), seed=st.integers(0, 1000))
def test_it_is_the_mean_of_squares(shape, seed):
    a, t = drawn(*shape, seed=seed), drawn(*shape, seed=seed + 1)
    squares = [(a.numpy()[place] - t.numpy()[place]) ** 2 for place in np.ndindex(shape)]
    assert ft_paraphraser(a, t).item() == pytest.approx(sum(squares) / len(squares))


@pytest.mark.parametrize(("rate", "width"), [(0.5, 3), (0.75, 4), (0.01, 1), (2.0, 12)])
def test_the_factor_has_its_share_of_the_channels_and_the_map_comes_back_at_its_shape(rate, width):
    module = create_method("ft_paraphraser", rate=rate).build(STUDENT, TEACHER, FACTS).double()
    last = drawn(2, 6, 2, 3)
    assert module.paraphraser.encode(last).shape == (2, width, 2, 3)
    assert module.paraphraser(last).shape == last.shape


def test_it_has_the_published_number_of_parameters_for_256_channels():
    assert sum(p.numel() for p in Paraphraser(256, 128).parameters()) == 2_065_536


def test_it_learns_to_reconstruct_also_what_is_negative():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = create_method("ft_paraphraser", rate=1.0)
        module = method.build(STUDENT, TEACHER, FACTS)
    teacher = outputs("teacher", stages=[drawn(8, 6, 2, 3).float()])
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    losses = []
    for _ in range(150):
        loss = method.loss(outputs("student"), teacher, None, module)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 20


def test_it_reads_the_teacher_alone_and_gives_it_no_gradient():
    card = REGISTRY.get("ft_paraphraser").card
    assert not card.needs.student
    module = create_method("ft_paraphraser").build(STUDENT, TEACHER, FACTS).double()
    last = drawn(2, 6, 2, 3).requires_grad_()
    create_method("ft_paraphraser").loss(outputs("student"), outputs("teacher", stages=[last]), None, module).backward()
    assert last.grad is None
    assert all(p.grad is not None for p in module.parameters())


def test_a_rate_of_nothing_is_refused():
    with pytest.raises(InputError, match=r"ft_paraphraser\.rate"):
        create_method("ft_paraphraser", rate=0.0)


def test_every_activation_leaks_a_tenth():
    """All but the last layer, whose map may be negative."""
    slopes = [layer.negative_slope for layer in Paraphraser(4, 2).modules() if isinstance(layer, nn.LeakyReLU)]
    assert slopes == [0.1] * 5


def test_half_precision_is_widened_before_it_is_squared():
    loss = ft_paraphraser(torch.full((1, 1, 1, 1), 1e3, dtype=torch.float16), torch.zeros(1, 1, 1, 1, dtype=torch.float16))
    assert loss.item() == pytest.approx(1e6, rel=1e-3)


def test_no_gradient_reaches_the_map_that_is_to_be_reconstructed():
    made, target = (drawn(2, 3, 2, 2, seed=seed).requires_grad_() for seed in (0, 1))
    ft_paraphraser(made, target).backward()
    assert made.grad is not None
    assert target.grad is None
