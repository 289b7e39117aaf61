"""`kdzoo reproduce`: the literature's claims, trained again. Free of torch until there is something to plan."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdzoo.cli import complete
from kdzoo.cli.bench_options import takes_options
from kdzoo.cli.cells import link
from kdzoo.cli.declare import argument, option
from kdzoo.cli.dry_run import plan_lines
from kdzoo.cli.options import AsJson, DataRoot, FormatOption, ResultsFolder, RetryFailed, chosen_format
from kdzoo.cli.orders import print_order
from kdzoo.cli.output import console, print_message, print_text, print_view, with_label
from kdzoo.cli.table import Column, Format, field, print_rows
from kdzoo.cli.training import open_launcher, prepare_bench, report_failures, train_missing, training_display
from kdzoo.contract.methods import REGISTRY
from kdzoo.errors import InputError, collect_problems
from kdzoo.runs.costs import read_costs
from kdzoo.runs.options import RUNNING
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.jobs import Outcome
from kdzoo.suite.plan.outline import outline
from kdzoo.suite.plan.race import Race
from kdzoo.suite.study.hours import count_runs, hours
from kdzoo.suite.study.progress import read_progress, study_folder
from kdzoo.suite.study.speed import this_machine
from kdzoo.suite.study.study import StudyStage
from kdzoo.suite.study.study_files import read_study, shipped_studies
from kdzoo.suite.study.which import Of
from kdzoo.text import one_line

if TYPE_CHECKING:  # they bring pandas, which lists and --help do not need
    from kdzoo.suite.study.evidence import Evidence
    from kdzoo.suite.study.reproduce import StudyRequest


@takes_options("device", "jobs", "threads", before="retry_failed")
def reproduce(
    ctx: typer.Context,
    study: Annotated[
        str | None,
        argument("A study's name, or its YAML file.", default="none: list the studies", names_of=complete.studies, metavar="NAME"),
    ] = None,
    seeds: Annotated[
        int | None, option(text="Seeds of every stage that lists none.", default="the study's", panel=RUNNING, metavar="N")
    ] = None,
    dry_run: Annotated[
        bool, option("--dry-run", text="Print the plan and an estimate of the time; write nothing.", default="off", panel=RUNNING)
    ] = False,
    tables: Annotated[
        bool, option("--tables", text="Write the study's table from the runs that are there; train nothing.", default="off", panel=RUNNING)
    ] = False,
    results: ResultsFolder = Path("results"),
    data_root: DataRoot = None,
    retry_failed: RetryFailed = False,
    output_format: FormatOption = Format.table,
    as_json: AsJson = False,
    **execution: Any,
) -> int:
    """Train a study of the literature again and compare its numbers with the paper's, each within a tolerance stated beforehand.

    Without a name the studies are listed with their hours. A study is a YAML file: benches, in stages that may build on
    earlier ones, steps between them, and the paper's numbers. Its runs and README.md, with its tables as CSV beside it, are
    written to papers/NAME below --results.
    Run the same command again, after Ctrl-C or a crash too, and it trains only what is missing.

    \b
    Examples:
      kdzoo reproduce
      kdzoo reproduce tutorial-cnn --dry-run
      kdzoo reproduce tutorial-cnn --seeds 1
    """
    if study is None:
        with REGISTRY.declarations():
            return list_studies(results, chosen_format(output_format, as_json))
    from kdzoo.suite.study.reproduce import request_study

    options = {"data_root": data_root, **execution}
    problems = []
    if chosen_format(output_format, as_json) is not Format.table:
        problems.append("format: only the list of studies has other formats; a study's numbers are written to results.csv")
    with collect_problems(problems):
        request = request_study(study, results, seeds, {key: value for key, value in options.items() if value is not None})
    if problems:
        raise InputError(*problems)
    if dry_run:
        return print_plans(request, retry_failed=retry_failed)
    if tables:
        return write_tables(request)
    return train_study(request, command=ctx.obj or "", retry_failed=retry_failed)


def list_studies(results: Path, output_format: Format) -> int:
    """Print the studies that are shipped: whether their runs are below `results`, how long they take, and their size."""
    rows, machine = [], this_machine(read_costs())
    for name, file in shipped_studies().items():
        study = read_study(file)
        time = hours(study, machine)
        runs = sum(count_runs(study, stage) or 0 for stage in study.stages)
        rows.append(
            {
                "study": name,
                "title": study.title,
                "measured": read_progress(study, study_folder(results, name)).words(runs, len(study.measured())),
                "hours": time and round(time[0], 2),
                "machine": time and time[1],
                "estimated": time and not (study.time and study.time.measured),
                "runs": runs,
                "seeds": study.seeds,
                "stages": len(study.stages),
                "numbers": len(study.measured()),
                "claim": study.claim,
                "source": study.source,
            }
        )
    others = dict.fromkeys(str(row["machine"]) for row in rows if row["machine"] not in (None, machine.name))
    marks = {machine.name: "", **{other: "*" * number for number, other in enumerate(others, 1)}}
    columns = [
        Column("study", lambda row: link(row["study"], row["source"])),
        Column("title", lambda row: str(row["title"]), prose=True, broken=True),
        field("measured"),
        Column("hours", lambda row: _hours(row, marks), number=True),
        field("runs", number=True),
        field("numbers", number=True),
        field("seeds", number=True),
        field("stages", number=True),
        field("claim", prose=True),
    ]
    on_others = "".join(f", {mark}: on {other}" for other, mark in marks.items() if mark)
    title = f"Measured by runs in {study_folder(results, 'STUDY')}\nHours on {machine.name}{on_others}; ~: estimated, not measured"
    print_rows(rows, output_format, title=title, names=list(rows[0]), columns=columns)
    return 0


def _hours(row: Any, marks: Mapping[str, str]) -> str:
    """`~2.7*`, or `3.0 ` where only others have a mark, so that the digits stand below each other."""
    if row["hours"] is None:
        return "unknown"
    digits = ",.0f" if row["hours"] >= 10 else ".1f"
    return f"{'~' if row['estimated'] else ''}{row['hours']:{digits}}{marks[row['machine']]:{max(map(len, marks.values()))}}"


def print_plans(request: StudyRequest, *, retry_failed: bool) -> int:
    """What a study would train, stage by stage; of one that builds on a stage without runs, what is known before."""
    for stage in request.study.stages:
        for line in _plan_of(request, stage, retry_failed=retry_failed):
            print_text(with_label(line))
    return 0


def _plan_of(request: StudyRequest, stage: StudyStage, *, retry_failed: bool) -> list[tuple[str, str]]:
    """The lines about one stage."""
    if stage.race is not None:
        return race_lines(request, stage)
    if stage.step is not None:
        return [("step", f"{stage.name}: {stage.kind} {stage.step.words()}")]
    from kdzoo.suite.study.stages import is_begun

    if not all(is_begun(request.study, of, request.folder) for of in stage.before):
        planned = outline(request.study.config(stage, request.seeds, results=str(request.folder), **request.options))
        return [*(planned.lines() if planned else []), ("time", f"known once {_earlier(stage.before)} is trained")]
    return plan_lines(prepare_bench(request.bench(stage)), retry_failed=retry_failed)


def race_lines(request: StudyRequest, stage: StudyStage) -> list[tuple[str, str]]:
    """A race's plan in words; its methods are known once the stage before it is trained."""
    assert stage.race is not None
    race = stage.race
    if request.seeds is not None:
        return [("race", f"{stage.name}: left out, since --seeds says how many seeds every method has")]
    runs = count_runs(request.study, stage)
    takes = [f"the {race.best} best" if race.best else "", f"the {race.widest} with the widest interval" if race.widest else ""]
    return [
        ("race", f"{stage.name}: {'' if runs is None else f'{runs:,} runs, '}results in the folder of {race.stage}"),
        *([("methods", f"{' and '.join(filter(None, takes))} of stage {race.stage}, on {race.seeds} seeds in all")] if any(takes) else []),
        ("controls", f"the student alone and plain KD, on {race.seeds_for('none')} seeds in all"),
    ]


