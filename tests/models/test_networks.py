"""The networks of the literature, counted; and the one door through which any network gives what methods read."""

import itertools

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.needs import Need, UndeclaredNeed
from kdzoo.contract.shapes import Shapes, StageShape
from kdzoo.errors import InputError
from kdzoo.models import names
from kdzoo.models.build import build_network
from kdzoo.models.measure import measure_shapes, network_cost
from kdzoo.models.names import list_networks
from kdzoo.models.network import freeze
from kdzoo.models.pairs import PAIRS, pair
from kdzoo.models.stages import pair_stages
from kdzoo.models.zoo.mlp import MLPS, widths_of
from kdzoo.runs.spec import NetworkSpec

# name: parameters and millions of multiply-accumulates for 100 classes of 3x32x32 images, and the tapped stages (channels x side)
TABLE = {
    "resnet8": (83_892, 12.5, "16x32 32x16 64x8"),
    "resnet14": (181_108, 26.7, "16x32 32x16 64x8"),
    "resnet20": (278_324, 40.8, "16x32 32x16 64x8"),
    "resnet32": (472_756, 69.1, "16x32 32x16 64x8"),
    "resnet44": (667_188, 97.4, "16x32 32x16 64x8"),
    "resnet56": (861_620, 125.8, "16x32 32x16 64x8"),
    "resnet110": (1_736_564, 253.2, "16x32 32x16 64x8"),
    "resnet8x4": (1_233_540, 177.1, "64x32 128x16 256x8"),
    "resnet32x4": (7_433_860, 1083.0, "64x32 128x16 256x8"),
    "wrn_16_1": (180_916, 26.7, "16x32 32x16 64x8"),
    "wrn_16_2": (703_284, 101.1, "32x32 64x16 128x8"),
    "wrn_40_1": (569_780, 83.3, "16x32 32x16 64x8"),
    "wrn_40_2": (2_255_156, 327.6, "32x32 64x16 128x8"),
    "vgg8": (3_965_028, 96.2, "128x16 256x8 512x4 512x4"),
    "cifar_vgg11": (9_277_284, 209.4, "128x16 256x8 512x4 512x4"),
    "cifar_vgg13": (9_462_180, 284.9, "128x16 256x8 512x4 512x4"),
    "cifar_vgg16": (14_774_436, 398.2, "128x16 256x8 512x4 512x4"),
    "cifar_vgg19": (20_086_692, 511.4, "128x16 256x8 512x4 512x4"),
    "cifar_resnet18": (11_220_132, 555.5, "64x32 128x16 256x8 512x4"),
    "cifar_resnet50": (23_705_252, 1298.0, "256x32 512x16 1024x8 2048x4"),
    "mobilenetv2_half": (812_836, 6.5, "12x16 16x8 48x4 160x2"),
    "shufflenetv1": (949_258, 38.7, "240x16 480x8 960x4"),
    "shufflenetv2": (1_355_528, 44.5, "116x16 232x8 464x4"),
}


def network(name: str, *, classes: int = 10, channels: int = 3, side: int = 32, seed: int = 0, **spec):
    made = NetworkSpec(name=name, classes=classes, **spec)
    return build_network(made, channels=channels, side=side, mean=(0.5,) * channels, std=(0.25,) * channels, seed=seed)


