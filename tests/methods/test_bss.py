"""Boundary supporting samples, against loops over samples and steps, on networks whose boundaries are known."""

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
from kdzoo.errors import InputError
from kdzoo.functional import bss
from kdzoo.methods.bss import attack, base_samples, other_classes
from kdzoo.models.build import build_network
from kdzoo.models.network import Network, freeze
from kdzoo.runs.spec import NetworkSpec

UNIT = 51.0
"""pixel values of one unit of normalised images"""


class Linear(nn.Module):
    """Scores that are linear in the pixels of 1x2x3 images."""

    def __init__(self, seed: int = 0, classes: int = 3, factor: float = 0.02) -> None:
        super().__init__()
        self.weight = nn.Parameter(drawn(classes, 6, seed=seed) * factor)
        self.bias = nn.Parameter(drawn(classes, seed=seed + 1))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).double() @ self.weight.T + self.bias


def drawn_images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def softmax(row: np.ndarray) -> np.ndarray:
    powers = np.exp(row - row.max())
    return powers / powers.sum()


def attack_oracle(network: Linear, image: np.ndarray, base: int, other: int, steps: int, rate: float) -> np.ndarray:
    weight, bias = network.weight.detach().numpy(), network.bias.detach().numpy()
    x = image.astype(float).ravel()
    for _ in range(steps):
        scores = weight @ x + bias
        if scores.argmax() != base:
            break
        towards = weight[other] - weight[base]
        x = x + UNIT * rate * (scores[base] - scores[other] + 1e-4) * towards / math.sqrt(sum(towards**2))
        x = np.minimum(np.maximum(x, 0), 255)
    return x.reshape(image.shape)


@settings(max_examples=20)
@given(batch=st.integers(1, 5), classes=st.integers(2, 5), temperature=st.floats(0.5, 6), seed=st.integers(0, 1000))
def test_it_is_the_softened_divergence_over_the_valid_samples_without_the_square_of_the_temperature(batch, classes, temperature, seed):
    s, t = pair(batch, classes, seed=seed, factor=2)
    valid = drawn(batch, seed=seed) > 0
    total = 0.0
    for own, said, counts in zip(s.numpy(), t.numpy(), valid.tolist(), strict=True):
        p, q = softmax(said / temperature), softmax(own / temperature)
        total += counts * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert bss(s, t, valid, temperature=temperature).item() == pytest.approx(total / max(valid.sum().item(), 1), rel=1e-9, abs=1e-12)


def test_without_a_valid_sample_it_is_zero_and_so_is_its_gradient():
    s, t = pair(3, 4, factor=1e4)
    s.requires_grad_()
    loss = bss(s, t, torch.zeros(3, dtype=torch.bool), temperature=3.0)
    loss.backward()
    assert loss.item() == 0
    assert not s.grad.any()


@settings(max_examples=30)
@given(batch=st.integers(1, 8), classes=st.integers(2, 4), seed=st.integers(0, 1000), share=st.floats(0.1, 1))
def test_base_samples_are_those_both_get_right_and_differ_most_on(batch, classes, seed, share):
    s, t = pair(batch, classes, seed=seed, factor=2)
    targets, count = t.argmax(1), max(1, int(share * batch))
    found, valid = base_samples(s, t, targets, count=count)
    scores = {}
    for i, target in enumerate(targets.tolist()):
        if s[i].argmax() == target and t[i].argmax() == target:
            p, q = softmax(t[i].numpy()), softmax(s[i].numpy())
            scores[i] = sum((p[k] - q[k]) ** 2 for k in range(classes) if k != target)
    expected = sorted(scores, key=lambda i: -scores[i])[:count]
    assert found.shape == valid.shape == (count,)
    assert set(found[valid].tolist()) == set(expected)


def test_the_class_to_attack_is_drawn_with_the_teachers_probabilities_and_never_the_target():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    drawn_ = other_classes(logits.expand(20_000, -1), torch.zeros(20_000, dtype=torch.long), torch.Generator().manual_seed(0))
    expected = torch.softmax(logits[0, 1:], 0)
    shares = torch.bincount(drawn_, minlength=4) / 20_000
    assert shares[0] == 0
    assert torch.allclose(shares[1:], expected, atol=0.012)  # three standard errors are 0.010


@pytest.mark.parametrize("factor", [1.0, 1e4])
def test_with_two_classes_the_other_one_is_attacked_however_sure_the_teacher_is(factor):
    logits, targets = drawn(50, 2, factor=factor), torch.arange(50) % 2
    assert torch.equal(other_classes(logits, targets, torch.Generator().manual_seed(0)), 1 - targets)


def test_the_draw_is_the_generators():
    logits, targets = drawn(50, 5), torch.arange(50) % 5
    first, again, other = (other_classes(logits, targets, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), steps=st.integers(1, 10), rate=st.floats(0.01, 3))
def test_an_attack_is_the_papers_iteration_for_each_image_by_itself(seed, steps, rate):
    network = Linear(seed)
    images = drawn_images(5, 1, 2, 3, seed=seed).double()
    base = network(images).argmax(1)
    other = (base + 1 + torch.arange(5) % 2) % 3
    moved = attack(network, images, base, other, steps=steps, rate=rate)
    for i in range(5):
        expected = attack_oracle(network, images[i].numpy(), int(base[i]), int(other[i]), steps, rate)
        assert np.allclose(moved[i].numpy(), expected, atol=1e-6)


