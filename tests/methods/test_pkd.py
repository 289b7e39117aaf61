"""Pearson distillation, against the correlations of each channel."""

import numpy as np
import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.functional import pkd

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
STUDENT = Shapes(5, 6, (StageShape(5, 4, 4, 1), StageShape(4, 4, 6, 2)))
TEACHER = Shapes(5, 9, (StageShape(5, 4, 4, 1), StageShape(6, 2, 3, 4)))
quick = settings(max_examples=20)


def maps(shapes: Shapes, batch: int, seed: int) -> list[torch.Tensor]:
    return [drawn(batch, s.channels, s.height, s.width, seed=seed + i) for i, s in enumerate(shapes.stages)]


def oracle(students: list[np.ndarray], teachers: list[np.ndarray]) -> float:
    total = 0.0
    for s, t in zip(students, teachers, strict=True):
        channels = range(s.shape[1])
        total += np.mean([1 - np.corrcoef(s[:, channel].ravel(), t[:, channel].ravel())[0, 1] for channel in channels])
    return float(total)


@quick
@given(
    shape=st.tuples(st.integers(2, 4), st.integers(1, 4), st.integers(1, 4), st.integers(2, 4)),
    stages=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_it_is_one_minus_the_correlation_of_each_channel_summed_over_stages(shape, stages, seed):
    s = [drawn(*shape, seed=seed + i) for i in range(stages)]
    t = [drawn(*shape, seed=seed + 10 + i) for i in range(stages)]
    assert pkd(s, t).item() == pytest.approx(oracle([m.numpy() for m in s], [m.numpy() for m in t]), rel=1e-9)


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = (z.requires_grad_() for z in pair(2, 3, 2, 4))
    assert torch.autograd.gradcheck(lambda x: pkd([x], [t]), s)
    pkd([s], [t]).backward()
    assert t.grad is None


@quick
@given(seed=st.integers(0, 1000), factor=st.floats(0.1, 10), shift=st.floats(-10, 10))
def test_mean_and_scale_of_a_channel_do_not_count_but_its_sign_does(seed, factor, shift):
    s, t = pair(3, 4, 2, 3, seed=seed)
    expected = pkd([s], [t]).item()
    assert pkd([s * factor + shift], [t]).item() == pytest.approx(expected, rel=1e-8)
    assert pkd([-s], [t]).item() == pytest.approx(2 - expected, rel=1e-8)


def test_it_is_zero_at_match_and_two_at_the_opposite():
    t = drawn(2, 3, 4, 4)
    assert pkd([t], [t]).item() == 0
    assert pkd([-t], [t]).item() == pytest.approx(2)


@pytest.mark.parametrize("value", [0.0, 0.1, 1234.5])
def test_a_constant_channel_is_no_correlation_and_not_amplified_rounding(value):
    constant, t = torch.full((2, 1, 7, 3), value), torch.randn(2, 1, 7, 3, generator=torch.Generator().manual_seed(0))
    assert pkd([constant], [t]).item() == pytest.approx(0.5, abs=1e-3)
    assert pkd([constant], [constant]).item() == 0
    s = constant.clone().requires_grad_()
    pkd([s], [t]).backward()
    assert torch.isfinite(s.grad).all()


def test_one_image_of_one_cell_has_no_correlation():
    s = torch.ones(1, 3, 1, 1, requires_grad=True)
    loss = pkd([s], [torch.full((1, 3, 1, 1), 2.0)])
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(s.grad).all()


def loss_of(module: nn.Module, student: list[torch.Tensor], teacher: list[torch.Tensor]) -> torch.Tensor:
    return create_method("pkd").loss(outputs("student", stages=student), outputs("teacher", stages=teacher), None, module)


def test_the_method_carries_channels_that_differ_and_sums_stages():
    module = create_method("pkd").build(STUDENT, TEACHER, FACTS).double()
    s, t = maps(STUDENT, 2, 0), maps(TEACHER, 2, 10)
    weight, bias = (p.detach().numpy() for p in module[1].parameters())
    halved = s[1].numpy().reshape(2, 4, 2, 2, 3, 2).mean((3, 5))
    carried = [s[0].numpy(), np.einsum("tc,bchw->bthw", weight[:, :, 0, 0], halved) + bias[None, :, None, None]]
    assert loss_of(module, s, t).item() == pytest.approx(oracle(carried, [m.numpy() for m in t]))
    assert isinstance(module[0], nn.Identity)


def test_autocast_does_not_lower_the_carriers():
    module = create_method("pkd").build(STUDENT, TEACHER, FACTS)
    s, t = ([m.float() for m in maps(shapes, 2, 0)] for shapes in (STUDENT, TEACHER))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = loss_of(module, s, t)
    assert lowered.item() == loss_of(module, s, t).item()
