"""Hints, against the mean of squares in loops, and the regressor that carries the student to the teacher."""

import numpy as np
import pytest
import torch
from drawn import drawn, outputs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.errors import InputError
from kdzoo.functional import fitnet

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
STUDENT = Shapes(5, 8, (StageShape(3, 8, 8, 1), StageShape(4, 4, 6, 2), StageShape(5, 2, 2, 4)))
TEACHER = Shapes(5, 9, (StageShape(6, 8, 8, 1), StageShape(7, 2, 3, 4), StageShape(8, 2, 2, 4)))


def maps(shapes: Shapes, batch: int, seed: int) -> list[torch.Tensor]:
    return [drawn(batch, s.channels, s.height, s.width, seed=seed + i) for i, s in enumerate(shapes.stages)]


def oracle(students: list[np.ndarray], teachers: list[np.ndarray]) -> float:
    total = 0.0
    for s, t in zip(students, teachers, strict=True):
        squares = [(s[place] - t[place]) ** 2 for place in np.ndindex(s.shape)]
        total += sum(squares) / len(squares)
    return total


@settings(max_examples=20)
@given(shape=st.tuples(*[st.integers(1, 4)] * 4), stages=st.integers(1, 3), seed=st.integers(0, 1000))
def test_it_is_the_mean_of_squares_summed_over_stages_in_any_order_of_the_batch(shape, stages, seed):
    s = [drawn(*shape, seed=seed + i) for i in range(stages)]
    t = [drawn(*shape, seed=seed + 10 + i) for i in range(stages)]
    order = torch.randperm(shape[0], generator=torch.Generator().manual_seed(seed))
    assert fitnet(s, t).item() == pytest.approx(oracle([m.numpy() for m in s], [m.numpy() for m in t]), rel=1e-12)
    assert fitnet([m[order] for m in s], [m[order] for m in t]).item() == pytest.approx(fitnet(s, t).item(), rel=1e-12)


def test_the_larger_map_is_average_pooled_whichever_it_is():
    large, small = drawn(2, 3, 4, 6), drawn(2, 3, 2, 3, seed=1)
    halved = large.numpy().reshape(2, 3, 2, 2, 3, 2).mean((3, 5))
    assert fitnet([large], [small]).item() == pytest.approx(oracle([halved], [small.numpy()]))
    assert fitnet([small], [large]).item() == pytest.approx(oracle([small.numpy()], [halved]))


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = drawn(2, 3, 4, 4).requires_grad_(), drawn(2, 3, 2, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: fitnet([x], [t]), s)
    fitnet([s], [t]).backward()
    assert t.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_before_squaring(dtype):
    loss = fitnet([torch.full((1, 1, 1, 1), 1e3, dtype=dtype)], [torch.zeros(1, 1, 1, 1, dtype=dtype)])
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1e6, rel=1e-2)


def regressed(maps: np.ndarray, weight: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """A matrix at every pixel, then every channel at mean 0 and variance 1 over the batch and all pixels, scaled and shifted."""
    mapped = np.einsum("tc,bchw->bthw", weight[:, :, 0, 0], maps)
    mean, variance = (part(mapped, axis=(0, 2, 3), keepdims=True) for part in (np.mean, np.var))
    return (mapped - mean) / np.sqrt(variance + 1e-5) * scale[None, :, None, None] + shift[None, :, None, None]


def loss_of(module: nn.Module, student: list[torch.Tensor], teacher: list[torch.Tensor], **hyperparameters: int) -> torch.Tensor:
    return create_method("fitnet", **hyperparameters).loss(
        outputs("student", stages=student), outputs("teacher", stages=teacher), None, module
    )


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_the_method_maps_channels_by_one_matrix_at_each_pixel_of_its_stage_and_normalises_them(stage):
    module = create_method("fitnet", stage=stage).build(STUDENT, TEACHER, FACTS).double()
    s, t = maps(STUDENT, 2, 0), maps(TEACHER, 2, 10)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(drawn(*p.shape, seed=3))
    weight, scale, shift = (p.detach().numpy() for p in module.parameters())
    ours = s[stage].numpy()
    if stage == 1:  # 4 x 6 under 2 x 3
        ours = ours.reshape(2, 4, 2, 2, 3, 2).mean((3, 5))
    mapped = regressed(ours, weight, scale, shift)
    assert loss_of(module, s, t, stage=stage).item() == pytest.approx(oracle([mapped], [t[stage].numpy()]))


@pytest.mark.parametrize(("stages", "meant"), [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)])
def test_unless_given_the_stage_is_the_middle_one(stages, meant):
    student, teacher = (Shapes(5, 8, tuple(StageShape(c + i, 4, 4, 1) for i in range(stages))) for c in (3, 9))
    module = create_method("fitnet").build(student, teacher, FACTS).double()
    assert module[0].weight.shape == (9 + meant, 3 + meant, 1, 1)
    s, t = [m.requires_grad_() for m in maps(student, 2, 0)], maps(teacher, 2, 10)
    loss_of(module, s, t).backward()
    assert [i for i, m in enumerate(s) if m.grad is not None] == [meant]


def test_the_default_is_the_second_stage():
    module = create_method("fitnet").build(STUDENT, TEACHER, FACTS).double()
    s, t = ([m.requires_grad_() for m in maps(shapes, 2, 0)] for shapes in (STUDENT, TEACHER))
    loss_of(module, s, t).backward()
    assert [m.grad is not None for m in s] == [False, True, False]
    assert all(m.grad is None for m in t)
    assert all(p.grad is not None for p in module.parameters())


def test_a_signed_teacher_can_be_reached():
    """The regressor has no ReLU: with the right matrix the loss is zero, also where the teacher is negative."""
    module = create_method("fitnet", stage=0).build(STUDENT, TEACHER, FACTS).double()
    s = maps(STUDENT, 2, 0)
    with torch.no_grad():
        t = [module(s[0])]
    assert (t[0] < 0).any()
    assert loss_of(module, s, t, stage=0).item() == 0


def test_autocast_does_not_lower_the_regressor():
    module = create_method("fitnet").build(STUDENT, TEACHER, FACTS)
    s, t = ([m.float() for m in maps(shapes, 2, 0)] for shapes in (STUDENT, TEACHER))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = loss_of(module, s, t)
    assert lowered.item() == loss_of(module, s, t).item()


def test_a_stage_that_is_not_there_is_refused_with_both_lists_of_shapes():
    with pytest.raises(InputError, match=r"stage: expected 0 to 2, got 3; the paired stages are 3x8x8 under 6x8x8, 4x4x6 under 7x2x3"):
        create_method("fitnet", stage=3).build(STUDENT, TEACHER, FACTS)
    with pytest.raises(InputError, match=r"fitnet\.stage: expected a number >= 0, got -1"):
        create_method("fitnet", stage=-1)


def test_the_regressor_of_the_first_of_two_stages_is_one_matrix_at_each_pixel_with_a_bias():
    module = create_method("fitnet_two_stage", stage=0).build(STUDENT, TEACHER, FACTS).double()
    s, t = maps(STUDENT, 2, 0), maps(TEACHER, 2, 10)
    weight, bias = (p.detach().numpy() for p in module.parameters())
    mapped = np.einsum("tc,bchw->bthw", weight[:, :, 0, 0], s[0].numpy()) + bias[None, :, None, None]
    loss = create_method("fitnet_two_stage", stage=0).loss(outputs("student", stages=s), outputs("teacher", stages=t), None, module)
    assert loss.item() == pytest.approx(oracle([mapped], [t[0].numpy()]))
