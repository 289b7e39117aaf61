"""What the sides of a measurement share: images, networks, weights, and kdzoo's own cohorts of real runs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import timm
import torch
from speed_clock import LeftOut
from torch import nn

from kdzoo.contract.card import Setting
from kdzoo.data.dataset import Dataset
from kdzoo.data.split import split
from kdzoo.models.build import build_network
from kdzoo.models.checkpoints import read_state
from kdzoo.models.measure import NetworkCost, network_cost
from kdzoo.models.names import load_zoo
from kdzoo.models.placement import Placement
from kdzoo.models.weights import file_sha256, load_state, save_student
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.recipe import Recipe
from kdzoo.runs.spec import DataSpec, NetworkSpec, ObjectiveSpec, Run
from kdzoo.runs.store import Store
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.objectives import objective
from kdzoo.suite.plan.recipe_files import recipe_file
from kdzoo.suite.plan.requests import parse_request
from kdzoo.training.cohort import Cohort
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.run_student import build_member
from kdzoo.training.run_teacher import load_teacher

RECIPE = "crd240"
TEMPERATURES = (4.0, 1.0, 8.0, 2.0, 3.0, 5.0, 6.0, 10.0, 16.0, 1.5, 2.5, 3.5, 7.0, 12.0, 14.0, 20.0)
ALPHAS = (0.9, 0.5, 0.1, 0.7)
CACHED_IMAGES = 1024
"""training images of a cohort whose teacher is remembered: few enough that a measurement can fill the cache"""
CALIBRATION_IMAGES = 256

CacheSize = Literal["off", "auto"]
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Setup:
    """One pair at one batch size on one device. scratch: a folder for weights and runs that is thrown away afterwards."""

    teacher: str
    student: str
    batch: int
    images: Dataset
    device: torch.device
    threads: int
    channels_last: bool | None
    precision: Precision
    scratch: Path

    @property
    def pair(self) -> str:
        return f"{self.teacher}/{self.student}"

    @property
    def classes(self) -> int:
        return len(self.images.classes)

    def recipe(self) -> Recipe:
        return recipe_file(RECIPE).resolve(self.student, {"batch_size": self.batch, "precision": self.precision})

    def data(self, limit: int | None) -> DataSpec:
        whole = len(self.images.train.targets)
        kept = None if limit is None or limit >= whole else limit
        return DataSpec(name=self.images.name, fingerprint=self.images.fingerprint, classes=self.classes, val_fraction=0.0, limit=kept)


def execution_for(setup: Setup, cache: CacheSize) -> Placement:
    """How kdzoo's side is executed: as the bench would, from the same options."""
    asked = bench_config({"teacher_cache": cache}, None).teacher_cache
    layout = setup.channels_last
    return Placement(WorkerOptions(device=str(setup.device), threads=setup.threads, keep=(), channels_last=layout, teacher_cache=asked))


def sweep(runs: int) -> list[ObjectiveSpec]:
    """Hinton's KD at so many settings of temperature and alpha: 1, 3, 4, 8 (4 x 2), 9 (3 x 3), 16, 27 (9 x 3) or 64 (16 x 4)."""
    shapes = {1: (1, 1), 3: (3, 1), 4: (4, 1), 8: (4, 2), 9: (3, 3), 16: (16, 1), 27: (9, 3), 64: (16, 4)}
    temperatures, alphas = shapes[runs]
    request = parse_request("hinton")
    return [
        objective(request, Setting(alpha=alpha), {"hinton": {"temperature": temperature}}, "deep", epochs=240)
        for temperature, alpha in itertools.product(TEMPERATURES[:temperatures], ALPHAS[:alphas])
    ]


def at_published_weights(methods: Sequence[str]) -> list[ObjectiveSpec]:
    """Each of these methods once."""
    return [objective(parse_request(name), Setting(), {}, "deep", epochs=240) for name in methods]