def pixels(batch: int = 2, channels: int = 3, side: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (batch, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", TABLE)
def test_literature_networks_have_the_published_size_cost_and_stages(name):
    parameters, megamacs, stages = TABLE[name]
    made = network(name, classes=100)
    cost = network_cost(made, (3, 32, 32))
    assert cost.parameters == parameters
    assert f"{cost.macs / 1e6:.1f}" == f"{megamacs:.1f}"
    assert " ".join(f"{s.channels}x{s.height}" for s in measure_shapes(made, (3, 32, 32)).stages) == stages


def test_the_table_holds_every_network_of_the_literature_that_is_registered():
    tutorial = {"cnn128", "cnn64", "digits_teacher", "digits_student", "digits_deit", *MLPS}
    by_users = set(names.NETWORKS)  # other tests of this process register some, and timm forgets none
    assert set(list_networks()) - by_users == set(TABLE) | tutorial


@pytest.mark.parametrize("name", ["mlp_20_12", "digits_deit"])
def test_a_network_for_squares_refuses_other_images_by_name_unless_they_are_resized(name):
    message = rf"^{name}: is made for square images, but these have height 8 and width 12; {name}@8 resizes them to 8x8$"
    with pytest.raises(InputError, match=message):
        measure_shapes(network(name, channels=1, side=8), (1, 8, 12))
    assert measure_shapes(network(name, channels=1, side=8, image_size=8), (1, 8, 12)).classes == 10


def test_the_tutorial_pair_is_two_convolutions_and_a_hidden_layer():
    for name, (first, second, hidden) in {"cnn128": (64, 128, 512), "cnn64": (32, 64, 256)}.items():
        expected = (3 * 9 + 1) * first + (first * 9 + 1) * second + (second * 8 * 8 + 1) * hidden + (hidden + 1) * 10
        assert network_cost(network(name), (3, 32, 32)).parameters == expected
    assert measure_shapes(network("cnn64", channels=1, side=28), (1, 28, 28)).embedding == 256


@pytest.mark.parametrize(
    "name", ["resnet8", "wrn_16_1", "vgg8", "shufflenetv2", "test_resnet", "test_vit", "test_efficientnet", "test_convnext"]
)
def test_one_forward_gives_what_the_model_itself_gives(name):
    side = 32 if name in TABLE else 96
    made = network(name, side=side).eval()
    images = pixels(side=side)
    out = made(images, Need.LOGITS | Need.EMBEDDING | Need.STAGES | Need.CLASSIFIER)
    with torch.no_grad():
        assert torch.equal(out.logits, made.model((images.float() / 255 - 0.5) / 0.25))
        torch.testing.assert_close(out.classifier(out.embedding), out.logits, rtol=1e-4, atol=1e-5)
    alone = made(images, Need.LOGITS)
    assert torch.equal(alone.logits, out.logits)
    with pytest.raises(UndeclaredNeed):
        _ = alone.stages


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "convnext_atto", "regnetx_002"])
def test_stages_are_the_last_map_of_every_resolution_without_the_stem(name):
    stages = measure_shapes(network(name, side=64), (3, 64, 64)).stages
    reductions = [s.reduction for s in stages]
    assert reductions == sorted(set(reductions))
    assert reductions[-1] == 32


def test_a_vit_made_for_small_images_has_its_last_block_as_its_stage():
    shapes = measure_shapes(network("vit_tiny_patch16_224", side=32), (3, 32, 32))
    assert [str(stage) for stage in shapes.stages] == ["192x2x2"]


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "mobilenetv3_small_050", "regnetx_002"])
def test_a_small_stem_keeps_four_times_the_resolution_or_twice(name):
    standard, small = (measure_shapes(network(name, stem=stem), (3, 32, 32)).stages[-1].height for stem in ("standard", "small"))
    assert standard == 1
    assert small >= 2


def test_networks_without_a_known_stem_refuse_a_small_one():
    with pytest.raises(InputError, match="no stem that --small-stem can change"):
        network("vit_tiny_patch16_224", stem="small")


def test_a_probe_changes_nothing_in_a_network():
    made = network("resnet8").train()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    measure_shapes(made, (3, 32, 32))
    network_cost(made, (3, 32, 32))
    assert made.model.training
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())


def test_a_frozen_network_stays_in_evaluation_mode():
    frozen = freeze(network("resnet8"))
    assert not frozen.train().model.training
    assert not any(p.requires_grad for p in frozen.parameters())


