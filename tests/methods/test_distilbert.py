"""DistilBERT's triple loss, against its sums in loops and the published program's values."""

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
from kdzoo.functional import distilbert, hinton

GOLDEN = Path(__file__).resolve().parent.parent / "golden3"
CASES = [case for case in json.loads((GOLDEN / "published.json").read_text()) if case["name"] == "distilbert"]
FACTS = DataFacts(10, 5, torch.arange(10) % 5)


def oracle(student: np.ndarray, teacher: np.ndarray, lengths: list[int]) -> float:
    """The mean over all tokens of 1 - cos, with 1e-12 more in each squared norm, as in torch's CosineEmbeddingLoss."""
    apart = []
    for s, t, length in zip(student, teacher, lengths, strict=True):
        for token in range(length):
            one, other = s[:, 0, token].tolist(), t[:, 0, token].tolist()
            dot = sum(a * b for a, b in zip(one, other, strict=True))
            squares = [sum(a * a for a in vector) + 1e-12 for vector in (one, other)]
            apart.append(1 - dot / math.sqrt(squares[0] * squares[1]))
    return sum(apart) / len(apart)


@settings(max_examples=25)
@given(width=st.integers(1, 5), lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_its_cosine_part_is_the_mean_over_the_tokens_of_all_texts(width, lengths, seed):
    s, t = pair(len(lengths), width, 1, 6, seed=seed)
    for text, length in enumerate(lengths):
        t[text, :, :, length:] = 0
    logits = drawn(len(lengths), 3)
    loss = distilbert(logits, logits, s, t, temperature=2.0, soft_weight=5.0, cosine_weight=1.0)
    assert loss.item() == pytest.approx(oracle(s.numpy(), t.numpy(), lengths), abs=1e-9)


def test_its_parts_are_weighted_and_the_teacher_gets_no_gradient():
    (s, t), (a, b) = pair(4, 3, 1, 5), (x.requires_grad_() for x in pair(4, 5, seed=3))
    t.requires_grad_()
    loss = distilbert(a, b, s, t, temperature=2.0, soft_weight=5.0, cosine_weight=0.0)
    assert loss.item() == pytest.approx(5 * hinton(a, b, temperature=2.0).item())
    distilbert(a, b, s.requires_grad_(), t, temperature=2.0, soft_weight=5.0, cosine_weight=1.0).backward()
    assert b.grad is None
    assert t.grad is None
    assert torch.autograd.gradcheck(lambda x: distilbert(a, b, x, t, temperature=2.0, soft_weight=1.0, cosine_weight=1.0), s)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_with_the_cross_entropy_of_masked_words_it_is_the_published_programs(case):
    arrays = np.load(GOLDEN / "published.npz")
    values = {name: torch.tensor(arrays[f"{case['id']}/{name}"]) for name in case["arguments"]}
    for name in case["gradients"]:
        values[name].requires_grad_()
    weights, mask = case["hyperparameters"], values["attention_mask"].bool()
    counts = mask & (values["targets"] != -100) if weights["masked_only"] else mask
    maps = [(values[f"{owner}_tokens"] * mask[..., None]).transpose(1, 2)[:, :, None] for owner in ("student", "teacher")]
    loss = distilbert(
        values["student_logits"][counts], values["teacher_logits"][counts], *maps,
        temperature=weights["temperature"], soft_weight=weights["soft_weight"], cosine_weight=weights["cosine_weight"],
    )  # fmt: skip
    loss = loss + weights["mask_weight"] * cross_entropy(values["student_logits"].flatten(0, 1), values["targets"].flatten())
    loss.backward()
    assert loss.item() == pytest.approx(case["factor"] * case["expected_loss"], rel=case["tolerance"]["loss"])
    for name in case["gradients"]:
        wanted = torch.tensor(arrays[f"{case['id']}/grad_{name}"])
        torch.testing.assert_close(values[name].grad, wanted, rtol=1e-6, atol=1e-9)


def test_states_of_one_width_are_compared_as_they_are_and_others_through_a_layer_that_learns():
    shapes = [Shapes(5, width, (StageShape(width, 1, 6, 1),), sequences=True) for width in (8, 4)]
    method = create_method("distilbert")
    assert not list(method.build(shapes[0], shapes[0], FACTS).parameters())
    module = method.build(shapes[1], shapes[0], FACTS)
    index = torch.arange(3)
    student = outputs("student", logits=drawn(3, 5).float(), stages=[drawn(3, 4, 1, 6).float()])
    teacher = outputs("teacher", logits=drawn(3, 5).float(), stages=[drawn(3, 8, 1, 6).float()])
    method.loss(student, teacher, batch_of(index, index), module).backward()
    assert all(parameter.grad.any() for parameter in module.parameters())


def test_networks_whose_tokens_are_not_the_same_ones_are_refused():
    def shapes(length: int, tokeniser: str | None) -> Shapes:
        return Shapes(5, 8, (StageShape(8, 1, length, 1),), sequences=True, tokeniser=tokeniser)

    method = create_method("distilbert")
    with pytest.raises(InputError, match="the student reads 4 of a text and the teacher 6"):
        method.build(shapes(4, "a"), shapes(6, "a"), FACTS)
    with pytest.raises(InputError, match="by different tokenisers"):
        method.build(shapes(6, "a"), shapes(6, "b"), FACTS)
    for one, other in (("a", "a"), (None, "b"), (None, None)):
        method.build(shapes(6, one), shapes(6, other), FACTS)
