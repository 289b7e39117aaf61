"""N-to-one representation matching: the segments in loops, the transform that ships, and the factor over the epochs."""

import math

import numpy as np
import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.methods import REGISTRY, create_method
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.functional import norm
from kdzoo.methods.norm import factor

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
STUDENT = Shapes(5, 4, (StageShape(3, 8, 8, 1), StageShape(4, 4, 6, 2)))
TEACHER = Shapes(5, 9, (StageShape(5, 8, 8, 1), StageShape(6, 2, 3, 4)))
TARGETS = torch.tensor([3, 0])


def batch_at(epoch: int, epochs: int = 240) -> Batch:
    return Batch(
        inputs=torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
        targets=TARGETS,
        index=torch.arange(2),
        clock=Progress(epoch, epochs, 0, 1),
        generator=torch.Generator(),
    )


def oracle(expanded: np.ndarray, teacher: np.ndarray) -> float:
    """Every segment of the student's channels against the whole of the teacher's."""
    channels = teacher.shape[1]
    segments = [expanded[:, start : start + channels] for start in range(0, expanded.shape[1], channels)]
    return float(sum(((segment - teacher) ** 2).mean() for segment in segments))


@settings(max_examples=20)
@given(shape=st.tuples(*[st.integers(1, 4)] * 4), segments=st.integers(1, 5), seed=st.integers(0, 1000))
def test_it_is_the_mean_of_squares_summed_over_segments(shape, segments, seed):
    batch, channels, height, width = shape
    s, t = drawn(batch, segments * channels, height, width, seed=seed), drawn(*shape, seed=seed + 1)
    assert norm(s, t).item() == pytest.approx(oracle(s.numpy(), t.numpy()), rel=1e-9)


def test_it_is_zero_for_the_teacher_several_times_over():
    t = drawn(2, 3, 2, 2)
    assert norm(t.repeat(1, 4, 1, 1), t).item() == 0


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = drawn(2, 6, 2, 4).requires_grad_(), drawn(2, 3, 2, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: norm(x, t), s)
    norm(s, t).backward()
    assert t.grad is None


@pytest.mark.parametrize(
    ("epoch", "value"), [(0, 0.1), (9, 0.1), (10, 0.5), (19, 0.5), (20, 1), (179, 1), (180, 0.5), (209, 0.5), (210, 0.1), (239, 0.1)]
)
def test_the_factor_over_240_epochs_is_the_published_one(epoch, value):
    assert factor(Progress(epoch, 240, 0, 1)) == value


@pytest.mark.parametrize("epochs", [1, 2, 7, 24, 30, 100])
def test_any_number_of_epochs_ends_at_the_last_factor_and_has_no_gap(epochs):
    values = [factor(Progress(epoch, epochs, 0, 1)) for epoch in range(epochs)]
    assert set(values) <= {0.1, 0.5, 1.0}
    assert epochs < 24 or [v for i, v in enumerate(values) if i == 0 or v != values[i - 1]] == [0.1, 0.5, 1.0, 0.5, 0.1]


def built(**hyperparameters) -> tuple[nn.Module, nn.Linear]:
    torch.manual_seed(0)
    module = create_method("norm", **hyperparameters).build(STUDENT, TEACHER, FACTS).double().eval()
    return module, nn.Linear(4, 5).double()


def given_of(batch: int = 2) -> dict:
    features = drawn(batch, 4, 4, 6)
    return {"stages": [drawn(batch, 3, 8, 8), features], "embedding": features.mean((2, 3))}


def moved(x: np.ndarray, layer: nn.Sequential) -> np.ndarray:
    """A 1x1 convolution and what batch norm does before it has seen anything."""
    return np.einsum("oc,bchw->bohw", layer[0].weight.detach().numpy()[:, :, 0, 0], x) / math.sqrt(1 + 1e-5)


def logits_by_hand(module: nn.Module, classifier: nn.Linear, student: dict) -> tuple[np.ndarray, np.ndarray]:
    expanded = moved(student["stages"][1].numpy(), module.expand)
    embedding = student["embedding"].numpy() + moved(expanded, module.contract).mean((2, 3))
    return expanded, embedding @ classifier.weight.detach().numpy().T + classifier.bias.detach().numpy()


@pytest.mark.parametrize(("epoch", "value"), [(0, 0.1), (50, 1.0)])
def test_the_method_matches_the_expanded_map_and_trains_the_logits_that_ship(epoch, value):
    module, classifier = built(segments=3, task=0.25)
    student, t = given_of(), drawn(2, 6, 2, 3, seed=7)
    expanded, logits = logits_by_hand(module, classifier, student)
    pooled = expanded.reshape(2, 18, 2, 2, 3, 2).mean((3, 5))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    entropy = -np.mean([math.log(probabilities[i, target]) for i, target in enumerate(TARGETS)])
    said = create_method("norm", segments=3, task=0.25).loss(
        outputs("student", **student, classifier=classifier), outputs("teacher", stages=[drawn(2, 5, 8, 8), t]), batch_at(epoch), module
    )
    assert said.item() == pytest.approx(0.25 * entropy + value * oracle(pooled, t.numpy()))


def test_what_ships_are_the_logits_that_were_trained():
    module, classifier = built()
    student = given_of()
    shipped = create_method("norm").deploy(outputs("student", **student, classifier=classifier), module)
    assert shipped.detach().numpy() == pytest.approx(logits_by_hand(module, classifier, student)[1])
    assert "feature transform" in REGISTRY.get("norm").card.deploys


def test_the_transform_merges_with_the_classifier_where_the_embedding_is_the_mean_of_the_map():
    """In evaluation the shipped student is a linear classifier of the trained one's embedding."""
    module, classifier = built()
    student = given_of(6)
    with torch.no_grad():
        shipped = create_method("norm").deploy(outputs("student", **student, classifier=classifier), module)
        zero, basis = torch.zeros(1, 4, 1, 1, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
        bias = module(zero, zero[:, :, 0, 0])[1]
        matrix = module(basis[:, :, None, None], basis)[1] - bias
        merged = classifier(student["embedding"] @ matrix + bias)
    assert torch.allclose(shipped, merged)


def test_everything_learns_also_from_one_image_of_one_cell():
    one = Shapes(5, 4, (StageShape(4, 1, 1, 8),))
    module = create_method("norm").build(one, one, FACTS).double()
    classifier = nn.Linear(4, 5).double()
    s, t = pair(2, 4, 1, 1)
    create_method("norm").loss(
        outputs("student", stages=[s], embedding=s[:, :, 0, 0], classifier=classifier), outputs("teacher", stages=[t]), batch_at(0), module
    ).backward()
    parameters = [*module.parameters(), *classifier.parameters()]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in parameters)


def test_the_map_is_expanded_to_four_segments_and_back_to_the_embedding():
    wide = Shapes(100, 40, (StageShape(16, 4, 4, 1),))
    module = create_method("norm").build(wide, TEACHER, FACTS)
    assert module.expand[0].weight.shape[:2] == (24, 16)
    assert module.contract[0].weight.shape[:2] == (40, 24)


def test_it_tries_the_published_share_first():
    assert [setting.hyperparameters["task"] for setting in REGISTRY.get("norm").card.search] == [0.5, 0.25, 0.125, 0.0625, 1.0]
