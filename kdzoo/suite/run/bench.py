"""A bench from start to end: teachers, cohorts, refit, tables."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace

from kdzoo.data.known import DATA
from kdzoo.data.report import data_lines
from kdzoo.runs.atomic import StoreError, ensure_writable, remove_unfinished
from kdzoo.runs.events import DataLine, DoseUnknown, Emit, Event, Note, PlanMade, RunDone, RunFailed, emit_notes
from kdzoo.runs.store import teacher_store
from kdzoo.runs.wandb_settings import WandbSettings
from kdzoo.suite.plan.cohorts import measurements
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.jobs import Outcome
from kdzoo.suite.plan.planned import Plan
from kdzoo.suite.plan.race import Race
from kdzoo.suite.plan.refit import wants_refit
from kdzoo.suite.plan.refit_plan import refit
from kdzoo.suite.plan.sweep import plan as make_plan
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.race import Decision, decide, more_seeds, seeds_of_sweeps
from kdzoo.suite.report.selection import chosen_runs
from kdzoo.suite.report.table_files import BenchOutcome, write_tables
from kdzoo.suite.run.failures import others_than_divergence
from kdzoo.suite.run.fill import keep_measurement
from kdzoo.suite.run.finished import keep_finished
from kdzoo.suite.run.halving import search
from kdzoo.suite.run.launchers.launcher import Launcher
from kdzoo.suite.run.planned_files import files_of, forget_failed_teachers, keep_command, keep_reused, write_teachers
from kdzoo.suite.run.prepare import Prepared, states_of
from kdzoo.suite.run.supervise import run_jobs
from kdzoo.suite.run.tracking import log_leaderboard
from kdzoo.suite.run.train_plan import train_plan
from kdzoo.suite.run.trial import check_hints
from kdzoo.training.located import Modules


def run(
    prepared: Prepared,
    launcher: Launcher,
    emit: Emit,
    *,
    retry_failed: bool,
    modules: Modules | None = None,
    command: str = "",
    stop: Callable[[], bool] = lambda: False,
) -> BenchOutcome:
    """Train what is missing of a plan, refit where asked, write the tables; teachers and students are trained by the launcher.

    command: the command line or the call that asked for it, which the bench's folder keeps with the configuration. stop: asked
    while runs train, whether they are to end with checkpoints.
    Raises InputError, before any work, where the results or the teachers cannot be written.
    """
    ensure_writable(prepared.plan.folder)
    ensure_writable(teacher_store().folder)
    remove_unfinished(prepared.plan.folder)
    emit_notes(prepared.plan.notes, emit)
    if prepared.options.wandb is not None and prepared.options.wandb.get("note"):
        emit(Note(prepared.options.wandb["note"]))
    for line in data_lines(prepared.plan.data, data_command(prepared.config)):
        emit(DataLine(line))
    if retry_failed:
        forget_failed_teachers(prepared.plan)
    keep_reused(prepared)
    if prepared.measurement is not None:
        keep_measurement(prepared.plan.folder, prepared.measurement)
    prepared, without_doses = with_weights(prepared, launcher, emit, modules or Modules())
    config, plans = prepared.config, [prepared.plan]
    keep_command(prepared, plans, command, emit)
    train = train_plan if config.budget is None else search
    outcome = train(prepared, launcher, emit, retry_failed=retry_failed, stop=stop)
    outcome.failed.update(without_doses)
    if wants_refit(config) and not others_than_divergence(outcome.failed):
        emit(Note("refit: the chosen settings are trained with fresh seeds on the whole training set"))
        plans.append(refit_plan(prepared))
        keep_command(prepared, plans, command, emit)
        whole = replace(prepared, plan=plans[1], checked=frozenset())
        of_refit = train_plan(whole, launcher, emit, retry_failed=retry_failed, stop=stop)
        outcome = outcome.joined(of_refit)
    emit_notes(check_hints([planned.run for planned in prepared.plan.students], outcome.failed), emit)
    tables = write_tables(prepared.plan.folder, prepared.known)
    if prepared.options.wandb is not None:
        log_leaderboard(WandbSettings(**prepared.options.wandb), prepared.plan.folder, config, tables.board, len(outcome.done), emit)
    if not outcome.failed and modules is None and prepared.options.wandb is None and (files := files_of(prepared, plans)) is not None:
        try:
            keep_finished(config, outcome.done, files)
        except StoreError as error:  # the same command then plans again before it finds nothing left to do
            emit(Note(f"that this bench is finished is not kept: {error}"))
    return BenchOutcome(outcome.done, outcome.failed, outcome.paused, tables)


def run_race(
    prepared: Prepared,
    race: Race,
    launcher: Launcher,
    emit: Emit,
    *,
    retry_failed: bool,
    command: str = "",
) -> Outcome:
    """Train what is missing of the seeds that a race adds to a bench whose sweep and refit are done, and write its tables.

    Raises InputError where they are not.
    """
    ensure_writable(prepared.plan.folder)
    refit_of_sweep = refit_plan(prepared)
    plan, decisions = race_plan(prepared, refit_of_sweep, race)
    for decision in decisions if race.chooses else ():
        emit(Note(f"{race.seeds} seeds for {decision}"))
    keep_command(prepared, [prepared.plan, refit_of_sweep, plan], command, emit)
    outcome = train_plan(replace(prepared, plan=plan, checked=frozenset()), launcher, emit, retry_failed=retry_failed)
    write_tables(prepared.plan.folder, prepared.known)
    return outcome


def race_plan(prepared: Prepared, refit_of_sweep: Plan, race: Race) -> tuple[Plan, tuple[Decision, ...]]:
    """The runs of the seeds that a race adds to a refit, in the order of the seeds, and the decisions of its rule."""
    bench = read_bench(prepared.plan.folder, prepared.known)
    decisions = decide(bench, prepared.config, race)
    used_seeds, planned = seeds_of_sweeps(bench.records), {one.run.id: one for one in refit_of_sweep.students}
    more = [
        replace(one, run=one.run.model_copy(update={"seed": seed}))
        for decision in decisions
        for standing in decision.standings
        if (one := planned.get(standing.record.id)) is not None
        for seed in more_seeds(standing.record.method, prepared.config, race, used_seeds)
    ]
    more.sort(key=lambda one: one.run.seed)
    students = tuple({one.run.id: one for one in more}.values())
    return replace(refit_of_sweep, students=students, grid_size=len(students)), decisions


def data_command(config: BenchConfig) -> str:
    """The command that prints everything about a bench's data; for data that exist in this process alone, a file."""
    source = DATA.plugin_of(config.data)
    if source == "":
        return "about.data in any run.json of this bench"
    root = ["--data-root", config.data_root] if config.data_root else []
    return shlex.join(["kdzoo", "data", config.data, *root, *(["--plugin", source] if source else [])])


