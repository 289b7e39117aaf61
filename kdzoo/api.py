"""kdzoo from Python: a bench and a study as functions."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from rich.console import Console
from torch import nn

from kdzoo.bench_result import BenchResult
from kdzoo.models.identity import module_name
from kdzoo.runs.options import Execution
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.jobs import Outcome
from kdzoo.suite.plan.layers import quick as quick_options
from kdzoo.suite.plan.layers import refuse_published
from kdzoo.suite.plan.race import Race
from kdzoo.suite.plan.searches import searches as plan_searches
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.searches import write_searches
from kdzoo.suite.run import bench as suite
from kdzoo.suite.run.caller import known_to_workers
from kdzoo.suite.run.display import open_display
from kdzoo.suite.run.launchers import LauncherSetup, create_launcher
from kdzoo.suite.run.prepare import configure, prepare
from kdzoo.suite.study.evidence_table import evidence_frame
from kdzoo.suite.study.reproduce import reproduce_stages, request_study
from kdzoo.suite.study.surface_table import surface_frame
from kdzoo.text import number_of
from kdzoo.training.located import Modules

Numbers = float | Sequence[float] | str


def bench(
    methods: str | Sequence[str] | None = None,
    *,
    temperatures: Numbers | None = None,
    alphas: Numbers | None = None,
    weights: Numbers | None = None,
    doses: Numbers | None = None,
    doses_from: str | Path | None = None,
    grid: Mapping[str, Numbers] | None = None,
    tune: int | None = None,
    refit: bool | None = None,
    seeds: int | Sequence[int] | None = None,
    control_seeds: int | None = None,
    refit_seeds: int | None = None,
    pairs: str | Sequence[str] | None = None,
    teacher: str | nn.Module | None = None,
    student: str | nn.Module | None = None,
    data: str | None = None,
    data_root: str | Path | None = None,
    columns: str | Sequence[str] | None = None,
    task: Literal["features"] | None = None,
    limit: int | None = None,
    label_fraction: float | None = None,
    transfer_classes: str | int | Sequence[str | int] | None = None,
    transfer_data: str | None = None,
    transfer_only: bool | None = None,
    val_fraction: float | None = None,
    split_seed: int | None = None,
    recipe: str | Mapping[str, Any] | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    set: Mapping[str, Any] | None = None,
    results: str | Path | None = None,
    name: str | None = None,
    skip_unreadable: bool | None = None,
    fine_tune: bool | None = None,
    licence: str | Sequence[str] | None = None,
    edition: str | None = None,
    searches: int | None = None,
    budget: int | None = None,
    wandb: Literal["online", "offline", "disabled"] | None = None,
    execution: Execution | None = None,
    plugin: str | Path | Sequence[str | Path] | None = None,
    config: str | Path | None = None,
    quick: bool = False,
    retry_failed: bool = False,
) -> BenchResult:
    """Run a bench and return its leaderboard: a DataFrame with one row per method at its chosen setting, accuracies as shares.

    Every parameter is the option of the same name of `kdzoo bench`, and None leaves it at its default; `seeds=3` means
    seeds 0, 1, 2. execution holds the options that say how it is executed, as `kdzoo.Execution(threads=1, compile=True)`.
    recipe may be a mapping of a recipe's keys, as in a YAML file. teacher and student may be modules: a teacher as it is, a
    student as the start of every run; their class, structure and weights name them. What exists only in this process
    (modules; methods, networks and data of a script or a notebook) is trained in this process, everything else in worker
    processes. The same call again trains only what is missing. The result's `attrs` say in which `folder` everything lies
    and which runs `failed`; a warning says so too. A notebook shows it as the tables of `kdzoo leaderboard`, and the progress
    of training above. With `searches` it is the leaderboard of the last one; what all came to together is in searches.csv.

    Raises InputError, before any work, with everything that is wrong with the request.
    """
    asked_for = {
        "methods": methods,
        "temperatures": temperatures,
        "alphas": alphas,
        "weights": weights,
        "doses": doses,
        "doses_from": doses_from,
        "grid": grid,
        "tune": tune,
        "refit": refit,
        "seeds": seeds,
        "control_seeds": control_seeds,
        "refit_seeds": refit_seeds,
        "pairs": pairs,
        "teacher": teacher,
        "student": student,
        "data": data,
        "data_root": data_root,
        "columns": columns,
        "task": task,
        "limit": limit,
        "label_fraction": label_fraction,
        "transfer_classes": transfer_classes,
        "transfer_data": transfer_data,
        "transfer_only": transfer_only,
        "val_fraction": val_fraction,
        "split_seed": split_seed,
        "recipe": recipe,
        "epochs": epochs,
        "lr": lr,
        "set": set,
        "results": results,
        "name": name,
        "skip_unreadable": skip_unreadable,
        "fine_tune": fine_tune,
        "licence": licence,
        "edition": edition,
        "searches": searches,
        "budget": budget,
        "wandb": wandb,
        "plugin": plugin,
    }
    keywords = {key: _plain(value) for key, value in asked_for.items() if value is not None}
    modules = _modules(keywords)
    words = keywords if execution is None else {**keywords, "execution": execution}
    command = f"kdzoo.bench({', '.join(f'{key}={value!r}' for key, value in words.items())})"
    keywords |= execution.explicit() if execution is not None else {}
    if modules.by_name:  # trained in this process, whose threads are the caller's to say
        keywords.setdefault("threads", torch.get_num_threads())
    file = Path(config) if config else None
    refuse_published(keywords, file)
    bench_config = configure(quick_options(keywords, file) if quick else keywords, file, modules)
    if bench_config.searches is not None:
        outcomes = [_train(one, modules, retry_failed, command) for one in plan_searches(bench_config)]
        write_searches(Path(bench_config.results) / bench_config.name)
        return _result(*outcomes[-1])
    folder, outcome = _train(bench_config, modules, retry_failed, command)
    return _result(folder, outcome)


def _train(config: BenchConfig, modules: Modules, retry_failed: bool, command: str, race: Race | None = None) -> tuple[Path, Outcome]:
    """Train what is missing of a bench, or of the seeds that a race adds, with its display; the folder and what became of its runs."""
    prepared = prepare(config, modules)
    here = not known_to_workers(config, prepared.plan, modules)
    setup = LauncherSetup.of_bench(config, modules)
    with open_display(Console()) as display, create_launcher(setup, "here" if here else config.launcher) as launcher:
        if race is not None:
            outcome = suite.run_race(prepared, race, launcher, display.handle, retry_failed=retry_failed, command=command)
        else:
            only_here = modules if here else None
            outcome = suite.run(prepared, launcher, display.handle, retry_failed=retry_failed, modules=only_here, command=command)
    return prepared.plan.folder, outcome


def reproduce(
    study: str | Path,
    *,
    seeds: int | None = None,
    results: str | Path = "results",
    data_root: str | Path | None = None,
    execution: Execution | None = None,
    retry_failed: bool = False,
) -> pd.DataFrame:
    """Train a study of the literature and return its numbers: a row each, the paper's beside the measured one.

    study: the name of one that is shipped, or its YAML file. Every other parameter is the option of the same name of
    `kdzoo reproduce`, and None leaves it at its default. README.md, results.csv and the files of its surfaces and order, where
    the study has some, are written as the command writes them; the same call again trains only what is missing. The result's
    `attrs` have the `folder` where everything lies, the `surfaces` as tables by name, the runs that `failed`, and the `problems`
    of a step that could not be done; a warning says so too.

    Raises InputError, before any work, with everything that is wrong with the study or the request.
    """
    options = {} if execution is None else execution.explicit()
    options |= {} if data_root is None else {"data_root": str(data_root)}
    request = request_study(str(study), Path(results), seeds, options)
    command = f"kdzoo.reproduce({str(study)!r})"
    console = Console()

    def train(config: BenchConfig, race: Race | None) -> Outcome:
        return _train(config, Modules(), retry_failed, command, race)[1]

    done = reproduce_stages(request, train, lambda text: console.print(text, markup=False, soft_wrap=True))
    failed = dict(done.outcome.failed) if done.outcome else {}
    frame = evidence_frame(done.evidence.measured)
    surfaces = {one.spec.name: surface_frame(one) for one in done.evidence.surfaces}
    frame.attrs = {"folder": str(request.folder), "surfaces": surfaces, "failed": failed, "problems": list(done.problems)}
    if done.stopped is not None:
        reasons = "; ".join([*done.problems, *(f"{run_id}: {reason}" for run_id, reason in sorted(failed.items())[:3])])
        warnings.warn(f"stage {done.stopped.name} failed ({reasons})", RuntimeWarning, stacklevel=2)
    return frame


def _plain(value: Any) -> Any:
    """Paths and their lists as text, as a configuration has them."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable) and not isinstance(value, str | nn.Module):
        return [_plain(item) for item in value]
    return value


def _modules(keywords: dict[str, Any]) -> Modules:
    """Take the modules out of `keywords`, and put their names there."""
    modules: dict[str, nn.Module] = {}
    for role in ("teacher", "student"):
        module = keywords.get(role)
        if isinstance(module, nn.Module):
            keywords[role] = module_name(module)
            modules[keywords[role]] = module
    return Modules(modules)


def _result(folder: Path, outcome: Outcome) -> BenchResult:
    if outcome.failed:
        reasons = "; ".join(f"{run_id}: {reason}" for run_id, reason in sorted(outcome.failed.items())[:3])
        warnings.warn(f"{number_of(len(outcome.failed), 'run')} failed ({reasons}); see attrs['failed']", RuntimeWarning, stacklevel=3)
    return BenchResult(read_bench(folder), outcome.failed)