def _earlier(before: Iterable[Of]) -> str:
    return " and ".join(dict.fromkeys(of.stage for of in before))


def train_study(request: StudyRequest, *, command: str, retry_failed: bool) -> int:
    """Train what is missing of every stage, then write and print the study's table; 1 where some run or step failed."""
    from kdzoo.suite.study.reproduce import reproduce_stages

    def train(config: BenchConfig, race: Race | None) -> Outcome:
        if race is None:
            return train_missing(config, command=command, retry_failed=retry_failed)
        return train_race(config, race, command=command, retry_failed=retry_failed)

    done = reproduce_stages(request, train, lambda text: print_text(one_line(text)))
    for problem in done.problems:
        print_message(problem)
    if done.stopped is not None and done.outcome is not None:
        stopped = request.folder / request.study.bench_of(done.stopped).name
        report_failures(done.outcome, shlex.join(["kdzoo", "status", str(stopped)]))
    print_evidence(request, done.evidence)
    return 0 if done.stopped is None else 1


def train_race(config: BenchConfig, race: Race, *, command: str, retry_failed: bool) -> Outcome:
    """Train the seeds that a race adds to a bench, with its display."""
    with open_launcher(config) as launcher:
        from kdzoo.suite.run.bench import run_race

        prepared = prepare_bench(config)
        with training_display() as display:
            return run_race(prepared, race, launcher, display.handle, retry_failed=retry_failed, command=command)


def write_tables(request: StudyRequest) -> int:
    """Write and print a study's tables from the runs that are there."""
    from kdzoo.suite.study.evidence import write_evidence

    if not request.folder.is_dir():
        raise InputError(f"{request.folder}: no runs of this study yet; run the command without --tables to train them")
    print_evidence(request, write_evidence(request.study, request.name_or_file, request.folder))
    return 0


def print_evidence(request: StudyRequest, evidence: Evidence) -> None:
    """Print a study's numbers, surfaces and order of methods, and where they were written."""
    from kdzoo.suite.report.terminal import evidence_view, titled
    from kdzoo.suite.study.evidence import PAGE
    from kdzoo.suite.study.evidence_table import shown_frame
    from kdzoo.suite.study.surface_table import surface_frame

    page = request.folder / PAGE
    if evidence.measured:
        print_view(evidence_view(request.study.title, shown_frame(evidence.measured), console().width, str(page)))
    for one in evidence.surfaces:
        print_view(titled(one.spec.name, surface_frame(one), console().width))
        if one.reason:
            print_text(one_line(f"not measured: {one.reason}"))
    if evidence.order is not None:
        print_order(evidence.order.names, evidence.order.blocks)
    beside = ", ".join(evidence.tables)
    print_text(one_line(f"{page}, with {beside} beside it"))
