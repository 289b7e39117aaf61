"""The flow of the solution procedure, against the paper's two equations in loops over channels and pixels."""

import numpy as np
import pytest
import torch
from drawn import drawn, outputs
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.contract.card import PretrainStage
from kdzoo.contract.methods import REGISTRY, create_method
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.errors import InputError
from kdzoo.functional import fsp

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
STUDENT = Shapes(5, 8, (StageShape(3, 4, 6, 1), StageShape(4, 2, 3, 2), StageShape(5, 2, 3, 2)))
TEACHER = Shapes(5, 9, (StageShape(3, 8, 8, 1), StageShape(7, 4, 4, 2), StageShape(8, 2, 2, 4)))


def flow(shallow: np.ndarray, deep: np.ndarray) -> np.ndarray:
    """G of one image from maps of one size."""
    channels, height, width = shallow.shape
    g = np.zeros((channels, len(deep)))
    for i, j in np.ndindex(g.shape):
        g[i, j] = sum(shallow[i, y, x] * deep[j, y, x] for y in range(height) for x in range(width)) / (height * width)
    return g


def halved(image: np.ndarray) -> np.ndarray:
    channels, height, width = image.shape
    return image.reshape(channels, height // 2, 2, width // 2, 2).mean((2, 4))


@settings(max_examples=20)
@given(
    batch=st.integers(1, 3),
    channels=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    sides=st.tuples(*[st.integers(1, 4)] * 2),
    others=st.tuples(*[st.integers(1, 4)] * 2),
    seed=st.integers(0, 1000),
)
def test_it_is_the_papers_equations_summed_over_consecutive_stages_whatever_the_networks_sizes(batch, channels, sides, others, seed):
    s = [drawn(batch, c, *sides, seed=seed + i) for i, c in enumerate(channels)]
    t = [drawn(batch, c, *others, seed=seed + 10 + i) for i, c in enumerate(channels)]
    expected = 0.0
    for i in range(len(channels) - 1):
        squares = []
        for b in range(batch):
            g_s, g_t = (flow(m[i][b].numpy(), m[i + 1][b].numpy()) for m in (s, t))
            squares += [(g_s[place] - g_t[place]) ** 2 for place in np.ndindex(g_s.shape)]
        expected += sum(squares) / len(squares)
    assert fsp(s, t).item() == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_the_larger_of_two_consecutive_maps_is_average_pooled():
    s, t = [drawn(1, 2, 4, 6), drawn(1, 3, 2, 3, seed=1)], [drawn(1, 2, 2, 3, seed=2), drawn(1, 3, 2, 3, seed=3)]
    g_s, g_t = flow(halved(s[0][0].numpy()), s[1][0].numpy()), flow(t[0][0].numpy(), t[1][0].numpy())
    assert fsp(s, t).item() == pytest.approx(((g_s - g_t) ** 2).mean())


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    a, b = drawn(2, 2, 4, 4).requires_grad_(), drawn(2, 3, 2, 2, seed=1).requires_grad_()
    t = [drawn(2, 2, 4, 4, seed=2).requires_grad_(), drawn(2, 3, 4, 4, seed=3).requires_grad_()]
    assert torch.autograd.gradcheck(lambda x, y: fsp([x, y], t), (a, b))
    fsp([a, b], t).backward()
    assert all(m.grad is None for m in t)


def test_half_precision_and_autocast_do_not_lower_the_products():
    s, t = ([drawn(2, 4, 8, 8, seed=i, factor=100).half() for i in (seed, seed + 1)] for seed in (0, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = fsp(s, t)
    assert lowered.dtype == torch.float32
    assert lowered.item() == pytest.approx(fsp([m.double() for m in s], [m.double() for m in t]).item(), rel=1e-4)


def test_only_unequal_channels_are_carried_over():
    module = create_method("fsp").build(STUDENT, TEACHER, FACTS).double()
    assert [len(list(carry.parameters())) for carry in module] == [0, 2, 2]
    s, t = ([drawn(2, m.channels, m.height, m.width, seed=i) for i, m in enumerate(side.stages)] for side in (STUDENT, TEACHER))
    said = create_method("fsp").loss(outputs("student", stages=s), outputs("teacher", stages=t), None, module)
    carried = [s[0].numpy()]
    for carry, one in zip(list(module)[1:], s[1:], strict=True):
        weight, bias = (p.detach().numpy() for p in carry.parameters())
        carried.append(np.einsum("tc,bchw->bthw", weight[:, :, 0, 0], one.numpy()) + bias[None, :, None, None])
    expected = 0.0
    for i in range(2):
        g_s = [flow(halved(a) if i == 0 else a, b) for a, b in zip(carried[i], carried[i + 1], strict=True)]
        g_t = [flow(halved(a), b) for a, b in zip(t[i].numpy(), t[i + 1].numpy(), strict=True)]
        expected += np.mean((np.array(g_s) - np.array(g_t)) ** 2)
    assert said.item() == pytest.approx(expected)


def test_one_stage_alone_has_no_flow_and_is_refused():
    one = Shapes(5, 8, (StageShape(192, 14, 14, 16),))
    with pytest.raises(InputError, match=r"needs two paired ones at least; the paired stages are 192x14x14 under 8x2x2"):
        create_method("fsp").build(one, TEACHER.pick([2]), FACTS)


def test_it_is_a_first_stage_after_which_cross_entropy_is_alone():
    card = REGISTRY.get("fsp").card
    assert card.pretrain == PretrainStage("fsp", share=1 / 8, followed_by=())


def test_two_stages_are_enough():
    pair = Shapes(5, 4, STUDENT.stages[:2])
    module = create_method("fsp").build(pair, Shapes(5, 7, TEACHER.stages[:2]), FACTS)
    assert len(module) == 2
