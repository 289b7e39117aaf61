"""Be your own teacher, against its three terms in loops, and which parts of the network learn what."""

import math

import pytest
import torch
from build_pages import method_page
from drawn import batch_of, drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.contract.methods import create_method
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.errors import InputError
from kdzoo.functional import byot

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
STUDENT = Shapes(5, 7, (StageShape(2, 8, 12, 1), StageShape(4, 4, 6, 2), StageShape(7, 2, 3, 4)))
NOBODY = Outputs(owner="teacher")
WEIGHTS = {"soft_weight": 0.3, "hint_weight": 0.03, "temperature": 3.0}


def log_softmax(row: list[float]) -> list[float]:
    top = max(row)
    return [z - top - math.log(sum(math.exp(other - top) for other in row)) for z in row]


def oracle(z, h, deep, deep_h, targets, *, soft_weight: float, hint_weight: float, temperature: float) -> float:
    hard = soft = hint = 0.0
    for i, target in enumerate(targets.tolist()):
        hard -= log_softmax(z[i].tolist())[target]
        own, said = (log_softmax([value / temperature for value in row[i].tolist()]) for row in (z, deep))
        soft += sum(math.exp(b) * (b - a) for a, b in zip(own, said, strict=True))
        hint += sum((a - b) ** 2 for a, b in zip(h[i].tolist(), deep_h[i].tolist(), strict=True))
    return ((1 - soft_weight) * hard + soft_weight * temperature**2 * soft + hint_weight * hint) / len(targets)


def seen(batch: int, *, factor: float = 1.0) -> tuple[Outputs, list[torch.Tensor], torch.Tensor, torch.Tensor]:
    maps = [drawn(batch, s.channels, s.height, s.width, seed=i).float().requires_grad_() for i, s in enumerate(STUDENT.stages)]
    logits = drawn(batch, 5, seed=7, factor=factor).float().requires_grad_()
    embedding = drawn(batch, 7, seed=8).float().requires_grad_()
    return outputs("student", stages=maps, logits=logits, embedding=embedding), maps, logits, embedding


@settings(max_examples=20)
@given(
    batch=st.integers(1, 4),
    classes=st.integers(2, 5),
    width=st.integers(1, 5),
    weights=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0.5, 6)),
    seed=st.integers(0, 1000),
)
def test_it_is_the_sum_of_its_three_terms(batch, classes, width, weights, seed):
    z, deep = pair(batch, classes, seed=seed, factor=2)
    h, deep_h = pair(batch, width, seed=seed + 1)
    targets = torch.arange(batch) % classes
    named = dict(zip(WEIGHTS, weights, strict=True))
    assert byot(z, h, deep, deep_h, targets, **named).item() == pytest.approx(oracle(z, h, deep, deep_h, targets, **named), rel=1e-9)


def test_its_gradient_is_the_numerical_one_and_the_deep_side_has_none():
    z, deep = pair(3, 4)
    h, deep_h = pair(3, 2, seed=1)
    targets = torch.tensor([0, 1, 2])
    assert torch.autograd.gradcheck(
        lambda a, b: byot(a, b, deep, deep_h, targets, **WEIGHTS), (z.requires_grad_(), h.requires_grad_()), atol=1e-7
    )
    deep.requires_grad_()
    deep_h.requires_grad_()
    byot(z, h, deep, deep_h, targets, **WEIGHTS).backward()
    assert deep.grad is None
    assert deep_h.grad is None


@pytest.mark.parametrize("batch", [1, 4])
def test_each_stage_but_the_deepest_has_a_classifier_whose_loss_trains_the_stage(batch):
    torch.manual_seed(0)
    method = create_method("byot")
    heads = method.build(STUDENT, STUDENT, FACTS)
    student, maps, logits, embedding = seen(batch)
    batch_ = batch_of(torch.arange(batch), torch.arange(batch) % 5)
    loss = method.loss(student, NOBODY, batch_, heads)
    loss.backward()
    said = [head(m) for head, m in zip(heads, maps[:-1], strict=True)]
    expected = sum(oracle(z, h, logits, embedding, batch_.targets, **WEIGHTS) for z, h in said)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert [m.grad is not None for m in maps] == [True, True, False]
    assert logits.grad is None
    assert embedding.grad is None
    assert all(p.grad is not None for p in heads.parameters())


def test_heads_end_at_the_size_of_the_deepest_stage_and_the_width_of_the_embedding():
    heads = create_method("byot").build(STUDENT, STUDENT, FACTS)
    bodies = [head.body(drawn(2, s.channels, s.height, s.width).float()) for head, s in zip(heads, STUDENT.stages[:-1], strict=True)]
    assert [tuple(m.shape) for m in bodies] == [(2, 7, 2, 3)] * 2


def test_a_head_can_reach_an_embedding_below_zero():
    method = create_method("byot")
    heads = method.build(STUDENT, STUDENT, FACTS)
    student, maps, _, embedding = seen(4)
    method.loss(student, NOBODY, batch_of(torch.arange(4), torch.arange(4)), heads)
    assert heads[0].rectifier.least.item() == pytest.approx(embedding.min().item())
    assert heads[0](maps[0])[1].min() < 0


def test_logits_of_ten_thousand_give_numbers():
    method = create_method("byot")
    heads = method.build(STUDENT, STUDENT, FACTS)
    student, maps, _, _ = seen(4, factor=1e4)
    loss = method.loss(student, NOBODY, batch_of(torch.arange(4), torch.arange(4)), heads)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(m.grad).all() for m in maps[:-1])


@pytest.mark.parametrize("stages", [STUDENT.stages[-1:], ()])
def test_a_student_of_one_stage_is_refused(stages):
    with pytest.raises(InputError, match=r"needs two of them; the student's stages are (7x2x3|none)"):
        create_method("byot").build(Shapes(5, 7, stages), STUDENT, FACTS)


def test_the_hint_is_to_the_published_root_of_a_sum_as_the_page_says():
    """0.03 times the root of all squared distances, as torch.dist has it, against 0.03 times the mean squared norm."""
    z, deep = pair(6, 4)
    targets = torch.arange(6) % 4
    grown = {}
    for name in ("here", "published"):
        h, deep_h = pair(6, 5, seed=1)
        h.requires_grad_()
        hint = 0.03 * torch.dist(h, deep_h)
        if name == "here":
            hint = byot(z, h, deep, deep_h, targets, **WEIGHTS) - byot(z, h, deep, deep_h, targets, **{**WEIGHTS, "hint_weight": 0.0})
        hint.backward()
        grown[name] = hint.item(), torch.linalg.vector_norm(h.grad).item()
    factor = torch.dist(h, deep_h).item() / 6  # sqrt(S) / B
    assert grown["here"][0] == pytest.approx(factor * grown["published"][0])
    assert grown["here"][1] == pytest.approx(2 * factor * grown["published"][1])
    assert "sqrt(S) / B times that of the programs and the gradient 2 sqrt(S) / B times" in method_page("byot")


def test_the_declared_weights_are_the_published_ones():
    method = create_method("byot")
    assert (method.soft_weight, method.hint_weight, method.temperature) == (0.3, 0.03, 3.0)
    with pytest.raises(InputError, match=r"byot\.soft_weight: expected a number <= 1, got 2"):
        create_method("byot", soft_weight=2.0)
