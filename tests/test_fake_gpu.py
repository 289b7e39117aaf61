"""The losses of a step on a GPU that is not there: nothing is copied between it and the host, and no result waits for a number.

Torch's fake tensors know shapes and devices but hold no numbers. An operation on tensors of two devices raises on them as it
does on a GPU, and so does all that would read a number. The backward needs a driver and is left out.
"""

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from turns import part_of

from kdzoo.contract.batch import Progress
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need
from kdzoo.methods.hinton import Hinton
from kdzoo.models.placement import Placement
from kdzoo.runs.options import WorkerOptions
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.run.untrained import Untrained, bind
from kdzoo.training.cohort import Cohort
from kdzoo.training.graphs import why_not_recorded
from kdzoo.training.located import Modules
from kdzoo.training.member import Member, StepInputs
from kdzoo.training.run_student import build_member

FITTING = [name for name in REGISTRY.names_for_images() if Need.DISTILLED not in REGISTRY.get(name).card.needs.student.outputs]
"""methods that this student can learn by"""
DRAWN = {"crd": "methods/crd.py", "mgd": "methods/mgd.py"}
"""what they draw is drawn where their generator lives, for want of a GPU here on the CPU, and copied"""


class Copies(TorchDispatchMode):
    """The operators that touch both devices, each by the file of the package that calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if len({leaf.device.type for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)}) > 1:
            self.found.append(_caller())
        return result


def _caller() -> str:
    return next(frame.filename.rpartition("/kdzoo/")[2] for frame in reversed(traceback.extract_stack()) if "/kdzoo/" in frame.filename)


class OnFakeGpu:
    """Tensors of a CPU as fake ones of a GPU, each the same whenever it is asked for."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, tensor: Tensor) -> Tensor:
        if tensor.device.type == "cuda":
            return tensor
        if id(tensor) not in self._made:
            fake = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="cuda")
            if isinstance(tensor, nn.Parameter):
                fake = nn.Parameter(fake, requires_grad=tensor.requires_grad)
            self._made[id(tensor)] = (tensor, fake)
        return self._made[id(tensor)][1]

    def move(self, root: nn.Module) -> None:
        for module in root.modules():
            for values in (module._parameters, module._buffers):
                values.update({name: None if value is None else self(value) for name, value in values.items()})


def members(folder: Path, methods: list[str]) -> Iterator[tuple[Member, Cohort, StepInputs]]:
    """Runs of these methods on the digits, each under an untrained teacher of its own, and a batch."""
    options = {"data": "digits", "pairs": "digits", "recipe": "digits", "limit": 128, "seeds": "1", "set": {"recipe.batch_size": 16}}
    made = plan(bench_config({**options, "results": str(folder), "methods": ",".join(methods)}, None))
    for planned in made.students:
        located, untrained, execution = bind(planned, made), Untrained(Modules()), Placement(WorkerOptions(teacher_cache=0))
        dataset, splits = untrained.data(located)
        teacher, shapes = untrained.live_teacher(located, execution) if located.run.teacher else (None, None)
        member = build_member(located, dataset, splits, shapes, execution, Modules())
        cohort = Cohort([member], splits, teacher, execution)
        drawn = cohort.plan_epoch(0)
        loaded, answers = drawn.load(torch.arange(cohort.block)), cohort.open_answers(drawn)
        inputs, batch = drawn.gather(loaded, Progress(0, 10, 0, 100))
        yield member, cohort, StepInputs(inputs, None if answers is None else answers.at(loaded.positions, inputs), batch, loaded.size)


def copies_of_losses(member: Member, cohort: Cohort, given: StepInputs) -> set[str]:
    """The files in which the losses of a step and their sums touch both the device and the host."""
    member.prepare_recording()
    member.begin_step(given.batch.clock)
    move = OnFakeGpu()
    with FakeTensorMode():
        for root in (member.network, member.objective, *([cohort.teacher.network] if cohort.teacher is not None else [])):
            move.move(root)
        for number in (member.numbers.step, *member.objective.factors.values()):
            number.tensor = move(number.tensor)
        there = StepInputs(
            {which: move(images) for which, images in given.inputs.items()},
            None if given.teacher is None else given.teacher.map(move),
            given.batch.map(move),
            given.size,
        )
        member.device = torch.device("cuda")
        with Copies() as copies:
            losses = member.losses(there.inputs, there.teacher, there.batch, there.size)
            member.tally.add(losses, given.size, member.numbers.step.tensor)
    return set(copies.found)


def test_no_loss_that_is_recorded_copies_anything_between_host_and_device(tmp_path, monkeypatch):
    """A twelfth of the methods at each commit (see turns.py)."""
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    found = {}
    for member, cohort, given in members(tmp_path, sorted({"hinton", *part_of(FITTING, 12)})):
        if why_not_recorded([member]) is None:
            found[member.run.objective.label] = copies_of_losses(member, cohort, given)
    assert found
    assert {name: files for name, files in found.items() if files} == {name: {DRAWN[name]} for name in found if name in DRAWN}


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: (x * torch.ones(10)).sum(),
        lambda x: (x * torch.ones(10).to(x.device)).sum(),
        lambda x: x.sum() * x.sum().cpu().to(x.device),
        lambda x: x[x > 0].sum(),
        lambda x: x.sum() * (2 if x.sum().item() > 0 else 1),
        lambda x: x.sum() * (2 if (x > 0).any() else 1),
    ],
    ids=["a tensor of the host", "a copy to the device", "a copy from it", "a mask", "a number that is read", "a branch by a value"],
)
def test_what_touches_the_host_is_found(tmp_path, monkeypatch, loss):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Hinton, "loss", lambda self, student, teacher, batch, module: loss(student.logits))
    (member, cohort, given) = next(one for one in members(tmp_path, ["hinton"]) if one[0].run.objective.terms)
    try:
        found = copies_of_losses(member, cohort, given)
    except RuntimeError as error:  # by which a fake tensor refuses what it has no number for, or two devices
        found = {str(error)}
    assert found
