"""Learning rates and weight decay as the recipes state them."""

import math

import pytest
import torch
from torch import nn

from kdzoo.optim import learning_rate, moving_average, optimizer
from kdzoo.spec import Recipe
from kdzoo.suite.config import recipe_file


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