def test_one_seed_is_one_initialisation():
    one, two, other = (network("resnet8", seed=seed).model.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


class Plain(nn.Module):
    """A network as a person writes it, with ReLUs in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(inplace=True))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 9), nn.ReLU(inplace=True), nn.Linear(9, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x)))


def test_a_plain_module_gives_logits_embedding_and_stages_too():
    spec = NetworkSpec(name="module:Plain", classes=10)
    made = build_network(spec, channels=3, side=16, mean=(0.5,) * 3, std=(0.25,) * 3, seed=0, module=Plain())
    shapes = measure_shapes(made, (3, 16, 16))
    assert (shapes.classes, shapes.embedding) == (10, 9)
    assert [str(stage) for stage in shapes.stages] == ["8x16x16", "12x8x8"]
    out = made(pixels(side=16), Need.STAGES | Need.LOGITS)
    assert all(bool((stage >= 0).all()) for stage in out.stages)
    out.stages[1].sum().backward()
    assert made.model.first[0].weight.grad is not None


def ladder(*reductions: float) -> Shapes:
    return Shapes(10, 8, tuple(StageShape(4, round(32 / r), round(32 / r), r) for r in reductions))


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ((1, 2, 4), (1, 2, 4), ((0, 0), (1, 1), (2, 2))),
        ((1, 2, 4), (2, 4, 8), ((1, 0), (2, 1))),
        ((2, 4, 8, 16), (2, 4, 8), ((1, 0), (2, 1), (3, 2))),
        ((16,), (4, 8, 16, 32), ((0, 2),)),
        ((4, 8, 16, 32), (16,), ((3, 0),)),
    ],
)
def test_stages_pair_by_reduction_from_the_deep_end(student, teacher, expected):
    assert pair_stages(ladder(*student), ladder(*teacher), "deep") == expected


def test_published_tables_pair_by_position():
    assert pair_stages(ladder(1, 2, 4), ladder(2, 4, 8, 16), "left") == ((0, 0), (1, 1), (2, 2))


LADDERS = st.lists(st.sampled_from([1, 2, 4, 8, 16, 32]), min_size=1, max_size=5, unique=True).map(sorted)


@given(LADDERS, LADDERS)
def test_pairs_are_one_to_one_and_in_order(student, teacher):
    pairs = pair_stages(ladder(*student), ladder(*teacher), "deep")
    assert pairs
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(pairs))


def test_every_named_pair_is_of_networks_that_exist():
    for made in PAIRS.values():
        for name in (made.teacher, made.student):
            assert timm.is_model(name.partition(":")[0]), name
    assert pair("resnet34/resnet18").student == "resnet18"
    with pytest.raises(InputError, match="did you mean 'resnet56/resnet20'"):
        pair("resnet56-resnet20")


def test_a_fully_connected_network_of_any_widths_is_known_by_its_name():
    made = network("mlp_40_7", channels=2, side=6, classes=3)
    shapes = measure_shapes(made, (2, 6, 6))
    assert network_cost(made, (2, 6, 6)).parameters == (72 + 1) * 40 + (40 + 1) * 7 + (7 + 1) * 3
    assert network_cost(made, (2, 6, 6)).macs == 72 * 40 + 40 * 7 + 7 * 3
    assert ([str(stage) for stage in shapes.stages], shapes.embedding, shapes.classes) == (["40x1x1", "7x1x1"], 7, 3)
    for name in ("mlp", "mlp_", "mlp_0", "mlp_40_07", "mlp_40_", "mlp_100000", "mlp_40x7", "mlp_-3", "my_mlp_40"):
        assert widths_of(name) is None, name
    with pytest.raises(InputError, match="fully connected network is mlp_WIDTH_WIDTH, with a width from 1 to 99999 for each hidden layer"):
        network("mlp_40_07")
    with pytest.raises(InputError, match="'mlp_41_7' is one of kdzoo's or timm's own"):
        names.register_network("mlp_41_7", SharedPool)


def test_unknown_networks_and_pretrained_heads_for_other_classes_are_refused():
    with pytest.raises(InputError, match="did you mean 'resnet20'"):
        network("resnett20")
    with pytest.raises(InputError, match="are for 1000 classes, not 10"):
        network("resnet18", start="pretrained")
    with pytest.raises(InputError, match="no published weights"):
        network("resnet20", start="pretrained", classes=100)


def plain(module: nn.Module, side: int = 32):
    spec = NetworkSpec(name=f"module:{type(module).__name__}", classes=10)
    return build_network(spec, channels=3, side=side, mean=(0.5,) * 3, std=(0.25,) * 3, seed=0, module=module)


class SharedPool(nn.Module):
    """The net of torch's own tutorial: one pooling used twice, ReLUs as functions, no padding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.pool, self.conv2 = nn.Conv2d(3, 6, 5), nn.MaxPool2d(2, 2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2 = nn.Linear(16 * 5 * 5, 20), nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.conv1(x).relu())
        x = self.pool(self.conv2(x).relu())
        return self.fc2(self.fc1(x.flatten(1)).relu())


def test_what_is_only_pooled_is_no_stage_of_a_plain_module():
    assert [str(stage) for stage in measure_shapes(plain(SharedPool()), (3, 32, 32)).stages] == ["6x28x28", "16x10x10"]


class SharedReLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, 2, 1), nn.ReLU()
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.relu(self.conv2(self.relu(self.conv1(x)))).mean((2, 3)))