def cohort_for(
    setup: Setup,
    runs: int,
    cache: CacheSize,
    *,
    limit: int | None = None,
    teacher: int = 0,
    recipe: Recipe | None = None,
    test_images: int = 1,
) -> Cohort:
    """A cohort of `runs` runs of `sweep`, as `cohort_of` assembles it; 0 runs is the student alone."""
    return cohort_of(setup, sweep(runs) if runs else [], cache, limit=limit, teacher=teacher, recipe=recipe, test_images=test_images)


def cohort_of(
    setup: Setup,
    objectives: Sequence[ObjectiveSpec],
    cache: CacheSize,
    *,
    limit: int | None = None,
    teacher: int = 0,
    recipe: Recipe | None = None,
    test_images: int = 1,
) -> Cohort:
    """A cohort of a run for each objective, assembled as the bench assembles it; of the student alone where there is none.

    limit, test_images: how many training and test images are used. teacher: the seed of the teacher's weights; other
    weights share no cache. Raises LeftOut where the teacher cache cannot be had, with the reason.
    """
    execution = execution_for(setup, cache)
    path = teacher_file(setup.teacher, setup.images, teacher, setup.scratch)
    start = f"file:{file_sha256(path)}"
    located_runs = [
        LocatedRun(run, Store(setup.scratch).run(run.id), {"teacher": str(path)})
        for spec in (objectives or [ObjectiveSpec(task=1.0)])
        for run in [
            Run(
                student=NetworkSpec(name=setup.student, classes=setup.classes),
                teacher=NetworkSpec(name=setup.teacher, classes=setup.classes, start=start) if objectives else None,
                data=setup.data(limit),
                recipe=recipe or setup.recipe(),
                objective=spec,
                seed=0,
            )
        ]
    ]
    parts = split(setup.images, located_runs[0].run.data).truncate_eval(test_images)
    served = load_teacher(located_runs[0], setup.images, parts, execution, Modules())
    taught, shapes = served or (None, None)
    members = [build_member(located, setup.images, parts, shapes, execution, Modules()) for located in located_runs]
    cohort = Cohort(members, parts, taught, execution)
    kept = cohort.open_teacher_cache()
    if isinstance(kept, str):
        raise LeftOut(kept)
    cohort.teacher_cache = kept
    return cohort


@lru_cache
def teacher_file(name: str, images: Dataset, seed: int, folder: Path) -> Path:
    """Weights of a teacher whose batch norms have seen these images; nothing is timed that depends on how good it is."""
    spec = NetworkSpec(name=name, classes=len(images.classes))
    network = build_network(spec, channels=images.channels, side=images.height, mean=images.mean, std=images.std, seed=seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the running statistics become the mean over the batches
    with torch.no_grad():
        network.train().logits(images.train.images[:CALIBRATION_IMAGES])
    path = folder / f"{name}-{seed}.safetensors"
    save_student(network, path, {"architecture": name})
    return path


def plain_networks(setup: Setup) -> tuple[nn.Module, nn.Module]:
    """The same two architectures as the timm models they are: a frozen teacher with the same weights, and a new student."""
    wanted = {"num_classes": setup.classes, "in_chans": setup.images.channels}
    load_zoo()
    teacher, student = (timm.create_model(name, **wanted) for name in (setup.teacher, setup.student))
    path = teacher_file(setup.teacher, setup.images, 0, setup.scratch)
    load_state(teacher, read_state(path), str(path))
    return teacher.to(setup.device).eval().requires_grad_(False), student.to(setup.device).train()


def costs(setup: Setup) -> dict[str, NetworkCost]:
    """Parameters and multiply-accumulates of one image of teacher and student."""
    shape = (setup.images.channels, setup.images.height, setup.images.width)
    found = {}
    for role, name in (("teacher", setup.teacher), ("student", setup.student)):
        spec = NetworkSpec(name=name, classes=setup.classes)
        found[role] = network_cost(
            build_network(spec, channels=shape[0], side=shape[1], mean=setup.images.mean, std=setup.images.std, seed=0), shape
        )
    return found
