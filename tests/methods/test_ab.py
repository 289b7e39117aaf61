"""Activation boundaries, against the two cases of the paper's loss in loops over every neuron."""

import numpy as np
import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.card import PretrainStage
from kdzoo.contract.methods import REGISTRY, create_method
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.functional import ab

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
STUDENT = Shapes(5, 8, (StageShape(3, 4, 4, 1), StageShape(4, 4, 6, 1), StageShape(5, 1, 1, 4)))
TEACHER = Shapes(5, 9, (StageShape(3, 4, 4, 1), StageShape(7, 2, 3, 2), StageShape(8, 1, 1, 4)))


def oracle(students: list[np.ndarray], teachers: list[np.ndarray], margin: float) -> float:
    total = 0.0
    for stage, (s, t) in enumerate(zip(students, teachers, strict=True)):
        loss = 0.0
        for place in np.ndindex(s.shape):
            if s[place] > -margin and t[place] <= 0:
                loss += (s[place] + margin) ** 2
            if s[place] <= margin and t[place] > 0:
                loss += (s[place] - margin) ** 2
        total += 2.0 ** (stage - len(students) + 1) * loss / len(s)
    return 3 / 1000 * total


@settings(max_examples=20)
@given(shape=st.tuples(*[st.integers(1, 4)] * 4), stages=st.integers(1, 4), margin=st.floats(0.1, 3), seed=st.integers(0, 1000))
def test_it_is_the_papers_two_cases_with_stages_weighed_from_the_deep_end(shape, stages, margin, seed):
    s = [drawn(*shape, seed=seed + i, factor=2) for i in range(stages)]
    t = [drawn(*shape, seed=seed + 10 + i) for i in range(stages)]
    expected = oracle([m.numpy() for m in s], [m.numpy() for m in t], margin)
    assert ab(s, t, margin=margin).item() == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(("s", "t", "hinge"), [(0, 1, 1), (1, 1, 0), (2, 1, 0), (-1, 1, 4), (0, 0, 1), (-1, 0, 0), (1, -5, 4), (-3, -1, 0)])
def test_by_hand_for_one_neuron_a_teacher_at_0_is_off(s, t, hinge):
    one, other = (torch.full((1, 1, 1, 1), float(value)) for value in (s, t))
    assert ab([one], [other], margin=1.0).item() == pytest.approx(0.003 * hinge)


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = (z.requires_grad_() for z in pair(2, 3, 2, 4))
    assert torch.autograd.gradcheck(lambda x: ab([x], [t], margin=1.0), s)
    ab([s], [t], margin=1.0).backward()
    assert t.grad is None


def test_only_the_sign_of_the_teacher_counts():
    s, t = pair(2, 3, 4, 4)
    assert ab([s], [t * 50], margin=1.0).item() == ab([s], [t], margin=1.0).item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_before_squaring(dtype):
    loss = ab([torch.full((1, 1, 1, 1), -999.0, dtype=dtype)], [torch.ones(1, 1, 1, 1, dtype=dtype)], margin=1.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(3000, rel=1e-2)


def test_only_unequal_channels_are_connected_and_by_one_matrix_with_batch_norm():
    module = create_method("ab").build(STUDENT, TEACHER, FACTS)
    assert [len(list(connect.parameters())) for connect in module] == [0, 3, 3]
    assert module[1][0].weight.shape == (7, 4, 1, 1)


def loss_of(module: nn.Module, student: list[torch.Tensor], teacher: list[torch.Tensor]) -> torch.Tensor:
    return create_method("ab").loss(outputs("student", preact=student), outputs("teacher", preact=teacher), None, module)


def maps(shapes: Shapes, batch: int, seed: int) -> list[torch.Tensor]:
    return [drawn(batch, s.channels, s.height, s.width, seed=seed + i) for i, s in enumerate(shapes.stages)]


def test_the_method_pools_carries_and_compares():
    module = create_method("ab").build(STUDENT, TEACHER, FACTS).double().eval()
    s, t = maps(STUDENT, 2, 0), maps(TEACHER, 2, 10)
    scale = 1 / np.sqrt(1 + 1e-5)  # what batch norm does before it has seen anything
    carried = [s[0].numpy()]
    pooled = [s[1].numpy().reshape(2, 4, 2, 2, 3, 2).mean((3, 5)), s[2].numpy()]
    for connect, small in zip(list(module)[1:], pooled, strict=True):
        weight = connect[0].weight.detach().numpy()[:, :, 0, 0]
        carried.append(np.einsum("tc,bchw->bthw", weight, small) * scale)
    assert loss_of(module, s, t).item() == pytest.approx(oracle(carried, [m.numpy() for m in t], 1.0))


def test_one_image_and_one_cell_train():
    module = create_method("ab").build(STUDENT, TEACHER, FACTS).double()
    s = [m.requires_grad_() for m in maps(STUDENT, 1, 0)]
    loss_of(module, s, maps(TEACHER, 1, 10)).backward()
    assert all(torch.isfinite(m.grad).all() for m in s)


def test_it_is_a_first_stage_after_which_cross_entropy_is_alone():
    card = REGISTRY.get("ab").card
    assert card.pretrain == PretrainStage("ab", share=1 / 8, followed_by=())
