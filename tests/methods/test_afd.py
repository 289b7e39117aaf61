"""Attentive feature distillation, against loops over images and channels."""

import math

import numpy as np
import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.errors import InputError
from kdzoo.functional import afd
from kdzoo.methods.afd import Importance

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
STUDENT = Shapes(5, 6, (StageShape(5, 4, 4, 1), StageShape(4, 4, 6, 2)))
TEACHER = Shapes(5, 9, (StageShape(5, 4, 4, 1), StageShape(6, 2, 3, 4)))


def maps(shapes: Shapes, batch: int, seed: int) -> list[torch.Tensor]:
    return [drawn(batch, s.channels, s.height, s.width, seed=seed + i) for i, s in enumerate(shapes.stages)]


def oracle(students: list[np.ndarray], teachers: list[np.ndarray], importances: list[np.ndarray]) -> float:
    total = 0.0
    for s, t, rho in zip(students, teachers, importances, strict=True):
        for image in range(len(s)):
            for channel in range(s.shape[1]):
                a, b = s[image, channel], t[image, channel]
                apart = a / math.sqrt((a**2).sum()) - b / math.sqrt((b**2).sum())
                total += rho[image, channel] * (apart**2).mean() / len(s)
    return total


@settings(max_examples=20)
@given(shape=st.tuples(*[st.integers(1, 4)] * 4), stages=st.integers(1, 3), seed=st.integers(0, 1000))
def test_it_is_its_definition_summed_over_stages(shape, stages, seed):
    s = [drawn(*shape, seed=seed + i) for i in range(stages)]
    t = [drawn(*shape, seed=seed + 10 + i) for i in range(stages)]
    rho = [drawn(*shape[:2], seed=seed + 20 + i).softmax(1) for i in range(stages)]
    expected = oracle(*([z.numpy() for z in side] for side in (s, t, rho)))
    assert afd(s, t, rho).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_its_gradients_are_the_numerical_ones_and_the_teacher_gets_none():
    s, t = (z.requires_grad_() for z in pair(2, 3, 2, 4))
    rho = drawn(2, 3, seed=5).softmax(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: afd([x], [t], [y]), (s, rho))
    afd([s], [t], [rho]).backward()
    assert t.grad is None


def test_channels_at_full_importance_count_alone():
    s, t = pair(1, 2, 2, 2)
    first, second = (afd([s], [t], [torch.eye(2, dtype=torch.float64)[i : i + 1]]).item() for i in (0, 1))
    halves = afd([s], [t], [torch.full((1, 2), 0.5, dtype=torch.float64)]).item()
    assert first != pytest.approx(second)
    assert halves == pytest.approx((first + second) / 2)


@pytest.mark.parametrize("batch", [1, 3])
def test_importances_are_sigmoids_divided_by_their_sum(batch):
    module = Importance(4, 3).double()
    means = drawn(batch, 4)
    first, second = module.perceptron[0], module.perceptron[2]
    hidden = np.maximum(means.numpy() @ first.weight.detach().numpy().T + first.bias.detach().numpy(), 0)
    scores = 1 / (1 + np.exp(-(hidden @ second.weight.detach().numpy().T + second.bias.detach().numpy())))
    assert module(means).detach().numpy() == pytest.approx(scores / scores.sum(1, keepdims=True))


def test_importances_stay_shares_where_every_sigmoid_rounds_to_zero():
    module = Importance(4, 4)
    nn.init.zeros_(module.perceptron[2].weight)
    nn.init.constant_(module.perceptron[2].bias, -200.0)
    shares = module(torch.zeros(2, 4))
    assert shares.detach().numpy() == pytest.approx(0.25)


def loss_of(module: nn.Module, student: list[torch.Tensor], teacher: list[torch.Tensor]) -> torch.Tensor:
    return create_method("afd").loss(outputs("student", stages=student), outputs("teacher", stages=teacher), None, module)


@pytest.mark.parametrize("batch", [1, 2])
def test_the_method_carries_channels_that_differ_and_averages_stages(batch):
    module = create_method("afd").build(STUDENT, TEACHER, FACTS).double()
    s, t = maps(STUDENT, batch, 0), maps(TEACHER, batch, 10)
    weight, bias = (p.detach().numpy() for p in module.carriers[1].parameters())
    halved = s[1].numpy().reshape(batch, 4, 2, 2, 3, 2).mean((3, 5))
    carried = [s[0].numpy(), np.einsum("tc,bchw->bthw", weight[:, :, 0, 0], halved) + bias[None, :, None, None]]
    rho = [weigh(stage.mean((2, 3))).detach().numpy() for weigh, stage in zip(module.importances, t, strict=True)]
    expected = oracle(carried, [m.numpy() for m in t], rho) / 2
    assert loss_of(module, s, t).item() == pytest.approx(expected, rel=1e-4)
    assert isinstance(module.carriers[0], nn.Identity)


def test_the_hidden_layer_is_a_multiple_of_the_channels_and_never_empty():
    module = create_method("afd", width=0.5).build(STUDENT, TEACHER, FACTS)
    assert [weigh.perceptron[0].out_features for weigh in module.importances] == [2, 3]
    module = create_method("afd", width=0.01).build(STUDENT, TEACHER, FACTS)
    assert [weigh.perceptron[0].out_features for weigh in module.importances] == [1, 1]
    with pytest.raises(InputError, match=r"afd\.width: expected a number > 0, got 0"):
        create_method("afd", width=0.0)


def test_dead_channels_give_a_finite_gradient():
    s = torch.randn(2, 3, 4, 4)
    s[:, 0] = 0
    s.requires_grad_()
    afd([s], [torch.randn(2, 3, 4, 4)], [torch.full((2, 3), 1 / 3)]).backward()
    assert torch.isfinite(s.grad).all()


def test_one_stage_is_a_mean_of_one():
    one, other = (Shapes(5, shapes.embedding, shapes.stages[:1]) for shapes in (STUDENT, TEACHER))
    module = create_method("afd").build(one, other, FACTS).double()
    s, t = maps(one, 2, 0), maps(other, 2, 10)
    rho = module.importances[0](t[0].mean((2, 3))).detach().numpy()
    assert isinstance(module.carriers[0], nn.Identity)
    assert loss_of(module, s, t).item() == pytest.approx(oracle([s[0].numpy()], [t[0].numpy()], [rho]), rel=1e-4)
