"""Matched gradients, against finite differences of smooth networks, down to the second derivative by the weights."""

import copy
import math

import numpy as np
import pytest
import torch
from drawn import drawn, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.methods import create_method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.functional import sobolev
from kdzoo.methods.sobolev import saliency
from kdzoo.models.build import build_network
from kdzoo.models.network import Network, freeze
from kdzoo.runs.spec import NetworkSpec


def smooth(seed: int) -> nn.Sequential:
    """A network on images of one channel and 2x3 pixels in 0..255 with three classes."""
    torch.manual_seed(seed)
    return nn.Sequential(Pixels(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()


class Pixels(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).double() / 128 - 1


def batch_of(images: Tensor, classes: int, seed: int = 0) -> Batch:
    size = len(images)
    return Batch(
        inputs=images,
        targets=torch.arange(size) % classes,
        index=torch.arange(size),
        clock=Progress(0, 1, 0, 1),
        generator=torch.Generator().manual_seed(seed),
    )


def drawn_images(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def oracle(student: np.ndarray, teacher: np.ndarray) -> float:
    total, count = 0.0, student.size
    for s, t in zip(student, teacher, strict=True):
        lengths = [math.sqrt(sum(value**2 for value in g.ravel())) for g in (s, t)]
        total += sum((a / lengths[0] - b / lengths[1]) ** 2 for a, b in zip(s.ravel(), t.ravel(), strict=True))
    return total / count


@settings(max_examples=20)
@given(shape=st.tuples(*[st.integers(1, 4)] * 4), seed=st.integers(0, 1000))
def test_it_is_the_mean_square_between_directions(shape, seed):
    s, t = pair(*shape, seed=seed)
    assert sobolev(s, t).item() == pytest.approx(oracle(s.numpy(), t.numpy()), rel=1e-9, abs=1e-12)


def test_the_size_of_a_gradient_does_not_count_and_its_sign_does():
    s, t = pair(3, 2, 4, 5)
    scales = torch.tensor([0.1, 3.0, 1e4], dtype=torch.float64).view(-1, 1, 1, 1)
    assert sobolev(s * scales, t).item() == pytest.approx(sobolev(s, t).item())
    assert sobolev(t, t).item() == 0
    assert sobolev(-t, t).item() == pytest.approx(4 / 40)


def test_gradients_of_zeros_give_numbers():
    s = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = sobolev(s, drawn(2, 3, 4, 4).float())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(s.grad).all()


def test_a_saliency_is_the_change_of_the_right_score_with_each_pixel():
    network, images, targets = smooth(0), drawn_images(3, 1, 2, 3).double(), torch.tensor([0, 1, 2])
    found = saliency(network, images, targets, differentiable=False)
    for place in np.ndindex(tuple(images.shape)):
        step = torch.zeros_like(images)
        step[place] = 1e-4
        up, down = (network(images + sign * step)[place[0], targets[place[0]]].item() for sign in (1, -1))
        assert found[place].item() == pytest.approx((up - down) / 2e-4, rel=1e-6, abs=1e-10)
    assert not found.requires_grad


def test_the_students_weights_get_the_derivative_of_the_whole_loss():
    """The numerical derivative of the loss by each weight, which passes through the gradient by the pixels."""
    student, teacher, batch = smooth(0), smooth(1), batch_of(drawn_images(4, 1, 2, 3).double(), 3)

    def loss() -> Tensor:
        given_ = (Outputs.of({Need.NETWORK: network}, owner="network") for network in (student, teacher))
        return create_method("sobolev").loss(*given_, batch, nn.Module())

    found = torch.autograd.grad(loss(), list(student.parameters()), allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(student.parameters(), found, strict=True):
            for place in np.ndindex(tuple(parameter.shape)):
                before = parameter[place].item()
                values = []
                for sign in (1, -1):
                    parameter[place] = before + sign * 1e-5
                    values.append(loss().item())
                parameter[place] = before
                expected = (values[0] - values[1]) / 2e-5
                assert (0.0 if gradient is None else gradient[place].item()) == pytest.approx(expected, rel=1e-4, abs=1e-8)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_method_is_the_function_of_both_saliencies():
    student, teacher, batch = smooth(0), smooth(1), batch_of(drawn_images(4, 1, 2, 3), 3)
    given_ = (Outputs.of({Need.NETWORK: network}, owner="network") for network in (student, teacher))
    loss = create_method("sobolev").loss(*given_, batch, nn.Module())
    s, t = (saliency(network, batch.inputs, batch.targets, differentiable=False) for network in (student, teacher))
    assert loss.item() == pytest.approx(oracle(s.numpy(), t.numpy()), rel=1e-5)


def built(name: str, seed: int = 0, **settings_) -> Network:
    spec = NetworkSpec(name=name, classes=5, start="random", **settings_)
    return build_network(spec, channels=3, side=32, mean=(0.5,) * 3, std=(0.25,) * 3, seed=seed)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (built("resnet8"), built("vgg8", seed=1)),
        (built("test_vit", image_size=160), built("resnet8", seed=1)),
        (built("resnet8"), built("test_vit", seed=1, image_size=160)),
    ],
)
def test_networks_of_any_kind_are_differentiated_twice(student, teacher):
    batch = batch_of(drawn_images(4, 3, 32, 32), 5)
    teacher = freeze(teacher)
    before = copy.deepcopy(teacher.state_dict())
    given_ = [network.train()(batch.inputs, Need.NETWORK) for network in (student, teacher)]
    create_method("sobolev").loss(*given_, batch, nn.Module()).backward()
    gradients = [p.grad for p in student.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(g).all() for g in gradients)
    assert any(g.any() for g in gradients)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


def test_what_the_students_layers_drop_is_the_methods_own_draw():
    class Dropping(nn.Sequential):
        pass

    torch.manual_seed(0)
    student, teacher = Dropping(Pixels(), nn.Dropout(0.5), nn.Linear(6, 3)).double().train(), smooth(1)
    batch = batch_of(drawn_images(4, 1, 2, 3), 3)

    def loss(seed: int) -> Tensor:
        torch.manual_seed(seed)
        given_ = (Outputs.of({Need.NETWORK: network}, owner="network") for network in (student, teacher))
        return create_method("sobolev").loss(*given_, batch, nn.Module())

    assert torch.equal(loss(1), loss(2))
