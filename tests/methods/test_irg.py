"""Instance relationship graphs, against distances in loops over pairs of samples and maps averaged by hand."""

import numpy as np
import pytest
import torch
from drawn import Sizes, drawn, outputs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.errors import InputError
from kdzoo.functional import irg
from kdzoo.methods._ops import squared_distances

quick = settings(max_examples=20)
seeds = st.integers(0, 1000)
FACTS = DataFacts(10, 5, torch.arange(10) % 5)
WEIGHTS = {"vertex_weight": 0.1, "edge_weight": 5.0, "transform_weight": 5.0}


def over_largest(values: np.ndarray) -> np.ndarray:
    return values / values.max() if values.max() > 0 else values


def edges(features: np.ndarray) -> np.ndarray:
    return over_largest(np.array([[((a - b) ** 2).sum() for b in features] for a in features]))


def pooled(maps: np.ndarray, *blocks: int) -> np.ndarray:
    """Maps (B, C, H, W) averaged over blocks of `blocks` channels, rows and columns."""
    c, h, w = blocks
    b, channels, height, width = maps.shape
    return maps.reshape(b, channels // c, c, height // h, h, width // w, w).mean((2, 4, 6))


def moved(shallow: np.ndarray, deep: np.ndarray) -> np.ndarray:
    """For stages whose channels and sides are multiples of each other's."""
    least = np.minimum(shallow.shape[1:], deep.shape[1:])
    a, b = (pooled(maps, *(np.array(maps.shape[1:]) // least)) for maps in (shallow, deep))
    return over_largest(np.array([((x - y) ** 2).sum() for x, y in zip(a, b, strict=True)]))


Network = tuple[Tensor, Tensor, list[Tensor]]
"""logits, embedding, stages"""


def oracle(student: Network, teacher: Network, vertex_weight: float, edge_weight: float, transform_weight: float) -> float:
    (z, e, s), (y, f, t) = (
        [part.detach().double().numpy() if i < 2 else [m.detach().double().numpy() for m in part] for i, part in enumerate(n)]
        for n in (student, teacher)
    )
    vertex = ((z - y) ** 2).mean()
    edge = np.mean([((edges(a) - edges(b)) ** 2).mean() for a, b in zip([e, *s], [f, *t], strict=True)])
    transforms = [((moved(s[i], s[i + 1]) - moved(t[i], t[i + 1])) ** 2).mean() for i in range(len(s) - 1)]
    return float(vertex_weight * vertex + edge_weight * edge + transform_weight * (np.mean(transforms) if transforms else 0))


def loss(student: Network, teacher: Network, **weights: float) -> Tensor:
    (z, e, s), (y, f, t) = student, teacher
    return irg(z, y, e, f, s, t, **{**WEIGHTS, **weights})


def network(batch: int, width: int, stages: list[tuple[int, int, int]], seed: int = 0, classes: int = 4) -> Network:
    logits, embedding = drawn(batch, classes, seed=seed, factor=3), drawn(batch, width, seed=seed + 1)
    return logits, embedding, [drawn(batch, *stage, seed=seed + 2 + i) for i, stage in enumerate(stages)]


DOUBLING = [(4, 8, 4), (8, 4, 2)]
"""as the networks of the published code: twice the channels, half the sides"""
OTHER = [(6, 4, 4), (2, 2, 2)]
"""fewer channels in the deeper stage"""


@quick
@given(
    batch=st.integers(1, 6),
    widths=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    student=st.sampled_from([DOUBLING, OTHER, DOUBLING[1:], [*DOUBLING, (8, 2, 2)]]),
    weights=st.tuples(*[st.floats(0, 10)] * 3),
    seed=seeds,
)
def test_it_is_its_definition_for_any_widths_and_channels(batch, widths, student, weights, seed):
    teacher = [(2 * c, h, w) for c, h, w in student]
    ours, theirs = network(batch, widths[0], student, seed), network(batch, widths[1], teacher, seed + 10)
    named = dict(zip(WEIGHTS, weights, strict=True))
    assert loss(ours, theirs, **named).item() == pytest.approx(oracle(ours, theirs, **named), rel=1e-8, abs=1e-12)


def test_how_far_samples_move_by_hand():
    """Two channels are averaged to one: the first sample moves by 1, the second by 2, so by squares of 1/4 and 1."""
    shallow = torch.zeros(2, 1, 1, 1, dtype=torch.float64)
    deep = torch.tensor([[0.0, 2.0], [1.0, 3.0]], dtype=torch.float64).reshape(2, 2, 1, 1)
    still = torch.tensor([[1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64).reshape(2, 2, 1, 1)
    same = torch.zeros(2, 3, dtype=torch.float64)
    found = irg(same, same, same, same, [shallow, deep], [shallow, still], vertex_weight=0.0, edge_weight=0.0, transform_weight=1.0)
    assert found.item() == pytest.approx(((0.25 - 1) ** 2 + 0) / 2)


@pytest.mark.parametrize("alone", WEIGHTS)
def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none(alone):
    (z, e, s), (y, f, t) = network(4, 3, DOUBLING), network(4, 5, DOUBLING, 10)
    tensors = [x.requires_grad_() for x in (z, e, *s)]
    theirs = [x.requires_grad_() for x in (y, f, *t)]
    weights = {name: float(name == alone) for name in WEIGHTS}
    assert torch.autograd.gradcheck(lambda a, b, *c: loss((a, b, list(c)), (y, f, t), **weights), tensors)
    loss((z, e, s), (y, f, t)).backward()
    assert all(x.grad is None for x in theirs)


@quick
@given(seed=seeds, factor=st.floats(0.1, 10))
def test_scaled_and_moved_features_have_the_same_graph(seed, factor):
    z, e, s = network(5, 3, DOUBLING, seed)
    other = (z, factor * e + drawn(1, 3, seed=seed + 20), [factor * m for m in s])
    assert loss(other, (z, e, s)).item() == pytest.approx(0, abs=1e-12)


def test_one_sample_has_logits_alone():
    ours, theirs = network(1, 3, DOUBLING), network(1, 3, DOUBLING, 10)
    assert loss(ours, theirs, vertex_weight=0.0).item() == 0
    for tensor in (ours[0], ours[1], *ours[2]):
        tensor.requires_grad_()
    loss(ours, theirs).backward()
    assert all(torch.isfinite(x.grad).all() for x in (ours[0], ours[1], *ours[2]))


@pytest.mark.parametrize(
    "change", [torch.zeros_like, lambda x: x[:1].repeat(len(x), *[1] * (x.ndim - 1)), lambda x: torch.cat([x[1:2], x[1:]])]
)
def test_coinciding_samples_give_a_finite_loss_and_gradient(change):
    (z, e, s), theirs = network(4, 3, DOUBLING), network(4, 3, DOUBLING, 10)
    ours = (z.float(), change(e.float()), [change(m.float()) for m in s])
    theirs = (theirs[0].float(), theirs[1].float(), [m.float() for m in theirs[2]])
    tensors = [ours[0], ours[1], *ours[2]]
    for tensor in tensors:
        tensor.requires_grad_()
    found = loss(ours, theirs)
    found.backward()
    assert found.item() == pytest.approx(oracle(ours, theirs, **WEIGHTS), rel=1e-4)
    assert all(torch.isfinite(x.grad).all() for x in tensors)


def test_strong_half_precise_maps_are_widened_before_they_are_squared():
    halves = [
        (z.half(), (1e4 * e).half(), [(1e4 * m).half() for m in s]) for z, e, s in (network(4, 3, DOUBLING), network(4, 3, DOUBLING, 10))
    ]
    found = loss(*halves)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(oracle(*halves, **WEIGHTS), rel=1e-4)


def test_autocast_does_not_lower_the_distances():
    ours, theirs = ((z.float(), e.float(), [m.float() for m in s]) for z, e, s in (network(6, 3, DOUBLING), network(6, 5, DOUBLING, 10)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = loss(ours, theirs)
    assert lowered.item() == loss(ours, theirs).item()


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_distances_from_products_keep_what_float32_has(offset):
    """What all samples have in common would drown their differences in products."""
    rows = drawn(16, 64).float() + offset
    exact = np.array([[((a - b) ** 2).sum() for b in rows.double().numpy()] for a in rows.double().numpy()])
    found = squared_distances(rows)
    assert np.abs(found.numpy() - exact).max() < 1e-6 * exact.max()
    assert found.diagonal().eq(0).all()


def test_nothing_larger_than_the_maps_is_formed_forward_or_backward():
    shapes = [(16, 8, 8), (32, 4, 4)]
    ours, theirs = network(8, 64, shapes), network(8, 64, shapes, 10)
    for stage in ours[2]:
        stage.requires_grad_()
    with Sizes() as sizes:
        loss(ours, theirs).backward()
    assert sizes.largest <= ours[2][0].numel()


def shapes(*stages: tuple[int, int, int]) -> Shapes:
    return Shapes(4, 5, tuple(StageShape(*stage, 2.0**i) for i, stage in enumerate(stages)))


def test_networks_of_one_stage_are_refused_with_the_way_out():
    """As vision transformers have under any teacher."""
    one, other = shapes((8, 4, 4)), shapes((6, 4, 4))
    with pytest.raises(InputError, match=r"needs two paired ones \(or transform_weight=0\); the paired stages are 8x4x4 under 6x4x4"):
        create_method("irg").build(one, other, FACTS)
    assert list(create_method("irg", transform_weight=0.0).build(one, other, FACTS).parameters()) == []


def test_the_method_looks_at_the_last_two_stages():
    ours, theirs = network(3, 4, [(2, 8, 8), *DOUBLING]), network(3, 4, [(3, 8, 8), *DOUBLING], 10)
    given = [outputs(owner, logits=n[0], embedding=n[1], stages=n[2]) for owner, n in (("student", ours), ("teacher", theirs))]
    said = create_method("irg").loss(*given, None, nn.Module())
    last = [(z, e, s[1:]) for z, e, s in (ours, theirs)]
    assert said.item() == pytest.approx(oracle(*last, **WEIGHTS))
