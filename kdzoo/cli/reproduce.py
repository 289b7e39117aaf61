"""`kdzoo reproduce`: the literature's claims, trained again. Free of torch until there is something to plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kdzoo.cli import complete
from kdzoo.cli.bench import plan_lines, say_failures, train_missing, worker_pool
from kdzoo.cli.options import (
    RUNNING,
    AsJson,
    DataRoot,
    Device,
    Jobs,
    Kind,
    ResultsFolder,
    RetryFailed,
    Threads,
    argument,
    chosen,
    option,
)
from kdzoo.cli.output import Column, Format, console, field, labelled, link, show, tell
from kdzoo.errors import InputError, noting
from kdzoo.suite.config import BenchConfig
from kdzoo.suite.display import open_display
from kdzoo.suite.failures import others_than_divergence
from kdzoo.suite.jobs import Outcome
from kdzoo.suite.outline import outline
from kdzoo.suite.study import Race, Stage, Study, count_runs, hours, read_study, shipped_studies, study_file, wrong_seeds
from kdzoo.text import one_line


def reproduce(
    ctx: typer.Context,
    study: Annotated[
        str | None,
        argument("A study's name, or its YAML file.", default="none: the studies are listed", names_of=complete.studies, metavar="NAME"),
    ] = None,
    seeds: Annotated[int | None, option(text="Number of seeds, of every stage.", default="the study's", panel=RUNNING, metavar="N")] = None,
    dry_run: Annotated[
        bool, option("--dry-run", text="Print the plan and an estimate of the time; write nothing.", default="off", panel=RUNNING)
    ] = False,
    tables: Annotated[
        bool, option("--tables", text="Write the study's table from the runs that are there; train nothing.", default="off", panel=RUNNING)
    ] = False,
    results: ResultsFolder = Path("results"),
    data_root: DataRoot = None,
    device: Device = None,
    jobs: Jobs = None,
    threads: Threads = None,
    retry_failed: RetryFailed = False,
    how: Kind = Format.table,
    as_json: AsJson = False,
) -> int:
    """Train a study of the literature again, and set its numbers beside the paper's: reached or not, by a tolerance stated before.

    Without a name the studies are listed with their hours. A study is a YAML file: benches, in stages that may build on
    earlier ones, and the paper's numbers. Its runs, README.md and results.csv are written to papers/NAME below --results.
    Run the same command again, after Ctrl-C or a crash too, and it trains only what is missing.

    \b
    Examples:
      kdzoo reproduce
      kdzoo reproduce tutorial-cnn --dry-run
      kdzoo reproduce tutorial-cnn --seeds 1
    """
    if study is None:
        return list_studies(chosen(how, as_json))
    given = {"data_root": data_root, "device": device, "jobs": jobs, "threads": threads}
    more = {key: value for key, value in given.items() if value is not None}
    problems: list[str] = []
    if chosen(how, as_json) is not Format.table:
        problems.append("format: only the list of studies has other formats; a study's numbers are written to results.csv")
    if seeds is not None and seeds < 1:
        problems.append(f"seeds: expected a number >= 1, got {seeds}")
    with noting(problems):
        found = read_study(study_file(study))
        if not problems:
            check_configs(found, seeds, more)
    if problems:
        raise InputError(*problems)
    if dry_run:
        return print_plans(found, Path(study).stem, results, seeds, more, retry_failed=retry_failed)
    if tables:
        return print_evidence(found, study, results)
    return train_study(found, study, results, seeds, more, command=ctx.obj or "", retry_failed=retry_failed)


def check_configs(found: Study, seeds: int | None, more: dict[str, Any]) -> None:
    """Raise InputError with what is wrong with the benches of a study under the options of the command line, each fault once."""
    problems = wrong_seeds(found, seeds)
    for stage in found.stages:
        try:
            found.config(stage, seeds, **more)
        except InputError as error:
            problems += [_of_option(problem, f"stages.{stage.name}.bench.", more) for problem in error.problems]
    if problems:
        raise InputError(*dict.fromkeys(problems))


def _of_option(problem: str, place: str, options: dict[str, Any]) -> str:
    """A fault without its place in the study's file where the command line gave the value."""
    return problem.removeprefix(place) if any(problem.startswith(f"{place}{name}:") for name in options) else problem


def list_studies(how: Format) -> int:
    """Print the studies that are shipped, with their size and how long they take."""
    rows = []
    for name, file in shipped_studies().items():
        found = read_study(file)
        time = hours(found)
        counts = [count_runs(found, stage) for stage in found.stages]
        rows.append(
            {
                "study": name,
                "title": found.title,
                "hours": time and round(time[0], 2),
                "machine": time and time[1],
                "estimated": time and found.time is None,
                "runs": sum(count or 0 for count in counts),
                "seeds": found.seeds,
                "stages": len(found.stages),
                "numbers": len(found.measured()),
                "claim": found.claim,
                "source": found.source,
            }
        )
    columns = [
        Column("study", lambda row: link(row["study"], row["source"])),
        Column("hours", _hours, number=True),
        field("runs", number=True),
        field("numbers", number=True),
        field("title"),
        field("seeds", number=True),
        field("stages", number=True),
        field("claim"),
    ]
    show(rows, how, title="Hours on two CPU cores; ~: estimated, not measured", names=list(rows[0]), columns=columns)
    return 0


