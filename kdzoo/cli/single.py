"""`kdzoo train`, `run` and `evaluate`: single networks and runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdzoo.cli import complete
from kdzoo.cli.bench import configured, given, open_launcher, say_failures, without
from kdzoo.cli.lookup import run_folder
from kdzoo.cli.options import (
    TRAINING,
    Config,
    Data,
    DataRoot,
    Epochs,
    JsonOnly,
    Limit,
    Plugins,
    Rate,
    RecipeName,
    ResultsFolder,
    Set,
    SmallStem,
    SplitSeed,
    ValFraction,
    argument,
    option,
    takes_options,
)
from kdzoo.cli.output import Format, console, percent, print_json, show, tell
from kdzoo.errors import InputError
from kdzoo.runs.options import ONE_RUN
from kdzoo.runs.store import RunFolder, teacher_store
from kdzoo.suite.plan.config import BenchConfig, bench_config
from kdzoo.suite.report.records import read_record
from kdzoo.suite.run.display import open_display

if TYPE_CHECKING:
    from kdzoo.suite.plan.jobs import Outcome
    from kdzoo.suite.run.launchers.launcher import Launcher
    from kdzoo.suite.run.prepare import Prepared


@takes_options(*ONE_RUN)
def train(
    ctx: typer.Context,
    model: Annotated[str, argument("A network's name; see `kdzoo networks`.", metavar="NETWORK", names_of=complete.networks)],
    data: Data = None,
    data_root: DataRoot = None,
    limit: Limit = None,
    val_fraction: ValFraction = None,
    split_seed: SplitSeed = None,
    small_stem: SmallStem = False,
    recipe: RecipeName = None,
    epochs: Epochs = None,
    lr: Rate = None,
    seed: Annotated[
        int,
        option(text="Seed of the initial weights, the order of samples and the augmentation.", default="0", panel=TRAINING, metavar="N"),
    ] = 0,
    config: Config = None,
    set_: Set = None,
    plugin: Plugins = None,
    **execution: Any,
) -> int:
    """Train a teacher and keep it. A bench with the same data and recipe finds it again by itself.

    It is trained as a bench would: on the same split, once, kept in the cache folder (KDZOO_CACHE) under the id of the
    run that trained it.

    \b
    Examples:
      kdzoo train resnet56 --data cifar100 --recipe crd240
      kdzoo train resnet34 --small-stem --data cifar10 --epochs 30 --seed 1
    """
    from kdzoo.data.report import data_lines
    from kdzoo.suite.plan.sweep import Plan
    from kdzoo.suite.run.bench import where_data_is_told
    from kdzoo.suite.run.prepare import prepare

    options = given(without(ctx.params, "model", "seed", "config"))
    changes = {**options.get("set", {}), **({"teacher.seed": seed} if seed else {})}
    asked = configured({**options, "set": changes, "teacher": model, "student": model, "methods": "none", "name": "teachers"}, config)
    with open_launcher(asked) as launcher:
        launcher.warm_up()
        prepared = prepare(asked)
        taught = tuple(prepared.plan.teachers.values())
        if not taught:
            raise InputError(f"train: expected a network's name without weights, got {model!r}")
        for line in data_lines(prepared.plan.data, where_data_is_told(asked)):
            tell(line)
        own = Plan(f"{model} on {asked.data}", teacher_store().folder, taught, {}, len(taught))
        outcome = _train(replace(prepared, plan=own), launcher)
    for planned in taught:
        _say_teacher(own.store.run(planned.run.id))
    return say_failures(outcome, "kdzoo teachers")


@takes_options(*ONE_RUN, before="plugin", threads="1")
def run(
    file: Annotated[str, argument("A run.json, its folder, or a run's id.", metavar="RUN", names_of=complete.runs)],
    results: ResultsFolder = Path("results"),
    plugin: Plugins = None,
    **execution: Any,
) -> int:
    """Train one run as its run.json says, in its own folder; its teacher first, unless that is kept.

    A finished run is left as it is, unless its kept weights are damaged; a failed one is trained again.

    \b
    Example:
      kdzoo run results/digits/runs/hinton-0123456789ab/run.json
    """
    folder = run_folder(file, results)
    folder.read_plan()
    if folder.state() != "done" or _is_damaged(folder):
        options = {**execution, "threads": execution["threads"] or 1, "plugin": plugin}
        asked = bench_config(given(options), None)
        with open_launcher(asked) as launcher:
            launcher.warm_up()
            outcome = _train(_prepared(folder, asked), launcher)
        if outcome.failed:
            return say_failures(outcome, f"kdzoo status {folder.path.parent.parent}")
    test = folder.result()["last"]["test"]
    tell(f"{folder.id}: test top-1 {percent(test['top1'])} %, in {folder.path}")
    return 0


@takes_options("device", "threads", "image_cache", before="plugin", threads="as many as the run was trained with")
def evaluate(
    run: Annotated[str, argument("A run's folder, its run.json, or its id.", metavar="RUN", names_of=complete.runs)],
    results: ResultsFolder = Path("results"),
    plugin: Plugins = None,
    as_json: JsonOnly = False,
    **execution: Any,
) -> int:
    """Measure a kept student again on its test set, and compare with what its result.json says.

    Exits with status 1 where they differ by more than the last digits.

    \b
    Example:
      kdzoo evaluate results/digits/runs/hinton-0123456789ab
    """
    folder = run_folder(run, results)
    recorded = folder.result()["last"]["test"]
    if not folder.student.is_file():
        raise InputError(f"{folder.student}: no such file; the weights of this run were not kept (--keep student)")
    recorded_threads = int(folder.result()["environment"]["threads"])
    options = {**execution, "threads": execution["threads"] or recorded_threads, "plugin": plugin}
    measured = _measured(folder, bench_config(given(options), None))
    rows = [{"metric": name, "recorded": recorded[name], "measured": measured[name]} for name in METRICS if recorded[name] is not None]
    same = all(abs(row["recorded"] - row["measured"]) <= TOLERANCE for row in rows)
    if as_json:
        print_json({"id": folder.id, "n": measured["n"], "metrics": rows, "same": same})
        return 0 if same else 1
    show(rows, Format.table, title=f"{folder.id}, {measured['n']} test images")
    tell("as recorded" if same else f"differs from {folder.path / 'result.json'}")
    return 0 if same else 1


def _is_damaged(folder: RunFolder) -> bool:
    """Whether what a finished run keeps for others is not what was written; the worker sets it aside and trains again."""
    from kdzoo.suite.run.repair import fault_of

    return fault_of(folder) is not None


METRICS = ("top1", "top5", "balanced", "nll", "ece")
TOLERANCE = 1e-3
"""another device may move the last digits of a likelihood, or one image in a thousand"""


def _measured(folder: RunFolder, config: BenchConfig) -> dict[str, Any]:
    """The metrics of the weights in a run's folder on its test set."""
    import torch

    from kdzoo.contract.plugins import load_plugins
    from kdzoo.models.predict import predict
    from kdzoo.suite.run.prepare import device_of
    from kdzoo.tasks.classification import measure
    from kdzoo.training.session import Bound, Modules, data_of, kept_student

    load_plugins(config.plugin)
    torch.set_num_threads(config.threads or 1)
    bound = Bound.read(folder)
    images, parts = data_of(bound, config.image_cache)
    place = torch.device(device_of(config.device))
    student = kept_student(bound, images, parts, Modules()).to(place)
    return dict(measure(predict(student, parts.test, bound.run.recipe.augment, place), parts.test.targets))


