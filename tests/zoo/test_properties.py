"""What holds of every method for all shapes, sizes and precisions: its loss and gradients are finite, in float32.

A method may refuse two networks while it is built, with the reason; what it builds must work. Those that read the
networks themselves are run on two small real ones. At each commit every method has a third of the properties tried, those of
its turn (see turns.py).
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from turns import part_of

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.build_objective import build_objective
from kdzoo.contract.guard import named_tensors
from kdzoo.contract.method import LossWithAux, Method
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need, NetworkNeeds, Pass
from kdzoo.contract.objective import Objective
from kdzoo.contract.outputs import Outputs, with_passes
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.errors import InputError
from kdzoo.models.build import build_network
from kdzoo.models.measure import measure_shapes, with_random_embeddings
from kdzoo.models.network import Network, Peer, freeze
from kdzoo.models.stages import pair_stages
from kdzoo.runs.spec import NetworkSpec, ObjectiveSpec, TermSpec
from kdzoo.seeds import generator, global_stream

ZOO = [name for name in REGISTRY.names() if REGISTRY.get(name).__module__.startswith("kdzoo.")]
ON_NETWORKS = [name for name in ZOO if Need.NETWORK in REGISTRY.get(name).card.needs.student | REGISTRY.get(name).card.needs.teacher]
ON_OUTPUTS = [name for name in ZOO if name not in ON_NETWORKS]
ON_LOGITS = [name for name in ON_OUTPUTS if Need.LOGITS in REGISTRY.get(name).card.needs.student]
ON_MAPS = [name for name in ON_OUTPUTS if (Need.STAGES | Need.PREACT) & REGISTRY.get(name).card.needs.teacher.outputs]

SAMPLES = 24
SIDES = st.integers(1, 11)
OBLONG = st.tuples(st.integers(2, 11), st.integers(2, 11)).filter(lambda size: size[0] != size[1])
CHANNELS = st.integers(1, 9)
CLASSES = st.integers(2, 12)
BATCHES = st.integers(1, 9)
SEEDS = st.integers(0, 1000)
HALVES = st.sampled_from([torch.bfloat16, torch.float16])

few = settings(max_examples=6, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def maps(*sizes: tuple[int, int, int]) -> tuple[StageShape, ...]:
    """Stages (channels, height, width), shallow to deep, each of half the resolution of the last."""
    return tuple(StageShape(channels, height, width, 2.0**depth) for depth, (channels, height, width) in enumerate(sizes))


THREE = ((3, 8, 8), (4, 4, 4), (6, 2, 2))
FOUR = ((4, 8, 8), (5, 4, 4), (7, 2, 2), (8, 1, 1))


@dataclass
class Step:
    """A built method with what two made-up networks gave for one batch."""

    method: Method
    module: nn.Module
    student: Outputs
    teacher: Outputs
    batch: Batch

    def losses(self, *, autocast: bool = False) -> list[Tensor]:
        """The loss, and what the method trains by beside it."""
        needs = self.method.card.needs
        seen = [self.student.restrict_to(needs.student), self.teacher.restrict_to(needs.teacher)]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            given = self.method.loss(*seen, self.batch.restrict_to(needs.student.outputs, self.batch.generator), self.module)
        return list(given) if isinstance(given, LossWithAux) else [given]

    def sound(self, *, autocast: bool = False) -> None:
        """The loss is a float32 scalar, and finite, and so is every gradient that it gives."""
        losses = self.losses(autocast=autocast)
        for loss in losses:
            assert loss.dtype == torch.float32
            assert loss.shape == ()
            assert torch.isfinite(loss), f"the loss is {loss}"
        sum(losses).backward()
        made = dict(named_tensors("the student's", self.student, without=Need.CLASSIFIER))
        for name, tensor in {**made, **dict(self.module.named_parameters())}.items():
            assert tensor.grad is None or torch.isfinite(tensor.grad).all(), f"the gradient of {name} is not finite"


def step(
    name: str,
    *,
    student: Shapes,
    teacher: Shapes,
    batch: int = 4,
    seed: int = 0,
    factor: float = 1.0,
    dtype: torch.dtype = torch.float32,
    rounded: torch.dtype = torch.float32,
    layout: torch.memory_format = torch.contiguous_format,
) -> Step:
    """A step of a method, its outputs rounded to one precision and given in another; raises InputError where it refuses the networks."""
    method, classes = REGISTRY.get(name)(), student.classes
    with global_stream(seed, "classifiers"):
        student, teacher = (
            replace(shapes, classifier=nn.Linear(shapes.embedding, classes).requires_grad_(False)) for shapes in (student, teacher)
        )
    teacher = with_random_embeddings(teacher)
    with global_stream(seed, "build"):
        module = method.build(student, teacher, DataFacts(SAMPLES, classes, torch.arange(SAMPLES) % classes)).train()
    random = generator(seed, "outputs")

    def drawn(*shape: int, grad: bool, factor: float = 1.0) -> Tensor:
        made = (torch.randn(*shape, generator=random) * factor).to(rounded).to(dtype)
        return (made.contiguous(memory_format=layout) if made.ndim == 4 else made).requires_grad_(grad)

    def given(shapes: Shapes, grad: bool) -> dict[Need, Any]:
        logits = drawn(batch, classes, grad=grad, factor=factor)
        stages = [drawn(batch, s.channels, s.height, s.width, grad=grad) for s in shapes.stages]
        return {
            Need.LOGITS: logits,
            Need.MEMBERS: [logits, drawn(batch, classes, grad=grad, factor=factor)],
            Need.EMBEDDING: drawn(batch, shapes.embedding, grad=grad),
            Need.STAGES: stages,
            Need.PREACT: [drawn(*s.shape, grad=grad) for s in stages],
            Need.DISTILLED: drawn(batch, classes, grad=grad, factor=factor),
            Need.CLASSIFIER: copy.deepcopy(shapes.classifier).to(rounded).to(dtype).requires_grad_(grad),
        }

    def seen(shapes: Shapes, grad: bool, owner: str) -> Outputs:
        return with_passes({which: Outputs.of(given(shapes, grad), owner=owner) for which in Pass})

    ticket = Batch(
        inputs=torch.zeros(batch, 3, 8, 8, dtype=torch.uint8),
        targets=torch.arange(batch) % classes,
        index=torch.arange(batch),
        clock=Progress(epoch=1, epochs=4, step=7, steps=20),
        generator=generator(seed, "step"),
    )
    return Step(method, module, seen(student, True, "student"), seen(teacher, False, "teacher"), ticket)


def shapes(stages: tuple[StageShape, ...], classes: int = 5, width: int | None = None) -> Shapes:
    """A network whose embedding is, unless said, as wide as its last stage, as it is where that is pooled."""
    return Shapes(classes, width or stages[-1].channels, stages)


def usual(name: str, **changes: Any) -> Step:
    """A step of two networks of different width and equal resolutions."""
    classes = changes.pop("classes", 5)
    return step(name, student=shapes(maps(*THREE), classes), teacher=shapes(maps((4, 8, 8), (6, 4, 4), (9, 2, 2)), classes), **changes)


def refused_or_sound(name: str, student: Shapes, teacher: Shapes, **changes: Any) -> None:
    """Either the method refuses the two networks while it is built, or its step is sound."""
    try:
        made = step(name, student=student, teacher=teacher, **changes)
    except InputError:
        return
    made.sound()


# Methods on what networks gave ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", part_of(ON_OUTPUTS, 3, begin=0))
@few
@given(seed=SEEDS, classes=CLASSES)
def test_a_batch_of_one_image(name, seed, classes):
    usual(name, batch=1, seed=seed, classes=classes).sound()


@pytest.mark.parametrize("name", part_of(ON_OUTPUTS, 3, begin=1))
@few
@given(seed=SEEDS, batch=BATCHES)
def test_two_classes(name, seed, batch):
    usual(name, batch=batch, seed=seed, classes=2).sound()


@pytest.mark.parametrize("name", part_of(ON_LOGITS, 3, begin=2))
@few
@given(seed=SEEDS, batch=BATCHES, classes=CLASSES, factor=st.sampled_from([1e-4, 1e2, 1e3, 1e4]))
def test_logits_of_any_size(name, seed, batch, classes, factor):
    usual(name, batch=batch, seed=seed, classes=classes, factor=factor).sound()


@pytest.mark.parametrize("name", part_of(ON_OUTPUTS, 3, begin=0))
@few
@given(seed=SEEDS, batch=BATCHES, dtype=HALVES)
def test_outputs_in_half_precision(name, seed, batch, dtype):
    usual(name, batch=batch, seed=seed, dtype=dtype).sound()


@pytest.mark.parametrize("name", part_of(ON_OUTPUTS, 3, begin=1))
@few
@given(seed=SEEDS, batch=BATCHES, dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_under_autocast(name, seed, batch, dtype):
    usual(name, batch=batch, seed=seed, dtype=dtype).sound(autocast=True)


@pytest.mark.parametrize("name", part_of(ON_MAPS, 3, begin=2))
@few
@given(seed=SEEDS, batch=BATCHES)
def test_maps_stored_channels_last(name, seed, batch):
    usual(name, batch=batch, seed=seed, layout=torch.channels_last).sound()


@pytest.mark.parametrize("name", part_of(ON_OUTPUTS, 3, begin=0))
@few
@given(seed=SEEDS, batch=BATCHES, size=OBLONG, channels=st.tuples(CHANNELS, CHANNELS, CHANNELS))
def test_maps_that_are_not_square(name, seed, batch, size, channels):
    height, width = size
    stages = maps(*((c, math.ceil(height / 2**i), math.ceil(width / 2**i)) for i, c in enumerate(channels)))
    step(name, student=shapes(stages), teacher=shapes(stages), batch=batch, seed=seed).sound()


@pytest.mark.parametrize("name", part_of(ON_OUTPUTS, 3, begin=1))
@few
@given(seed=SEEDS, batch=BATCHES, sizes=st.lists(st.tuples(CHANNELS, SIDES, SIDES, CHANNELS, SIDES, SIDES), min_size=1, max_size=4))
def test_channels_and_sizes_of_two_families(name, seed, batch, sizes):
    student, teacher = maps(*(size[:3] for size in sizes)), maps(*(size[3:] for size in sizes))
    refused_or_sound(name, shapes(student), shapes(teacher), batch=batch, seed=seed)


@pytest.mark.parametrize("name", part_of(ON_OUTPUTS, 3, begin=2))
@few
@given(seed=SEEDS, pairing=st.sampled_from(["deep", "left"]), more=st.booleans())
def test_three_stages_and_four(name, seed, pairing, more):
    fewer, other = shapes(maps(*THREE)), shapes(maps(*FOUR))
    student, teacher = (other, fewer) if more else (fewer, other)
    pairs = pair_stages(student, teacher, pairing)
    assert len(pairs) == 3
    refused_or_sound(name, student.pick([s for s, _ in pairs]), teacher.pick([t for _, t in pairs]), seed=seed)


@pytest.mark.parametrize("name", part_of(ON_OUTPUTS, 3, begin=0))
@few
@given(seed=SEEDS, batch=BATCHES, student=st.tuples(CHANNELS, SIDES), teacher=st.tuples(CHANNELS, SIDES))
def test_one_stage_alone_as_transformers_have(name, seed, batch, student, teacher):
    tokens, other = (maps((channels, side, side)) for channels, side in (student, teacher))
    refused_or_sound(name, shapes(tokens), shapes(other), batch=batch, seed=seed)


@pytest.mark.parametrize("name", part_of(ON_OUTPUTS, 3, begin=1))
@few
@given(seed=SEEDS, batch=BATCHES, widths=st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_embeddings_of_any_width(name, seed, batch, widths):
    student, teacher = shapes(maps(*THREE), width=widths[0]), shapes(maps(*THREE), width=widths[1])
    refused_or_sound(name, student, teacher, batch=batch, seed=seed)


# Methods on networks --------------------------------------------------------------------------------------------------


@cache
def built(name: str, classes: int) -> Network:
    """A small network of two stages for images of any size."""
    spec = NetworkSpec(name=name, classes=classes, start="random")
    return build_network(spec, channels=3, side=16, mean=(0.5,) * 3, std=(0.25,) * 3, seed=0)


def tiny(name: str, classes: int, factor: float = 1.0, layout: torch.memory_format = torch.contiguous_format) -> Network:
    """A copy of a small network, its logits multiplied by a factor."""
    made = copy.deepcopy(built(name, classes))
    with torch.no_grad():
        made.classifier.weight.mul_(factor)
    return made.to(memory_format=layout)


def run_on_networks(
    name: str,
    *,
    classes: int = 5,
    batch: int = 4,
    size: tuple[int, int] = (16, 16),
    seed: int = 0,
    factor: float = 1.0,
    precision: torch.dtype = torch.float32,
    layout: torch.memory_format = torch.contiguous_format,
) -> None:
    """A real step of two small networks: a finite loss in float32, finite gradients, and a teacher left as it was."""
    student, teacher = (tiny(n, classes, factor, layout) for n in ("digits_student", "digits_teacher"))
    before = copy.deepcopy(freeze(teacher).state_dict())
    objective = objective_of(name, student, teacher, size, classes)
    images = torch.randint(0, 256, (batch, 3, *size), generator=generator(seed, "images"), dtype=torch.uint8)
    ticket = Batch(
        inputs=images,
        targets=torch.arange(batch) % classes,
        index=torch.arange(batch),
        clock=Progress(1, 4, 7, 20),
        generator=generator(seed, "step"),
    )
    needs = objective.needs
    student.train(batch > 1)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision is not torch.float32):
        seen = both(student, images, needs.student)
        with torch.no_grad():
            taught = both(teacher, images, needs.teacher)
    losses = objective(seen, taught, ticket)
    assert losses.total.dtype == torch.float32
    assert all(torch.isfinite(part) for part in losses.parts.values()), losses.parts
    losses.total.backward()
    parameters = [*student.named_parameters(), *objective.named_parameters()]
    assert all(torch.isfinite(p.grad).all() for _, p in parameters if p.grad is not None)
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())


def objective_of(name: str, student: Network, teacher: Network, size: tuple[int, int], classes: int) -> Objective:
    method = REGISTRY.get(name)()
    probed, shapes = (measure_shapes(network, (3, *size)) for network in (student, teacher))
    taught = with_random_embeddings(shapes)
    found = replace(probed, fresh=lambda: Peer(tiny("digits_student", classes)))
    stages = pair_stages(found, taught, "deep")
    term = TermSpec(method=name, version=method.card.version, hyperparameters=method.model_dump(mode="json"), coefficient=1.0)
    facts = DataFacts(SAMPLES, classes, torch.arange(SAMPLES) % classes)
    return build_objective(ObjectiveSpec(task=1.0, terms=(term,)), found, taught, stages, facts, label_smoothing=0.0, seed=0)


def both(network: Network, images: Tensor, needs: NetworkNeeds) -> Outputs:
    """What a network gives for the images, and for the same images mirrored where another pass is read."""
    return with_passes({which: network(images if which is Pass.FIRST else images.flip(-1), needs.outputs) for which in needs.passes})


@pytest.mark.parametrize("name", part_of(ON_NETWORKS, 3, begin=2))
@few
@given(seed=SEEDS, classes=CLASSES)
def test_networks_of_one_image(name, seed, classes):
    run_on_networks(name, batch=1, seed=seed, classes=classes)


@pytest.mark.parametrize("name", part_of(ON_NETWORKS, 3, begin=0))
@few
@given(seed=SEEDS, batch=st.integers(2, 6), size=st.tuples(st.integers(8, 20), st.integers(8, 20)), classes=CLASSES)
def test_networks_of_images_of_any_size_and_number(name, seed, batch, size, classes):
    run_on_networks(name, batch=batch, seed=seed, size=size, classes=classes)


@pytest.mark.parametrize("name", part_of(ON_NETWORKS, 3, begin=1))
@few
@given(seed=SEEDS, factor=st.sampled_from([1e2, 1e4]), classes=st.sampled_from([2, 7]))
def test_networks_that_are_very_sure(name, seed, factor, classes):
    run_on_networks(name, seed=seed, factor=factor, classes=classes)


@pytest.mark.parametrize("name", part_of(ON_NETWORKS, 3, begin=2))
@few
@given(seed=SEEDS, batch=st.integers(2, 6))
def test_networks_under_autocast(name, seed, batch):
    run_on_networks(name, seed=seed, batch=batch, precision=torch.bfloat16)


@pytest.mark.parametrize("name", part_of(ON_NETWORKS, 3, begin=0))
@few
@given(seed=SEEDS, batch=st.integers(2, 6))
def test_networks_stored_channels_last(name, seed, batch):
    run_on_networks(name, seed=seed, batch=batch, layout=torch.channels_last)
