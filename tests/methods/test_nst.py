"""Neuron selectivity transfer, against the kernel means in loops over pairs of channels, in both of its equal forms."""

import numpy as np
import pytest
import torch
from drawn import Sizes, drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.functional import nst
from kdzoo.methods.nst import discrepancy

quick = settings(max_examples=25)


def unit(image: np.ndarray) -> list[np.ndarray]:
    """Each channel of (C, H, W) as a vector of norm 1."""
    return [channel.ravel() / np.linalg.norm(channel) for channel in image]


def kernel(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    return sum(float(np.dot(a, b)) ** 2 for a in ours for b in theirs) / (len(ours) * len(theirs))


def oracle(students: list[np.ndarray], teachers: list[np.ndarray]) -> float:
    total = 0.0
    for s, t in zip(students, teachers, strict=True):
        images = [(unit(one), unit(other)) for one, other in zip(s, t, strict=True)]
        total += sum(kernel(a, a) + kernel(b, b) - 2 * kernel(a, b) for a, b in images) / len(images)
    return total


@quick
@given(
    batch=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    sides=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    seed=st.integers(0, 1000),
)
def test_it_is_its_definition_for_any_channels_and_sides(batch, channels, sides, seed):
    s = [drawn(batch, channels[0], *sides, seed=seed), drawn(batch, 2, 3, 2, seed=seed + 1)]
    t = [drawn(batch, channels[1], *sides, seed=seed + 2), drawn(batch, 3, 3, 2, seed=seed + 3)]
    expected = oracle([m.numpy() for m in s], [m.numpy() for m in t])
    assert nst(s, t).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("channels", "cells"), [((7, 5), 2), ((7, 5), 40), ((1, 9), 9), ((2, 2), 3), ((2, 2), 4)])
def test_the_form_over_cells_and_the_form_over_channels_are_equal(channels, cells):
    """The kernel's feature is a a^T: what few cells allow to be computed from means of those is the mean over pairs of channels."""
    s, t = drawn(3, channels[0], cells), drawn(3, channels[1], cells, seed=1)
    images = [(list(a), list(b)) for a, b in zip(s.numpy(), t.numpy(), strict=True)]
    expected = [kernel(a, a) + kernel(b, b) - 2 * kernel(a, b) for a, b in images]
    assert discrepancy(s, t).numpy() == pytest.approx(np.array(expected), rel=1e-9)


@pytest.mark.parametrize("shape", [(2, 64, 16, 16), (2, 128, 4, 4)])
def test_nothing_larger_than_the_maps_or_a_gram_matrix_is_formed_forward_or_backward(shape):
    s, t = torch.randn(*shape, requires_grad=True), torch.randn(*shape)
    with Sizes() as sizes:
        nst([s], [t]).backward()
    assert sizes.largest <= max(s.numel(), shape[0] * shape[1] ** 2)


@pytest.mark.parametrize("shape", [(2, 3, 4, 3), (2, 6, 1, 2)])
def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none(shape):
    s, t = (z.requires_grad_() for z in pair(*shape))
    assert torch.autograd.gradcheck(lambda x: nst([x], [t]), s)
    nst([s], [t]).backward()
    assert t.grad is None


@quick
@given(seed=st.integers(0, 1000), factor=st.floats(0.01, 100), sides=st.sampled_from([(1, 3), (4, 4)]))
def test_only_what_channels_select_counts_not_their_strength_sign_or_order(seed, factor, sides):
    s, t = pair(3, 5, *sides, seed=seed)
    expected = nst([s], [t]).item()
    strengths = torch.linspace(-factor, 2 * factor, 5, dtype=torch.float64)[None, :, None, None] + 0.003
    assert nst([s * strengths], [t]).item() == pytest.approx(expected, rel=1e-8)
    assert nst([s.flip(1)], [t]).item() == pytest.approx(expected, rel=1e-8)
    assert nst([s.flip(0)], [t.flip(0)]).item() == pytest.approx(expected, rel=1e-8)


def test_the_larger_map_is_average_pooled():
    large, small = drawn(2, 3, 4, 6), drawn(2, 5, 2, 3, seed=1)
    halved = large.numpy().reshape(2, 3, 2, 2, 3, 2).mean((3, 5))
    assert nst([large], [small]).item() == pytest.approx(oracle([halved], [small.numpy()]))
    assert nst([small], [large]).item() == pytest.approx(oracle([small.numpy()], [halved]))


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 40, 2, 2)])
def test_it_is_zero_where_the_two_agree_and_finite_where_channels_are_dead(shape):
    t = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    assert nst([t], [t]).item() == pytest.approx(0, abs=1e-7)
    s = t.clone()
    s[:, 0] = 0
    s.requires_grad_()
    loss = nst([s], [t])
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(s.grad).all()


def test_by_hand_for_one_channel_each_of_two_pixels():
    """Orthogonal channels: 1 + 1 - 0; at an angle of 60 degrees: 1 + 1 - 2/4."""
    t = torch.tensor([[[[2.0, 0.0]]]], dtype=torch.float64)
    assert nst([torch.tensor([[[[0.0, 3.0]]]], dtype=torch.float64)], [t]).item() == pytest.approx(2)
    assert nst([torch.tensor([[[[0.5, 0.75**0.5]]]], dtype=torch.float64)], [t]).item() == pytest.approx(1.5)


def test_half_precision_is_widened():
    s, t = (z.half() * 200 for z in pair(2, 3, 4, 4))
    loss = nst([s], [t])
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(oracle([s.double().numpy()], [t.double().numpy()]), rel=1e-4)


def test_the_method_is_the_function_over_all_stages():
    s, t = [drawn(2, 3, 4, 4), drawn(2, 5, 2, 2)], [drawn(2, 4, 4, 4, seed=1), drawn(2, 6, 2, 2, seed=1)]
    said = create_method("nst").loss(outputs("student", stages=s), outputs("teacher", stages=t), None, nn.Module())
    assert said.item() == pytest.approx(oracle([m.numpy() for m in s], [m.numpy() for m in t]))
