"""The reused classifier, against the mean of squares in loops, and the network that is shipped."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import REGISTRY, create_method
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.errors import InputError
from kdzoo.functional import simkd
from kdzoo.methods.simkd import last_map

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
HEAD = nn.Linear(6, 5)
STUDENT = Shapes(5, 9, (StageShape(3, 8, 8, 1), StageShape(4, 4, 6, 2)))
TEACHER = Shapes(5, 6, (StageShape(3, 8, 8, 1), StageShape(6, 2, 3, 4)), classifier=HEAD)
WIDER = Shapes(5, 6, (StageShape(3, 8, 8, 1), StageShape(7, 2, 3, 4)), classifier=HEAD)


def oracle(s: np.ndarray, t: np.ndarray) -> float:
    squares = [(s[place] - t[place]) ** 2 for place in np.ndindex(s.shape)]
    return sum(squares) / len(squares)


@settings(max_examples=20)
@given(shape=st.tuples(*[st.integers(1, 4)] * 4), seed=st.integers(0, 1000))
def test_it_is_the_mean_of_squares(shape, seed):
    s, t = drawn(*shape, seed=seed), drawn(*shape, seed=seed + 1)
    assert simkd(s, t).item() == pytest.approx(oracle(s.numpy(), t.numpy()))


def test_the_larger_map_is_pooled_and_the_teacher_gets_no_gradient():
    s, t = drawn(2, 3, 4, 6).requires_grad_(), drawn(2, 3, 2, 3, seed=1).requires_grad_()
    halved = s.detach().numpy().reshape(2, 3, 2, 2, 3, 2).mean((3, 5))
    loss = simkd(s, t)
    loss.backward()
    assert loss.item() == pytest.approx(oracle(halved, t.detach().numpy()))
    assert t.grad is None
    assert torch.autograd.gradcheck(lambda x: simkd(x, t), s)


def built(teacher: Shapes = TEACHER, **hyperparameters: int) -> nn.Module:
    return create_method("simkd", **hyperparameters).build(STUDENT, teacher, FACTS).double()


def loss_of(module: nn.Module, student: torch.Tensor, stage: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
    return create_method("simkd").loss(
        outputs("student", stages=[student]), outputs("teacher", stages=[stage], embedding=embedding), None, module
    )


def projected(module: nn.Module, student: torch.Tensor, least: float) -> np.ndarray:
    """The projector of the map pooled to 2 x 3, cut at `least`."""
    small = torch.tensor(student.detach().numpy().reshape(len(student), 4, 2, 2, 3, 2).mean((3, 5)))
    with torch.no_grad():
        return np.maximum(module.projector(small).numpy(), least)


@pytest.mark.parametrize("signed", [False, True])
def test_a_teacher_that_pools_its_last_map_is_matched_cell_by_cell(signed):
    module = built()
    module.projector.eval()
    s, t = drawn(2, 4, 4, 6), drawn(2, 6, 2, 3, seed=1)
    t = t if signed else t.relu()
    said = loss_of(module, s, t, t.mean((2, 3)))
    assert said.item() == pytest.approx(oracle(projected(module, s, t.min().item()), t.numpy()))


@pytest.mark.parametrize("teacher", [TEACHER, WIDER])
def test_of_any_other_teacher_the_embedding_is_matched_by_the_mean_of_the_cells(teacher):
    module = built(teacher)
    module.projector.eval()
    s, t, e = drawn(2, 4, 4, 6), drawn(2, teacher.stages[1].channels, 2, 3, seed=1), drawn(2, 6, seed=2)
    expected = oracle(projected(module, s, e.min().item()).mean((2, 3)), e.numpy())
    assert loss_of(module, s, t, e).item() == pytest.approx(expected)


def test_half_precision_does_not_hide_that_the_last_map_is_pooled():
    module = built().float()
    module.projector.eval()
    t = drawn(2, 6, 2, 3, seed=1).relu().bfloat16()
    s = drawn(2, 4, 4, 6).float()
    said = loss_of(module, s, t, t.mean((2, 3)))
    assert said.item() == pytest.approx(oracle(projected(module, s, 0.0), t.double().numpy()), rel=1e-4)


def test_what_is_shipped_is_the_teachers_classifier_on_the_pooled_projection():
    module = built()
    t = drawn(2, 6, 2, 3, seed=1)
    loss_of(module, drawn(2, 4, 4, 6), t, t.mean((2, 3)))
    module.eval()
    s = drawn(3, 4, 4, 6, seed=2)
    pooled = projected(module, s, t.min().item()).mean((2, 3))
    expected = pooled @ HEAD.weight.detach().double().numpy().T + HEAD.bias.detach().double().numpy()
    said = create_method("simkd").deploy(outputs("student", stages=[s]), module)
    assert np.allclose(said.detach().numpy(), expected)


def test_a_student_that_projects_exactly_is_the_teacher():
    """With a zero loss the shipped logits are those of the teacher's classifier."""
    module = built()
    with torch.no_grad():
        module.projector[-1].weight.zero_()
        module.projector[-1].bias.copy_(drawn(6).abs())
        t = module.projector[-1].bias[None, :, None, None].expand(2, 6, 2, 3).clone()
    s = drawn(2, 4, 4, 6)
    assert loss_of(module, s, t, t.mean((2, 3))).item() == pytest.approx(0, abs=1e-12)
    said = create_method("simkd").deploy(outputs("student", stages=[s]), module.eval())
    assert torch.allclose(said, module.classifier(t.mean((2, 3))))


def test_the_projector_learns_and_the_classifier_is_a_frozen_copy():
    module = built()
    t = drawn(2, 6, 2, 3, seed=1)
    loss_of(module, drawn(2, 4, 4, 6).requires_grad_(), t, t.mean((2, 3))).backward()
    assert all(p.grad is not None for p in module.projector.parameters())
    assert all(p.grad is None for p in module.classifier.parameters())
    with torch.no_grad():
        module.classifier.weight.zero_()
    assert HEAD.weight.any()


def test_one_image_of_one_cell_trains():
    one = Shapes(5, 6, (StageShape(6, 1, 1, 8),), classifier=HEAD)
    module = create_method("simkd").build(one, one, FACTS).double()
    s, t = (z.requires_grad_() for z in pair(1, 6, 1, 1))
    loss_of(module, s, t, t.mean((2, 3))).backward()
    assert torch.isfinite(s.grad).all()
    assert t.grad is None


@pytest.mark.parametrize(("given", "count"), [({}, 214_016), ({"factor": 4}, 70_400)])
def test_the_projector_has_the_published_number_of_parameters(given, count):
    """256 x 256 / f + 9 (256 / f)^2 + 256 x 256 / f and two for each normed channel."""
    wide = Shapes(100, 256, (StageShape(256, 8, 8, 4),))
    module = create_method("simkd", **given).build(wide, replace(wide, classifier=nn.Linear(256, 100)), FACTS)
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == count


def test_a_teacher_without_a_classifier_is_refused():
    with pytest.raises(InputError, match="no single layer that maps its embedding to its logits"):
        create_method("simkd").build(STUDENT, replace(TEACHER, classifier=None), FACTS)


def test_it_says_what_it_ships():
    card = REGISTRY.get("simkd").card
    assert "teacher's classifier" in card.deploys


def test_a_map_in_which_nothing_is_active_is_the_embedding_of_zeros():
    _, pooled = last_map(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3))
    assert pooled