def test_an_image_of_another_class_is_not_moved():
    network, images = Linear(), drawn_images(4, 1, 2, 3)
    wrong = (network(images).argmax(1) + 1) % 3
    moved = attack(network, images, wrong, (wrong + 1) % 3, steps=5, rate=0.3)
    assert torch.equal(moved, images.float())


def test_pixels_stay_pixels_however_far_the_boundary_is():
    network, images = Linear(factor=1e4), drawn_images(6, 1, 2, 3)
    base = network(images).argmax(1)
    moved = attack(network, images, base, (base + 1) % 3, steps=10, rate=0.3)
    assert moved.min() >= 0
    assert moved.max() <= 255
    assert torch.isfinite(moved).all()


def test_a_teacher_without_a_gradient_leaves_the_image():
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return 0.0 * images.flatten(1)[:, :3] + torch.tensor([2.0, 1.0, 0.0])

    images = drawn_images(2, 1, 2, 3)
    moved = attack(Constant(), images, torch.tensor([0, 0]), torch.tensor([1, 2]), steps=3, rate=0.3)
    assert torch.equal(moved, images.float())


def given_of(student: nn.Module, teacher: nn.Module, images: Tensor, targets: Tensor) -> tuple[Outputs, Outputs, Batch]:
    size = len(images)
    seen = (Outputs.of({Need.LOGITS: network(images), Need.NETWORK: network}, owner="network") for network in (student, teacher))
    batch = Batch(
        inputs=images,
        targets=targets,
        index=torch.arange(size),
        clock=Progress(0, 1, 0, 1),
        generator=torch.Generator().manual_seed(0),
    )
    return *seen, batch


def test_the_method_attacks_a_quarter_of_the_batch_and_compares_both_networks_there():
    student, teacher, images = Linear(0), Linear(0), drawn_images(16, 1, 2, 3)
    with torch.no_grad():
        student.bias += 0.3 * drawn(3, seed=5)
    targets = teacher(images).argmax(1)
    loss = create_method("bss").loss(*given_of(student, teacher, images, targets), nn.Module())
    loss.backward()
    found, valid = base_samples(student(images), teacher(images), targets, count=4)
    other = other_classes(teacher(images)[found], targets[found], torch.Generator().manual_seed(0))
    moved = [
        attack_oracle(teacher, images[i].numpy(), int(targets[i]), int(k), 10, 0.3)
        for i, k in zip(found.tolist(), other.tolist(), strict=True)
    ]
    inputs = torch.from_numpy(np.stack(moved))
    expected = bss(student(inputs), teacher(inputs), valid, temperature=3.0)
    assert valid.any()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)
    assert student.weight.grad.any()
    assert teacher.weight.grad is None


def test_where_no_sample_qualifies_nothing_is_learnt():
    student, teacher, images = Linear(0), Linear(0), drawn_images(8, 1, 2, 3)
    targets = (teacher(images).argmax(1) + 1) % 3
    loss = create_method("bss").loss(*given_of(student, teacher, images, targets), nn.Module())
    loss.backward()
    assert loss.item() == 0
    assert not student.weight.grad.any()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_small_batches_are_attacked_too(size):
    student, teacher, images = Linear(0), Linear(0), drawn_images(size, 1, 2, 3)
    loss = create_method("bss").loss(*given_of(student, teacher, images, teacher(images).argmax(1)), nn.Module())
    assert torch.isfinite(loss)


def built(name: str, seed: int = 0, **settings_) -> Network:
    spec = NetworkSpec(name=name, classes=5, start="random", **settings_)
    return build_network(spec, channels=3, side=32, mean=(0.5,) * 3, std=(0.25,) * 3, seed=seed)


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "vgg8"), ("test_vit", "resnet8"), ("resnet8", "test_vit")])
def test_networks_of_any_kind_and_the_teacher_stays_as_it_was(student, teacher):
    learner, frozen = (built(name, image_size=160 if name == "test_vit" else None) for name in (student, teacher))
    images, needs = drawn_images(8, 3, 32, 32), Need.LOGITS | Need.NETWORK
    frozen = freeze(frozen)
    before = copy.deepcopy(frozen.state_dict())
    with torch.no_grad():
        taught = frozen(images, needs)
    seen = learner.train()(images, needs)
    targets = taught.logits.argmax(1)
    seen = seen.with_values({Need.LOGITS: taught.logits + seen.logits * 1e-3})
    batch = given_of(Linear(), Linear(), drawn_images(8, 1, 2, 3), targets)[2]
    batch = Batch(inputs=images, targets=targets, index=batch.index, clock=batch.clock, generator=batch.generator)
    loss = create_method("bss", steps=2).loss(seen, taught, batch, nn.Module())
    loss.backward()
    assert loss.item() > 0
    assert any(p.grad.any() for p in learner.parameters() if p.grad is not None)
    assert all(torch.equal(before[name], value) for name, value in frozen.state_dict().items())
    assert all(p.grad is None for p in frozen.parameters())


def test_its_weight_falls_to_zero_at_three_quarters():
    method = create_method("bss")
    assert [method.ramp(Progress(0, 1, step, 8)) for step in (0, 3, 6, 7)] == pytest.approx([1.0, 0.5, 0.0, 0.0])
    with pytest.raises(InputError, match=r"bss\.share: expected a number <= 1, got 2"):
        create_method("bss", share=2.0)
