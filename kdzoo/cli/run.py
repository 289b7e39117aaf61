"""`kdzoo run`: one run from its run.json."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from kdzoo.cli import complete
from kdzoo.cli.bench_options import read_options, takes_options
from kdzoo.cli.declare import argument
from kdzoo.cli.lookup import run_folder
from kdzoo.cli.options import DataRoot, MovedData, MovedTransferData, Plugins, ResultsFolder
from kdzoo.cli.output import print_text
from kdzoo.cli.training import open_launcher, report_failures, train_plan
from kdzoo.runs.options import ONE_RUN
from kdzoo.runs.store import RunFolder, teacher_store
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.layers import bench_config
from kdzoo.tasks.known import task_named

if TYPE_CHECKING:
    from kdzoo.suite.run.prepare import Prepared


@takes_options(*ONE_RUN, before="plugin", threads="1")
def run(
    file: Annotated[str, argument("A run.json, its folder, or a run's id.", metavar="RUN", names_of=complete.runs)],
    data: MovedData = None,
    data_root: DataRoot = None,
    transfer_data: MovedTransferData = None,
    results: ResultsFolder = Path("results"),
    plugin: Plugins = None,
    **execution: Any,
) -> int:
    """Train one run as its run.json says, in its own folder; its teacher first, unless that is kept.

    Where its images have moved, --data and --transfer-data say where they are; their content has to be what it was.
    A finished run is left as it is, unless its kept weights are damaged; a failed one is trained again.

    \b
    Example:
      kdzoo run results/digits/runs/hinton-0123456789ab/run.json
    """
    folder = run_folder(file, results)
    folder.read_plan()
    if folder.state() != "done" or _is_damaged(folder):
        options = {**execution, "threads": execution["threads"] or 1, "plugin": plugin}
        config = bench_config(read_options(options), None)
        with open_launcher(config) as launcher:
            launcher.warm_up()
            from kdzoo.training.located import moved_to

            outcome = train_plan(_prepared(folder, config, moved_to(data, data_root, transfer_data)), launcher)
        if outcome.failed:
            return report_failures(outcome, shlex.join(["kdzoo", "status", str(folder.path.parent.parent)]))
    test = folder.test_metrics()
    headline = task_named(folder.read_plan()[0].data.task).headline
    print_text(f"{folder.id}: test {headline.heading} {headline.with_unit(test[headline.name])}, in {folder.path}")
    return 0


def _is_damaged(folder: RunFolder) -> bool:
    """Whether what a finished run keeps for others is not what was written; the worker sets it aside and trains again."""
    from kdzoo.suite.run.repair import fault_of

    return fault_of(folder) is not None


def _prepared(folder: RunFolder, config: BenchConfig, places: Mapping[str, str]) -> Prepared:
    """One run as a plan of its own, with its teacher where that is trained here, and how it is executed.

    places: where its data lie now, as far as they have moved.
    """
    from kdzoo.suite.plan.planned import Plan, PlannedRun
    from kdzoo.suite.run.prepare import device_of, schedule, states_of
    from kdzoo.training.located import read_plan_at

    planned = PlannedRun(*read_plan_at(folder, places))
    teacher = teacher_store().run(str(planned.about.get("teacher_id")))
    teachers = {teacher.id: PlannedRun(*read_plan_at(teacher, places))} if (teacher.path / "run.json").exists() else {}
    plan = Plan(folder.id, folder.path.parent.parent, (planned,), teachers, 1)
    return schedule(config, plan, device_of(config.device), None, states_of(plan))
