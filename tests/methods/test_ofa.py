"""One for all, against its cross-entropy in loops, and the heads of CNNs and of token maps."""

import math

import pytest
import torch
from drawn import batch_of, drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.errors import InputError
from kdzoo.functional import ofa

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
CNN = Shapes(5, 8, (StageShape(2, 8, 12, 1), StageShape(4, 4, 6, 2), StageShape(8, 2, 3, 4)))
TOKENS = Shapes(5, 6, (StageShape(6, 3, 3, 16),))
DEEP = Shapes(
    5, 6, (StageShape(2, 16, 16, 1), StageShape(3, 8, 8, 2), StageShape(4, 4, 4, 4), StageShape(5, 2, 2, 8), StageShape(6, 1, 1, 16))
)


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    powers = [math.exp(z - top) for z in row]
    return [power / sum(powers) for power in powers]


def oracle(student: list[list[float]], teacher: list[list[float]], targets: list[int], enhancement: float) -> float:
    total = 0.0
    for s, t, target in zip(student, teacher, targets, strict=True):
        for k, (own, p) in enumerate(zip(softmax(s), softmax(t), strict=True)):
            label = float(k == target)
            total -= ((p + label) ** enhancement - label) * math.log(own)
    return total / len(student)


@settings(max_examples=20)
@given(batch=st.integers(1, 4), classes=st.integers(2, 6), enhancement=st.floats(1, 3), seed=st.integers(0, 1000))
def test_it_is_the_papers_equation(batch, classes, enhancement, seed):
    s, t = pair(batch, classes, seed=seed, factor=2)
    targets = torch.arange(batch) % classes
    expected = oracle(s.tolist(), t.tolist(), targets.tolist(), enhancement)
    assert ofa(s, t, targets, enhancement=enhancement).item() == pytest.approx(expected, rel=1e-9)


def test_with_an_exponent_of_one_it_is_the_cross_entropy_with_the_teacher():
    s, t = pair(4, 5)
    expected = -(t.softmax(1) * s.log_softmax(1)).sum(1).mean().item()
    assert ofa(s, t, torch.tensor([0, 1, 2, 3]), enhancement=1.0).item() == pytest.approx(expected)


def test_the_exponent_raises_the_label_and_lowers_the_others():
    s, t = drawn(3, 4).requires_grad_(), drawn(3, 4, seed=1)
    targets = torch.tensor([0, 1, 2])
    p = t.softmax(1)
    label = torch.nn.functional.one_hot(targets, 4).bool()
    (gradient,) = torch.autograd.grad(ofa(s, t, targets, enhancement=1.5), s)
    mass = torch.where(label, (p + 1) ** 1.5 - 1, p**1.5)
    assert torch.allclose(gradient, ((mass.sum(1, keepdim=True) * s.softmax(1) - mass) / 3).detach())
    assert (mass[label] > p[label]).all()
    assert (mass[~label] < p[~label]).all()


def test_logits_of_ten_thousand_give_numbers_where_a_logarithm_of_a_softmax_does_not():
    s, t = pair(4, 5, factor=1e4)
    s.requires_grad_()
    loss = ofa(s, t, torch.tensor([0, 1, 2, 3]), enhancement=1.5)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(s.grad).all()
    assert not torch.isfinite(s.detach().float().softmax(1).log()).all()


@pytest.mark.parametrize(("student", "teacher"), [(CNN, CNN), (CNN, TOKENS), (TOKENS, CNN), (DEEP, TOKENS)])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_stage_and_the_logits_speak_to_the_teacher_whatever_the_architectures(student, teacher, batch):
    torch.manual_seed(0)
    method = create_method("ofa")
    heads = method.build(student, teacher, FACTS)
    maps = [drawn(batch, s.channels, s.height, s.width, seed=i).float().requires_grad_() for i, s in enumerate(student.stages)]
    s, t = (z.float() for z in pair(batch, 5))
    batch_ = batch_of(torch.arange(batch), torch.arange(batch) % 5)
    loss = method.loss(outputs("student", stages=maps, logits=s), outputs("teacher", logits=t), batch_, heads)
    loss.backward()
    said = [s, *(head(m) for head, m in zip(heads, maps, strict=True))]
    expected = sum(oracle(z.tolist(), t.tolist(), batch_.targets.tolist(), 1.5) for z in said)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert all(m.grad is not None for m in maps)
    assert all(p.grad is not None for p in heads.parameters())


def test_heads_halve_the_map_and_double_its_channels_down_to_the_wider_embedding():
    heads = create_method("ofa").build(CNN, Shapes(5, 30, TOKENS.stages), FACTS)
    bodies = [head.body(drawn(2, s.channels, s.height, s.width).float()) for head, s in zip(heads, CNN.stages, strict=True)]
    assert [tuple(m.shape) for m in bodies] == [(2, 30, 2, 3)] * 3
    pointwise = [[m.out_channels for m in head.body.modules() if isinstance(m, torch.nn.Conv2d) and m.groups == 1] for head in heads]
    assert pointwise == [[2, 4, 4, 30], [4, 30], [30]]


def test_a_student_without_stages_is_refused():
    with pytest.raises(InputError, match="puts a head on each stage of the student, but that network gives none"):
        create_method("ofa").build(Shapes(5, 8, ()), CNN, FACTS)


def test_an_enhancement_below_one_is_refused():
    with pytest.raises(InputError, match=r"ofa\.enhancement: expected a number >= 1, got 0\.5"):
        create_method("ofa", enhancement=0.5)
