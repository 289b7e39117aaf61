"""A bench from start to end: plan, teachers, cohorts, refit, tables."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch

from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.outputs import Shapes
from kdzoo.contract.plugins import files_beside, load_plugins
from kdzoo.data.dataset import Images
from kdzoo.data.known import DATA
from kdzoo.data.report import data_lines
from kdzoo.data.sources import data_files
from kdzoo.errors import InputError, noting
from kdzoo.models.network import Ensemble, Network, count, freeze
from kdzoo.models.network import probe as shapes_of
from kdzoo.models.placement import why_slow
from kdzoo.runs.loggers import WandbSettings, read_lines, wandb_settings
from kdzoo.runs.spec import NetworkSpec, Recipe, Run
from kdzoo.runs.store import RunFolder, State, teacher_store, writable
from kdzoo.suite.plan.config import BenchConfig, ConfigError, bench_config, wants_refit
from kdzoo.suite.plan.doses import keep_doses, reused_doses
from kdzoo.suite.plan.jobs import Event, Handle, Job, Options, Outcome
from kdzoo.suite.plan.race import Race
from kdzoo.suite.plan.starts import Start, keep_start
from kdzoo.suite.plan.sweep import Plan, Planned, plan, refit
from kdzoo.suite.report.leaderboard import write_tables
from kdzoo.suite.report.race import Decision, decide, more_seeds, seeds_of_sweeps
from kdzoo.suite.report.records import read_bench
from kdzoo.suite.report.selection import chosen_runs
from kdzoo.suite.run.failures import others_than_divergence
from kdzoo.suite.run.finished import keep_finished
from kdzoo.suite.run.fork import PATIENCE_SECONDS
from kdzoo.suite.run.launchers.local import Pool, launch
from kdzoo.suite.run.repair import forget_damaged
from kdzoo.suite.run.tracking import log_leaderboard
from kdzoo.suite.run.trial import check_hints, trial_key, try_loss, users_methods
from kdzoo.suite.run.worker import Bench, execution_of, work
from kdzoo.training.answers import serve
from kdzoo.training.cost import seconds_an_epoch
from kdzoo.training.session import (
    Bound,
    Modules,
    cohort_of,
    data_of,
    images_of,
    member_of,
    members_of,
    network_of,
    objective_of,
    shape_of,
    student_network,
    student_of,
    student_shapes,
    unlabelled_of,
)
from kdzoo.training.train import UNITS_AN_EPOCH

LARGEST_COHORT = {"cpu": 8, "cuda": 64}
"""students trained in lockstep at the most: they are in memory together"""

COHORT_SHARE = 0.5
"""the share of the memory that is free at the start which cohorts may hold, all processes together"""


@dataclass(frozen=True)
class Prepared:
    """A plan, how it will be executed, and in what state its runs are.

    checked: the jobs of teachers that are done already, since something was measured under them.
    """

    config: BenchConfig
    plan: Plan
    options: Options
    jobs: int
    states: Mapping[str, State] = field(default_factory=dict)
    checked: frozenset[str] = frozenset()


def prepare(config: BenchConfig, modules: Modules | None = None) -> Prepared:
    """Everything that can go wrong before the first step but for folders; writes nothing. Raises InputError with all of it."""
    load_plugins(config.plugin)
    images_of.cache_clear()  # in a long session the files may have changed since the last bench
    unlabelled_of.cache_clear()
    problems: list[str] = []
    made = device = settings = None
    with noting(problems):
        device = device_of(config.device)
    with noting(problems):
        settings = wandb_settings(config.wandb, os.environ)
    states: dict[str, State] = {}
    with noting(problems):
        made = plan(config, modules)
        states = states_of(made)
        if any(state != "done" for state in states.values()):  # what has been trained can be
            notes = preflight(made, modules or Modules(), config.image_cache, torch.device(device or "cpu"))
            slow = why_slow((planned.run.recipe.precision for planned in made.students), torch.device(device or "cpu"))
            made = replace(made, notes=(*made.notes, *notes, *([slow] if slow else [])))
    if problems or made is None or device is None:
        raise InputError(*problems)
    jobs, threads = processes(config, device, made)
    options = Options(
        device=device,
        threads=threads,
        checkpoint_seconds=config.checkpoint_seconds,
        keep=config.keep,
        oracle=config.oracle,
        channels_last=config.channels_last,
        teacher_cache=config.teacher_cache,
        stack=config.stack_students,
        compile=config.compile,
        memory=int(COHORT_SHARE * free_memory(device) / jobs),
        image_cache=config.image_cache,
        allow_chance_teacher=config.allow_chance_teacher,
        wandb=asdict(settings) if settings else None,
    )
    return Prepared(config, made, options, jobs, states)


def states_of(made: Plan) -> dict[str, State]:
    """In what state the students of a plan are; those that are open are new."""
    return {p.run.id: "new" if p.open else made.store.run(p.run.id).state() for p in made.students}


def asked(options: Mapping[str, Any], file: Path | None = None, modules: Modules | None = None) -> BenchConfig:
    """The bench in words; raises InputError with the faults of the words and with those of the plan that the rest comes to."""
    try:
        return bench_config(options, file)
    except ConfigError as error:
        problems = list(error.problems)
        if error.rest is not None:
            with noting(problems):
                prepare(error.rest, modules)
        raise InputError(*problems) from error


def run(
    prepared: Prepared, pool: Pool | None, handle: Handle, *, retry_failed: bool, modules: Modules | None = None, command: str = ""
) -> Outcome:
    """Train what is missing of a plan, refit where asked, write the tables; without a pool in this process.

    command: the command line or the call that asked for it, which the bench's folder keeps with the configuration.
    Raises InputError, before any work, where the results or the teachers cannot be written.
    """
    writable(prepared.plan.folder)
    writable(teacher_store().folder)
    for text in prepared.plan.notes:
        handle({"event": "note", "text": text})
    if prepared.options.wandb is not None and prepared.options.wandb.get("note"):
        handle({"event": "note", "text": prepared.options.wandb["note"]})
    for line in data_lines(prepared.plan.data, where_data_is_told(prepared.config)):
        handle({"event": "data", "text": line})
    if retry_failed:
        forget_failed_teachers(prepared.plan)
    keep_reused(prepared)
    prepared, undosed = with_weights(prepared, pool, handle, modules or Modules())
    config, plans = prepared.config, [prepared.plan]
    keep_command(prepared, plans, command, handle)
    outcome = _run_plan(prepared, pool, handle, retry_failed, modules or Modules())
    outcome.failed.update(undosed)
    if wants_refit(config) and not others_than_divergence(outcome.failed):
        handle({"event": "note", "text": "refit: the chosen settings are trained with fresh seeds on the whole training set"})
        plans.append(refit_plan(prepared))
        keep_command(prepared, plans, command, handle)
        more = _run_plan(replace(prepared, plan=plans[1], checked=frozenset()), pool, handle, retry_failed, modules or Modules())
        outcome = Outcome(outcome.done | more.done, {**outcome.failed, **more.failed})
    for text in check_hints([planned.run for planned in prepared.plan.students], outcome.failed):
        handle({"event": "note", "text": text})
    board, _ = write_tables(prepared.plan.folder)
    if prepared.options.wandb is not None:
        log_leaderboard(WandbSettings(**prepared.options.wandb), prepared.plan.folder, config, board, len(outcome.done), handle)
    if not outcome.failed and modules is None and prepared.options.wandb is None and (files := files_of(prepared, plans)) is not None:
        keep_finished(config, outcome.done, files)
    return outcome


def run_race(
    prepared: Prepared,
    race: Race,
    pool: Pool | None,
    handle: Handle,
    *,
    retry_failed: bool,
    modules: Modules | None = None,
    command: str = "",
) -> Outcome:
    """Train what is missing of the seeds that a race adds to a bench whose sweep and refit are done, and write its tables.

    Raises InputError where they are not.
    """
    writable(prepared.plan.folder)
    again = refit_plan(prepared)
    made, decisions = race_plan(prepared, again, race)
    for decision in decisions:
        handle({"event": "note", "text": f"{race.seeds} seeds for {decision}"})
    keep_command(prepared, [prepared.plan, again, made], command, handle)
    outcome = _run_plan(replace(prepared, plan=made, checked=frozenset()), pool, handle, retry_failed, modules or Modules())
    write_tables(prepared.plan.folder)
    return outcome


def race_plan(prepared: Prepared, again: Plan, race: Race) -> tuple[Plan, tuple[Decision, ...]]:
    """The seeds that a race adds to a refit, seed by seed, and what its rule came to."""
    bench = read_bench(prepared.plan.folder)
    decisions = decide(bench, prepared.config, race)
    used, planned = seeds_of_sweeps(bench.records), {one.run.id: one for one in again.students}
    added = [
        replace(one, run=one.run.model_copy(update={"seed": seed}))
        for decision in decisions
        for standing in decision.standings
        if (one := planned.get(standing.record.id)) is not None
        for seed in more_seeds(standing.record.method, prepared.config, race, used)
    ]
    added.sort(key=lambda one: one.run.seed)
    students = tuple({one.run.id: one for one in added}.values())
    return replace(again, students=students, points=len(students)), decisions


def where_data_is_told(config: BenchConfig) -> str:
    """The command that prints everything about a bench's data; for data that exist in this process alone, a file."""
    source = DATA.plugin_of(config.data)
    if source == "":
        return "about.data in any run.json of this bench"
    root = ["--data-root", config.data_root] if config.data_root else []
    return shlex.join(["kdzoo", "data", config.data, *root, *(["--plugin", source] if source else [])])


