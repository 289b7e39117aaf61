"""Learning rates and weight decay as the recipes state them."""

import math

import pytest
import torch
from torch import nn

from kdzoo.runs.recipe import Recipe
from kdzoo.suite.plan.recipe_files import recipe_file
from kdzoo.training.optim import SkippedSteps, decay_at, learning_rate, moving_average, optimizer


def recipe(**changes) -> Recipe:
    return Recipe(**{"epochs": 10, "batch_size": 8, "lr": 0.1, **changes})


def test_crd240_drops_by_ten_after_epochs_150_180_and_210():
    crd, steps = recipe_file("crd240").resolve("resnet20", {}), 240 * 782
    rates = {epoch: learning_rate(crd, epoch * 782, steps) for epoch in (0, 149, 150, 179, 180, 209, 210, 239)}
    expected = {0: 0.05, 149: 0.05, 150: 0.005, 179: 0.005, 180: 0.0005, 209: 0.0005, 210: 0.00005, 239: 0.00005}
    assert rates == pytest.approx(expected, rel=1e-9)


def test_crd240_trains_light_networks_at_a_hundredth():
    file = recipe_file("crd240")
    assert file.resolve("shufflenetv1", {}).lr == 0.01
    assert file.resolve("resnet20", {}).lr == 0.05


def test_cosine_ends_near_zero_and_is_half_way_in_the_middle():
    cosine = recipe(schedule="cosine")
    assert learning_rate(cosine, 0, 100) == 0.1
    assert learning_rate(cosine, 50, 100) == pytest.approx(0.05)
    assert learning_rate(cosine, 99, 100) == pytest.approx(0.05 * (1 + math.cos(math.pi * 0.99)))


def test_linear_falls_in_a_line_to_zero_at_the_end_of_training():
    linear = recipe(schedule="linear")
    assert [learning_rate(linear, step, 5) for step in range(5)] == pytest.approx([0.1, 0.08, 0.06, 0.04, 0.02])
    warmed = [learning_rate(recipe(schedule="linear", warmup=0.5), step, 4) for step in range(4)]
    assert warmed == pytest.approx([0.1 / 3, 0.2 / 3, 0.1, 0.05])


def test_a_warm_up_before_a_linear_fall_is_torchs_sequence_of_both():
    from torch.optim.lr_scheduler import LinearLR, SequentialLR

    theirs = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    parts = [LinearLR(theirs, 1 / 11, 1.0, total_iters=10), LinearLR(theirs, 1.0, 0.0, total_iters=90)]
    schedule = SequentialLR(theirs, parts, milestones=[10])
    for step in range(100):
        assert learning_rate(recipe(schedule="linear", warmup=0.1), step, 100) == pytest.approx(theirs.param_groups[0]["lr"]), step
        theirs.step()
        schedule.step()


def test_warm_up_rises_in_a_line_to_the_full_rate():
    rates = [learning_rate(recipe(warmup=0.1, schedule="cosine"), step, 100) for step in range(11)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) / 11 for i in range(10)])
    assert rates[10] == 0.1


def test_decay_on_weights_spares_biases_and_norms():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    groups = optimizer(recipe(weight_decay=0.01, decay="weights"), network).param_groups
    assert {tuple(p.shape): group["weight_decay"] for group in groups for p in group["params"]}[(4, 3, 3, 3)] == 0.01
    assert all(group["weight_decay"] == 0 for group in groups for p in group["params"] if p.ndim <= 1)


def test_moving_average_follows_the_weights_with_its_decay():
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 1.0)
    average = moving_average(recipe(ema=0.9), network)
    assert average is not None
    average.update_parameters(network)  # the first update copies
    with torch.no_grad():
        network.weight.fill_(2.0)
    average.update_parameters(network)
    assert average.module.weight.item() == pytest.approx(0.9 * 1 + 0.1 * 2)


def stepped(recipe: Recipe, overflows: set[int], steps: int = 6) -> tuple[list[torch.Tensor], int]:
    """Weights after each step of a small regression whose gradients overflow at some steps, and how many were skipped."""
    torch.manual_seed(0)
    network = torch.nn.Linear(40, 3)
    made = optimizer(recipe, network)
    skipped, scaler = SkippedSteps(made), torch.amp.GradScaler("cpu", init_scale=8.0)  # a power of two changes no bit of a gradient
    weights = []
    for step in range(steps):
        x = torch.randn(8, 40, generator=torch.Generator().manual_seed(step))
        loss = network(x).square().mean() * (math.inf if step in overflows else 1.0)
        scaler.scale(loss).backward()
        if recipe.clip is not None:
            scaler.unscale_(made)
            torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
        scaler.step(made)
        scaler.update()
        made.zero_grad()
        weights.append(network.weight.detach().clone())
    return weights, int(skipped.steps)


@pytest.mark.parametrize(("name", "nesterov"), [("sgd", False), ("sgd", True), ("adam", False), ("adamw", False)])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_a_step_whose_gradients_overflow_leaves_weights_and_momentum_as_if_it_had_not_been(name, clip, nesterov):
    torch.use_deterministic_algorithms(True)  # memory that nobody has written holds NaN
    try:
        recipe = Recipe(
            epochs=1, batch_size=8, lr=0.05, optimizer=name, clip=clip, nesterov=nesterov, weight_decay=1e-2, precision="float16"
        )
        weights, skipped = stepped(recipe, {0, 1, 3})
        assert skipped == 3
        torch.manual_seed(0)
        start = torch.nn.Linear(40, 3)
        own = start.weight.detach().clone()
        expected = by_hand(recipe, own, start.bias.detach().clone(), [2, 4, 5])
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(weights[0], own)
    assert torch.equal(weights[1], own)
    for step, value in zip((2, 3, 4, 5), (expected[0], expected[0], expected[1], expected[2]), strict=True):
        assert torch.allclose(weights[step].double(), value, rtol=1e-5, atol=1e-6)


