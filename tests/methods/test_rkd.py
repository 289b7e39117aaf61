"""Relations within a batch, against the paper's equations in loops over pairs and triples."""

import math

import numpy as np
import pytest
import torch
from drawn import Sizes, drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.errors import InputError
from kdzoo.functional import rkd

quick = settings(max_examples=20)
seeds = st.integers(0, 1000)


def huber(difference: float) -> float:
    return 0.5 * difference**2 if abs(difference) <= 1 else abs(difference) - 0.5


def relative_distances(e: np.ndarray) -> np.ndarray:
    size = len(e)
    d = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            if i != j:
                d[i, j] = math.sqrt(max(sum((e[i] - e[j]) ** 2), 1e-12))
    return d / d[d > 0].mean() if (d > 0).any() else d


def cosines(e: np.ndarray) -> np.ndarray:
    size = len(e)
    unit = np.zeros((size, size, e.shape[1]))
    for i in range(size):
        for j in range(size):
            length = math.sqrt(sum((e[j] - e[i]) ** 2))
            unit[i, j] = (e[j] - e[i]) / length if length > 0 else 0
    return np.array([[[unit[i, j] @ unit[i, k] for k in range(size)] for j in range(size)] for i in range(size)])


def oracle(s: np.ndarray, t: np.ndarray, distance_weight: float, angle_weight: float) -> float:
    distance = [huber(a - b) for a, b in zip(relative_distances(s).ravel(), relative_distances(t).ravel(), strict=True)]
    angle = [huber(a - b) for a, b in zip(cosines(s).ravel(), cosines(t).ravel(), strict=True)]
    return distance_weight * sum(distance) / len(distance) + angle_weight * sum(angle) / len(angle)


@quick
@given(
    batch=st.integers(1, 6), widths=st.tuples(st.integers(1, 5), st.integers(1, 5)), seed=seeds, weights=st.tuples(*[st.floats(0, 60)] * 2)
)
def test_it_is_the_papers_equations_for_any_two_widths(batch, widths, seed, weights):
    s, t = drawn(batch, widths[0], seed=seed), drawn(batch, widths[1], seed=seed + 1, factor=5)
    expected = oracle(s.numpy(), t.numpy(), *weights)
    assert rkd(s, t, distance_weight=weights[0], angle_weight=weights[1]).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("distance_weight", "angle_weight"), [(1.0, 0.0), (0.0, 1.0), (25.0, 50.0)])
def test_its_gradient_is_the_numerical_one(distance_weight, angle_weight):
    s, t = pair(5, 3)
    assert torch.autograd.gradcheck(lambda x: rkd(x, t, distance_weight=distance_weight, angle_weight=angle_weight), s.requires_grad_())


@quick
@given(seed=seeds, factor=st.floats(0.1, 10))
def test_turned_scaled_and_moved_embeddings_have_the_same_relations(seed, factor):
    t = drawn(5, 3, seed=seed)
    turn, _ = torch.linalg.qr(drawn(3, 3, seed=seed + 1))
    assert rkd(factor * t @ turn + drawn(1, 3, seed=seed + 2), t, distance_weight=25.0, angle_weight=50.0).item() == pytest.approx(
        0, abs=1e-9
    )


@quick
@given(seed=seeds)
def test_the_order_of_the_batch_changes_nothing(seed):
    s, t = pair(6, 4, seed=seed)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    expected = rkd(s, t, distance_weight=25.0, angle_weight=50.0).item()
    assert rkd(s[order], t[order], distance_weight=25.0, angle_weight=50.0).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("batch", [1, 2])
def test_one_or_two_samples_have_no_relation_to_learn(batch):
    s, t = pair(batch, 4)
    s.requires_grad_()
    loss = rkd(s, t, distance_weight=25.0, angle_weight=50.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert torch.isfinite(s.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coincident_samples_give_a_finite_loss_and_gradient(dtype):
    s, t = (z.to(dtype) for z in pair(4, 3))
    for same in (s[:1].repeat(4, 1), torch.cat([s[:1], s[:1], s[2:]]), torch.zeros(4, 3, dtype=dtype)):
        same = same.clone().requires_grad_()
        loss = rkd(same, t, distance_weight=25.0, angle_weight=50.0)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(same.grad).all()
        assert loss.item() == pytest.approx(oracle(same.detach().double().numpy(), t.double().numpy(), 25.0, 50.0), rel=1e-4)


@pytest.mark.parametrize("distance", [1e-2, 1e-4])
def test_samples_that_nearly_coincide_keep_their_angles_and_gradients_in_float32(distance):
    s, t = (z.float() for z in pair(6, 16))
    s[1] = s[0] + distance * s[2]
    expected = oracle(s.double().numpy(), t.double().numpy(), 25.0, 50.0)
    assert rkd(s, t, distance_weight=25.0, angle_weight=50.0).item() == pytest.approx(expected, rel=1e-6)
    s, t = s.double().requires_grad_(), t.double()
    loss = lambda x: rkd(x, t, distance_weight=25.0, angle_weight=50.0)  # noqa: E731
    assert torch.autograd.gradcheck(loss, s, eps=1e-4 * distance, rtol=1e-3, atol=1e-3)


def test_differences_of_embeddings_are_not_formed_forward_or_backward():
    s, t = torch.randn(8, 500, requires_grad=True), torch.randn(8, 500)
    with Sizes() as sizes:
        rkd(s, t, distance_weight=25.0, angle_weight=50.0).backward()
    assert sizes.largest <= s.numel()


def test_far_and_half_precise_embeddings_are_widened_before_they_are_squared():
    s, t = (z.half() for z in pair(4, 3, factor=1e4))
    loss = rkd(s, t, distance_weight=25.0, angle_weight=50.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(oracle(s.double().numpy(), t.double().numpy(), 25.0, 50.0), rel=1e-4)


def test_autocast_does_not_lower_the_angles():
    s, t = (z.float() for z in pair(6, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = rkd(s, t, distance_weight=25.0, angle_weight=50.0)
    assert lowered.item() == rkd(s, t, distance_weight=25.0, angle_weight=50.0).item()


def test_the_method_is_the_function():
    s, t = (z.requires_grad_() for z in pair(4, 3))
    loss = create_method("rkd").loss(outputs("student", embedding=s), outputs("teacher", embedding=t), None, nn.Module())
    loss.backward()
    assert t.grad is None
    assert loss.item() == pytest.approx(oracle(s.detach().numpy(), t.detach().numpy(), 25.0, 50.0))
    with pytest.raises(InputError, match=r"rkd\.angle_weight: expected a number >= 0, got -1"):
        create_method("rkd", angle_weight=-1)
