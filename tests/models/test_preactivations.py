"""The maps before a stage's last activation: activating them gives the stage, for every network that has them."""

import pytest
import timm
import torch

from kdzoo.contract.needs import Need
from kdzoo.models.build import build_network
from kdzoo.models.measure import measure_shapes
from kdzoo.models.zoo.cifar_mobile import CIFAR_MOBILES
from kdzoo.models.zoo.cifar_resnet import CIFAR_RESNETS
from kdzoo.models.zoo.cifar_vgg import CIFAR_VGGS
from kdzoo.models.zoo.mlp import MLPS
from kdzoo.models.zoo.small import DIGITS_NETWORKS, TUTORIAL_NETWORKS
from kdzoo.runs.spec import NetworkSpec

LINEAR = {"mobilenetv2_half"}
"""stages are linear bottlenecks: signed, with no activation after them"""
WIDE = {name for name in CIFAR_RESNETS if name.startswith("wrn")}
"""stages are residual sums, whose batch norm and ReLU belong to what follows"""
OURS = sorted(
    {"resnet8", "resnet8x4", "cifar_resnet50", "vgg8", "cifar_vgg13", "shufflenetv1", "shufflenetv2"}
    | set(DIGITS_NETWORKS)
    | {"cnn64", "mlp_40_20"}
)
TIMM = ["resnet18", "resnet50", "resnext50_32x4d", "regnetx_002", "regnety_002"]


def network(name: str, side: int = 32):
    channels = 1 if name in DIGITS_NETWORKS else 3
    made = build_network(
        NetworkSpec(name=name, classes=5), channels=channels, side=side, mean=(0.5,) * channels, std=(0.25,) * channels, seed=0
    )
    with torch.no_grad():  # batch norms as after some training, so that half of the maps is not simply zero
        for module in made.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.bias.normal_(generator=torch.Generator().manual_seed(1))
                module.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(2))
    return made.eval(), torch.randint(0, 256, (2, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", [*OURS, *TIMM])
def test_a_stage_is_the_relu_of_its_preactivation(name):
    made, images = network(name)
    out = made(images, Need.STAGES | Need.PREACT | Need.LOGITS)
    assert len(out.preact) == len(out.stages)
    for before, after in zip(out.preact, out.stages, strict=True):
        assert (before < 0).any()
        assert torch.equal(before.relu(), after)
    assert torch.equal(out.logits, made.logits(images))


@pytest.mark.parametrize("name", sorted(LINEAR))
def test_linear_stages_are_their_own_preactivations(name):
    made, images = network(name)
    out = made(images, Need.STAGES | Need.PREACT)
    assert all(torch.equal(before, stage) for before, stage in zip(out.preact, out.stages, strict=True))


def test_what_is_before_the_relu_of_a_wide_resnet_is_the_next_batch_norm_of_the_sum():
    made, images = network("wrn_16_1")
    out = made(images, Need.STAGES | Need.PREACT)
    model = made.model
    norms = [model.stage2[0].activate[0], model.stage3[0].activate[0], model.neck[0]]
    for norm, before, stage in zip(norms, out.preact, out.stages, strict=True):
        assert torch.equal(before, norm(stage))


def test_every_network_of_kdzoo_gives_them():
    for name in [*CIFAR_RESNETS, *CIFAR_VGGS, *CIFAR_MOBILES, *DIGITS_NETWORKS, *TUTORIAL_NETWORKS, *MLPS]:
        entries = timm.create_model(name).feature_info
        assert all("activation" in entry for entry in entries), name


@pytest.mark.parametrize("name", ["test_vit", "mobilenetv3_small_050", "densenet121"])
def test_other_networks_say_that_they_do_not(name):
    assert not measure_shapes(network(name, 64)[0], (3, 64, 64)).preact


def test_training_statistics_move_as_without_looking():
    (looked, images), (plain, _) = network("wrn_16_1"), network("wrn_16_1")
    looked.train()(images, Need.LOGITS | Need.PREACT)
    plain.train()(images, Need.LOGITS)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in looked.state_dict().items())
