"""Wasserstein distance between class probabilities: Sinkhorn's algorithm sample by sample, classes really taken out."""

import math

import numpy as np
import pytest
import torch
from drawn import batch_of, drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import nn

from kdzoo.contract.batch import Progress
from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.functional import wkd_l
from kdzoo.methods.wkd_l import distances_by_cka, distances_by_classifier, sharpen

PUBLISHED = {"transport_weight": 600.0, "temperature": 8.0, "regularisation": 0.05, "iterations": 10}
FACTS = DataFacts(10, 5, torch.arange(10) % 5)


def softened(z: list[float], temperature: float) -> list[float]:
    powers = [math.exp((value - max(z)) / temperature) for value in z]
    return [power / sum(powers) for power in powers]


def others(z: list[float], y: int, temperature: float) -> np.ndarray:
    return np.array(softened([value for k, value in enumerate(z) if k != y], temperature))


def costs(classes: int, seed: int = 0) -> np.ndarray:
    """Costs that are symmetric and zero on the diagonal."""
    rows = drawn(classes, classes, seed=seed).numpy()
    apart = np.abs(rows[:, None] - rows[None]).mean(2)
    return 1 - np.exp(-apart)


def oracle(
    s: np.ndarray, t: np.ndarray, y: list[int], cost: np.ndarray, weight: float, temperature: float, eta: float, steps: int
) -> float:
    total = 0.0
    for student, teacher, target in zip(s.tolist(), t.tolist(), y, strict=True):
        total -= softened(teacher, 1.0)[target] * math.log(softened(student, 1.0)[target])
        kept = [k for k in range(len(student)) if k != target]
        c = np.maximum(cost[np.ix_(kept, kept)], 0) + 1e-8
        kernel = np.exp(-c / eta)
        p, q = others(student, target, temperature), others(teacher, target, temperature)
        u = np.full(len(kept), 1 / len(kept))
        for _ in range(steps):
            v = q / (kernel.T @ u + 1e-8)
            u = p / (kernel @ v + 1e-8)
        total += weight * (u[:, None] * kernel * v[None] * c).sum()
    return total / len(s)


@settings(max_examples=25)
@given(batch=st.integers(1, 5), classes=st.integers(2, 7), steps=st.integers(1, 12), seed=st.integers(0, 1000))
def test_it_is_sinkhorns_algorithm_over_the_other_classes(batch, classes, steps, seed):
    s, t = pair(batch, classes, seed=seed, factor=2)
    y = torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(seed))
    cost = costs(classes, seed)
    expected = oracle(s.numpy(), t.numpy(), y.tolist(), cost, 600.0, 8.0, 0.05, steps)
    got = wkd_l(s, t, y, torch.tensor(cost), **{**PUBLISHED, "iterations": steps})
    assert got.item() == pytest.approx(expected, rel=1e-9)


