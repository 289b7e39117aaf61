"""Is what a GPU computes what a CPU computes? Each check gives a record with what was found, what was asked for, and whether it holds."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import steps
import torch
from speed_kdzoo import stack_of, training
from speed_setup import Setup, cohort_for
from torch import Tensor

import kdzoo
from kdzoo.contract.methods import REGISTRY
from kdzoo.data.loader import place_on_device
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.spec import Run
from kdzoo.runs.store import Store, teacher_store
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.run.train_runs import train_runs
from kdzoo.suite.run.worker_state import WorkerState
from kdzoo.training.cohort import Cohort
from kdzoo.training.graphs import StepGraphs
from kdzoo.training.recorder import recorder_of

SWEEP = 3
STEPS = 8
LOSS_TOLERANCE = 1e-3
"""between devices or kernels, relative, over the first steps: rounding grows from step to step"""
ACCURACY_TOLERANCE = 0.08
"""between two whole benches on a few hundred test images, of which one is 0.3 points"""

Record = dict[str, Any]


def check(name: str, found: object, asked: object, holds: bool, **more: object) -> Record:
    return {"check": name, "found": found, "asked": asked, "holds": holds, **more}


@contextmanager
def exact_products() -> Iterator[None]:
    """Products in full float32: TF32 keeps ten bits, and would be taken for a fault."""
    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolution


def quick_bench(device: str, epochs: int = 5, launcher: str = "local") -> Record:
    """The quick bench on the digits on a device and on the CPU: every method's accuracy within a few images."""
    found = {}
    for place in dict.fromkeys(("cpu", device)):  # one bench where the device is the CPU
        with tempfile.TemporaryDirectory() as results:
            board = kdzoo.bench(
                methods=["hinton", "at"],
                quick=True,
                epochs=epochs,
                seeds=1,
                refit=False,
                execution=kdzoo.Execution(device=place, jobs=1, launcher=launcher),
                results=results,
                name=place,
            )
        found[place] = {str(row["method"]): float(row["test_top1"]) for row in board.to_dict("records") if row["method"] != "teacher"}
    furthest = max(abs(found["cpu"][method] - found[device][method]) for method in found["cpu"])
    return check(f"quick bench on {device} and cpu", furthest, ACCURACY_TOLERANCE, furthest <= ACCURACY_TOLERANCE, top1=found)


def first_losses(setup: Setup) -> Record:
    """The first steps of a small sweep on the device and on the CPU, in float32: the same losses up to rounding."""
    with exact_products():
        here = losses_of(cohort_for(setup, SWEEP, "off", limit=few(setup)))
        there = losses_of(cohort_for(replace(setup, device=torch.device("cpu")), SWEEP, "off", limit=few(setup)))
    apart = relative(here, there)
    return check(f"losses of {STEPS} steps on {setup.device.type} and cpu", apart, LOSS_TOLERANCE, apart <= LOSS_TOLERANCE, pair=setup.pair)


def stacked(setup: Setup) -> Record:
    """Students that are one batched computation against the same students one by one."""
    with exact_products():
        serial = losses_of(cohort_for(setup, SWEEP, "off", limit=few(setup)))
        cohort = cohort_for(setup, SWEEP, "off", limit=few(setup))
        cohort.batched = stack_of(cohort, setup)
        apart = relative(losses_of(cohort), serial)
    return check("stacked students against serial", apart, LOSS_TOLERANCE, apart <= LOSS_TOLERANCE, pair=setup.pair)


def recorded(setup: Setup) -> Record:
    """Steps that are replayed as CUDA graphs against the same steps as they come; nothing to compare where there are no graphs."""
    name, recorder = "replayed steps against computed ones", recorder_of(setup.device)
    if isinstance(recorder, str):
        return check(name, "no graphs", LOSS_TOLERANCE, setup.device.type != "cuda", pair=setup.pair)
    with exact_products():
        serial = losses_of(cohort_for(setup, SWEEP, "off", limit=few(setup)))
        cohort = cohort_for(setup, SWEEP, "off", limit=few(setup))
        cohort.graphs = StepGraphs(recorder, cohort.learners, cohort.block)
        apart = relative(losses_of(cohort), serial)
    replayed = all(cohort.graphs.records(member) for member in cohort.members)
    holds = apart <= LOSS_TOLERANCE and replayed
    return check(name, apart, LOSS_TOLERANCE, holds, pair=setup.pair, notes=cohort.graphs.new_notes())


