"""Distilled attention, against Grad-CAM in loops, networks whose maps are known, and the second derivative by the weights."""

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
from kdzoo.contract.method import stages_read
from kdzoo.contract.methods import create_method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.errors import InputError
from kdzoo.functional import lwm
from kdzoo.methods._ops import last_of_several, several
from kdzoo.methods.lwm import grad_cam, scored
from kdzoo.models.build import build_network
from kdzoo.models.measure import measure_shapes
from kdzoo.models.network import Network, freeze
from kdzoo.models.stages import pair_stages
from kdzoo.runs.spec import NetworkSpec

FACTS = DataFacts(10, 3, torch.arange(10) % 3)
SHAPES = Shapes(3, 4, (StageShape(3, 4, 4, 1), StageShape(4, 2, 2, 2)))
BOTH = Need.STAGES | Need.LOGITS


class Smooth(nn.Module):
    """A network on images of one channel and 4x4 pixels in 0..255 with two stages and three classes."""

    def __init__(self, seed: int, widths: tuple[int, int] = (3, 4)) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Conv2d(1, widths[0], 3, padding=1), nn.Conv2d(widths[0], widths[1], 2, stride=2)
        self.classifier = nn.Linear(widths[1], 3)
        self.double()

    def outputs(self, images: Tensor, need: Need) -> Outputs:
        first = self.first(images.double() / 128 - 1).tanh()
        second = nn.functional.softplus(self.second(first))
        values = {Need.STAGES: [first, second], Need.LOGITS: self.classifier(second.mean((2, 3))), Need.NETWORK: self}
        return Outputs.of(values, owner="network").restrict_to(need)

    def forward(self, images: Tensor) -> Tensor:
        return self.outputs(images, Need.LOGITS).logits


def batch_of(images: Tensor, classes: int) -> Batch:
    size = len(images)
    return Batch(
        inputs=images,
        targets=torch.arange(size) % classes,
        index=torch.arange(size),
        clock=Progress(0, 1, 0, 1),
        generator=torch.Generator(),
    )


