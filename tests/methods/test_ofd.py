"""The overhaul, against the paper's partial distance in loops over every neuron, and its margins over every value seen."""

import numpy as np
import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.functional import ofd
from kdzoo.methods.ofd import Margin

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
STUDENT = Shapes(5, 8, (StageShape(3, 4, 4, 1), StageShape(4, 4, 6, 1), StageShape(5, 1, 1, 4)))
TEACHER = Shapes(5, 9, (StageShape(3, 4, 4, 1), StageShape(7, 2, 3, 2), StageShape(8, 1, 1, 4)))


def oracle(students: list[np.ndarray], teachers: list[np.ndarray], margins: list[np.ndarray]) -> float:
    total = 0.0
    for stage, (s, t, m) in enumerate(zip(students, teachers, margins, strict=True)):
        loss = 0.0
        for b, c, i, j in np.ndindex(s.shape):
            target = max(t[b, c, i, j], m[c])
            if not s[b, c, i, j] <= target <= 0:
                loss += (s[b, c, i, j] - target) ** 2
        total += loss / len(s) / 2 ** (len(students) - 1 - stage)
    return total


def negatives(teacher: np.ndarray) -> np.ndarray:
    """E[t | t < 0] in each channel of (B, C, H, W); 0 where there is none."""
    found = [teacher[:, c][teacher[:, c] < 0] for c in range(teacher.shape[1])]
    return np.array([values.mean() if len(values) else 0.0 for values in found])


@settings(max_examples=20)
@given(shape=st.tuples(*[st.integers(1, 4)] * 4), stages=st.integers(1, 4), seed=st.integers(0, 1000))
def test_it_is_the_partial_distance_with_stages_weighed_from_the_deep_end(shape, stages, seed):
    s = [drawn(*shape, seed=seed + i) for i in range(stages)]
    t = [drawn(*shape, seed=seed + 10 + i) for i in range(stages)]
    m = [-drawn(shape[1], seed=seed + 20 + i).abs() for i in range(stages)]
    expected = oracle(*([z.numpy() for z in side] for side in (s, t, m)))
    assert ofd(s, t, m).item() == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    ("s", "t", "loss"), [(2, 1, 1), (0, 1, 1), (-1, -0.2, 0), (0.5, -0.2, 0.49), (0, -3, 0.25), (-0.5, -3, 0), (-2, -3, 0), (0, 0, 0)]
)
def test_by_hand_for_one_neuron_with_a_margin_of_a_half(s, t, loss):
    one, other = (torch.full((1, 1, 1, 1), float(value), dtype=torch.float64) for value in (s, t))
    assert ofd([one], [other], [torch.tensor([-0.5])]).item() == pytest.approx(loss)


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = (z.requires_grad_() for z in pair(2, 3, 2, 4))
    margin = torch.full((3,), -0.7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: ofd([x], [t], [margin]), s)
    ofd([s], [t], [margin]).backward()
    assert t.grad is None


@settings(max_examples=20)
@given(sizes=st.lists(st.tuples(*[st.integers(1, 4)] * 3), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_margins_are_the_mean_of_all_negative_values_seen_whatever_the_batches(sizes, seed):
    margin, seen = Margin(2).double(), []
    for number, (batch, height, width) in enumerate(sizes):
        values = drawn(batch, 2, height, width, seed=seed + number)
        values[:, 1] = values[:, 1].abs()  # never below zero
        seen.append(values.permute(1, 0, 2, 3).flatten(1))
        found = margin(values)
    expected = negatives(torch.cat(seen, dim=1)[None, :, :, None].numpy())
    assert found.numpy() == pytest.approx(expected, rel=1e-9)
    assert found[1] == 0


def test_margins_do_not_move_in_evaluation():
    margin = Margin(2)
    first = margin(drawn(3, 2, 2, 2).float())
    margin.eval()
    assert torch.equal(margin(drawn(3, 2, 2, 2, seed=1).float()), first)


def test_margins_of_many_batches_keep_their_precision_in_float32():
    margin = Margin(1)
    for _ in range(2000):
        margin(torch.full((64, 1, 8, 8), -3.0))
    assert margin(torch.full((64, 1, 8, 8), -3.0)).item() == pytest.approx(-3.0, rel=1e-6)
    assert margin.count.item() == 2001 * 64 * 64


def maps(shapes: Shapes, batch: int, seed: int) -> list[torch.Tensor]:
    return [drawn(batch, s.channels, s.height, s.width, seed=seed + i) for i, s in enumerate(shapes.stages)]


def loss_of(module: nn.Module, student: list[torch.Tensor], teacher: list[torch.Tensor]) -> torch.Tensor:
    return create_method("ofd").loss(outputs("student", preact=student), outputs("teacher", preact=teacher), None, module)


def test_the_method_pools_carries_and_compares_with_the_margins_of_what_it_compares():
    module = create_method("ofd").build(STUDENT, TEACHER, FACTS).double()
    module.connectors.eval()
    s, t = maps(STUDENT, 2, 0), maps(TEACHER, 2, 10)
    scale = 1 / np.sqrt(1 + 1e-5)  # what batch norm does before it has seen anything
    sized = [s[0].numpy(), s[1].numpy().reshape(2, 4, 2, 2, 3, 2).mean((3, 5)), s[2].numpy()]
    weights = [connect[0].weight.detach().numpy()[:, :, 0, 0] for connect in module.connectors]
    carried = [np.einsum("tc,bchw->bthw", weight, one) * scale for weight, one in zip(weights, sized, strict=True)]
    targets = [m.numpy() for m in t]
    assert loss_of(module, s, t).item() == pytest.approx(oracle(carried, targets, [negatives(one) for one in targets]))


def test_every_stage_is_connected_as_published():
    """1x1 convolutions and batch norm at 64, 128 and 256 channels, the pair resnet32x4 to resnet8x4."""
    same = Shapes(100, 256, tuple(StageShape(c, 4, 4, 1) for c in (64, 128, 256)))
    module = create_method("ofd").build(same, same, FACTS)
    assert sum(p.numel() for p in module.parameters()) == 86_912


def test_one_image_and_one_cell_train_and_the_state_holds_the_margins():
    module = create_method("ofd").build(STUDENT, TEACHER, FACTS).double()
    s = [m.requires_grad_() for m in maps(STUDENT, 1, 0)]
    loss_of(module, s, maps(TEACHER, 1, 10)).backward()
    assert all(torch.isfinite(m.grad).all() for m in s)
    assert {"margins.0.mean", "margins.0.count", "margins.2.mean"} <= module.state_dict().keys()