def test_a_module_used_twice_makes_two_stages():
    made = plain(SharedReLU()).eval()
    images = pixels()
    first = made.model.conv1(made.normalise(images)).relu()
    stages = made(images, Need.STAGES).stages
    assert torch.equal(stages[0], first)
    assert torch.equal(stages[1], made.model.conv2(first).relu())


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + self.norm(self.conv(x))).relu_()


class HandWritten(nn.Module):
    """Blocks that add and activate without a module, squeeze-and-excitation, layers registered out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.hidden = nn.Linear(6, 10), nn.Linear(8, 6)
        self.one, self.down, self.two = Residual(3), nn.Conv2d(3, 8, 3, 2, 1), Residual(8)
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.down(self.one(x))
        return self.fc(self.hidden(self.two(x * self.squeeze(x)).mean((2, 3))))


def test_stages_of_a_plain_module_hold_what_its_blocks_add():
    made = plain(HandWritten()).eval()
    images = pixels()
    out = made(images, Need.LOGITS | Need.STAGES | Need.EMBEDDING | Need.CLASSIFIER)
    assert [tuple(stage.shape[1:]) for stage in out.stages] == [(3, 32, 32), (8, 16, 16)]
    assert torch.equal(out.stages[0], made.model.one(made.normalise(images)))
    assert out.embedding.shape == (2, 6)
    torch.testing.assert_close(out.classifier(out.embedding), out.logits)
    assert torch.equal(out.logits, made.logits(images))


def test_a_plain_module_without_a_linear_layer_still_gives_logits():
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 10, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).mean((2, 3))

    made = plain(Scores())
    assert made.logits(pixels()).shape == (2, 10)
    assert measure_shapes(made, (3, 32, 32)).embedding == 0


@pytest.mark.parametrize(("name", "width"), [("deit_tiny_distilled_patch16_224", 192), ("resnetv2_18", 512), ("levit_128s", 384)])
def test_embeddings_of_networks_with_unusual_heads(name, width):
    side = 224 if name.startswith("levit") else 32
    made = network(name, side=side).eval()
    assert measure_shapes(made, (3, side, side)).embedding == width


def test_a_convolution_as_classifier_maps_the_embedding_to_the_logits():
    out = network("resnetv2_18").eval()(pixels(), Need.LOGITS | Need.EMBEDDING | Need.CLASSIFIER)
    torch.testing.assert_close(out.classifier(out.embedding), out.logits)


def test_of_two_classifiers_none_is_given_as_the_one():
    with pytest.raises(InputError, match="several classifiers"):
        network("deit_tiny_distilled_patch16_224")(pixels(), Need.CLASSIFIER)


@pytest.mark.parametrize("name", ["resnet18d", "resnetv2_18", "densenet121", "convnext_atto", "regnetx_002"])
def test_a_small_stem_leaves_four_pixels_of_32_or_two(name):
    assert measure_shapes(network(name, stem="small"), (3, 32, 32)).stages[-1].height in (2, 4)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "regnetx_002", "resnet18d"])
def test_a_small_stem_keeps_weights_that_still_fit(name):
    standard, small = (network(name, stem=stem).model.state_dict() for stem in ("standard", "small"))
    assert all(torch.equal(standard[key], small[key]) for key in standard)
