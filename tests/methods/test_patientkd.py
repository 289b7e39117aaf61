"""Patient KD, against its sums in loops and the published program's values."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import batch_of, drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.errors import InputError
from kdzoo.functional import hinton, patientkd
from kdzoo.methods.patientkd import teachers_layers

GOLDEN = Path(__file__).resolve().parent.parent / "golden3"
CASES = [case for case in json.loads((GOLDEN / "published.json").read_text()) if case["name"] == "patientkd"]
FACTS = DataFacts(10, 5, torch.arange(10) % 5)


def oracle(student: np.ndarray, teacher: np.ndarray) -> float:
    """The mean over texts, layers and widths of the squared differences of vectors of length 1."""

    def unit(vector: list[float]) -> list[float]:
        length = math.sqrt(sum(x * x for x in vector))
        return [x / length for x in vector]

    squares = [
        (a - b) ** 2
        for s, t in zip(student.reshape(-1, student.shape[-1]).tolist(), teacher.reshape(-1, teacher.shape[-1]).tolist(), strict=True)
        for a, b in zip(unit(s), unit(t), strict=True)
    ]
    return sum(squares) / len(squares)


@settings(max_examples=25)
@given(batch=st.integers(1, 5), layers=st.integers(1, 4), width=st.integers(1, 5), seed=st.integers(0, 1000))
def test_its_patience_is_the_mean_over_texts_layers_and_widths(batch, layers, width, seed):
    s, t = pair(batch, layers, width, seed=seed)
    logits = drawn(batch, 3)
    loss = patientkd(logits, logits, s.unbind(1), t.unbind(1), temperature=5.0, soft_weight=0.7, patience_weight=2.0)
    assert loss.item() == pytest.approx(2 * oracle(s.numpy(), t.numpy()), abs=1e-12)


def test_its_divergence_is_averaged_over_classes_and_the_teacher_gets_no_gradient():
    (s, t), (a, b) = pair(4, 2, 3), (x.requires_grad_() for x in pair(4, 5, seed=3))
    t.requires_grad_()
    loss = patientkd(a, b, s.unbind(1), t.unbind(1), temperature=5.0, soft_weight=0.7, patience_weight=0.0)
    assert loss.item() == pytest.approx(0.7 * hinton(a, b, temperature=5.0).item() / 5)
    loss.backward()
    assert b.grad is None
    assert t.grad is None


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_with_its_cross_entropy_it_is_the_published_programs(case):
    arrays = np.load(GOLDEN / "published.npz")
    values = {name: torch.tensor(arrays[f"{case['id']}/{name}"]) for name in case["arguments"]}
    for name in case["gradients"]:
        values[name].requires_grad_()
    weights = {name: value for name, value in case["hyperparameters"].items() if name != "normalize"}
    tokens = [values[f"{owner}_tokens"].unbind(1) for owner in ("student", "teacher")]
    loss = patientkd(values["student_logits"], values["teacher_logits"], *tokens, **weights)
    loss = loss + (1 - weights["soft_weight"]) * cross_entropy(values["student_logits"], values["targets"])
    loss.backward()
    assert loss.item() == pytest.approx(case["factor"] * case["expected_loss"], rel=case["tolerance"]["loss"])
    for name in case["gradients"]:
        torch.testing.assert_close(values[name].grad, torch.tensor(arrays[f"{case['id']}/grad_{name}"]), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    ("layers", "student", "teacher", "numbers"),
    [
        ("skip", 6, 12, [2, 4, 6, 8, 10]),
        ("last", 6, 12, [7, 8, 9, 10, 11]),
        ("skip", 3, 12, [4, 8]),
        ("last", 3, 12, [10, 11]),
        ("skip", 3, 6, [2, 4]),
    ],
)
def test_the_teachers_layers_are_the_papers(layers, student, teacher, numbers):
    assert [place + 1 for place in teachers_layers(layers, student, teacher)] == numbers


def test_it_reads_the_first_token_of_the_layers_below_the_last():
    method = create_method("patientkd", soft_weight=0.0)
    three, six = ([drawn(4, 8, 1, 6, seed=seed) for seed in range(count)] for count in (3, 6))
    shapes = [Shapes(5, 8, (StageShape(8, 1, 6, 1),) * count, sequences=True) for count in (3, 6)]
    module = method.build(*shapes, FACTS)
    index = torch.arange(4)
    loss = method.loss(
        outputs("student", logits=drawn(4, 5), stages=three),
        outputs("teacher", logits=drawn(4, 5), stages=six),
        batch_of(index, index),
        module,
    )
    expected = oracle(
        *(torch.stack([stages[i][:, :, 0, 0] for i in places], 1).numpy() for stages, places in ((three, (0, 1)), (six, (1, 3))))
    )
    assert loss.item() == pytest.approx(500 * expected)
    with pytest.raises(InputError, match="that network has none"):
        method.build(Shapes(5, 8, (StageShape(8, 1, 6, 1),), sequences=True), shapes[1], FACTS)