def by_hand(recipe: Recipe, weight: torch.Tensor, bias: torch.Tensor, steps: list[int]) -> list[torch.Tensor]:
    """The optimisers' equations in float64, at the batches of some steps alone."""
    parts = [weight.double(), bias.double()]
    first, second = ([torch.zeros_like(part) for part in parts] for _ in range(2))
    found = []
    for count, step in enumerate(steps, start=1):
        x = torch.randn(8, 40, generator=torch.Generator().manual_seed(step)).double()
        residual = 2 * (x @ parts[0].T + parts[1]) / 24
        gradients = [residual.T @ x, residual.sum(0)]
        if recipe.clip is not None:
            norm = torch.sqrt(sum((g**2).sum() for g in gradients))
            gradients = [g * min(1.0, recipe.clip / float(norm)) for g in gradients]
        for i, gradient in enumerate(gradients):
            if recipe.optimizer in ("adam", "adamw"):
                if recipe.optimizer == "adam":
                    gradient = gradient + recipe.weight_decay * parts[i]
                else:
                    parts[i] = parts[i] * (1 - recipe.lr * recipe.weight_decay)
                first[i] = 0.9 * first[i] + 0.1 * gradient
                second[i] = 0.999 * second[i] + 0.001 * gradient**2
                move = first[i] / (1 - 0.9**count) / (torch.sqrt(second[i] / (1 - 0.999**count)) + 1e-8)
            else:
                gradient = gradient + recipe.weight_decay * parts[i]
                first[i] = 0.9 * first[i] + gradient
                move = gradient + 0.9 * first[i] if recipe.nesterov else first[i]
            parts[i] = parts[i] - recipe.lr * move
        found.append(parts[0].clone())
    return found


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_adams_steps_are_those_of_its_equations(name, clip):
    """Kingma and Ba 2015, algorithm 1; weight decay in the gradient, or apart from it (Loshchilov and Hutter 2019, algorithm 2)."""
    chosen = recipe(lr=0.05, optimizer=name, clip=clip, weight_decay=0.1)
    torch.manual_seed(0)
    network = torch.nn.Linear(40, 3)
    expected = by_hand(chosen, network.weight.detach().clone(), network.bias.detach().clone(), list(range(6)))
    made = optimizer(chosen, network)
    for step in range(6):
        x = torch.randn(8, 40, generator=torch.Generator().manual_seed(step))
        network(x).square().mean().backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
        made.step()
        made.zero_grad()
        assert torch.allclose(network.weight.double(), expected[step], rtol=1e-5, atol=1e-6), step


def test_in_float32_nothing_is_prepared_and_the_first_momentum_is_the_gradient_to_the_bit():
    made = optimizer(Recipe(epochs=1, batch_size=8, lr=0.1), torch.nn.Linear(3, 2))
    assert not any(made.state.values())


@pytest.mark.parametrize("resumed", [False, True])
def test_a_parameter_may_get_its_first_gradient_late(resumed):
    recipe = Recipe(epochs=1, batch_size=8, lr=0.1)
    network = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(1)) for _ in range(2)])
    made = optimizer(recipe, network)
    network[0].sum().backward()
    made.step()
    made.zero_grad()
    if resumed:
        state, made = made.state_dict(), optimizer(recipe, network)
        made.load_state_dict(state)
    for _ in range(2):
        (network[0] + network[1]).sum().backward()
        made.step()
        made.zero_grad()
    assert [round(float(p.detach()), 4) for p in network] == [-0.561, -0.29]  # 0.1 (1 + 1.9 + 2.71) and 0.1 (1 + 1.9)


def test_the_average_warms_up_as_timms_does():
    from timm.utils import ModelEmaV3

    random = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    theirs = ModelEmaV3(network, decay=0.9, use_warmup=True)
    ours = moving_average(recipe(ema=0.9, ema_warmup=True), network)
    assert ours is not None
    for step in range(1, 60):
        with torch.no_grad():
            for value in (*network.parameters(), network[1].running_mean):
                value.add_(torch.randn(value.shape, generator=random))
        theirs.update(network, step=step)
        ours.update_parameters(network)
        expected = theirs.module.state_dict()
        assert all(torch.allclose(value, expected[name], atol=1e-5) for name, value in ours.module.state_dict().items())
    assert [decay_at(recipe(ema=0.9, ema_warmup=True), step) for step in (1, 30, 31, 1000)] == pytest.approx(
        [1 - 2 ** (-2 / 3), 1 - 31 ** (-2 / 3), 0.9, 0.9], abs=1e-3
    )


def test_recipes_warm_their_average_up_unless_they_say_no_and_runs_of_before_keep_their_ids():
    finetune = recipe_file("finetune224")
    assert finetune.resolve("resnet18", {}).ema_warmup
    assert "ema_warmup" in finetune.resolve("resnet18", {}).model_dump()
    assert recipe_file("smoke").resolve("resnet20", {"ema": 0.9}).ema_warmup
    assert not recipe_file("smoke").resolve("resnet20", {}).ema_warmup
    plain = finetune.resolve("resnet18", {"ema_warmup": False}).model_dump(mode="json")
    assert "ema_warmup" not in plain
    assert Recipe.model_validate(plain).ema_warmup is False