def _prepared(folder: RunFolder, config: BenchConfig) -> Prepared:
    """One run as a plan of its own, with its teacher where that is trained here, and how it is executed."""
    from kdzoo.suite.plan.sweep import Plan, Planned
    from kdzoo.suite.run.prepare import device_of, schedule, states_of

    planned = Planned(*folder.read_plan())
    teacher = teacher_store().run(str(planned.about.get("teacher_id")))
    teachers = {teacher.id: Planned(*teacher.read_plan())} if (teacher.path / "run.json").exists() else {}
    plan = Plan(folder.id, folder.path.parent.parent, (planned,), teachers, 1)
    return schedule(config, plan, device_of(config.device), None, states_of(plan))


def _train(prepared: Prepared, launcher: Launcher) -> Outcome:
    """Train what is missing of a plan with the display of a bench, whatever became of its runs before."""
    from kdzoo.suite.run.bench import train_plan
    from kdzoo.suite.run.repair import renew_unlocked

    with open_display(console()) as display:
        for planned in prepared.plan.students:
            renew_unlocked(prepared.plan.store.run(planned.run.id), display.handle)
        return train_plan(prepared, launcher, display.handle, retry_failed=True)


def teacher_row(folder: RunFolder) -> dict[str, Any]:
    record = read_record(folder)
    last = record.result["last"] if record.result else {"val": None, "test": None}
    return {
        "id": record.id,
        "network": record.run.student.name,
        "data": record.run.data.name,
        "recipe": record.about.get("recipe"),
        "epochs": record.run.recipe.epochs,
        "seed": record.run.seed,
        "val_top1": last["val"] and last["val"]["top1"],
        "test_top1": last["test"] and last["test"]["top1"],
        "parameters": record.result and record.result["student"]["parameters"],
        "state": record.state,
    }


def _say_teacher(folder: RunFolder) -> None:
    """How to use a teacher that was just trained."""
    if folder.state() != "done":
        return
    row = teacher_row(folder)
    lines = [
        f"{row['id']}: {row['network']} on {row['data']}, test top-1 {percent(row['test_top1'])} %",
        f"use it: kdzoo bench --teacher {row['id']} --student NAME --data {row['data']}",
    ]
    for line in lines:
        tell(line)