def keep_command(prepared: Prepared, plans: Iterable[Plan], command: str, handle: Handle) -> None:
    """Write down in the bench's folder how it is being made."""
    start = Start.of(command, prepared.config, (planned.run.id for made in plans for planned in made.students))
    if fault := keep_start(prepared.plan.folder, start):
        handle({"event": "note", "text": fault})


def files_of(prepared: Prepared, plans: Iterable[Plan]) -> list[Path] | None:
    """The files that a bench was planned from; None where it hangs on what no file tells: other packages' methods, a source of a user's."""
    config = prepared.config
    sources = [config.data, *([config.transfer_data] if config.transfer_data else [])]
    if any(DATA.plugin_of(source) is not None for source in sources) or entry_points(group="kdzoo.methods"):
        return None
    named = [
        config.recipe,
        config.doses_from,
        *config.plugin,
        *(file for made in plans for planned in made.students for role in ("teacher", "student") for file in _listed(planned, role)),
    ]
    files = [Path(name) for name in dict.fromkeys(named) if name is not None and Path(name).exists()]
    files += [file for plugin in config.plugin for file in files_beside(Path(plugin))]
    root = Path(config.data_root) if config.data_root else None
    return [*files, *(file for source in sources for file in data_files(source, root))]


def _listed(planned: Planned, role: str) -> list[str | None]:
    """The files of a network's weights as a list."""
    found = planned.about["paths"].get(role)
    return found if isinstance(found, list) else [found]