def test_after_many_iterations_it_is_the_optimal_transport_but_for_the_entropy():
    s, t = pair(1, 5, factor=3)
    cost = costs(5) / 5  # so that no entry of the kernel is lost beside the published 1e-8
    p, q = others(s[0].tolist(), 2, 1.0), others(t[0].tolist(), 2, 1.0)
    kept = cost[np.ix_([0, 1, 3, 4], [0, 1, 3, 4])]
    rows = [[float(k // 4 == i) for k in range(16)] for i in range(4)]
    columns = [[float(k % 4 == j) for k in range(16)] for j in range(4)]
    optimum = linprog(kept.ravel(), A_eq=[*rows, *columns], b_eq=[*p, *q]).fun
    target = -softened(t[0].tolist(), 1.0)[2] * math.log(softened(s[0].tolist(), 1.0)[2])
    exact = {"transport_weight": 1.0, "temperature": 1.0, "regularisation": 0.01, "iterations": 3000}
    got = wkd_l(s, t, torch.tensor([2]), torch.tensor(cost), **exact)
    entropy = 0.01 * math.log(16)  # times the regularisation, the most that 4 x 4 shares have
    assert 0.999 * optimum <= got.item() - target <= optimum + entropy


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = (x.requires_grad_() for x in pair(3, 4))
    y, cost = torch.tensor([0, 3, 1]), torch.tensor(costs(4))
    assert torch.autograd.gradcheck(lambda x: wkd_l(x, t, y, cost, **PUBLISHED), s)
    wkd_l(s, t, y, cost, **PUBLISHED).backward()
    assert t.grad is None


def test_float32_is_enough_for_a_hundred_classes():
    s, t = pair(4, 100, factor=3)
    y, cost = torch.arange(4), torch.tensor(costs(100))
    single = wkd_l(s.float(), t.float(), y, cost.float(), **PUBLISHED)
    assert single.item() == pytest.approx(wkd_l(s, t, y, cost, **PUBLISHED).item(), rel=1e-4)


@pytest.mark.parametrize("sharpness", [1.0, 2.0])
def test_costs_are_of_the_angles_between_the_classifiers_rows(sharpness):
    classifier = nn.Linear(6, 4).double()
    rows = classifier.weight.detach().numpy()
    got = sharpen(distances_by_classifier(classifier, 6), sharpness)
    for i in range(4):
        for j in range(4):
            cosine = rows[i] @ rows[j] / (rows[i] @ rows[i]) ** 0.5 / (rows[j] @ rows[j]) ** 0.5
            assert got[i, j].item() == pytest.approx(1 - math.exp(-sharpness * (1 - cosine)), abs=1e-12)
    assert not got.requires_grad


def alignment(x: np.ndarray, y: np.ndarray) -> float:
    """Linear CKA of two sets of samples (N, D), by their covariances."""
    x, y = x - x.mean(0), y - y.mean(0)
    norm = np.linalg.norm
    return norm(y.T @ x) ** 2 / (norm(x.T @ x) * norm(y.T @ y))


@pytest.mark.parametrize("samples", [2, 3, 9])
def test_costs_are_of_the_alignment_of_the_features_of_two_classes(samples):
    features = drawn(4, samples, 5)
    got = sharpen(distances_by_cka(features), 2.0).numpy()
    wanted = [[1 - math.exp(-2 * (1 - alignment(a, b))) if a is not b else 0 for b in features.numpy()] for a in features.numpy()]
    np.testing.assert_allclose(got, wanted, atol=1e-7)
    assert (np.diag(got) == 0).all()


def test_classes_whose_samples_are_all_alike_cost_what_nothing_in_common_does():
    features = drawn(3, 4, 5)
    features[1] = 1.0
    assert torch.equal(distances_by_cka(features)[1], torch.ones(3, dtype=torch.float64))


def test_the_method_compares_embeddings_of_the_first_samples_of_each_class():
    s, t = pair(3, 3)
    y = torch.tensor([0, 2, 1])
    targets = torch.tensor([0, 1, 1, 2, 0, 2, 0, 1, 2, 1])
    embeddings = drawn(10, 6, seed=3)
    method = create_method("wkd_l", samples=4)
    module = method.build(Shapes(3, 4, ()), Shapes(3, 6, (), embed=lambda places: embeddings[places]), DataFacts(10, 3, targets))
    loss = method.loss(outputs("student", logits=s), outputs("teacher", logits=t), batch_of(torch.arange(3), y), module)
    features = embeddings[torch.tensor([[0, 4, 6], [1, 2, 7], [3, 5, 8]])]  # the fewest are three
    cost = np.array([[1 - math.exp(alignment(a, b) - 1) if a is not b else 0 for b in features.numpy()] for a in features.numpy()])
    assert loss.item() == pytest.approx(oracle(s.numpy(), t.numpy(), y.tolist(), cost, 600.0, 8.0, 0.05, 10))


def test_without_embeddings_or_with_a_class_of_one_sample_it_is_refused_and_the_other_costs_are_named():
    method, student = create_method("wkd_l"), Shapes(5, 4, ())
    with pytest.raises(InputError, match=r"embeddings of training samples, which only a bench .*; costs=classifier reads"):
        method.build(student, Shapes(5, 6, ()), FACTS)
    with pytest.raises(InputError, match="classifier cannot be found; costs=classifier"):
        method.build(student, Shapes(5, 0, ()), FACTS)
    with pytest.raises(InputError, match="at least two training samples of each class, but class 4 has 1; costs=classifier reads none"):
        method.build(student, Shapes(5, 6, ()), DataFacts(9, 5, torch.arange(9) % 5))


def test_with_the_authors_other_costs_it_takes_the_teachers_classifier_and_is_refused_without_one():
    s, t = pair(3, 5)
    y = torch.tensor([0, 3, 1])
    classifier = nn.Linear(6, 5).double()
    method = create_method("wkd_l", costs="classifier")
    module = method.build(Shapes(5, 4, ()), Shapes(5, 6, (), classifier=classifier), FACTS)
    loss = method.loss(outputs("student", logits=s), outputs("teacher", logits=t), batch_of(torch.arange(3), y), module)
    cost = sharpen(distances_by_classifier(classifier, 6), 1.0).numpy()
    assert loss.item() == pytest.approx(oracle(s.numpy(), t.numpy(), y.tolist(), cost, 600.0, 8.0, 0.05, 10))
    assert list(module.parameters()) == []
    with pytest.raises(InputError, match="reads the teacher's classifier"):
        method.build(Shapes(5, 4, ()), Shapes(5, 6, ()), FACTS)


def test_the_transports_weight_falls_along_half_a_cosine_after_150_of_240_epochs():
    decay = create_method("wkd_l").decay
    assert [decay(Progress(epoch, 240, 0, 1)) for epoch in (0, 149, 239)] == [1.0, 1.0, 0.0]
    assert decay(Progress(194, 240, 0, 1)) == pytest.approx(0.5)  # the 195th epoch, half-way from the 150th to the last
    assert decay(Progress(0, 1, 0, 1)) == 1.0  # of a single epoch, which would else have no transport at all
    never, always = (create_method("wkd_l", constant=share).decay for share in (1.0, 0.0))
    assert never(Progress(239, 240, 0, 1)) == 1.0
    assert always(Progress(0, 240, 0, 1)) == pytest.approx((1 + math.cos(math.pi / 240)) / 2)


def test_a_regularisation_at_which_the_kernel_would_be_lost_is_refused():
    with pytest.raises(InputError, match="regularisation"):
        create_method("wkd_l", regularisation=0.02)
