"""Inter-channel correlation, against Gram matrices in loops over images and rows, in both of its equal forms."""

import numpy as np
import pytest
import torch
from drawn import Sizes, drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.functional import ickd

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
STUDENT = Shapes(5, 6, (StageShape(3, 8, 8, 1), StageShape(4, 4, 6, 2)))
TEACHER = Shapes(5, 9, (StageShape(5, 8, 8, 1), StageShape(6, 2, 3, 4)))
quick = settings(max_examples=25)


def maps(shapes: Shapes, batch: int, seed: int) -> list[torch.Tensor]:
    return [drawn(batch, s.channels, s.height, s.width, seed=seed + i) for i, s in enumerate(shapes.stages)]


def rows(image: np.ndarray) -> np.ndarray:
    """The correlations of each channel of (C, H, W) with every other, each row of norm 1."""
    channels = len(image)
    gram = np.array([[(image[i] * image[j]).sum() for j in range(channels)] for i in range(channels)])
    return gram / np.sqrt((gram**2).sum(1, keepdims=True))


def oracle(students: list[np.ndarray], teachers: list[np.ndarray]) -> float:
    total = 0.0
    for s, t in zip(students, teachers, strict=True):
        squares = sum(((rows(one) - rows(other)) ** 2).sum() for one, other in zip(s, t, strict=True))
        total += squares / (s.shape[1] * len(s) ** 2)
    return float(total)


@quick
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 9),
    sides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    seed=st.integers(0, 1000),
)
def test_it_is_its_definition_with_fewer_cells_than_channels_and_with_more(batch, channels, sides, seed):
    s = [drawn(batch, channels, *sides, seed=seed), drawn(batch, 2, 3, 2, seed=seed + 1)]
    t = [drawn(batch, channels, *sides, seed=seed + 2), drawn(batch, 2, 3, 2, seed=seed + 3)]
    expected = oracle([m.numpy() for m in s], [m.numpy() for m in t])
    assert ickd(s, t).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 2, 4), (2, 9, 1, 3)])
def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none(shape):
    s, t = (z.requires_grad_() for z in pair(*shape))
    assert torch.autograd.gradcheck(lambda x: ickd([x], [t]), s)
    ickd([s], [t]).backward()
    assert t.grad is None


@quick
@given(seed=st.integers(0, 1000), factor=st.floats(0.1, 10), channels=st.sampled_from([3, 12]))
def test_strength_and_place_do_not_count(seed, factor, channels):
    s, t = pair(2, channels, 2, 3, seed=seed)
    expected = ickd([s], [t]).item()
    assert ickd([s * factor], [t]).item() == pytest.approx(expected, rel=1e-8)
    assert ickd([s.flip(2, 3)], [t]).item() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 64, 3, 3)])
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e4])
def test_it_is_zero_where_the_two_agree_at_any_strength_in_float32(shape, factor):
    t = torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * factor
    assert ickd([t], [t]).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 24, 2, 2)])
def test_a_dead_channel_has_no_correlations(shape):
    s, t = (z.float() for z in pair(*shape))
    s[:, 0] = 0
    with np.errstate(invalid="ignore"):
        expected = sum(((np.nan_to_num(rows(a)) - rows(b)) ** 2).sum() for a, b in zip(s.double().numpy(), t.double().numpy(), strict=True))
    s.requires_grad_()
    loss = ickd([s], [t])
    loss.backward()
    assert loss.item() == pytest.approx(expected / (shape[1] * 4), rel=1e-4)
    assert torch.isfinite(s.grad).all()


def loss_of(module: nn.Module, student: list[torch.Tensor], teacher: list[torch.Tensor]) -> torch.Tensor:
    return create_method("ickd").loss(outputs("student", stages=student), outputs("teacher", stages=teacher), None, module)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_method_connects_the_last_map_and_is_a_mean_over_the_batch(batch):
    module = create_method("ickd").build(STUDENT, TEACHER, FACTS).double().eval()
    s, t = maps(STUDENT, batch, 0), maps(TEACHER, batch, 10)
    halved = s[1].numpy().reshape(batch, 4, 2, 2, 3, 2).mean((3, 5))
    connected = np.einsum("tc,bchw->bthw", module[0].weight.detach().numpy()[:, :, 0, 0], halved) / np.sqrt(1 + 1e-5)
    expected = np.mean([((rows(a) - rows(b)) ** 2).sum() / 6 for a, b in zip(connected, t[1].numpy(), strict=True)])
    assert loss_of(module, s, t).item() == pytest.approx(expected)


def test_the_same_images_twice_weigh_the_same():
    """Published code divides by the batch twice, so that its weight depends on the batch size."""
    module = create_method("ickd").build(STUDENT, TEACHER, FACTS).double().eval()
    s, t = maps(STUDENT, 2, 0), maps(TEACHER, 2, 10)
    twice = loss_of(module, [torch.cat([m, m]) for m in s], [torch.cat([m, m]) for m in t])
    assert twice.item() == pytest.approx(loss_of(module, s, t).item())


def test_one_image_of_one_cell_trains():
    one = Shapes(5, 4, (StageShape(4, 1, 1, 8),))
    module = create_method("ickd").build(one, one, FACTS).double()
    loss_of(module, maps(one, 1, 0), maps(one, 1, 5)).backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


def test_many_channels_over_few_cells_make_no_matrix_of_all_channels():
    s, t = drawn(2, 64, 2, 2), drawn(2, 64, 2, 2, seed=1)
    with Sizes() as sizes:
        ickd([s], [t])
    assert sizes.largest == s.numel() < 2 * 64 * 64
