"""An orthogonal projection to a layer-normalised teacher, against loops over samples and units."""

import math

import numpy as np
import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.functional import vkd
from kdzoo.methods.vkd import OrthogonalProjection
from kdzoo.runs.recipe import Recipe
from kdzoo.training.optim import optimizer as of_recipe

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
WIDTHS = [(4, 6), (6, 4), (5, 5), (1, 3), (3, 1), (1, 1)]
quick = settings(max_examples=25)


def oracle(projected: np.ndarray, teacher: np.ndarray) -> float:
    """Mean of smoothL1(p - layernorm(t)) over B x D: d^2 / 2 below a distance of 1, d - 1/2 above."""
    total = 0.0
    for p, t in zip(projected, teacher, strict=True):
        mean = sum(t) / len(t)
        variance = sum((x - mean) ** 2 for x in t) / len(t)
        for a, x in zip(p, t, strict=True):
            apart = abs(a - (x - mean) / math.sqrt(variance + 1e-5))
            total += apart**2 / 2 if apart < 1 else apart - 0.5
    return total / projected.size


def built(ours: int, theirs: int):
    method = create_method("vkd")
    return method, method.build(Shapes(5, ours, ()), Shapes(5, theirs, ()), FACTS)


def loss_of(method, module, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return method.loss(outputs("student", embedding=s), outputs("teacher", embedding=t), None, module)


@quick
@given(batch=st.integers(1, 5), width=st.integers(1, 5), factor=st.sampled_from([0.1, 1.0, 30.0]), seed=st.integers(0, 1000))
def test_it_is_the_mean_smooth_distance_to_the_normalised_teacher(batch, width, factor, seed):
    p, t = pair(batch, width, seed=seed, factor=factor)
    assert vkd(p, t).item() == pytest.approx(oracle(p.numpy(), t.numpy()), rel=1e-9, abs=1e-12)


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    p, t = (x.requires_grad_() for x in pair(4, 5))
    assert torch.autograd.gradcheck(lambda x: vkd(x, t), p)
    vkd(p, t).backward()
    assert t.grad is None


def test_mean_and_scale_of_the_teacher_do_not_count():
    p, t = pair(4, 6)
    assert vkd(p, 50 * t + 3).item() == pytest.approx(vkd(p, t).item(), rel=1e-4)


@pytest.mark.parametrize("teacher", [torch.zeros(3, 4), torch.full((3, 4), -2.0)])
def test_a_constant_teacher_is_zero_and_stays_finite(teacher):
    p = drawn(3, 4).float().requires_grad_()
    loss = vkd(p, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(torch.nn.functional.smooth_l1_loss(p, torch.zeros(3, 4)).item())
    assert torch.isfinite(p.grad).all()


@pytest.mark.parametrize(("ours", "theirs"), WIDTHS)
def test_the_method_projects_by_a_matrix_of_orthonormal_rows_or_columns(ours, theirs):
    method, module = built(ours, theirs)
    module.double()
    weight = module.matrix().detach().numpy().T
    gram = weight.T @ weight if ours <= theirs else weight @ weight.T
    np.testing.assert_allclose(gram, np.eye(min(ours, theirs)), atol=1e-6)
    s, t = drawn(3, ours), drawn(3, theirs, seed=1)
    assert loss_of(method, module, s, t).item() == pytest.approx(oracle(s.numpy() @ weight.T, t.numpy()), rel=1e-9)


@pytest.mark.parametrize(("ours", "theirs"), [(4, 6), (6, 4), (5, 5)])
def test_a_recipe_with_weight_decay_turns_the_projection_and_keeps_it_orthonormal(ours, theirs):
    method, module = built(ours, theirs)
    before = module.matrix().detach().T
    recipe = Recipe(epochs=1, batch_size=16, lr=0.3, momentum=0.9, weight_decay=0.01)
    optimizer = of_recipe(recipe, torch.nn.Identity(), method.groups(module))
    s, t = drawn(16, ours).float(), drawn(16, theirs, seed=1).float()
    losses = []
    for _ in range(30):
        loss = loss_of(method, module, s, t)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    weight = module.matrix().detach().T
    gram = weight.T @ weight if ours <= theirs else weight @ weight.T
    assert torch.allclose(gram, torch.eye(min(ours, theirs)), atol=1e-5)
    assert (weight - before).abs().max() > 0.05
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(("ours", "theirs"), WIDTHS)
def test_the_projection_follows_its_parameters_without_a_jump_and_does_not_know_their_length(ours, theirs):
    _, module = built(ours, theirs)
    module.double()
    matrix = module.matrix().detach()
    with torch.no_grad():
        module.free.mul_(1e-3)
        assert torch.allclose(module.matrix(), matrix)
        module.free.add_(drawn(*module.free.shape), alpha=1e-9)
        assert torch.allclose(module.matrix(), matrix, atol=1e-4)


@pytest.mark.parametrize(("ours", "theirs"), [(3, 5), (5, 3), (4, 4)])
def test_its_gradient_through_the_projection_is_the_numerical_one(ours, theirs):
    module = built(ours, theirs)[1].double()
    s, t, free = drawn(3, ours).requires_grad_(), drawn(3, theirs, seed=1), module.free.detach().clone().requires_grad_()

    def loss(x: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        return vkd(torch.func.functional_call(module, {"free": parameters}, (x,)), t)

    assert torch.autograd.gradcheck(loss, (s, free))


@pytest.mark.parametrize(("ours", "theirs"), [(4, 6), (6, 4), (5, 5)])
def test_a_projection_that_was_turned_is_saved_and_loaded_bit_for_bit(ours, theirs):
    method, module = built(ours, theirs)
    s, t = drawn(16, ours).float(), drawn(16, theirs, seed=1).float()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.3)
    loss_of(method, module, s, t).backward()
    optimizer.step()
    _, other = built(ours, theirs)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.matrix(), module.matrix())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("ours", "theirs"), [(4, 6), (5, 5)])
def test_half_precision_is_computed_in_float32(dtype, ours, theirs):
    method, module = built(ours, theirs)
    s, t = drawn(5, ours).to(dtype), drawn(5, theirs, seed=1).to(dtype)
    wide = loss_of(method, module, s.float(), t.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(method, module, s, t)
    assert loss.dtype == torch.float32
    assert loss.item() == wide.item()


def test_between_equal_widths_the_matrix_is_the_transposed_factor():
    projection = OrthogonalProjection(4, 4).double()
    orthogonal, upper = np.linalg.qr(projection.free.detach().numpy())
    expected = (orthogonal * np.sign(np.diagonal(upper))).T
    assert projection.matrix().detach().numpy() == pytest.approx(expected)
