"""Class attention transfer, against class activation maps in loops over classes, channels and cells."""

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
from kdzoo.functional import catkd
from kdzoo.methods.catkd import class_maps

FACTS = DataFacts(10, 5, torch.arange(10) % 5)


def shapes(width: int, channels: int, height: int = 4, breadth: int = 4) -> Shapes:
    return Shapes(5, width, (StageShape(3, 8, 8, 1), StageShape(channels, height, breadth, 2)))


def pooled(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(K, H, W) averaged over the windows [floor(i H / h), ceil((i + 1) H / h))."""
    _, old_height, old_width = image.shape
    small = np.zeros((len(image), height, width))
    for i in range(height):
        rows = slice(i * old_height // height, -(-(i + 1) * old_height // height))
        for j in range(width):
            columns = slice(j * old_width // width, -(-(j + 1) * old_width // width))
            small[:, i, j] = image[:, rows, columns].mean((1, 2))
    return small


def seen(features: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """CAM_k(x, y) = sum_c w_kc F_c(x, y), of (B, C, H, W)."""
    cams = np.zeros((len(features), len(weight), *features.shape[2:]))
    for b, k, i, j in np.ndindex(cams.shape):
        cams[b, k, i, j] = sum(weight[k, c] * features[b, c, i, j] for c in range(features.shape[1]))
    return cams


def oracle(student: np.ndarray, teacher: np.ndarray, resolution: int) -> float:
    size = [min(resolution, student.shape[axis], teacher.shape[axis]) for axis in (2, 3)]
    squares = []
    for s, t in zip(student, teacher, strict=True):
        for a, b in zip(pooled(s, *size), pooled(t, *size), strict=True):
            a, b = (m.ravel() / math.sqrt(sum(m.ravel() ** 2)) for m in (a, b))
            squares += list((a - b) ** 2)
    return sum(squares) / len(squares)


@settings(max_examples=20)
@given(
    batch=st.integers(1, 3),
    classes=st.integers(2, 4),
    student=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    teacher=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    resolution=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_it_is_its_definition_for_any_sides(batch, classes, student, teacher, resolution, seed):
    s, t = drawn(batch, classes, *student, seed=seed), drawn(batch, classes, *teacher, seed=seed + 1)
    expected = oracle(s.numpy(), t.numpy(), resolution)
    assert catkd(s, t, resolution=resolution).item() == pytest.approx(expected, rel=1e-9, abs=1e-15)


@settings(max_examples=10)
@given(seed=st.integers(0, 1000), factor=st.floats(0.01, 100))
def test_the_strength_of_a_class_does_not_count(seed, factor):
    s, t = pair(2, 3, 4, 4, seed=seed)
    assert catkd(factor * s, t).item() == pytest.approx(catkd(s, t).item(), rel=1e-9)


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = (z.requires_grad_() for z in pair(2, 3, 4, 4))
    assert torch.autograd.gradcheck(lambda x: catkd(x, t), s)
    catkd(s, t).backward()
    assert t.grad is None


def test_a_class_seen_nowhere_gives_a_finite_loss_and_gradient():
    s = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = catkd(s, drawn(2, 3, 4, 4).float())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(s.grad).all()


@pytest.mark.parametrize("head", ["linear", "convolution"])
def test_class_maps_are_the_weights_on_each_cell_without_the_bias(head):
    linear = nn.Linear(3, 4).double()
    classifier: nn.Module = linear
    if head == "convolution":
        convolution = nn.Conv2d(3, 4, 1).double()
        convolution.load_state_dict({"weight": linear.weight[:, :, None, None], "bias": linear.bias})
        classifier = nn.Sequential(nn.Unflatten(1, (3, 1, 1)), convolution, nn.Flatten())
    features = drawn(2, 3, 2, 5)
    with torch.no_grad():
        found = class_maps(features, classifier).numpy()
    assert np.allclose(found, seen(features.numpy(), linear.weight.detach().numpy()))


def loss_of(student: dict, teacher: dict, **hyperparameters: int) -> torch.Tensor:
    return create_method("catkd", **hyperparameters).loss(
        Given("student", **student).outputs, Given("teacher", **teacher).outputs, None, nn.Module()
    )


class Given:
    def __init__(self, owner: str, stage: torch.Tensor, classifier: nn.Module) -> None:
        self.outputs = outputs(owner, stages=[drawn(2, 3, 8, 8), stage], classifier=classifier)


def test_the_method_pools_first_which_is_the_same():
    heads = nn.Linear(4, 5).double(), nn.Linear(6, 5).double()
    s, t = drawn(2, 4, 4, 6), drawn(2, 6, 8, 5, seed=1)
    cams = [seen(m.numpy(), head.weight.detach().numpy()) for m, head in zip((s, t), heads, strict=True)]
    for resolution in (1, 2, 3, 10):
        said = loss_of({"stage": s, "classifier": heads[0]}, {"stage": t, "classifier": heads[1]}, resolution=resolution)
        assert said.item() == pytest.approx(oracle(*cams, resolution), rel=1e-9)
        whole = catkd(torch.tensor(cams[0]), torch.tensor(cams[1]), resolution=resolution)
        assert said.item() == pytest.approx(whole.item(), rel=1e-9)


def test_the_students_classifier_learns_and_the_teachers_does_not():
    s_head, t_head = nn.Linear(4, 5).double(), nn.Linear(6, 5).double()
    loss_of({"stage": drawn(2, 4, 4, 4), "classifier": s_head}, {"stage": drawn(2, 6, 4, 4), "classifier": t_head}).backward()
    assert s_head.weight.grad.any()
    assert t_head.weight.grad is None


def test_networks_whose_last_map_is_not_what_is_classified_are_refused_both_at_once():
    with pytest.raises(InputError) as caught:
        create_method("catkd").build(shapes(1280, 160), shapes(512, 320), FACTS)
    assert "applies the student's classifier to its last map, whose 160 channels are not the embedding's width of 1280" in str(caught.value)
    assert "3x8x8, 320x4x4" in str(caught.value)
    assert len(caught.value.problems) == 2
    create_method("catkd").build(shapes(160, 160), shapes(320, 320), FACTS)