def keep_reused(prepared: Prepared) -> None:
    """Keep what the bench takes from another one's measurements in its own folder, so that it needs the other no more."""
    if prepared.config.doses_from is None:
        return
    used = {dose["measured"] for planned in prepared.plan.students for dose in planned.about.get("doses", {}).values()}
    keep_doses(prepared.plan.folder, {key: one for key, one in reused_doses(prepared.config.doses_from).items() if key in used})


def with_weights(prepared: Prepared, pool: Pool | None, handle: Handle, modules: Modules) -> tuple[Prepared, dict[str, str]]:
    """The same bench with the weights of all its runs, once what they hang on is measured; and why some have none, by label.

    The teachers are trained first. Runs whose ratio cannot be measured are left out, and are failures.
    """
    made = prepared.plan
    if not made.unmeasured:
        return prepared, {}
    reasons: dict[str, str] = {}

    def listen(event: Event) -> None:
        if event["event"] == "no dose":
            reasons[f"{event['label']} by doses"] = event["error"]
            handle({"event": "note", "text": f"{event['label']}: {event['error']}; its settings by dose are skipped"})
        elif event["event"] not in ("done", "failed") or event.get("kind"):
            handle(event)

    for fault in write_teachers(made):
        handle({"event": "note", "text": fault})
    jobs = measurements(made, prepared.options, prepared.jobs)
    handle({"event": "plan", "name": made.name, "units": sum(job.units for job in jobs), "total": 0, "done": 0, "failed": 0})
    if pool is not None:
        launch(jobs, pool, listen)
    else:
        launch_here(jobs, listen, modules)
    again = plan(prepared.config, modules)
    known = tuple(planned for planned in again.students if not planned.open)
    again = replace(again, students=known, unmeasured=())
    checked = frozenset(job.name for job in jobs if job.kind == "teacher")
    return replace(prepared, plan=again, states=states_of(again), checked=checked), reasons


