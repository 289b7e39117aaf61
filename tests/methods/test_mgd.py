"""Masked generative distillation: the sum of squares in loops, the masks, and the generator."""

import numpy as np
import pytest
import torch
from drawn import batch_of, drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.errors import InputError
from kdzoo.functional import mgd
from kdzoo.methods.mgd import kept

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
STUDENT = Shapes(5, 6, (StageShape(3, 8, 8, 1), StageShape(4, 4, 6, 2)))
TEACHER = Shapes(5, 9, (StageShape(5, 8, 8, 1), StageShape(6, 2, 3, 4)))
TWO = batch_of(torch.arange(2), torch.tensor([0, 1]))


def maps(shapes: Shapes, batch: int, seed: int) -> list[torch.Tensor]:
    return [drawn(batch, s.channels, s.height, s.width, seed=seed + i) for i, s in enumerate(shapes.stages)]


def oracle(generated: np.ndarray, teacher: np.ndarray) -> float:
    return sum((generated[place] - teacher[place]) ** 2 for place in np.ndindex(generated.shape)) / len(generated)


@settings(max_examples=20)
@given(shape=st.tuples(*[st.integers(1, 4)] * 4), seed=st.integers(0, 1000))
def test_it_is_the_sum_of_squares_a_sample(shape, seed):
    s, t = pair(*shape, seed=seed)
    assert mgd(s, t).item() == pytest.approx(oracle(s.numpy(), t.numpy()), rel=1e-12)


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = (z.requires_grad_() for z in pair(2, 3, 2, 4))
    assert torch.autograd.gradcheck(lambda x: mgd(x, t), s)
    mgd(s, t).backward()
    assert t.grad is None


@pytest.mark.parametrize(("what", "shape"), [("channels", (400, 50, 1, 1)), ("cells", (400, 1, 5, 10))])
def test_the_share_that_is_masked_is_masked_as_a_whole(what, shape):
    mask = kept(torch.zeros(400, 50, 5, 10), 0.15, what, torch.Generator().manual_seed(0))
    assert mask.shape == shape
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert 1 - mask.mean().item() == pytest.approx(0.15, abs=0.01)  # 20,000 draws: a standard deviation of 0.0025
    assert len(mask.flatten(1).unique(dim=0)) > 300  # every image has its own


def test_nothing_is_masked_at_a_share_of_zero():
    assert kept(torch.zeros(3, 4, 2, 2), 0.0, "channels", torch.Generator()).all()


def convolved(x: np.ndarray, layer: nn.Conv2d) -> np.ndarray:
    """A 3x3 convolution with a border of zeros."""
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    found = np.zeros((len(x), len(weight), *x.shape[2:]))
    for i, j in np.ndindex(*x.shape[2:]):
        found[:, :, i, j] = np.einsum("bcyx,ocyx->bo", padded[:, :, i : i + 3, j : j + 3], weight) + bias
    return found


def loss_of(module: nn.Module, student: list[torch.Tensor], teacher: list[torch.Tensor], batch=TWO, **hyperparameters) -> torch.Tensor:
    return create_method("mgd", **hyperparameters).loss(
        outputs("student", stages=student), outputs("teacher", stages=teacher), batch, module
    )


@pytest.mark.parametrize("what", ["channels", "cells"])
def test_the_method_carries_the_last_map_masks_it_and_generates_the_teachers(what):
    module = create_method("mgd").build(STUDENT, TEACHER, FACTS).double()
    s, t = maps(STUDENT, 2, 0), maps(TEACHER, 2, 10)
    batch = batch_of(torch.arange(2), torch.tensor([0, 1]), seed=3)
    mask = kept(t[1], 0.5, what, torch.Generator().manual_seed(3)).numpy()
    weight, bias = (p.detach().numpy() for p in module.carrier.parameters())
    x = s[1].numpy().reshape(2, 4, 2, 2, 3, 2).mean((3, 5))
    x = (np.einsum("tc,bchw->bthw", weight[:, :, 0, 0], x) + bias[None, :, None, None]) * mask
    generated = convolved(np.maximum(convolved(x, module.generator[0]), 0), module.generator[2])
    assert 0 < mask.mean() < 1
    assert loss_of(module, s, t, batch, masked=0.5, mask=what).item() == pytest.approx(oracle(generated, t[1].numpy()))


def test_masks_are_drawn_from_the_batchs_stream_alone():
    module = create_method("mgd").build(STUDENT, TEACHER, FACTS).double()
    s, t = maps(STUDENT, 2, 0), maps(TEACHER, 2, 10)
    one, again, other = (
        loss_of(module, s, t, batch_of(torch.arange(2), torch.tensor([0, 1]), seed=seed), masked=0.5) for seed in (0, 0, 1)
    )
    assert one == again
    assert one != other


def test_equal_channels_need_no_carrier_and_one_image_of_one_cell_trains():
    one = Shapes(5, 4, (StageShape(4, 1, 1, 8),))
    module = create_method("mgd").build(one, one, FACTS).double()
    assert isinstance(module.carrier, nn.Identity)
    loss_of(module, maps(one, 1, 0), maps(one, 1, 5), batch_of(torch.arange(1), torch.tensor([0]))).backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


def test_a_share_that_masks_everything_is_refused():
    with pytest.raises(InputError, match=r"mgd\.masked: expected a number < 1, got 1"):
        create_method("mgd", masked=1.0)
    with pytest.raises(InputError, match=r"mgd\.mask"):
        create_method("mgd", mask="rows")
