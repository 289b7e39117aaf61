"""What a step costs under each use of the teacher's cache: logits alone, logits and stages, stages that do not fit, RandAugment.

    python benchmarks/cache_mixes.py            # writes results/speed/cache-mixes.json and prints the table; a minute or two

Processor time of this process on one thread, for two tiny networks of the literature on random images of 32x32. Each cohort
trains the epochs of its mix through the step that `kdzoo bench` runs, its files written at the end of each; a second cohort of the
same runs then finds the cache filled, as a later session does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from speed_setup import Setup, teacher_file

from kdzoo.contract.batch import Progress
from kdzoo.contract.card import Setting
from kdzoo.data.canonical import Raw, make_dataset
from kdzoo.data.dataset import Dataset
from kdzoo.data.split import split
from kdzoo.models.placement import Placement
from kdzoo.models.weights import file_sha256
from kdzoo.runs.environment import environment
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.recipe import Augment, Recipe
from kdzoo.runs.spec import NetworkSpec, ObjectiveSpec, Run
from kdzoo.runs.store import Store
from kdzoo.suite.plan.objectives import objective
from kdzoo.suite.plan.requests import parse_request
from kdzoo.training.cohort import Cohort
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.run_student import build_member
from kdzoo.training.run_teacher import load_teacher
from kdzoo.training.train import open_answers, step

TEACHER, STUDENT = "resnet20", "resnet8"
IMAGES, BATCH, EPOCHS = 512, 64, 4
LOGITS_ALONE = 64 * 1024**2
"""bytes: room for logits and embeddings of every view, and not for stages"""
ROOM = 32 * 1024**3
"""bytes: room for everything; disk is taken only as rows are written"""
CROPS = Augment(crop="pad", pad=4, flip=True)
RANDAUGMENT = CROPS.model_copy(update={"randaugment": 2})
RESULTS = Path(__file__).resolve().parent.parent / "results" / "speed" / "cache-mixes.json"


def random_images(count: int) -> Dataset:
    """Noise: nothing that is timed depends on what a network knows of it."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count + 100, 32, 32, 3), generator=generator, dtype=torch.uint8).numpy()
    labels = (torch.arange(count + 100) % min(count, 100)).numpy()  # every class has a training image
    return make_dataset("noise", Raw((pixels[:count], labels[:count]), (pixels[count:], labels[count:])))


def cohorts(setup: Setup, methods: Sequence[str], augment: Augment, cache: int, mix: int) -> Iterator[Cohort]:
    """The cohorts of these methods' runs, as the bench assembles them. mix: other teachers' weights share no cache."""
    path = teacher_file(setup.teacher, setup.images, mix, setup.scratch)
    recipe = Recipe(epochs=EPOCHS, batch_size=setup.batch, lr=0.05, augment=augment, precision=setup.precision)
    teacher = NetworkSpec(name=setup.teacher, classes=setup.classes, start=f"file:{file_sha256(path)}")
    located_runs = []
    for name in methods:
        spec = ObjectiveSpec(task=1.0) if name == "none" else objective(parse_request(name), Setting(), {}, "deep", epochs=EPOCHS)
        run = Run(
            student=NetworkSpec(name=setup.student, classes=setup.classes),
            teacher=None if name == "none" else teacher,
            data=setup.data(None),
            recipe=recipe,
            objective=spec,
            seed=0,
        )
        located_runs.append(LocatedRun(run, Store(setup.scratch).run(run.id), {"teacher": str(path)}))
    execution = Placement(WorkerOptions(threads=1, keep=(), teacher_cache=cache))
    parts = split(setup.images, located_runs[0].run.data).truncate_eval(1)
    found = load_teacher(located_runs[0], setup.images, parts, execution, Modules())
    taught, shapes = found or (None, None)
    made = Cohort(
        [build_member(located, setup.images, parts, shapes, execution, Modules()) for located in located_runs], parts, taught, execution
    )
    for one in made.split_by_cache(shapes):
        kept = one.open_teacher_cache()
        yield replace(one, teacher_cache=None if isinstance(kept, str) else kept)