def _hours(row: Any) -> str:
    if row["hours"] is None:
        return "unknown"
    digits = ",.0f" if row["hours"] >= 10 else ".1f"
    return f"{'~' if row['estimated'] else ''}{row['hours']:{digits}}{'' if row['estimated'] else ' ' + row['machine']}"


def print_plans(found: Study, name: str, results: Path, seeds: int | None, more: dict[str, Any], *, retry_failed: bool) -> int:
    """What a study would train, stage by stage; of one that builds on a stage without runs, what is known before."""
    from kdzoo.suite.bench import prepare
    from kdzoo.suite.stages import stage_config, study_folder

    folder = study_folder(results, name)
    for stage in found.stages:
        if stage.race is not None:
            for line in race_lines(found, stage, seeds):
                tell(labelled(line))
            continue
        if any(not (folder / which.stage / "runs").is_dir() for which in stage.before):
            planned = outline(found.config(stage, seeds, results=str(folder), **more))
            lines = [*(planned.lines() if planned else []), ("time", f"known once {_earlier(stage.before)} is trained")]
        else:
            lines = plan_lines(prepare(stage_config(found, stage, folder, seeds, more)), retry_failed=retry_failed)
        for line in lines:
            tell(labelled(line))
    return 0


def race_lines(found: Study, stage: Stage, seeds: int | None) -> list[tuple[str, str]]:
    """What a race would train, in words; which methods it takes is known once the stage before it is trained."""
    assert stage.race is not None
    race = stage.race
    if seeds is not None:
        return [("race", f"{stage.name}: left out, since --seeds says how many seeds every method has")]
    runs = count_runs(found, stage)
    takes = [f"the {race.best} best" if race.best else "", f"the {race.widest} with the widest interval" if race.widest else ""]
    return [
        ("race", f"{stage.name}: {'' if runs is None else f'{runs:,} runs, '}results in the folder of {race.stage}"),
        ("methods", f"{' and '.join(filter(None, takes))} of stage {race.stage}, on {race.seeds} seeds in all"),
        ("controls", f"the student alone and plain KD, on {race.seeds_for('none')} seeds in all"),
    ]


def _earlier(before: Any) -> str:
    return " and ".join(dict.fromkeys(which.stage for which in before))


def train_study(
    found: Study, given: str, results: Path, seeds: int | None, more: dict[str, Any], *, command: str, retry_failed: bool
) -> int:
    """Train what is missing of every stage, then write and print the study's table; 1 where some run failed.

    given: the study's name or its file, as on the command line.
    """
    from kdzoo.suite.evidence import write_evidence
    from kdzoo.suite.stages import stage_config, study_folder

    folder = study_folder(results, Path(given).stem)
    check_stages(found, folder, seeds, more)
    status = 0
    for number, stage in enumerate(found.stages, start=1):
        tell(f"stage {number} of {len(found.stages)}: {stage.name}")
        config = stage_config(found, found.bench_of(stage), folder, seeds, more)
        if stage.race is None:
            outcome = train_missing(config, command=command, retry_failed=retry_failed)
        elif seeds is None:
            outcome = train_race(config, stage.race, command=command, retry_failed=retry_failed)
        else:
            continue
        write_evidence(found, given, folder)  # after every stage: the next one may take days
        status |= say_failures(outcome, f"kdzoo status {folder / config.name}")
        if others_than_divergence(outcome.failed):
            break
    print_evidence(found, given, results)
    return status


def print_evidence(found: Study, given: str, results: Path) -> int:
    """Write and print a study's table from the runs that are there."""
    from kdzoo.suite.evidence import PAGE, TABLE, shown_frame, write_evidence
    from kdzoo.suite.report import evidence_view
    from kdzoo.suite.stages import study_folder

    folder = study_folder(results, Path(given).stem)
    if not folder.is_dir():
        raise InputError(f"{folder}: no runs of this study yet; run the command without --tables to train them")
    measured = write_evidence(found, given, folder)
    console().print(evidence_view(found.title, shown_frame(measured), console().width, str(folder / PAGE)))
    tell(one_line(f"{folder / PAGE}, with {TABLE} beside it"))
    return 0


def train_race(config: BenchConfig, race: Race, *, command: str, retry_failed: bool) -> Outcome:
    """Train the seeds that a race adds to a bench, with its display."""
    with worker_pool(config) as pool:
        from kdzoo.suite.bench import prepare, run_race

        prepared = prepare(config)
        pool.size = prepared.jobs
        with open_display(console()) as display:
            return run_race(prepared, race, pool, display.handle, retry_failed=retry_failed, command=command)


def check_stages(found: Study, folder: Path, seeds: int | None, more: dict[str, Any]) -> None:
    """Plan every later stage whose networks are known already, so that its faults are told before the first one is trained."""
    later = [
        stage for stage in found.stages[1:] if stage.teacher is None and stage.race is None and not (folder / stage.name / "runs").is_dir()
    ]
    if not later:
        return
    from kdzoo.suite.sweep import plan

    problems: list[str] = []
    for stage in later:
        with noting(problems):
            plan(found.config(stage, seeds, results=str(folder), **more))
    if problems:
        raise InputError(*problems)