def drawn_images(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def cam_oracle(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    cams = np.zeros((len(features), *features.shape[2:]))
    for b in range(len(features)):
        weights = [gradients[b, c].mean() for c in range(features.shape[1])]
        for i, j in np.ndindex(features.shape[2:]):
            cams[b, i, j] = max(0.0, sum(w * features[b, c, i, j] for c, w in enumerate(weights)))
    return cams


def oracle(student: np.ndarray, teacher: np.ndarray) -> float:
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        a, b = (cam.ravel() / max(math.sqrt(sum(cam.ravel() ** 2)), 1e-12) for cam in (s, t))
        total += sum(abs(x - y) for x, y in zip(a, b, strict=True))
    return total / student.size


@settings(max_examples=20)
@given(shape=st.tuples(*[st.integers(1, 5)] * 3), seed=st.integers(0, 1000))
def test_it_is_the_mean_distance_of_normalised_maps(shape, seed):
    s, t = (z.relu() for z in pair(*shape, seed=seed))
    assert lwm(s, t).item() == pytest.approx(oracle(s.numpy(), t.numpy()), rel=1e-9, abs=1e-12)


@settings(max_examples=20)
@given(shape=st.tuples(*[st.integers(1, 4)] * 4), seed=st.integers(0, 1000))
def test_grad_cam_weighs_the_activations_by_their_mean_gradients(shape, seed):
    features, gradients = pair(*shape, seed=seed)
    assert np.allclose(grad_cam(features, gradients).numpy(), cam_oracle(features.numpy(), gradients.numpy()))


def test_gradients_weighed_by_themselves_are_another_map():
    features, gradients = pair(2, 3, 4, 4)
    assert not np.allclose(grad_cam(features, gradients).numpy(), cam_oracle(gradients.numpy(), gradients.numpy()))


def test_where_the_classifier_reads_the_mean_of_the_map_it_is_the_class_activation_map():
    network, batch = Smooth(0), batch_of(drawn_images(4, 1, 4, 4), 3)
    seen = network.outputs(batch.inputs, BOTH)
    cams = grad_cam(seen.stages[1], scored(seen.stages[1], seen.logits, batch.targets, differentiable=False))
    rows = network.classifier.weight[batch.targets]
    expected = torch.einsum("bc,bchw->bhw", rows, seen.stages[1]).relu() / 4
    assert torch.allclose(cams, expected)


def test_the_gradients_at_a_shallow_stage_are_the_numerical_ones():
    network, batch = Smooth(0), batch_of(drawn_images(2, 1, 4, 4), 3)
    seen = network.outputs(batch.inputs, BOTH)
    found = scored(seen.stages[0], seen.logits, batch.targets, differentiable=False)

    def score(first: Tensor) -> float:
        second = nn.functional.softplus(network.second(first))
        return network.classifier(second.mean((2, 3))).gather(1, batch.targets[:, None]).sum().item()

    for place in np.ndindex(tuple(found.shape)):
        step = torch.zeros_like(found)
        step[place] = 1e-5
        expected = (score(seen.stages[0] + step) - score(seen.stages[0] - step)) / 2e-5
        assert found[place].item() == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("stage", [0, None])
def test_the_students_weights_get_the_derivative_of_the_whole_loss(stage):
    student, teacher, batch = Smooth(0), Smooth(1, widths=(5, 6)).requires_grad_(False), batch_of(drawn_images(4, 1, 4, 4), 3)
    method = create_method("lwm", stage=stage)

    def loss() -> Tensor:
        return method.loss(
            student.outputs(batch.inputs, BOTH), teacher.outputs(batch.inputs, Need.NETWORK), batch, method.build(SHAPES, SHAPES, FACTS)
        )

    found = torch.autograd.grad(loss(), list(student.parameters()), allow_unused=True)
    assert any(gradient is not None and gradient.any() for gradient in found)
    for parameter, gradient in zip(student.parameters(), found, strict=True):
        for place in np.ndindex(tuple(parameter.shape)):
            before, values = parameter[place].item(), []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter[place] = before + sign * 1e-6
                values.append(loss().item())
            with torch.no_grad():
                parameter[place] = before
            expected = (values[0] - values[1]) / 2e-6
            assert (0.0 if gradient is None else gradient[place].item()) == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(("stage", "index"), [(None, 1), (0, 0), (1, 1)])
def test_the_method_compares_the_maps_of_the_chosen_stage(stage, index):
    student, teacher, batch = Smooth(0), Smooth(1, widths=(5, 6)).requires_grad_(False), batch_of(drawn_images(4, 1, 4, 4), 3)
    method = create_method("lwm", stage=stage)
    loss = method.loss(student.outputs(batch.inputs, BOTH), teacher.outputs(batch.inputs, Need.NETWORK), batch, nn.Module())
    cams = []
    for network in (student, teacher):
        seen = network.outputs(batch.inputs.double().requires_grad_(), BOTH)
        gradients = scored(seen.stages[index], seen.logits, batch.targets, differentiable=False)
        cams.append(cam_oracle(seen.stages[index].detach().numpy(), gradients.numpy()))
    assert loss.item() == pytest.approx(oracle(*cams), rel=1e-5)


def test_a_larger_map_is_pooled_to_the_smaller_before_the_norm():
    s, t = drawn(2, 4, 6).abs(), drawn(2, 2, 3, seed=1).abs()
    halved = s.numpy().reshape(2, 2, 2, 3, 2).mean((2, 4))
    assert lwm(s, t).item() == pytest.approx(oracle(halved, t.numpy()))


def test_maps_of_zeros_give_numbers():
    features = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = lwm(grad_cam(features, drawn(2, 3, 4, 4).float()), drawn(2, 4, 4).abs().float())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(features.grad).all()


def built(name: str, seed: int = 0, **settings_) -> Network:
    spec = NetworkSpec(name=name, classes=5, start="random", **settings_)
    return build_network(spec, channels=3, side=32, mean=(0.5,) * 3, std=(0.25,) * 3, seed=seed)


def paired(student: Network, teacher: Network, seen: Outputs, batch: Batch) -> tuple[Outputs, Outputs]:
    """What a method is handed of both: the stages that are paired."""
    stages = pair_stages(measure_shapes(student, (3, 32, 32)), measure_shapes(teacher, (3, 32, 32)), "deep")
    with torch.no_grad():
        taught = teacher(batch.inputs, Need.NETWORK)
    return seen.restrict_to(BOTH, [s for s, _ in stages]), taught.restrict_to(Need.NETWORK, [t for _, t in stages])


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "vgg8"), ("vgg8", "convnext_atto"), ("convnext_atto", "resnet8")])
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_convolutional_networks_of_any_kind_are_differentiated_twice(student, teacher, precision):
    learner, frozen = built(student).train(), freeze(built(teacher, seed=1))
    batch = batch_of(drawn_images(4, 3, 32, 32), 5)
    before = copy.deepcopy(frozen.state_dict())
    with torch.autocast("cpu", dtype=precision or torch.bfloat16, enabled=precision is not None):
        seen = learner(batch.inputs, BOTH)
    loss = create_method("lwm").loss(*paired(learner, frozen, seen, batch), batch, nn.Module())
    loss.backward()
    assert loss.dtype == torch.float32
    gradients = [p.grad for p in learner.parameters() if p.grad is not None]
    assert any(g.any() for g in gradients)
    assert all(torch.isfinite(g).all() for g in gradients)
    assert all(torch.equal(before[name], value) for name, value in frozen.state_dict().items())
    assert all(p.grad is None for p in frozen.parameters())