def seconds_a_step(cohort: Cohort, epochs: Sequence[int]) -> float:
    """Processor time of a step of all members, the median over these epochs, with what opening and closing an epoch takes."""
    found = []
    for epoch in epochs:
        began = time.process_time()
        plan = cohort.plan_epoch(epoch)
        answers = open_answers(cohort, plan, 0, lambda _: None)
        for number, loaded in enumerate(plan.batches(), start=epoch * cohort.steps_an_epoch):
            step(cohort, plan, loaded, Progress(epoch, EPOCHS, number, EPOCHS * cohort.steps_an_epoch), answers)
        if cohort.teacher_cache is not None:
            cohort.teacher_cache.flush()
        found.append((time.process_time() - began) / cohort.steps_an_epoch)
    return statistics.median(found)


MIXES: tuple[tuple[str, tuple[str, ...], Augment, int], ...] = (
    ("student alone", ("none",), CROPS, 0),
    ("hinton, live teacher", ("hinton",), CROPS, 0),
    ("hinton", ("hinton",), CROPS, ROOM),
    ("hinton under RandAugment", ("hinton",), RANDAUGMENT, ROOM),
    ("at, live teacher", ("at",), CROPS, 0),
    ("at, stages cached", ("at",), CROPS, ROOM),
    ("at, stages do not fit", ("at",), CROPS, LOGITS_ALONE),
    ("hinton and at, stages cached", ("hinton", "at"), CROPS, ROOM),
    ("hinton and at, stages do not fit", ("hinton", "at"), CROPS, LOGITS_ALONE),
)


def measure(setup: Setup, rounds: int) -> list[dict[str, object]]:
    """A row for each mix: milliseconds of a step and run in the first epochs, and in the same ones of a later session."""
    rows: list[dict[str, object]] = []
    for mix, (name, methods, augment, cache) in enumerate(MIXES):
        row: dict[str, object] = {"mix": name, "runs": len(methods)}
        for session in ("first", "warm"):
            spent = 0.0
            for one in cohorts(setup, methods, augment, cache, mix):
                spent += seconds_a_step(one, range(rounds))
                if one.teacher_cache is not None:
                    row["disk_mb"] = round(one.teacher_cache.report()["bytes"] / 1024**2, 1)
            row[f"{session}_ms"] = round(1000 * spent / len(methods), 1)
        rows.append(row)
        print(row, flush=True)
    return rows


def table(rows: Sequence[dict[str, object]]) -> str:
    """The rows as Markdown, each beside the student alone."""
    alone = float(str(rows[0]["warm_ms"]))
    lines = ["| mix | first epochs | later session | disk |", "| --- | --- | --- | --- |"]
    for row in rows:
        times = [float(str(row[f"{session}_ms"])) for session in ("first", "warm")]
        cells = [f"{spent:.1f} ms, {spent / alone:.2f}" for spent in times]
        disk = f"{row['disk_mb']} MB" if "disk_mb" in row else ""
        lines.append(f"| {row['mix']} | {cells[0]} | {cells[1]} | {disk} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=2, help="epochs of each mix that are measured (2)")
    parser.add_argument("--images", type=int, default=IMAGES, help="images of an epoch (512)")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KDZOO_CACHE"] = f"{folder}/cache"
        setup = Setup(TEACHER, STUDENT, BATCH, random_images(given.images), torch.device("cpu"), 1, None, "float32", Path(folder))
        rows = measure(setup, given.epochs)
    record = {
        "teacher": TEACHER,
        "student": STUDENT,
        "images": given.images,
        "batch": BATCH,
        "rows": rows,
        "environment": environment(torch.device("cpu"), 1),
    }
    given.output.write_text(json.dumps(record, indent=2) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