def refit_plan(prepared: Prepared) -> Plan:
    """The refit of what was chosen among a plan's own runs: others in its folder were not asked for, but their seeds are used."""
    bench = read_bench(prepared.plan.folder)
    planned = {one.run.id: one for one in prepared.plan.students}
    chosen = [planned[run_id] for run_id in chosen_runs(bench.only(planned))]
    used = [record.run.seed for record in bench.records if record.about and record.place.phase == "sweep"]
    return refit([(one.run, one.about) for one in chosen], prepared.config, prepared.plan.teachers, used)


def _run_plan(prepared: Prepared, pool: Pool | None, handle: Handle, retry_failed: bool, modules: Modules) -> Outcome:
    made = prepared.plan
    for fault in write_plan(made):
        handle({"event": "note", "text": fault})
    outcome = Outcome()
    todo: list[Planned] = []
    for planned in made.students:
        folder = made.store.run(planned.run.id)
        state = folder.state()
        if state == "done":
            outcome.done.add(folder.id)
        elif state == "failed" and not retry_failed:
            outcome.failed[folder.id] = folder.failure()
        else:
            forget_damaged(folder, handle)
            if state == "failed":
                folder.forget()
            todo.append(planned)
    if retry_failed:
        forget_failed_teachers(made)
    jobs = cut(todo, made, prepared.options, prepared.jobs, prepared.checked)
    units = sum(job.units for job in jobs)
    counts = {"total": len(made.students), "done": len(outcome.done), "failed": len(outcome.failed)}
    teachers = sum(job.units for job in jobs if job.kind == "teacher")
    work = {"units": units, "teacher_units": teachers, "processes": prepared.jobs, "alike": trained_alike(made)}
    handle({"event": "plan", "name": made.name, **work, **counts})
    if jobs:
        caches = CacheStatistics(handle)
        more = launch(jobs, pool, caches.handle) if pool is not None else launch_here(jobs, caches.handle, modules)
        caches.tell()
        outcome = Outcome(outcome.done | more.done, {**outcome.failed, **more.failed})
    known = {planned.run.id for planned in made.students}
    untold = known - outcome.done - outcome.failed.keys()
    outcome.failed.update(dict.fromkeys(untold, "it was not trained: no worker reported a result"))
    return Outcome(outcome.done & known, {key: text for key, text in outcome.failed.items() if key in known})


def trained_alike(made: Plan) -> bool:
    """Whether an epoch of a teacher is trained as one of its students is, but for length and rate: its speed then tells of theirs."""

    def trained_as(run: Run) -> Recipe:
        return run.recipe.model_copy(update={"epochs": 1, "lr": 1.0})

    recipes = {trained_as(planned.run) for planned in made.students}
    return all(trained_as(teacher.run) in recipes for teacher in made.teachers.values())


def forget_failed_teachers(made: Plan) -> None:
    for teacher in map(teacher_store().run, made.teachers):
        if teacher.state() == "failed":
            teacher.forget()


@dataclass
class CacheStatistics:
    """Adds up what the cohorts say of their teacher caches, and passes all other events on."""

    further: Handle
    lookups: int = 0
    hits: int = 0
    bytes: int = 0

    def handle(self, event: Event) -> None:
        if event["event"] != "teacher cache":
            self.further(event)
            return
        self.lookups += event["lookups"]
        self.hits += event["hits"]
        self.bytes = max(self.bytes, event["bytes"])

    def tell(self) -> None:
        if self.lookups:
            share = f"{100 * self.hits / self.lookups:.0f} % of {self.lookups:,} answers remembered"
            size = self.bytes / 1024**2
            self.further({"event": "summary", "text": f"teacher cache: {share}, in {size:,.{0 if size >= 10 else 1}f} MB"})