def with_weights(prepared: Prepared, launcher: Launcher, emit: Emit, modules: Modules) -> tuple[Prepared, dict[str, str]]:
    """Measure the ratios that weights depend on, and plan the bench again with them; the reasons of runs without weights, by label.

    The teachers are trained first. Runs whose ratio cannot be measured are left out, and are failures.
    """
    plan = prepared.plan
    if not plan.unmeasured:
        return prepared, {}
    reasons: dict[str, str] = {}

    def listen(event: Event) -> None:
        if isinstance(event, DoseUnknown):
            reasons[f"{event.label} by doses"] = event.error
            emit(Note(f"{event.label}: {event.error}; its settings by dose are skipped"))
        elif not isinstance(event, RunDone | RunFailed) or event.role != "student":
            emit(event)

    emit_notes(write_teachers(plan), emit)
    jobs = measurements(plan, prepared.options, prepared.jobs)
    emit(PlanMade(plan.name, sum(job.units for job in jobs), total=0, done=0, failed=0))
    launcher.resize(prepared.jobs, prepared.gpus)
    run_jobs(jobs, launcher, listen)
    plan_with_weights = make_plan(prepared.config, modules)
    students = tuple(planned for planned in plan_with_weights.students if not planned.provisional)
    plan_with_weights = replace(plan_with_weights, students=students, unmeasured=())
    checked = frozenset(job.name for job in jobs if job.kind == "teacher")
    return replace(prepared, plan=plan_with_weights, states=states_of(plan_with_weights, prepared.known), checked=checked), reasons


def refit_plan(prepared: Prepared) -> Plan:
    """The refit of the settings chosen among a plan's own runs; seeds of other runs in its folder are not used again."""
    bench = read_bench(prepared.plan.folder, prepared.known)
    planned = {one.run.id: one for one in prepared.plan.students}
    chosen = [planned[run_id] for run_id in chosen_runs(bench.only(planned).records)]
    used_seeds = [record.run.seed for record in bench.records if record.about and record.table_key.phase == "sweep"]
    return refit([(one.run, one.about) for one in chosen], prepared.config, prepared.plan.teachers, used_seeds)
