"""Everything about a bench that can go wrong before its first step; nothing is written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from kdzoo.contract.plugins import load_plugins
from kdzoo.errors import InputError, collect_problems, raise_if_any
from kdzoo.garbage import uncollected
from kdzoo.models.kernels import set_workspace
from kdzoo.models.placement import why_slow
from kdzoo.runs.environment import machine_name
from kdzoo.runs.options import ALL, ELSEWHERE, SPEED, WorkerOptions, option_of
from kdzoo.runs.plan_text import PlanTexts
from kdzoo.runs.store import KnownRun, RunFolder, State
from kdzoo.runs.wandb_settings import wandb_settings
from kdzoo.suite.plan.budget import faults_of_budget
from kdzoo.suite.plan.cohorts import groups_in_lockstep
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.layers import ConfigError, bench_config
from kdzoo.suite.plan.planned import Plan, PlannedRun
from kdzoo.suite.plan.sweep import plan as make_plan
from kdzoo.suite.run.caller import problems_in_caller
from kdzoo.suite.run.disk_space import bytes_of_bench, note_of_space
from kdzoo.suite.run.fill import NAME as FILL_FILE
from kdzoo.suite.run.fill import Measurement, Strategy, measure, problems_of_filling, read_measurement
from kdzoo.suite.run.free_memory import COHORT_SHARE, free_memory, has_device
from kdzoo.suite.run.launchers.gpus import visible_gpus
from kdzoo.suite.run.memory import memory_notes
from kdzoo.suite.run.preflight import preflight
from kdzoo.suite.run.sharing import note_of_torchrun, problems_of_sharing
from kdzoo.suite.run.torchrun import NAME as TORCHRUN
from kdzoo.suite.run.torchrun import torchrun_process
from kdzoo.suite.run.untrained import Untrained
from kdzoo.training.located import Modules
from kdzoo.training.run_data import load_dataset, load_transfer_images
from kdzoo.version import VERSION

MEMORY_ELSEWHERE = (
    "memory is not checked here, since other machines may train: each worker has its cohorts hold half of what is free on its own device"
)


@dataclass(frozen=True)
class Prepared:
    """A plan, how it will be executed, and in what state its runs are.

    gpus: which of the machine's GPUs the processes share, where there are any. checked: the jobs of teachers that are done
    already, since something was measured under them. known: the runs that are done, as they were read.
    measurement: by which the number of processes was chosen, where `fill_gpu` asks for that.
    """

    config: BenchConfig
    plan: Plan
    options: WorkerOptions
    jobs: int
    gpus: tuple[str, ...] = ()
    states: Mapping[str, State] = field(default_factory=dict)
    checked: frozenset[str] = frozenset()
    known: Mapping[str, KnownRun] = field(default_factory=dict)
    measurement: Measurement | None = None

    def state_of(self, folder: RunFolder) -> State:
        """In what state a run is now: a whole result that is still the same file is not read again."""
        known = self.known.get(folder.id)
        return "done" if known is not None and folder.has_result_of(known) else folder.state()


@uncollected()
def prepare(config: BenchConfig, modules: Modules | None = None) -> Prepared:
    """Plan a bench and check all that can be checked before the first step, but for folders; writes nothing. Raises InputError."""
    problems: list[str] = []
    plan = device = settings = None
    with collect_problems(problems):
        device = config.device if is_elsewhere(config) and config.device != "auto" else device_of(config.device)
        used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        if config.deterministic and device.startswith("cuda") and not used:
            set_workspace()  # before anything, be it a plugin, uses a GPU
    load_plugins(config.plugin)
    load_dataset.cache_clear()  # in a long session the files may have changed since the last bench
    load_transfer_images.cache_clear()
    problems += problems_of_sharing(config, device, torch.cuda.device_count() if device == "cuda" and has_device(device) else 0)
    problems += problems_of_filling(config, device)
    if config.graphs and device == "cpu":
        problems.append("graphs: needs a GPU, and this runs on cpu; leave it out")
    with collect_problems(problems):
        settings = wandb_settings(config.wandb, os.environ)
    states: dict[str, State] = {}
    known: dict[str, KnownRun] = {}
    untrained, missing = None, list[PlannedRun]()
    with collect_problems(problems):
        plan = make_plan(config, modules)
        problems += problems_in_caller(config, device, plan, modules or Modules())
        raise_if_any(faults_of_budget(config, plan.students))
        known = known_runs(plan)
        states = states_of(plan, known)
        if any(state != "done" for state in states.values()):  # a bench that is trained to the end needs no check
            untrained = Untrained(modules or Modules(), config.image_cache)
            missing = [planned for planned in plan.students if states[planned.run.id] != "done"]
            plan = replace(plan, notes=(*plan.notes, *notes_of_training(config, plan, missing, untrained, device or "cpu")))
    if problems or plan is None or device is None:
        raise InputError(*problems)
    prepared = schedule(config, plan, device, asdict(settings) if settings else None, states)
    if config.fill_gpu:
        prepared = fill(prepared, [planned for planned in missing if not planned.provisional])
        plan = prepared.plan
    prepared = replace(prepared, known=known)
    if untrained is None:  # nothing is left to train
        return prepared
    notes_of_memory = (
        (MEMORY_ELSEWHERE,) if is_elsewhere(config) else memory_notes(plan, missing, prepared.options, prepared.jobs, untrained)
    )
    return replace(prepared, plan=replace(plan, notes=(*plan.notes, *notes_of_memory)))


def notes_of_training(config: BenchConfig, plan: Plan, missing: Sequence[PlannedRun], untrained: Untrained, device: str) -> Iterator[str]:
    """What is to be known before a plan is trained, after a first step of each of its networks and methods.

    Raises InputError with all that a first step cannot do. missing: its runs that are not done.
    """
    tried_on = torch.device(device if has_device(device) else "cpu")
    yield from preflight(plan, untrained, tried_on, config.check, config.processes_per_run)
    yield from filter(
        None,
        (
            why_slow((planned.run.recipe.precision for planned in plan.students), torch.device(device)),
            note_of_space(plan, bytes_of_bench(config, missing, plan, untrained), config.files_kept),
            note_of_torchrun(config, torchrun_process(os.environ)),
        ),
    )


def schedule(config: BenchConfig, plan: Plan, device: str, wandb: dict[str, Any] | None, states: Mapping[str, State]) -> Prepared:
    """How a plan is executed on this machine: with how many processes, threads and GPUs, and how much memory."""
    gpus = visible_gpus(torch.cuda.device_count(), os.environ) if device == "cuda" else ()
    jobs, threads = processes(config, device, plan, len(gpus))
    sharing = -(-jobs * config.processes_per_run // max(len(gpus), 1))  # as many processes use one GPU's memory
    options_of_config = {name: getattr(config, name) for name in ALL}
    memory = None if is_elsewhere(config) else int(COHORT_SHARE * free_memory(device) / sharing)
    options = WorkerOptions(**{**options_of_config, "device": device, "jobs": jobs, "threads": threads}, memory=memory, wandb=wandb)
    return Prepared(config, plan, options, jobs, gpus, states)


def fill(prepared: Prepared, missing: Sequence[PlannedRun]) -> Prepared:
    """The same, executed by the strategy that fills a GPU best, with a note on how long a step takes by each.

    That is read where the bench's folder has it of the same plan on the same machine, and else measured with the largest cohort
    of the runs that are missing. Nothing is changed where there are none.
    """
    plan, measured_on, where = prepared.plan, plan_and_machine(prepared), ""
    if (measurement := read_measurement(prepared.plan.folder, measured_on)) is not None:
        where = f", as measured before ({plan.folder / FILL_FILE})"
    elif missing:
        group, plugins = max(groups_in_lockstep(missing), key=len), prepared.config.plugin
        fresh = measure(group, lambda strategy: by_strategy(prepared, strategy).options, plugins, prepared.gpus[:1])
        measurement = replace(fresh, measured_on=measured_on)
    else:
        return prepared
    scheduled = by_strategy(prepared, measurement.best)
    noted = replace(plan, notes=(*plan.notes, f"{measurement}{where}"))
    return replace(prepared, plan=noted, options=scheduled.options, jobs=scheduled.jobs, measurement=measurement)


def by_strategy(prepared: Prepared, strategy: Strategy) -> Prepared:
    """The same, with as many processes on every GPU as a strategy has, and the threads and memory that each of them gets then."""
    choice = {"jobs": strategy.jobs * max(len(prepared.gpus), 1), "stack_students": strategy.stacked}
    config = prepared.config.model_copy(update=choice)
    return schedule(config, prepared.plan, prepared.options.device, prepared.options.wandb, prepared.states)


def plan_and_machine(prepared: Prepared) -> dict[str, Any]:
    """What a measurement of strategies holds for, as JSON: the runs of the plan, the GPUs, the cores, the options that change speed."""
    config = prepared.config
    ids = sorted(planned.run.id for planned in prepared.plan.students)
    return {
        "plan": hashlib.sha256("\n".join(ids).encode()).hexdigest()[:12],
        "gpu": machine_name(torch.device(prepared.options.device)),
        "gpus": len(prepared.gpus),
        "cores": cores(),
        "torch": torch.__version__,
        "kdzoo": VERSION,
        "threads": config.threads or environments_threads(),
        "options": config.model_dump(mode="json", include={name for name in ALL if option_of(name).panel == SPEED}),
    }


def states_of(plan: Plan, done: Container[str] = ()) -> dict[str, State]:
    """In what state the students of a plan are; provisional ones are new. done: runs whose results were read and are whole."""
    ids = {planned.run.id: planned.provisional for planned in plan.students}
    return {one: "new" if provisional else "done" if one in done else plan.store.run(one).state() for one, provisional in ids.items()}


def known_runs(plan: Plan) -> dict[str, KnownRun]:
    """The students of a plan that are done, as their files are now."""
    texts = PlanTexts()
    found = ((one.run.id, plan.store.run(one.run.id).known_run(one.run, one.about, texts)) for one in plan.students if not one.provisional)
    return {run_id: known for run_id, known in found if known is not None}


def configure(options: Mapping[str, Any], file: Path | None = None, modules: Modules | None = None) -> BenchConfig:
    """Validate options; where some are invalid, the InputError also has the problems of the plan made from the valid ones."""
    try:
        return bench_config(options, file)
    except ConfigError as error:
        problems = list(error.problems)
        if error.rest is not None:
            with collect_problems(problems):
                prepare(error.rest.model_copy(update={"fill_gpu": False}), modules)  # its problems alone: nothing is measured
        raise InputError(*problems) from error


def processes(config: BenchConfig, device: str, plan: Plan, gpus: int = 0) -> tuple[int, int]:
    """How many worker processes, and how many threads each; taken from the whole plan, so that a resume takes the same.

    On a CPU one thread in each of as many processes as there are cores, unless there are fewer cohorts than that, or the
    environment's OMP_NUM_THREADS says how many threads a process has. With several GPUs one process for each of them,
    unless there are fewer cohorts. Where several processes train each run, as many fewer workers. Under torchrun this process alone,
    with one thread, as torchrun has it.
    """
    cohorts = len(groups_in_lockstep(plan.students))
    each = config.processes_per_run
    if config.launcher == TORCHRUN:
        return 1, config.threads or environments_threads() or 1
    count = config.jobs or min(max((cores() if device == "cpu" else gpus) // each, 1), max(cohorts, 1))
    return count, config.threads or environments_threads() or max(1, cores() // (count * each))


def cores() -> int:
    """How many cores of the CPU this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environments_threads() -> int | None:
    """The number of threads that OMP_NUM_THREADS asks for, which torch reads too; None where it asks for none."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def device_of(name: str) -> str:
    """`auto` is CUDA where there is one; raises InputError for a device that this machine lacks."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device: {name} was asked for, but torch {torch.__version__} sees no CUDA device here")
    return name


def is_elsewhere(config: BenchConfig) -> bool:
    """Whether the workers of a bench may run on other machines than this one."""
    return config.launcher in ELSEWHERE