def launch_here(jobs: Iterable[Job], handle: Handle, modules: Modules) -> Outcome:
    """The jobs in this process, one after the other: for networks and methods that exist only here."""
    outcome, bench = Outcome(), Bench(modules)
    waiting: list[str] = []

    def note(event: dict[str, object]) -> None:
        if event["event"] == "done":
            outcome.done.add(str(event["id"]))
        elif event["event"] == "failed":
            outcome.failed[str(event["id"])] = str(event["error"])
        elif event["event"] == "locked":
            waiting.extend(event["ids"])  # type: ignore[arg-type]
            return
        handle({"worker": 0, **event})

    for job in jobs:
        work(job, bench, note, lambda: False)
        while waiting:
            ids = tuple(waiting)
            waiting.clear()
            time.sleep(1.0)
            work(job.only(ids), bench, note, lambda: False)
    return outcome


def write_plan(made: Plan) -> list[str]:
    """Write run.json of every planned run, and of the teachers that have to be trained; what was wrong with those there."""
    faults = [made.store.run(planned.run.id).plan(planned.run, planned.about) for planned in made.students]
    return [*(fault for fault in faults if fault is not None), *write_teachers(made)]


def write_teachers(made: Plan) -> list[str]:
    """Write run.json of the teachers that have to be trained; what was wrong with those there."""
    faults = [teacher_store().run(planned.run.id).plan(planned.run, planned.about) for planned in made.teachers.values()]
    return [fault for fault in faults if fault is not None]


def measurements(made: Plan, options: Options, processes: int) -> list[Job]:
    """The teachers first, then what has to be measured, together where one student serves: same teacher, data and recipe.

    A student that starts from a first stage serves what starts there too.
    """
    jobs: dict[str, Job] = {}
    for group in _groups(made.unmeasured, _start_of):
        probes = tuple(
            {
                "method": one.run.objective.label,
                "run": one.run.model_dump(mode="json"),
                "about": dict(one.about),
            }
            for one in group
        )
        taught = next((number for number, one in enumerate(group) if one.run.teacher is not None), None)
        after = None
        if taught is not None:
            example = group[taught]
            job = teacher_job(example, made, options, processes)
            after = job.name
            jobs.setdefault(after, replace(job, probes=(probes[taught],)))
        name = f"doses of {len(group)} at {group[0].run.id}"
        jobs[name] = Job(name, "doses", str(made.folder), (), replace(options, wandb=None), after=after, probes=probes)
    return list(jobs.values())


def _start_of(run: Run) -> str:
    """The first stage that a student of a run starts from; empty where it starts afresh."""
    first = run.first
    if first is None or not REGISTRY.get(first.objective.terms[0].method).card.needs.student:
        return ""
    return first.id