def remembered(setup: Setup) -> Record:
    """A teacher whose outputs are read back from the device's memory against the live one."""
    with exact_products():
        alive = losses_of(cohort_for(setup, SWEEP, "off", limit=few(setup)))
        cohort = cohort_for(setup, SWEEP, "auto", limit=few(setup))
        losses_of(cohort, replay=True)
        cohort = cohort_for(setup, SWEEP, "auto", limit=few(setup))
        apart = relative(losses_of(cohort), alive)
    assert cohort.teacher_cache is not None
    share = cohort.teacher_cache.hits / max(cohort.teacher_cache.lookups, 1)
    places = {values.device.type for values in cohort.teacher_cache._values.values()}
    holds = apart <= LOSS_TOLERANCE and places == {setup.device.type} and share > 0
    return check("the teacher cache on the device", apart, LOSS_TOLERANCE, holds, on=sorted(places), hits=share)


def resident(setup: Setup) -> Record:
    """Training images that lie on the device."""
    cohort = cohort_for(setup, 1, "off", limit=few(setup))
    images = place_on_device(cohort.splits, setup.device).train.images
    place = getattr(images, "device", torch.device("cpu")).type
    return check("training images on the device", place, setup.device.type, place == setup.device.type)


def methods_step(device: str, precision: str, methods: Sequence[str] | None) -> Record:
    """One step of the methods named, or of the whole zoo, on the digits in half precision: which failed, and why."""
    options = WorkerOptions(device=device, keep=())
    with tempfile.TemporaryDirectory() as folder:
        asked = {
            "methods": "hinton",
            "temperatures": "4",
            "seeds": "1",
            "results": folder,
            "name": "methods",
            "data": "digits",
            "pairs": "digits",
        }
        step = {"data": "digits", "pairs": "digits", "recipe": "digits", "limit": 64, "val_fraction": 0.0, "epochs": 1, "refit": False}
        changes = {"recipe.batch_size": 64, "recipe.precision": precision, "teacher_recipe.epochs": 1}
        made = plan(bench_config({**asked, **step, "set": changes}, None))
        (planned,) = (p for p in made.students if p.run.teacher is not None)
        for teacher in made.teachers.values():
            teacher_store().run(teacher.run.id).plan(teacher.run, teacher.about)
            train_runs(teacher_store(), [teacher.run.id], WorkerOptions(device=device), WorkerState(), lambda _: None, lambda: False)
        runs = {
            name: steps.own_loss(planned.run, name)
            for name in methods or REGISTRY.names_for_images()
            if not REGISTRY.get(name).card.pretrain
        }
        failed = _train(made.store, runs, planned.about, options)
    return check(f"one step of {len(runs)} methods in {precision}", len(failed), 0, not failed, failed=failed, methods=len(runs))


def _train(store: Store, runs: dict[str, Run], about: Record, options: WorkerOptions) -> dict[str, str]:
    """Train every run; the last line of the error of each that failed, by method."""
    for run in runs.values():
        store.run(run.id).plan(run, about)
    for recipe in {str(run.recipe): run.recipe for run in runs.values()}.values():
        train_runs(store, [run.id for run in runs.values() if run.recipe == recipe], options, WorkerState(), lambda _: None, lambda: False)
    return {name: store.run(run.id).failure().error for name, run in runs.items() if store.run(run.id).state() != "done"}


def few(setup: Setup) -> int:
    """Training images for a few steps: four batches, and one of each class at least."""
    return max(4 * setup.batch, setup.classes)


def losses_of(cohort: Cohort, *, replay: bool = False) -> list[Tensor]:
    """The running mean of every member's loss after each of the first steps."""
    trained = training(cohort, replay=replay)
    means = []
    for _ in range(STEPS):
        next(trained)
        means.append(torch.tensor([member.tally.means()["loss"] for member in cohort.members]))
    return means


def relative(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference, relative to the largest value of its step."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True))


def cache_of(folder: Path) -> Path:
    """The folder that teachers and the cache of these checks are kept in."""
    return folder / "checks"