@pytest.mark.parametrize(("student", "teacher"), [("test_vit", "resnet8"), ("resnet8", "test_vit")])
def test_a_stage_that_is_a_copy_of_tokens_is_refused(student, teacher):
    networks = [built(name, image_size=160 if name == "test_vit" else None) for name in (student, teacher)]
    batch = batch_of(drawn_images(2, 3, 32, 32), 5)
    given_ = paired(*networks, networks[0](batch.inputs, BOTH), batch)
    with pytest.raises(InputError, match=r"reads the gradient of the class scores at a stage \(\d+x\d+x\d+\), but this network does not"):
        create_method("lwm").loss(*given_, batch, nn.Module())


def test_a_stage_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="stage: expected 0 to 1, got 2; the paired stages are 3x4x4 under 3x4x4, 4x2x2 under 4x2x2"):
        create_method("lwm", stage=2).build(SHAPES, SHAPES, FACTS)


@pytest.mark.parametrize(
    ("stages", "stage"), [((), None), ((StageShape(4, 1, 1, 8),), None), ((*SHAPES.stages, StageShape(5, 1, 1, 8)), 2)]
)
def test_maps_of_one_cell_say_nothing_of_where_and_are_refused(stages, stage):
    with pytest.raises(InputError, match=r"for which both need several cells; the .*stages are (none|.*[45]x1x1 (and|under) .*[45]x1x1)"):
        create_method("lwm", stage=stage).build(Shapes(3, 4, stages), Shapes(3, 4, stages), FACTS)


def test_each_networks_own_last_map_of_several_cells_is_taken_unless_a_pair_is_told():
    assert several([(8, 8), (4, 4), (2, 2)], [(8, 8), (2, 2), (1, 1)]) == [0, 1]
    assert several([(8, 8), (1, 4)], [(8, 8), (4, 1)]) == [0]
    assert last_of_several([(4, 4), (2, 2), (1, 1)], [(8, 8), (4, 4), (2, 2)]) == (1, 2)
    assert last_of_several([(4, 1)], [(1, 4)]) is None
    assert [stages_read(create_method("lwm", stage=stage)) for stage in (None, 1)] == ["own", "paired"]