def cut(todo: Iterable[Planned], made: Plan, options: Options, processes: int, checked: Container[str] = ()) -> list[Job]:
    """Teachers first, then cohorts: runs that share data, recipe, seed and teacher, small enough to keep all processes busy.

    checked: names of jobs of teachers that are left out, since they are done.
    """
    todo = list(todo)
    groups = _groups(todo)
    busy = 1 if processes == 1 else 2 * processes  # two cohorts for each process, so that none waits long for the last
    largest = max(1, min(LARGEST_COHORT[torch.device(options.device).type], -(-len(todo) // busy)))
    stages = first_stages(todo, made)
    jobs: dict[str, Job] = {}
    for group in groups:
        after = None
        example = next((planned for planned in group if planned.run.teacher is not None), None)
        if example is not None:
            job = teacher_job(example, made, options, processes)
            after = None if job.name in checked else job.name
            if after is not None:
                jobs.setdefault(after, replace(job, example=(str(made.folder), example.run.id)))
        for number, start in enumerate(range(0, len(group), largest)):
            part = group[start : start + largest]
            name = f"{part[0].run.id} and {len(part) - 1} more ({number})"
            ids = tuple(p.run.id for p in part)
            units = sum(units_of(run) for p in part for run in [p.run, *stages.get(p.run.id, ())])
            jobs[name] = Job(name, "students", str(made.folder), ids, options, units, after)
    return list(jobs.values())


def teacher_job(student: Planned, made: Plan, options: Options, processes: int) -> Job:
    """The job that trains the teacher of a student, where that has to be, and checks it.

    Students wait for their teachers, which therefore share all threads among them.
    """
    trained = [made.teachers[i] for i in [student.about["teacher_id"]] if i in made.teachers]
    return Job(
        name=f"teacher {student.run.teacher} on {student.run.data.val_fraction}",
        kind="teacher",
        folder=str(teacher_store().folder),
        ids=tuple(one.run.id for one in trained),
        options=replace(options, wandb=None, oracle=False, keep=("predictions", "student")),
        teacher_threads=max(options.threads, options.threads * processes // max(len(made.teachers), 1)),
        units=sum(units_of(one.run) for one in trained if teacher_store().run(one.run.id).state() != "done"),
    )


def units_of(run: Run) -> int:
    """The work of a run, in the units that training reports; its first stage is a run of its own."""
    return run.recipe.epochs * UNITS_AN_EPOCH


def first_stages(todo: Iterable[Planned], made: Plan) -> dict[str, list[Run]]:
    """The first stages that have to be trained, each once: by the id of the first run that starts from it."""
    needed: dict[str, tuple[str, Run]] = {}
    for planned in todo:
        if (first := planned.run.first) is not None and made.store.run(first.id).state() != "done":
            needed.setdefault(first.id, (planned.run.id, first))
    return {owner: [first] for owner, first in needed.values()}


def _groups(todo: Iterable[Planned], further: Callable[[Run], str] = lambda run: "") -> list[list[Planned]]:
    """The runs that may train in lockstep: same data, recipe, seed, student and teacher; one without a teacher joins the first such.

    further: what else has to be the same.
    """
    groups: dict[tuple[str, ...], dict[str, list[Planned]]] = {}
    for planned in todo:
        run = planned.run
        of_teacher = groups.setdefault((str(run.data), str(run.recipe), str(run.seed), str(run.student), further(run)), {})
        of_teacher.setdefault("" if run.teacher is None else str(run.teacher), []).append(planned)
    found = []
    for of_teacher in groups.values():
        alone = of_teacher.pop("", [])
        first, *others = of_teacher.values() or [[]]
        found += [alone + first, *others]
    return found


def processes(config: BenchConfig, device: str, made: Plan) -> tuple[int, int]:
    """How many worker processes, and how many threads each; taken from the whole plan, so that a resume takes the same.

    On a CPU one thread in each of as many processes as there are cores, unless there are fewer cohorts than that, or the
    environment's OMP_NUM_THREADS says how many threads a process has.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cohorts = len(_groups(made.students))
    count = config.jobs or (min(cores, max(cohorts, 1)) if device == "cpu" else 1)
    return count, config.threads or environments_threads() or max(1, cores // count)


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


def free_memory(device: str) -> int:
    """Bytes that are free on a device, or of this machine's memory."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES")


def preflight(made: Plan, modules: Modules, image_cache: int | None = None, device: torch.device | None = None) -> tuple[str, ...]:
    """Build every distinct student, teacher and objective once, untrained, and try users' losses for a step; notes on these trials.

    Raises InputError for what cannot work.
    """
    problems: list[str] = []
    stalls: list[str] = []
    students: dict[str, tuple[Network, Shapes]] = {}
    taught: dict[str, Shapes | None] = {}
    tried: set[tuple[str, ...]] = set()
    for planned in made.teachers.values():
        with noting(problems):
            bound = _unbound(planned, made)
            student_of(bound, *data_of(bound, image_cache), None, modules)
    for planned in _distinct(made.students, lambda p: (str(p.run.student), str(p.run.teacher), str(p.run.objective))):
        with noting(problems):
            bound = _unbound(planned, made)
            images, parts = data_of(bound, image_cache)
            if str(bound.run.teacher) not in taught:
                teacher = untrained_teacher(bound, images, modules)
                taught[str(bound.run.teacher)] = None if teacher is None else shapes_of(teacher, shape_of(images, bound.run.recipe))
            if str(bound.run.student) not in students:
                network = student_network(bound, images, modules)
                students[str(bound.run.student)] = network, student_shapes(bound.run, network, images, modules)
            student, shapes = students[str(bound.run.student)], taught[str(bound.run.teacher)]
            for run in filter(None, (bound.run.first, bound.run)):
                objective = objective_of(run, *student, images, parts, shapes)
                if users_methods(objective) and (what := trial_key(run)) not in tried:
                    tried.add(what)
                    source = untrained_teacher(bound, images, modules)
                    teacher_of_run = None if source is None or shapes is None else (source, shapes)
                    bound_run, place = replace(bound, run=run), device or torch.device("cpu")
                    try_loss(bound_run, student, teacher_of_run, objective, images, parts, place, stalls)
    for planned in _distinct((p for p in made.students if p.run.teacher), lambda p: (str(p.run.teacher),)):
        with noting(problems):
            load_given_weights(_unbound(planned, made), made, modules, image_cache)
    if problems:
        raise InputError(*dict.fromkeys(problems))
    return tuple(
        f"{label}: the trial of its loss in a copy of this process did not answer within {PATIENCE_SECONDS:.0f} seconds; it and the "
        f"losses after it are tried in this process, which a crash in one of them would end"
        for label in stalls
    )


def load_given_weights(bound: Bound, made: Plan, modules: Modules, image_cache: int | None) -> None:
    """Build the teacher of a run with its own weights, unless this bench trains it first; raises InputError where they do not fit."""
    spec = bound.run.teacher
    if spec is None or spec.start.removeprefix("run:") in made.teachers:
        return
    images, _ = data_of(bound, image_cache)
    network_of(spec, images, side=shape_of(images, bound.run.recipe)[1], seed=0, path=bound.paths.get("teacher"), modules=modules)


def untrained_teacher(bound: Bound, images: Images, modules: Modules) -> Network | None:
    """A teacher with random weights, which has the shapes and the cost of the trained one."""
    if bound.run.teacher is None:
        return None
    side = shape_of(images, bound.run.recipe)[1]

    def untrained(spec: NetworkSpec) -> Network:
        return freeze(network_of(spec.model_copy(update={"start": "random"}), images, side=side, seed=0, path=None, modules=modules))

    members = members_of(bound.run.teacher, bound.paths.get("teacher"))
    return Ensemble([untrained(member) for member, _ in members]) if members else untrained(bound.run.teacher)


def estimate(prepared: Prepared, modules: Modules | None = None) -> float:
    """Seconds that the missing runs will take, from a probe of a few steps of one run of each pair and objective."""
    made, modules, execution = prepared.plan, modules or Modules(), execution_of(replace(prepared.options, teacher_cache=0))
    torch.set_num_threads(prepared.options.threads)
    students = [(p, made.store.run(p.run.id)) for p in made.students]
    left = [(p, f) for p, f in [*students, *((p, teacher_store().run(p.run.id)) for p in made.teachers.values())] if f.state() != "done"]
    stages = first_stages([planned for planned, _ in left], made)

    def kind(planned: Planned) -> tuple[str, ...]:
        return (str(planned.about["pair"]), planned.run.objective.label, str(planned.run.recipe))

    seconds: dict[tuple[str, ...], float] = {}
    for planned in _distinct((planned for planned, _ in left), kind):
        bound = _unbound(planned, made)
        images, parts = data_of(bound, prepared.options.image_cache)
        network = untrained_teacher(bound, images, modules)
        shape = shape_of(images, bound.run.recipe)
        teacher = shapes = None
        if network is not None:
            teacher = serve(network, "untrained", count(network, shape), parts.first(1), bound.run.recipe.augment, execution)
            shapes = shapes_of(network, shape)
        member = member_of(bound, images, parts, shapes, execution, modules)
        seconds[kind(planned)] = seconds_an_epoch(cohort_of([member], parts, teacher, execution))
    epochs = {p.run.id: epochs_left(p.run, f) + sum(stage.recipe.epochs for stage in stages.get(p.run.id, ())) for p, f in left}
    return sum(seconds[kind(planned)] * epochs[planned.run.id] for planned, _ in left) / prepared.jobs


def epochs_left(run: Run, folder: RunFolder) -> int:
    """The epochs of a run that are not behind it, as far as its checkpoint reaches: its metrics may reach a little further."""
    return run.recipe.epochs - (len(read_lines(folder.metrics)) if folder.state() == "started" else 0)


def _unbound(planned: Planned, made: Plan) -> Bound:
    """A planned run with its folder, which need not exist yet."""
    return Bound(planned.run, RunFolder(made.folder / "runs" / planned.run.id), planned.about["paths"])


def _distinct(planned: Iterable[Planned], key: Callable[[Planned], tuple[str, ...]]) -> list[Planned]:
    """The first of each key, in order."""
    return list({key(p): p for p in reversed(list(planned))}.values())[::-1]
