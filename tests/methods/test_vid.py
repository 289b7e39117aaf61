"""Variational information distillation: the likelihood in loops, and variances that are learnt, saved and decayed as weights are."""

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
from kdzoo.functional import vid
from kdzoo.suite.plan.recipe_files import recipe_file
from kdzoo.training.optim import optimizer

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
STUDENT = Shapes(5, 6, (StageShape(3, 8, 8, 1), StageShape(4, 4, 6, 2)))
TEACHER = Shapes(5, 9, (StageShape(5, 8, 8, 1), StageShape(6, 2, 3, 4)))


def maps(shapes: Shapes, batch: int, seed: int) -> list[torch.Tensor]:
    return [drawn(batch, s.channels, s.height, s.width, seed=seed + i) for i, s in enumerate(shapes.stages)]


def oracle(means: list[np.ndarray], teachers: list[np.ndarray], variances: list[np.ndarray]) -> float:
    total = 0.0
    for mean, t, variance in zip(means, teachers, variances, strict=True):
        terms = [
            ((mean[place] - t[place]) ** 2 / variance[place[1]] + math.log(variance[place[1]])) / 2 for place in np.ndindex(mean.shape)
        ]
        total += sum(terms) / len(terms)
    return total


@settings(max_examples=20)
@given(shape=st.tuples(*[st.integers(1, 4)] * 4), stages=st.integers(1, 3), seed=st.integers(0, 1000))
def test_it_is_the_mean_negative_log_likelihood_summed_over_stages(shape, stages, seed):
    s = [drawn(*shape, seed=seed + i) for i in range(stages)]
    t = [drawn(*shape, seed=seed + 10 + i) for i in range(stages)]
    v = [drawn(shape[1], seed=seed + 20 + i).exp() for i in range(stages)]
    expected = oracle(*([z.numpy() for z in side] for side in (s, t, v)))
    assert vid(s, t, v).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_its_gradients_are_the_numerical_ones_and_the_teacher_gets_none():
    s, t = (z.requires_grad_() for z in pair(2, 3, 2, 4))
    v = drawn(3, seed=5).exp().detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: vid([x], [t], [y]), (s, v))
    vid([s], [t], [v]).backward()
    assert t.grad is None


def test_the_best_variance_is_the_mean_square_of_the_channel():
    s, t = pair(4, 3, 2, 2)
    best = (s - t).square().mean((0, 2, 3)).requires_grad_()
    (gradient,) = torch.autograd.grad(vid([s], [t], [best]), best)
    assert gradient.abs().max() < 1e-12
    for factor in (0.8, 1.25):
        assert vid([s], [t], [best * factor]) > vid([s], [t], [best])


def test_it_falls_below_zero_where_the_teacher_is_certain():
    t = drawn(2, 3, 2, 2)
    assert vid([t], [t], [torch.full((3,), 0.01, dtype=torch.float64)]).item() == pytest.approx(math.log(0.01) / 2)


def loss_of(module: nn.Module, student: list[torch.Tensor], teacher: list[torch.Tensor]) -> torch.Tensor:
    return create_method("vid").loss(outputs("student", stages=student), outputs("teacher", stages=teacher), None, module)


def test_the_method_regresses_the_mean_by_three_layers_without_a_relu_behind():
    module = create_method("vid").build(STUDENT, TEACHER, FACTS).double()
    s, t = maps(STUDENT, 2, 0), maps(TEACHER, 2, 10)
    sized = [s[0].numpy(), s[1].numpy().reshape(2, 4, 2, 2, 3, 2).mean((3, 5))]
    means = []
    for x, layers in zip(sized, module.means, strict=True):
        for number, layer in enumerate(layers[i] for i in (0, 2, 4)):
            assert layer.bias is None
            x = np.einsum("oc,bchw->bohw", layer.weight.detach().numpy()[:, :, 0, 0], np.maximum(x, 0) if number else x)
        means.append(x)
    variances = [np.log(1 + np.exp(scale.detach().numpy())) + 1e-5 for scale in module.scales]
    assert loss_of(module, s, t).item() == pytest.approx(oracle(means, [m.numpy() for m in t], variances))


def test_variances_start_at_five_are_parameters_and_in_the_state():
    module = create_method("vid").build(STUDENT, TEACHER, FACTS)
    for variance, stage in zip(module.variances(), TEACHER.stages, strict=True):
        assert variance.shape == (stage.channels,)
        assert variance.detach().numpy() == pytest.approx(5.0)
    assert {"scales.0", "scales.1"} <= dict(module.named_parameters()).keys()
    assert {"scales.0", "scales.1"} <= module.state_dict().keys()


def test_training_moves_the_variances_towards_the_error():
    module = create_method("vid").build(STUDENT, TEACHER, FACTS).double()
    s, t = maps(STUDENT, 4, 0), maps(TEACHER, 4, 10)
    optimizer = torch.optim.SGD(module.parameters(), lr=20.0)
    with torch.no_grad():
        for layers in module.means:
            layers[4].weight.zero_()  # the best mean of a teacher without structure
    for _ in range(300):
        optimizer.zero_grad()
        loss_of(module, s, t).backward()
        for layers in module.means:
            layers[4].weight.grad = None
        optimizer.step()
    shallow = t[0].square().mean((0, 2, 3)).numpy()
    assert module.variances()[0].detach().numpy() == pytest.approx(shallow, rel=1e-3)


def test_under_the_published_recipe_variances_are_decayed_as_all_weights_are_towards_log_2():
    method = create_method("vid")
    module = method.build(STUDENT, TEACHER, FACTS).double()
    recipe = recipe_file("crd240").resolve("resnet20", {})
    made = optimizer(recipe, nn.Linear(2, 2).double(), method.groups(module))
    decays = {id(p): group["weight_decay"] for group in made.param_groups for p in group["params"]}
    assert {decays[id(p)] for p in module.parameters()} == {5e-4}
    before = [scale.detach().clone() for scale in module.scales]
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.step()
    for scale, was in zip(module.scales, before, strict=True):
        assert scale.detach().numpy() == pytest.approx(was.numpy() * (1 - 0.05 * 5e-4), rel=1e-12)
    for scale in module.scales:
        nn.init.zeros_(scale)  # where the decay leads
    assert all(variance.detach().numpy() == pytest.approx(math.log(2) + 1e-5) for variance in module.variances())


def test_it_has_the_published_number_of_parameters():
    same = Shapes(100, 256, tuple(StageShape(c, 4, 4, 1) for c in (64, 128, 256)))
    module = create_method("vid").build(same, same, FACTS)
    assert sum(p.numel() for p in module.means.parameters()) == 258_048


def test_a_variance_never_reaches_zero():
    module = create_method("vid").build(STUDENT, TEACHER, FACTS)
    for scale in module.scales:
        nn.init.constant_(scale, -1e4)
    loss = loss_of(module, [m.float() for m in maps(STUDENT, 1, 0)], [m.float() for m in maps(TEACHER, 1, 10)])
    assert torch.isfinite(loss)
