"""`kdzoo evaluate`: a kept student measured again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from kdzoo.cli import complete
from kdzoo.cli.bench_options import read_options, takes_options
from kdzoo.cli.declare import argument
from kdzoo.cli.lookup import run_folder
from kdzoo.cli.options import DataRoot, JsonOnly, MovedData, MovedTransferData, Plugins, ResultsFolder
from kdzoo.cli.output import print_json, print_text
from kdzoo.cli.table import Format, print_rows
from kdzoo.errors import InputError
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.layers import bench_config
from kdzoo.tasks.known import task_named

if TYPE_CHECKING:
    from kdzoo.training.located import LocatedRun


@takes_options("device", "threads", "image_cache", before="plugin", threads="as many as the run was trained with")
def evaluate(
    run: Annotated[str, argument("A run's folder, its run.json, or its id.", metavar="RUN", names_of=complete.runs)],
    data: MovedData = None,
    data_root: DataRoot = None,
    transfer_data: MovedTransferData = None,
    results: ResultsFolder = Path("results"),
    plugin: Plugins = None,
    as_json: JsonOnly = False,
    **execution: Any,
) -> int:
    """Measure a kept student again on its test set, and compare with what its result.json says.

    Exits with status 1 where they differ by more than 0.001.

    \b
    Example:
      kdzoo evaluate results/digits/runs/hinton-0123456789ab
    """
    folder = run_folder(run, results)
    earlier = folder.test_metrics()
    if not folder.student.is_file():
        raise InputError(f"{folder.student}: no such file; the weights of this run were not kept (--keep student)")
    recorded_threads = int(folder.result()["environment"]["threads"])
    options = {**execution, "threads": execution["threads"] or recorded_threads, "plugin": plugin}
    from kdzoo.training.located import LocatedRun, moved_to

    now = _measured(LocatedRun.read(folder, moved_to(data, data_root, transfer_data)), bench_config(read_options(options), None))
    names = task_named(folder.read_plan()[0].data.task).own_names
    rows = [{"metric": name, "recorded": earlier[name], "measured": now[name]} for name in names if earlier.get(name) is not None]
    same = all(abs(row["recorded"] - row["measured"]) <= TOLERANCE for row in rows)
    if as_json:
        print_json({"id": folder.id, "n": now["n"], "metrics": rows, "same": same})
        return 0 if same else 1
    print_rows(rows, Format.table, title=f"{folder.id}, {now['n']} test images")
    print_text("as recorded" if same else f"differs from {folder.path / 'result.json'}")
    return 0 if same else 1


TOLERANCE = 1e-3
"""another device may move the last digits of a likelihood, or one image in a thousand"""


def _measured(located: LocatedRun, config: BenchConfig) -> dict[str, Any]:
    """The metrics of a run's kept weights on its test set."""
    import torch

    from kdzoo.contract.plugins import load_plugins
    from kdzoo.models.predict import predict
    from kdzoo.suite.run.prepare import device_of
    from kdzoo.training.located import Modules
    from kdzoo.training.run_data import load_run_data
    from kdzoo.training.run_student import load_trained_student

    load_plugins(config.plugin)
    torch.set_num_threads(config.threads or 1)
    dataset, splits = load_run_data(located, config.image_cache)
    place = torch.device(device_of(config.device))
    student = load_trained_student(located, dataset, splits, Modules()).to(place)
    return dict(splits.task.measure(predict(student, splits.test, located.run.recipe.augment, place, splits.task), splits.test.targets))
