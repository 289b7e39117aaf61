"""Multiply-accumulates: attention is counted on every device and by every kernel, and published numbers come out."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kdzoo.models.build import build_network
from kdzoo.models.measure import network_cost
from kdzoo.runs.spec import NetworkSpec


def macs(name: str, side: int = 224, module: nn.Module | None = None) -> int:
    spec = NetworkSpec(name=name, classes=1000)
    network = build_network(spec, channels=3, side=side, mean=(0.5,) * 3, std=(0.5,) * 3, seed=0, module=module)
    return network_cost(network, (3, side, side)).macs


def of_a_vit(tokens: int, width: int, blocks: int, patch: int, classes: int, extra: int = 1) -> int:
    """By hand: the patches' projection; queries, keys and values, both products of attention, its projection, two layers of 4 x width."""
    length = tokens + extra
    block = length * width * 3 * width + 2 * length * length * width + length * width * width + 2 * length * width * 4 * width
    return tokens * 3 * patch * patch * width + blocks * block + width * classes


def test_the_products_of_attention_are_in_what_a_vit_costs():
    assert macs("deit_tiny_patch16_224") == of_a_vit(196, 192, 12, 16, 1000) == 1_253_683_200
    assert macs("vit_small_patch16_224") == of_a_vit(196, 384, 12, 16, 1000)


@pytest.mark.parametrize("backend", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION])
def test_what_a_network_costs_does_not_hang_on_the_kernel_that_was_chosen(backend):
    with sdpa_kernel(backend):
        assert macs("deit_tiny_patch16_224", side=224) == 1_253_683_200


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "mobilenetv2_100"])
def test_what_a_network_costs_is_the_same_on_a_gpu(name):
    spec = NetworkSpec(name=name, classes=1000)
    network = build_network(spec, channels=3, side=224, mean=(0.5,) * 3, std=(0.5,) * 3, seed=0)
    here = network_cost(network, (3, 224, 224))
    assert network_cost(network.cuda(), (3, 224, 224)) == here


# Multiply-accumulates in billions as the papers and torchvision's and DeiT's tables give them, to the digits that they give.
@pytest.mark.parametrize(
    ("name", "published", "digits"),
    [
        ("mobilenetv2_100", 0.300, 3),
        ("efficientnet_b0", 0.39, 2),
        ("resnext50_32x4d", 4.23, 2),
        ("vit_small_patch16_224", 4.6, 1),
        ("swin_tiny_patch4_window7_224", 4.5, 1),
        ("convnext_tiny", 4.5, 1),
    ],
)
def test_published_costs_come_out_for_depthwise_and_grouped_convolutions_and_for_attention_in_windows(name, published, digits):
    assert macs(name) / 1e9 == pytest.approx(published, abs=1.2 * 10**-digits)


class Encoder(nn.Module):
    """torch's own transformer layer, which in evaluation runs as one operation that hides its products."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
        self.fc = nn.Linear(32, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.layer(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


def test_torchs_own_transformer_layers_are_counted_and_its_fast_path_is_left_as_it_was():
    length, width = 16, 32
    layer = length * width * 3 * width + 2 * length * length * width + length * width * width + 2 * length * width * 64
    expected = length * 3 * 8 * 8 * width + layer + width * 1000
    assert macs("module:Encoder", side=32, module=Encoder()) == expected
    assert torch.backends.mha.get_fastpath_enabled()
