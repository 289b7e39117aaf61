"""Semantic calibration: the shared-out distances in loops, and an attention that takes any batch size."""

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
from kdzoo.functional import semckd
from kdzoo.methods.semckd import similarities

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
STUDENT = Shapes(5, 4, (StageShape(2, 4, 6, 1), StageShape(3, 2, 3, 2)))
TEACHER = Shapes(5, 9, (StageShape(3, 4, 6, 1), StageShape(4, 2, 3, 4)))


def maps(shapes: Shapes, batch: int, seed: int) -> list[torch.Tensor]:
    return [drawn(batch, s.channels, s.height, s.width, seed=seed + i) for i, s in enumerate(shapes.stages)]


def oracle(projections: list[list[np.ndarray]], targets: list[list[np.ndarray]], attention: np.ndarray) -> float:
    images, ours, theirs = attention.shape
    total = 0.0
    for image, i, j in np.ndindex(images, ours, theirs):
        total += attention[image, i, j] * ((projections[i][j][image] - targets[i][j][image]) ** 2).mean()
    return total / (images * ours)


@settings(max_examples=20)
@given(batch=st.integers(1, 3), ours=st.integers(1, 3), theirs=st.integers(1, 3), seed=st.integers(0, 1000))
def test_it_is_its_definition_for_any_number_of_stages_on_either_side(batch, ours, theirs, seed):
    t = [drawn(batch, j + 2, 3, 2, seed=seed + j) for j in range(theirs)]
    s = [[drawn(batch, j + 2, 3, 2, seed=seed + 10 + 5 * i + j) for j in range(theirs)] for i in range(ours)]
    attention = drawn(batch, ours, theirs, seed=seed + 99).softmax(2)
    expected = oracle([[m.numpy() for m in row] for row in s], [[m.numpy() for m in t]] * ours, attention.numpy())
    assert semckd(s, t, attention).item() == pytest.approx(expected, rel=1e-9)


def test_its_gradients_are_the_numerical_ones_and_the_teacher_gets_none():
    s, t = drawn(2, 3, 2, 2).requires_grad_(), drawn(2, 3, 2, 2, seed=1).requires_grad_()
    attention = drawn(2, 1, 1, seed=2).exp().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, a: semckd([[x]], [t], a), (s, attention))
    semckd([[s]], [t], attention).backward()
    assert t.grad is None


def test_similarities_are_those_to_the_first_images_and_zeros_where_there_are_fewer():
    features = drawn(5, 2, 3, 1)
    gram = np.array([[(a * b).sum() for b in features.numpy()] for a in features.numpy()])
    assert similarities(features, 5).numpy() == pytest.approx(gram)
    assert similarities(features, 3).numpy() == pytest.approx(gram[:, :3])
    padded = similarities(features, 8).numpy()
    assert padded[:, :5] == pytest.approx(gram)
    assert (padded[:, 5:] == 0).all()


def embedded(rows: np.ndarray, layers: nn.Sequential) -> np.ndarray:
    first, second = layers[0], layers[2]
    hidden = np.maximum(rows @ first.weight.detach().numpy().T + first.bias.detach().numpy(), 0)
    found = hidden @ second.weight.detach().numpy().T + second.bias.detach().numpy()
    return found / np.sqrt((found**2).sum(1, keepdims=True))


def attention_by_hand(module: nn.Module, student: list[torch.Tensor], teacher: list[torch.Tensor], width: int) -> np.ndarray:
    """The published attention, on batches filled up or cut to `width` images."""

    def rows(features: torch.Tensor) -> np.ndarray:
        vectors = features.numpy().reshape(len(features), -1)
        reference = np.zeros((width, vectors.shape[1]))
        reference[: len(vectors)] = vectors[:width]
        return vectors @ reference.T

    queries = [embedded(rows(m), layers) for m, layers in zip(student, module.queries, strict=True)]
    keys = [embedded(rows(m), layers) for m, layers in zip(teacher, module.keys, strict=True)]
    energy = np.array([[[(q[image] * k[image]).sum() for k in keys] for q in queries] for image in range(len(student[0]))])
    return np.exp(energy) / np.exp(energy).sum(2, keepdims=True)


@pytest.mark.parametrize("batch", [1, 3, 8, 11])
def test_the_attention_is_the_published_one_at_its_batch_size_and_there_is_one_at_any_other(batch):
    module = create_method("semckd", width=8).build(STUDENT, TEACHER, FACTS).double()
    s, t = maps(STUDENT, batch, 0), maps(TEACHER, batch, 10)
    attention = module.attention(s, t)
    assert attention.detach().numpy() == pytest.approx(attention_by_hand(module, s, t, 8))
    assert attention.sum(2).detach().numpy() == pytest.approx(1)


def loss_of(module: nn.Module, student: list[torch.Tensor], teacher: list[torch.Tensor], width: int = 8) -> torch.Tensor:
    return create_method("semckd", width=width).loss(outputs("student", stages=student), outputs("teacher", stages=teacher), None, module)


def halved(x: torch.Tensor) -> torch.Tensor:
    batch, channels = x.shape[:2]
    return x.reshape(batch, channels, 2, 2, 3, 2).mean((3, 5))


@pytest.mark.parametrize("batch", [2, 9])
def test_the_method_compares_every_pair_at_the_smaller_size(batch):
    module = create_method("semckd", width=8).build(STUDENT, TEACHER, FACTS).double().eval()
    s, t = maps(STUDENT, batch, 0), maps(TEACHER, batch, 10)
    with torch.no_grad():
        inputs = [[s[0], halved(s[0])], [s[1], s[1]]]
        projected = [[module.projections[i][j](inputs[i][j]).numpy() for j in (0, 1)] for i in (0, 1)]
    targets = [[t[0].numpy(), t[1].numpy()], [halved(t[0]).numpy(), t[1].numpy()]]
    expected = oracle(projected, targets, attention_by_hand(module, s, t, 8))
    assert loss_of(module, s, t).item() == pytest.approx(expected)


def test_projections_are_three_convolutions_twice_as_wide_as_the_teacher():
    module = create_method("semckd").build(STUDENT, TEACHER, FACTS)
    shapes = [tuple(p.shape) for p in module.projections[1][0].parameters() if p.ndim == 4]
    assert shapes == [(6, 3, 1, 1), (6, 6, 3, 3), (3, 6, 1, 1)]
    narrow = create_method("semckd", middle=5).build(STUDENT, TEACHER, FACTS)
    assert [tuple(p.shape) for p in narrow.projections[1][0].parameters() if p.ndim == 4] == [(5, 3, 1, 1), (5, 5, 3, 3), (3, 5, 1, 1)]
    assert [tuple(layer.weight.shape) for layer in module.queries[0] if isinstance(layer, nn.Linear)] == [(32, 64), (16, 32)]


def test_everything_built_learns_also_from_one_image_of_one_cell():
    one = Shapes(5, 4, (StageShape(4, 1, 1, 8), StageShape(4, 1, 1, 8)))
    module = create_method("semckd", width=8).build(one, one, FACTS).double()
    loss_of(module, maps(one, 1, 0), maps(one, 1, 5)).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())


def test_a_width_too_small_to_embed_is_refused():
    with pytest.raises(InputError, match=r"semckd\.width: expected a number >= 4, got 3"):
        create_method("semckd", width=3)
