"""Channel-wise distillation, against softmax and divergence in loops over pixels."""

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
from kdzoo.functional import cwd

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
STUDENT = Shapes(5, 6, (StageShape(3, 8, 8, 1), StageShape(4, 4, 6, 2), StageShape(7, 1, 1, 16)))
TEACHER = Shapes(5, 9, (StageShape(5, 8, 8, 1), StageShape(6, 2, 3, 4), StageShape(8, 2, 2, 8)))


def maps(shapes: Shapes, batch: int, seed: int) -> list[torch.Tensor]:
    return [drawn(batch, s.channels, s.height, s.width, seed=seed + i) for i, s in enumerate(shapes.stages)]


def distribution(channel: np.ndarray, temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in channel.ravel()]
    return [power / sum(powers) for power in powers]


def oracle(students: list[np.ndarray], teachers: list[np.ndarray], temperature: float) -> float:
    total = 0.0
    for s, t in zip(students, teachers, strict=True):
        images, channels = s.shape[:2]
        for image, channel in np.ndindex(images, channels):
            q, p = (distribution(m[image, channel], temperature) for m in (s, t))
            total += temperature**2 * sum(b * math.log(b / a) for a, b in zip(q, p, strict=True)) / (images * channels)
    return total


@settings(max_examples=20)
@given(shape=st.tuples(*[st.integers(1, 4)] * 4), stages=st.integers(1, 3), temperature=st.floats(0.5, 20), seed=st.integers(0, 1000))
def test_it_is_its_definition_summed_over_stages(shape, stages, temperature, seed):
    s = [drawn(*shape, seed=seed + i) for i in range(stages)]
    t = [drawn(*shape, seed=seed + 10 + i) for i in range(stages)]
    expected = oracle([m.numpy() for m in s], [m.numpy() for m in t], temperature)
    assert cwd(s, t, temperature=temperature).item() == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = (z.requires_grad_() for z in pair(2, 3, 2, 4))
    assert torch.autograd.gradcheck(lambda x: cwd([x], [t], temperature=2.0), s)
    cwd([s], [t], temperature=2.0).backward()
    assert t.grad is None


def test_what_all_pixels_of_a_channel_have_in_common_does_not_count():
    s, t = pair(2, 3, 4, 4)
    shift = drawn(2, 3, 1, 1, seed=9, factor=10.0)
    assert cwd([s + shift], [t], temperature=4.0).item() == pytest.approx(cwd([s], [t], temperature=4.0).item())


def test_large_activations_give_no_nan():
    s, t = (z.float().requires_grad_() for z in pair(2, 3, 4, 4, factor=1e4))
    loss = cwd([s], [t], temperature=1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(s.grad).all()


def loss_of(module: nn.Module, student: list[torch.Tensor], teacher: list[torch.Tensor], **hyperparameters) -> torch.Tensor:
    return create_method("cwd", **hyperparameters).loss(
        outputs("student", stages=student), outputs("teacher", stages=teacher), None, module
    )


def carried(module: nn.Module, x: np.ndarray) -> np.ndarray:
    weight, bias = (p.detach().numpy() for p in module.parameters())
    return np.einsum("tc,bchw->bthw", weight[:, :, 0, 0], x) + bias[None, :, None, None]


@pytest.mark.parametrize(("given", "taught"), [({}, 2), ({"stage": 0}, 0), ({"stage": 1}, 1)])
def test_the_method_takes_each_networks_own_last_map_of_several_cells_unless_a_pair_is_given(given, taught):
    """The student's last map has one cell, where every distribution is certain and nothing can be learnt: the one before it is taken."""
    module = create_method("cwd", **given).build(STUDENT, TEACHER, FACTS).double()
    s, t = maps(STUDENT, 2, 0), maps(TEACHER, 2, 10)
    cells = {
        0: s[0].numpy(),
        1: s[1].numpy().reshape(2, 4, 2, 2, 3, 2).mean((3, 5)),
        2: s[1].numpy().reshape(2, 4, 2, 2, 2, 3).mean((3, 5)),
    }
    expected = oracle([carried(module, cells[taught])], [t[taught].numpy()], 4.0)
    assert loss_of(module, s, t, **given).item() == pytest.approx(expected)


def test_a_stage_that_carries_nothing_is_refused_with_the_shapes():
    with pytest.raises(InputError, match=r"stage: expected one of more than one cell, 0 or 1, got 2; .* 7x1x1 under 8x2x2"):
        create_method("cwd", stage=2).build(STUDENT, TEACHER, FACTS)
    with pytest.raises(InputError, match=r"got 3"):
        create_method("cwd", stage=3).build(STUDENT, TEACHER, FACTS)
    one = Shapes(5, 4, (StageShape(4, 1, 1, 8),))
    with pytest.raises(InputError, match=r"not both networks have one of several: 4x1x1 and 4x1x1"):
        create_method("cwd").build(one, one, FACTS)


def test_a_row_of_cells_is_enough():
    row = Shapes(5, 4, (StageShape(4, 1, 5, 8),))
    module = create_method("cwd").build(row, row, FACTS)
    assert isinstance(module, nn.Identity)
    assert loss_of(module, maps(row, 1, 0), maps(row, 1, 5)).item() > 0
