"""Logits at several scales, against DKD's equation cell by cell, with the weights of agreeing and complementary cells."""

import math

import numpy as np
import pytest
import torch
from drawn import batch_of, drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.batch import Progress
from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.errors import InputError
from kdzoo.functional import dkd, sdd
from kdzoo.methods.sdd import cell_logits

PUBLISHED = {"complementary_weight": 2.0, "target_weight": 1.0, "nontarget_weight": 8.0, "temperature": 4.0}


def softened(z: list[float], temperature: float) -> list[float]:
    powers = [math.exp((value - max(z)) / temperature) for value in z]
    return [power / sum(powers) for power in powers]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def decoupled(student: list[float], teacher: list[float], target: int, alpha: float, beta: float, temperature: float) -> float:
    p, q = softened(teacher, temperature)[target], softened(student, temperature)[target]
    others = [softened([z for k, z in enumerate(one) if k != target], temperature) for one in (teacher, student)]
    return temperature**2 * (alpha * divergence([p, 1 - p], [q, 1 - q]) + beta * divergence(*others))


def oracle(
    s: np.ndarray,
    t: np.ndarray,
    y: list[int],
    complementary_weight: float,
    target_weight: float,
    nontarget_weight: float,
    temperature: float,
) -> float:
    total = 0.0
    for student, teacher, target in zip(s.tolist(), t.tolist(), y, strict=True):
        whole = np.argmax(teacher[0]) == target
        for one, other in zip(student, teacher, strict=True):
            weight = 1.0 if (np.argmax(other) == target) == whole else complementary_weight
            total += weight * decoupled(one, other, target, target_weight, nontarget_weight, temperature)
    return total / (s.shape[0] * s.shape[1])


def labels(batch: int, classes: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30)
@given(
    batch=st.integers(1, 4),
    cells=st.integers(1, 5),
    classes=st.integers(2, 6),
    weights=st.tuples(st.floats(0, 4), st.floats(0, 3), st.floats(0, 8), st.floats(0.5, 8)),
    seed=st.integers(0, 1000),
)
def test_it_is_the_papers_sum_over_the_number_of_cells(batch, cells, classes, weights, seed):
    s, t = pair(batch, cells, classes, seed=seed, factor=2)
    y = labels(batch, classes, seed)
    got = sdd(s, t, y, **dict(zip(PUBLISHED, weights, strict=True)))
    assert got.item() == pytest.approx(oracle(s.numpy(), t.numpy(), y.tolist(), *weights), rel=1e-9, abs=1e-12)


def test_a_cell_counts_twice_where_the_teacher_is_right_in_it_alone_or_on_the_whole_alone():
    right, wrong = [5.0, 0.0, 1.0], [0.0, 5.0, 1.0]
    s = drawn(1, 2, 3)
    y = torch.tensor([0])
    alone = {"target_weight": 1.0, "nontarget_weight": 8.0, "temperature": 4.0}
    for cells, weight in (([right, right], 1), ([wrong, wrong], 1), ([right, wrong], 2), ([wrong, right], 2)):
        t = torch.tensor([cells], dtype=torch.float64)
        expected = (dkd(s[:, 0], t[:, 0], y, **alone) + weight * dkd(s[:, 1], t[:, 1], y, **alone)) / 2
        assert sdd(s, t, y, **PUBLISHED).item() == pytest.approx(expected.item())


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = pair(2, 3, 4)
    y = labels(2, 4)
    assert torch.autograd.gradcheck(lambda x: sdd(x, t, y, **PUBLISHED), s.requires_grad_())
    t.requires_grad_()
    sdd(s, t, y, **PUBLISHED).backward()
    assert t.grad is None


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 8), (4, 8), (5, 7)])
def test_cells_are_averages_of_the_map_of_logits(height, width):
    """The classifier on every place of the map and then the average, as the paper has it."""
    features, classifier = drawn(2, 3, height, width), nn.Linear(3, 5).double()
    logits = classifier(features.mean((2, 3)))
    got = cell_logits(logits, features, classifier, [2, 4]).detach().numpy()
    weight, bias = classifier.weight.detach().numpy(), classifier.bias.detach().numpy()
    scores = np.einsum("kc,bchw->bkhw", weight, features.numpy()) + bias[:, None, None]
    expected = [scores.mean((2, 3))]
    for grid in (2, 4):
        for i in range(grid):
            for j in range(grid):
                rows = slice(i * height // grid, -(-(i + 1) * height // grid))
                columns = slice(j * width // grid, -(-(j + 1) * width // grid))
                expected.append(scores[:, :, rows, columns].mean((2, 3)))
    np.testing.assert_allclose(got, np.stack(expected, 1), rtol=1e-9, atol=1e-12)


def seen(owner: str, side: int, channels: int, classifier: nn.Module, seed: int):
    features = drawn(3, channels, side, side, seed=seed)
    return outputs(owner, logits=classifier(features.mean((2, 3))), stages=[features], classifier=classifier)


@pytest.mark.parametrize(("sides", "cells"), [((8, 8), 21), ((8, 4), 21), ((2, 8), 5), ((3, 3), 5), ((1, 8), 1)])
def test_the_method_uses_the_grids_that_both_maps_have_room_for(sides, cells):
    classifiers = [nn.Linear(4, 5).double(), nn.Linear(6, 5).double()]
    student, teacher = seen("student", sides[0], 4, classifiers[0], 0), seen("teacher", sides[1], 6, classifiers[1], 1)
    y = labels(3, 5)
    grids = {21: [2, 4], 5: [2], 1: []}[cells]
    both = [cell_logits(one.logits, one.stages[0], one.classifier, grids) for one in (student, teacher)]
    assert both[0].shape == both[1].shape == (3, cells, 5)
    said = create_method("sdd").loss(student, teacher, batch_of(torch.arange(3), y), nn.Module())
    expected = oracle(*(z.detach().numpy() for z in both), y.tolist(), **PUBLISHED)
    assert said.item() == pytest.approx(expected, rel=1e-9)


def test_the_students_classifier_learns_and_the_teachers_does_not():
    classifiers = [nn.Linear(4, 5).double(), nn.Linear(6, 5).double()]
    given = (seen("student", 4, 4, classifiers[0], 0), seen("teacher", 4, 6, classifiers[1], 1))
    create_method("sdd").loss(*given, batch_of(torch.arange(3), labels(3, 5)), nn.Module()).backward()
    assert classifiers[0].weight.grad.any()
    assert classifiers[1].weight.grad is None


def test_an_embedding_that_is_not_the_last_map_is_refused():
    fits = Shapes(5, 4, (StageShape(4, 8, 8, 1),))
    wider = Shapes(5, 9, (StageShape(4, 8, 8, 1),))
    facts = DataFacts(10, 5, torch.zeros(10))
    create_method("sdd").build(fits, fits, facts)
    for networks, role in (((wider, fits), "student"), ((fits, wider), "teacher")):
        with pytest.raises(InputError, match=rf"the {role}'s classifier .* 4 channels .* 9; its stages are 4x8x8"):
            create_method("sdd").build(*networks, facts)


def test_it_declares_dkds_weights_and_warm_up():
    assert create_method("sdd").ramp(Progress(9, 240, 0, 1)) == pytest.approx(0.5)
