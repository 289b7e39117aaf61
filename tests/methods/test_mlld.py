"""Three levels of alignment, against their definitions in loops over samples, pairs of samples and pairs of classes."""

import math

import numpy as np
import pytest
import torch
from drawn import batch_of, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.card import Coefficients
from kdzoo.contract.methods import REGISTRY, create_method
from kdzoo.contract.needs import Pass
from kdzoo.contract.outputs import Outputs
from kdzoo.functional import mlld
from kdzoo.methods.mlld import rare, unsure


def softened(z: np.ndarray, temperature: float) -> np.ndarray:
    powers = np.exp((z - z.max(1, keepdims=True)) / temperature)
    return powers / powers.sum(1, keepdims=True)


def levels(s: np.ndarray, t: np.ndarray, temperature: float) -> tuple[list[float], list[float], list[float]]:
    """Of each sample, of each sample's relations, of each class's relations."""
    q, p = softened(s, temperature), softened(t, temperature)
    batch, classes = q.shape
    samples = [temperature**2 * sum(p[i, k] * math.log(p[i, k] / q[i, k]) for k in range(classes)) for i in range(batch)]
    among = [sum((q[i] @ q[j] - p[i] @ p[j]) ** 2 for j in range(batch)) for i in range(batch)]
    across = [sum((q[:, k] @ q[:, m] - p[:, k] @ p[:, m]) ** 2 for m in range(classes)) for k in range(classes)]
    return samples, among, across


def oracle(s: np.ndarray, t: np.ndarray, s2: np.ndarray, t2: np.ndarray, temperature: float) -> float:
    p = softened(t, 1.0)
    surest, seen = p.max(1), p.sum(0)
    total = 0.0
    for one in (temperature, 3.0, 5.0, 2.0, 6.0):
        samples, among, across = levels(s, t, one)
        kept = [i for i in range(len(s)) if surest[i] <= np.percentile(surest, 50)]
        kept_classes = [k for k in range(s.shape[1]) if seen[k] <= np.percentile(seen, 50)]
        total += sum(samples[i] + among[i] for i in kept) / len(s) + sum(across[k] for k in kept_classes) / s.shape[1]
        samples, among, across = levels(s2, t2, one)
        total += (sum(samples) + sum(among)) / len(s) + sum(across) / s.shape[1]
    return total


def viewed(owner: str, first: torch.Tensor, second: torch.Tensor) -> Outputs:
    return outputs(owner, logits=first).with_pass(Pass.SECOND_VIEW, outputs(owner, logits=second))


@settings(max_examples=20)
@given(batch=st.integers(1, 6), classes=st.integers(2, 6), temperature=st.floats(0.5, 8), seed=st.integers(0, 1000))
def test_it_is_its_definition(batch, classes, temperature, seed):
    s, t = pair(batch, classes, seed=seed, factor=2)
    s2, t2 = pair(batch, classes, seed=seed + 2000, factor=2)
    expected = oracle(s.numpy(), t.numpy(), s2.numpy(), t2.numpy(), temperature)
    assert mlld(s, t, s2, t2, temperature=temperature).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_its_gradient_is_the_numerical_one_and_the_teachers_get_none():
    s, t = pair(4, 3)
    s2, t2 = pair(4, 3, seed=1)
    assert torch.autograd.gradcheck(lambda x, y: mlld(x, t, y, t2, temperature=4.0), (s.requires_grad_(), s2.requires_grad_()))
    t.requires_grad_()
    t2.requires_grad_()
    mlld(s, t, s2, t2, temperature=4.0).backward()
    assert t.grad is t2.grad is None


def test_half_of_the_samples_and_classes_are_kept():
    t = torch.tensor([[9.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0], [0.0, 0.1, 0.0, 0.2]])
    assert unsure(t).tolist() == [0, 1, 0, 1]
    assert rare(t).tolist() == [0, 0, 1, 1]


def test_samples_on_which_the_teacher_is_sure_are_not_taught_by_themselves():
    """The first view's own divergences get through of the unsure half alone."""
    t = torch.tensor([[9.0, 0.0, 0.0], [0.5, 0.0, 0.1]], dtype=torch.float64)
    s, s2 = pair(2, 3)
    moved = s.clone()
    moved[0] += torch.tensor([0.0, 1e-3, 0.0])
    change = (mlld(moved, t, s2, s2, temperature=4.0) - mlld(s, t, s2, s2, temperature=4.0)).item()
    expected = 0.0
    for one in (4.0, 3.0, 5.0, 2.0, 6.0):
        (_, among, across), (_, among_now, across_now) = (levels(z.numpy(), t.numpy(), one) for z in (s, moved))
        kept = rare(t).bool().tolist()
        expected += (among_now[1] - among[1]) / 2 + sum(b - a for a, b, keep in zip(across, across_now, kept, strict=True) if keep) / 3
    assert change == pytest.approx(expected, rel=1e-6)


def test_the_second_view_has_its_own_logits_at_every_temperature():
    s, t = pair(4, 5)
    s2, t2 = pair(4, 5, seed=1)
    s.requires_grad_()
    s2.requires_grad_()
    first = torch.autograd.grad(mlld(s, t, s2, t2, temperature=4.0), s, retain_graph=True)[0]
    torch.testing.assert_close(first, torch.autograd.grad(mlld(s, t, t2, t2, temperature=4.0), s)[0])
    assert mlld(t, t, t2, t2, temperature=4.0).item() == pytest.approx(0, abs=1e-12)


def test_autocast_does_not_lower_the_relations():
    (s, t), (s2, t2) = ((z.float() for z in pair(6, 8, seed=seed)) for seed in (0, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = mlld(s, t, s2, t2, temperature=4.0)
    assert lowered.item() == mlld(s, t, s2, t2, temperature=4.0).item()


def test_the_method_adds_the_second_views_cross_entropy():
    (s, t), (s2, t2) = pair(3, 4), pair(3, 4, seed=1)
    y = torch.tensor([0, 3, 1])
    said = create_method("mlld").loss(viewed("student", s, s2), viewed("teacher", t, t2), batch_of(torch.arange(3), y), nn.Module())
    labels = -np.mean([math.log(softened(s2.numpy(), 1.0)[i, k]) for i, k in enumerate(y.tolist())])
    assert said.item() == pytest.approx(oracle(s.numpy(), t.numpy(), s2.numpy(), t2.numpy(), 4.0) + labels / 9)
    published = REGISTRY.get("mlld").card.published
    assert published == Coefficients(task=0.1, term=0.9)
    assert published.term * create_method("mlld").second_label_weight == pytest.approx(published.task)
