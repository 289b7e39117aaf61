"""A generalist with specialists as one network: how a specialist begins and learns, and what all of them say together."""

import math

import pytest
import torch
from torch import nn

from kdzoo.data.dataset import Subset
from kdzoo.errors import InputError
from kdzoo.models.build import build_network
from kdzoo.models.committee import committee_name, members_of_name
from kdzoo.models.names import is_known
from kdzoo.models.network import Network
from kdzoo.models.request import parse_network
from kdzoo.models.specialists import active_specialists, combine
from kdzoo.models.weights import file_sha256, save_student
from kdzoo.runs.recipe import Recipe
from kdzoo.runs.spec import NetworkSpec
from kdzoo.training.specialise import committee, fresh_specialist, train_specialist

SETS = ((0, 1, 2), (2, 3, 4))
HUES = torch.tensor([[30, 30, 30], [220, 30, 30], [30, 220, 30], [30, 30, 220], [220, 220, 30], [30, 220, 220]])
COLOURS = {"channels": 3, "side": 32, "mean": (0.5,) * 3, "std": (0.25,) * 3}


@pytest.fixture(scope="module")
def generalist() -> Network:
    return build_network(NetworkSpec(name="cnn64", classes=6), seed=0, **COLOURS).eval()


@pytest.fixture(scope="module")
def images() -> Subset:
    """Six classes of noisy colours, 20 images each, 32x32."""
    targets = torch.arange(6).repeat_interleave(20)
    noise = torch.randn(120, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 20
    return Subset((HUES[targets][:, :, None, None] + noise).clamp(0, 255).to(torch.uint8), targets)


def test_names():
    assert committee_name(10, 20, "resnet8") == "specialists_10x20_resnet8"
    assert members_of_name("specialists_10x20_resnet8") == (10, 20, "resnet8")
    assert members_of_name("resnet8") is None
    assert is_known("specialists_2x3_cnn64")
    assert not is_known("specialists_2x3_nothing")


def test_a_specialist_begins_with_the_rows_of_its_classes_and_the_others_in_its_dustbin(generalist, images):
    own = (1, 4)
    model = fresh_specialist(generalist, own).eval()
    pixels = generalist.normalise(images.images[:8])
    with torch.no_grad():
        theirs, ours = generalist.model(pixels), model(pixels)
    assert ours[:, :2] == pytest.approx(theirs[:, list(own)], abs=1e-6)
    assert ours[:, 2] == pytest.approx(theirs[:, [0, 2, 3, 5]].mean(1) + math.log(4), abs=1e-5)
    assert generalist.classifier.out_features == 6


def test_a_network_without_one_linear_classifier_has_no_specialists():
    network = Network(nn.Sequential(nn.Flatten(), nn.ReLU()), channels=1, mean=(0.0,), std=(1.0,))
    with pytest.raises(InputError, match="Sequential: specialists need one linear layer with a bias"):
        fresh_specialist(network, (0, 1))


def test_a_specialist_leaves_out_a_short_last_batch_where_its_recipe_does(generalist, images, monkeypatch):
    seen = []
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: seen.append(len(self.param_groups)))
    for drop_last, steps in ((False, 3), (True, 2)):  # 80 images, half of them of its two classes, in batches of 32
        seen.clear()
        train_specialist(generalist, images, (1, 4), Recipe(epochs=1, batch_size=32, lr=0.02, drop_last=drop_last), seed=0)
        assert len(seen) == steps


def test_keys_of_a_recipe_that_a_specialist_would_pass_over_are_refused(generalist, images):
    recipe = Recipe(epochs=1, batch_size=32, lr=0.02, clip=1.0, ema=0.9, label_smoothing=0.1, view_epochs=2)
    with pytest.raises(InputError) as refused:
        train_specialist(generalist, images, (1, 4), recipe, seed=0)
    assert [problem.partition(":")[0] for problem in refused.value.problems] == [
        "recipe.clip", "recipe.label_smoothing", "recipe.ema", "recipe.view_epochs",
    ]  # fmt: skip


def test_specialists_learn_their_classes_and_are_kept_as_one_network(generalist, images, tmp_path):
    recipe = Recipe(epochs=6, batch_size=20, lr=0.02)
    trained = [train_specialist(generalist, images, own, recipe, seed=0) for own in SETS]
    again, _ = train_specialist(generalist, images, SETS[0], recipe, seed=0)
    assert all(torch.equal(one, other) for one, other in zip(again.parameters(), trained[0][0].parameters(), strict=True))
    together, name = committee(generalist, "cnn64", SETS, trained)
    with torch.no_grad():
        alone, said = together.model.each(generalist.normalise(images.images))
        combined = together.logits(images.images)
    for own, one in zip(SETS, said, strict=True):
        expected = torch.tensor([own.index(label) if label in own else 3 for label in images.targets.tolist()])
        assert (one.argmax(1) == expected).double().mean() > 0.9
    # 60 images of its classes and 60 drawn of 60 others: nothing is shown more often than it occurs
    assert [correction for _, correction in trained] == [0.0, 0.0]
    assert combined == pytest.approx(combine(alone, said, SETS, active_specialists(alone, SETS)), abs=1e-6)
    assert combined.exp().sum(1) == pytest.approx(torch.ones(120), abs=1e-5)
    file = tmp_path / "together.safetensors"
    save_student(together, file, {"architecture": name})
    request = parse_network(str(file))
    assert request.name == "specialists_2x3_cnn64"
    spec = NetworkSpec(name=request.name, classes=6, start=f"file:{file_sha256(file)}")
    read = build_network(spec, seed=5, weights=file, **{**COLOURS, "mean": (0.1,) * 3}).eval()
    with torch.no_grad():
        assert torch.equal(read.logits(images.images[:9]), together.logits(images.images[:9]))


def test_the_dustbins_correction_is_added_to_its_logit(generalist, images):
    model = fresh_specialist(generalist, (0, 1)).eval()
    plain, _ = committee(generalist, "cnn64", [(0, 1)], [(model, 0.0)])
    corrected, _ = committee(generalist, "cnn64", [(0, 1)], [(model, math.log(4))])
    with torch.no_grad():
        pixels = generalist.normalise(images.images[:8])
        before, after = (one.model.each(pixels)[1][0].exp() for one in (plain, corrected))
    odds = (after[:, 2] / after[:, 0]) / (before[:, 2] / before[:, 0])
    assert odds == pytest.approx(torch.full((8,), 4.0), rel=1e-4)
