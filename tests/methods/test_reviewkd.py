"""Knowledge review: the context loss and the fusion, against plain loops over cells."""

import numpy as np
import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.build_objective import build_objective
from kdzoo.contract.methods import create_method
from kdzoo.contract.needs import Need
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.functional import reviewkd
from kdzoo.models.build import build_network
from kdzoo.models.measure import measure_shapes
from kdzoo.models.network import Network
from kdzoo.models.stages import pair_stages
from kdzoo.runs.spec import NetworkSpec, ObjectiveSpec, TermSpec

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
STUDENT = Shapes(5, 6, (StageShape(3, 4, 6, 1), StageShape(4, 2, 3, 2)))
TEACHER = Shapes(5, 7, (StageShape(5, 8, 8, 1), StageShape(6, 2, 3, 4)))


def pooled(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(C, H, W) averaged over the windows [floor(i H / h), ceil((i + 1) H / h))."""
    _, old_height, old_width = image.shape
    small = np.zeros((len(image), height, width))
    for i in range(height):
        rows = slice(i * old_height // height, -(-(i + 1) * old_height // height))
        for j in range(width):
            columns = slice(j * old_width // width, -(-(j + 1) * old_width // width))
            small[:, i, j] = image[:, rows, columns].mean((1, 2))
    return small


def context(s: np.ndarray, t: np.ndarray) -> float:
    """One level: both maps are pooled, then compared; every pool used has half the weight of the one before."""
    loss, weight, weights = np.mean((s - t) ** 2), 1.0, 1.0
    for side in (4, 2, 1):
        if side >= s.shape[2]:
            continue
        weight /= 2
        small_s, small_t = ([pooled(image, side, min(side, s.shape[3])) for image in maps] for maps in (s, t))
        loss += weight * np.mean((np.array(small_s) - np.array(small_t)) ** 2)
        weights += weight
    return loss / weights


@settings(max_examples=25)
@given(
    batch=st.integers(1, 3), channels=st.integers(1, 3), sides=st.tuples(st.integers(1, 9), st.integers(1, 9)), seed=st.integers(0, 1000)
)
def test_the_context_loss_is_its_definition_for_any_sides_summed_over_levels(batch, channels, sides, seed):
    s = [drawn(batch, channels, *sides, seed=seed), drawn(batch, 2, 3, 3, seed=seed + 1)]
    t = [drawn(batch, channels, *sides, seed=seed + 2), drawn(batch, 2, 3, 3, seed=seed + 3)]
    expected = sum(context(a.numpy(), b.numpy()) for a, b in zip(s, t, strict=True))
    assert reviewkd(s, t).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 8])
def test_a_constant_difference_counts_alike_at_every_size(height):
    """The weight of a pool that is left out is left out of the divisor too."""
    s = torch.full((1, 1, height, height), 3.0)
    assert reviewkd([s], [torch.zeros_like(s)]).item() == pytest.approx(9.0)


@pytest.mark.parametrize(("side", "weights"), [(2, 1.5), (4, 1.75), (8, 1.875)])
def test_a_difference_that_every_pool_cancels_counts_by_the_whole_map_alone(side, weights):
    s = torch.tensor([[(-1.0) ** (i + j) for j in range(side)] for i in range(side)])[None, None]
    assert reviewkd([s], [torch.zeros_like(s)]).item() == pytest.approx(1 / weights)


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = (z.requires_grad_() for z in pair(2, 2, 5, 3))
    assert torch.autograd.gradcheck(lambda x: reviewkd([x], [t]), s)
    reviewkd([s], [t]).backward()
    assert t.grad is None


def normed(x: np.ndarray) -> np.ndarray:
    """What batch norm does before it has seen anything."""
    return x / np.sqrt(1 + 1e-5)


def nearest(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows = [i * x.shape[2] // size[0] for i in range(size[0])]
    columns = [j * x.shape[3] // size[1] for j in range(size[1])]
    return x[:, :, rows][:, :, :, columns]


def convolved(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A 3x3 convolution with a border of zeros."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    found = np.zeros((len(x), len(weight), *x.shape[2:]))
    for i, j in np.ndindex(*x.shape[2:]):
        found[:, :, i, j] = np.einsum("bcyx,ocyx->bo", padded[:, :, i : i + 3, j : j + 3], weight)
    return found


def test_the_fusion_goes_from_the_embedding_to_the_shallowest_stage():
    module = create_method("reviewkd").build(STUDENT, TEACHER, FACTS).double().eval()
    state = {name: value.numpy() for name, value in module.state_dict().items()}
    maps = [drawn(2, 3, 4, 6).numpy(), drawn(2, 4, 2, 3, seed=1).numpy(), drawn(2, 6, 1, 1, seed=2).numpy()]
    sizes = [(8, 8), (2, 3), (1, 1)]
    expected: list[np.ndarray] = []
    deeper = None
    for level in (2, 1, 0):
        x = normed(np.einsum("oc,bchw->bohw", state[f"levels.{level}.enter.0.weight"][:, :, 0, 0], maps[level]))
        if deeper is not None:
            deeper = nearest(deeper, x.shape[2:])
            both = np.concatenate([x, deeper], axis=1)
            weight, bias = (state[f"levels.{level}.weigh.0.{kind}"] for kind in ("weight", "bias"))
            gates = 1 / (1 + np.exp(-np.einsum("oc,bchw->bohw", weight[:, :, 0, 0], both) - bias[None, :, None, None]))
            x = x * gates[:, :1] + deeper * gates[:, 1:]
        deeper = nearest(x, sizes[level])
        expected.insert(0, normed(convolved(deeper, state[f"levels.{level}.leave.0.weight"])))
    with torch.no_grad():
        found = module([torch.tensor(m) for m in maps], sizes)
    assert [m.shape[1] for m in found] == [5, 6, 7]
    for one, other in zip(found, expected, strict=True):
        assert np.allclose(one.numpy(), other)


def loss_of(module: nn.Module, student: dict, teacher: dict) -> torch.Tensor:
    return create_method("reviewkd").loss(outputs("student", **student), outputs("teacher", **teacher), None, module)


def given_of(shapes: Shapes, batch: int, seed: int) -> dict:
    stages = [drawn(batch, s.channels, s.height, s.width, seed=seed + i) for i, s in enumerate(shapes.stages)]
    return {"stages": stages, "embedding": drawn(batch, shapes.embedding, seed=seed + 9)}


def test_the_method_is_the_context_loss_of_the_fused_maps_and_the_embedding():
    module = create_method("reviewkd").build(STUDENT, TEACHER, FACTS).double().eval()
    s, t = given_of(STUDENT, 2, 0), given_of(TEACHER, 2, 20)
    targets = [*t["stages"], t["embedding"][:, :, None, None]]
    with torch.no_grad():
        fused = module([*s["stages"], s["embedding"][:, :, None, None]], [tuple(m.shape[2:]) for m in targets])
    expected = sum(context(a.numpy(), b.numpy()) for a, b in zip(fused, targets, strict=True))
    assert loss_of(module, s, t).item() == pytest.approx(expected)


def test_the_teachers_maps_are_those_before_its_last_activation_where_they_are_given():
    module = create_method("reviewkd").build(STUDENT, TEACHER, FACTS).double().eval()
    s, before = given_of(STUDENT, 2, 0), given_of(TEACHER, 2, 20)
    rectified = [stage.relu() for stage in before["stages"]]
    both = {"stages": rectified, "preact": before["stages"], "embedding": before["embedding"]}
    assert loss_of(module, s, both).item() == loss_of(module, s, before).item()
    assert loss_of(module, s, {**before, "stages": rectified}).item() != loss_of(module, s, before).item()


@pytest.mark.parametrize(("name", "read"), [("resnet14", Need.PREACT), ("test_vit", Need.STAGES)])
def test_a_run_reads_what_the_teacher_has(name, read):
    """Of two real networks: maps before the activation of a ResNet, the tokens of a ViT as they are."""
    teacher, student = (network(one) for one in (name, "resnet8"))
    shapes = [measure_shapes(one, (3, 160, 160)) for one in (student, teacher)]
    pairs = pair_stages(shapes[0], shapes[1], "deep")
    term = TermSpec(method="reviewkd", version="2", hyperparameters={}, coefficient=1.0)
    objective = build_objective(ObjectiveSpec(task=1.0, terms=(term,)), *shapes, pairs, FACTS, label_smoothing=0.0, seed=0)
    assert objective.needs.teacher.outputs == read | Need.EMBEDDING
    images = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    index = torch.arange(2)
    batch = Batch(inputs=images, targets=index, index=index, clock=Progress(19, 240, 0, 1), generator=torch.Generator())
    with torch.no_grad():
        said = teacher(images, objective.needs.teacher.outputs)
        seen = student(images, objective.needs.student.outputs)
        got = objective(seen, said, batch).parts["reviewkd"]
        maps = [(said.preact if read == Need.PREACT else said.stages)[t] for _, t in pairs]
        given = {"stages": [seen.stages[s] for s, _ in pairs], "embedding": seen.embedding}
        expected = loss_of(objective.parts["reviewkd"], given, {"stages": maps, "embedding": said.embedding})
    assert got.item() == pytest.approx(expected.item(), rel=1e-6)


def network(name: str) -> Network:
    spec = NetworkSpec(name=name, classes=5)
    return build_network(spec, channels=3, side=160, mean=(0.5,) * 3, std=(0.25,) * 3, seed=0).eval()


def test_everything_built_learns_also_from_one_image_of_one_cell():
    one = Shapes(5, 4, (StageShape(4, 1, 1, 8),))
    module = create_method("reviewkd").build(one, one, FACTS).double()
    loss_of(module, given_of(one, 1, 0), given_of(one, 1, 20)).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())


def test_it_has_the_published_number_of_parameters_and_width_is_not_ignored():
    same = Shapes(100, 256, tuple(StageShape(c, 4, 4, 1) for c in (64, 128, 256)))
    counts = [
        sum(p.numel() for p in create_method("reviewkd", **given).build(same, same, FACTS).parameters()) for given in ({}, {"width": 64})
    ]
    assert counts[0] == 1_808_774
    assert counts[1] < counts[0] / 3


@pytest.mark.parametrize(("epoch", "factor"), [(0, 0.05), (9, 0.5), (19, 1.0), (200, 1.0)])
def test_the_weight_grows_over_twenty_epochs(epoch, factor):
    assert create_method("reviewkd").ramp(Progress(epoch, 240, 0, 1)) == pytest.approx(factor)
    assert create_method("reviewkd", warmup=1).ramp(Progress(epoch, 240, 0, 1)) == 1.0
