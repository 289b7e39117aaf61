"""`kdzoo train`: a teacher by itself."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Annotated, Any

from kdzoo.cli import complete
from kdzoo.cli.bench_options import read_options, takes_options
from kdzoo.cli.declare import TRAINING, argument, option
from kdzoo.cli.options import Config, SmallStem
from kdzoo.cli.output import print_text
from kdzoo.cli.training import configure_bench, open_launcher, prepare_bench, report_failures, train_plan
from kdzoo.errors import InputError
from kdzoo.runs.options import ONE_RUN
from kdzoo.runs.store import RunFolder, teacher_store
from kdzoo.suite.report.records import read_record

OPTIONS = ("data", "data_root", "limit", "val_fraction", "split_seed", "licence", "recipe", "epochs", "lr", "set", "plugin")
"""the keys of a bench that say how a teacher is trained"""


@takes_options(*OPTIONS, *ONE_RUN, before="small_stem")
def train(
    model: Annotated[str, argument("A network's name; see `kdzoo networks`.", metavar="NETWORK", names_of=complete.networks)],
    small_stem: SmallStem = False,
    seed: Annotated[
        int,
        option(text="Seed of the initial weights, the order of samples and the augmentation.", default="0", panel=TRAINING, metavar="N"),
    ] = 0,
    config: Config = None,
    **keys: Any,
) -> int:
    """Train a teacher and keep it. A bench with the same data and recipe reuses it.

    It is trained as a bench would: on the same split, once, kept in the cache folder (KDZOO_CACHE) under the id of the
    run that trained it.

    \b
    Examples:
      kdzoo train resnet56 --data cifar100 --recipe crd240
      kdzoo train resnet34 --small-stem --data cifar10 --epochs 30 --seed 1
    """
    options = read_options(keys, small_stem=small_stem)
    changes = {**options.get("set", {}), **({"teacher.seed": seed} if seed else {})}
    configuration = configure_bench(
        {**options, "set": changes, "teacher": model, "student": model, "methods": "none", "name": "teachers"}, config
    )
    with open_launcher(configuration) as launcher:
        launcher.warm_up()
        from kdzoo.data.report import data_lines
        from kdzoo.suite.plan.planned import Plan
        from kdzoo.suite.run.bench import data_command

        prepared = prepare_bench(configuration)
        teachers = tuple(prepared.plan.teachers.values())
        if not teachers:
            raise InputError(f"train: expected a network's name without weights, got {model!r}")
        for line in data_lines(prepared.plan.data, data_command(configuration)):
            print_text(line)
        own = Plan(f"{model} on {configuration.data}", teacher_store().folder, teachers, {}, len(teachers))
        outcome = train_plan(replace(prepared, plan=own), launcher)
    for planned in teachers:
        _print_use(own.store.run(planned.run.id))
    return report_failures(outcome, "kdzoo teachers")


def _print_use(folder: RunFolder) -> None:
    """How to use a teacher that was just trained."""
    if folder.state() != "done":
        return
    record = read_record(folder)
    headline, data = record.task.headline, record.run.data.name
    lines = [
        f"{record.id}: {record.run.student.name} on {data}, test {headline.heading} {headline.with_unit(record.headline('test'))}",
        f"use it: kdzoo bench --teacher {record.id} --student NAME --data {shlex.quote(data)}",
    ]
    for line in lines:
        print_text(line)
