"""Distillation-oriented training against its equations, step by step in plain numbers."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from kdzoo.errors import InputError
from kdzoo.runs.fields import parse
from kdzoo.runs.recipe import Recipe
from kdzoo.training.dot import DOT

LR, MOMENTUM, GAP, DECAY = 0.1, 0.9, 0.075, 5e-4
RECIPE = {"epochs": 2, "batch_size": 4, "lr": LR}


def trained(steps: int) -> tuple[nn.Parameter, nn.Parameter, list[np.ndarray]]:
    """A weight that both losses reach and one that the distilled one alone reaches, after so many steps."""
    random = torch.Generator().manual_seed(0)
    both = nn.Parameter(torch.randn(3, dtype=torch.float64, generator=random))
    alone = nn.Parameter(torch.randn(3, dtype=torch.float64, generator=random))
    start = [both.detach().numpy().copy(), alone.detach().numpy().copy()]
    optimizer = DOT([{"params": [both, alone], "weight_decay": DECAY}], lr=LR, momentum=MOMENTUM, gap=GAP)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        optimizer.backward(both.pow(2).sum(), (both * alone).sum() + both.pow(4).sum())
        optimizer.step()
    return both, alone, start


def test_two_momenta_as_in_equation_7():
    both, alone, (w, u) = trained(5)
    v_task = v_distilled = v_alone = None
    for _ in range(5):
        g_task, g_distilled, g_alone = 2 * w + DECAY * w, u + 4 * w**3, w + DECAY * u
        v_task = g_task if v_task is None else (MOMENTUM - GAP) * v_task + g_task
        v_distilled = g_distilled if v_distilled is None else (MOMENTUM + GAP) * v_distilled + g_distilled
        v_alone = g_alone if v_alone is None else MOMENTUM * v_alone + g_alone
        w, u = w - LR * (v_task + v_distilled), u - LR * v_alone
    np.testing.assert_allclose(both.detach().numpy(), w, rtol=1e-12)
    np.testing.assert_allclose(alone.detach().numpy(), u, rtol=1e-12)


def test_a_gradient_that_is_clipped_or_logged_is_the_sum_of_both():
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = DOT([{"params": [weight], "weight_decay": 0.0}], lr=LR, momentum=MOMENTUM, gap=GAP)
    optimizer.backward(weight.pow(2).sum(), (3 * weight).sum())
    assert weight.grad.tolist() == [2 + 3, -4 + 3]


def test_without_a_teacher_it_is_sgd():
    weights = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    dot = DOT([{"params": [weights[0]], "weight_decay": DECAY}], lr=LR, momentum=MOMENTUM, gap=GAP)
    sgd = torch.optim.SGD([weights[1]], lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
    for _ in range(4):
        dot.backward(weights[0].pow(2).sum(), torch.zeros(()))
        dot.step()
        sgd.zero_grad()
        weights[1].pow(2).sum().backward()
        sgd.step()
    torch.testing.assert_close(*weights)


def test_its_velocities_survive_a_checkpoint():
    both, alone, _ = trained(5)
    again = [nn.Parameter(torch.zeros(3, dtype=torch.float64)) for _ in range(2)]
    first = DOT([{"params": [both, alone], "weight_decay": 0.0}], lr=LR, momentum=MOMENTUM, gap=GAP)
    first.backward(both.sum(), (both * alone).sum())
    first.step()
    second = DOT([{"params": again, "weight_decay": 0.0}], lr=LR, momentum=MOMENTUM, gap=GAP)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    with torch.no_grad():
        again[0].copy_(both)
        again[1].copy_(alone)
    for optimizer, (w, u) in ((first, (both, alone)), (second, again)):
        optimizer.backward(w.sum(), (w * u).sum())
        optimizer.step()
    assert torch.equal(again[0], both)
    assert torch.equal(again[1], alone)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"dot": 0.95}, "momentum - dot"),
        ({"dot": 0.2}, "momentum - dot"),
        ({"dot": 0.05, "optimizer": "adamw"}, "optimizer 'sgd'"),
        ({"dot": 0.05, "nesterov": True}, "without nesterov"),
        ({"dot": 0.05, "precision": "float16"}, "precision"),
    ],
)
def test_recipes_that_it_cannot_serve_are_refused(changed, words):
    with pytest.raises(InputError, match=words):
        parse(Recipe, {**RECIPE, **changed}, "recipe")


def test_a_recipe_without_it_is_the_recipe_it_was():
    assert "dot" not in parse(Recipe, RECIPE, "recipe").model_dump(mode="json")


@pytest.mark.slow
@pytest.mark.usefixtures("train_here")
def test_it_trains_a_student_from_the_command_line(kdzoo):
    with_dot = ["--set", "recipe.nesterov=false", "--set", "recipe.dot=0.075"]
    said = kdzoo("bench", "--epochs", "6", "--seeds", "1", "--methods", "hinton", "--jobs", "1", *with_dot)
    assert said.status == 0, said.err
    assert "recipe.dot" not in said.err
