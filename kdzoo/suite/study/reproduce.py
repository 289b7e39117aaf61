"""A study from its first stage to its table. Free of torch until there is something to plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdzoo.errors import InputError, collect_problems
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.jobs import Outcome
from kdzoo.suite.plan.race import Race
from kdzoo.suite.plan.refit import wants_refit
from kdzoo.suite.plan.starts import read_starts
from kdzoo.suite.run.failures import others_than_divergence
from kdzoo.suite.study.progress import study_folder
from kdzoo.suite.study.stage_faults import wrong_seeds
from kdzoo.suite.study.stages import stage_config
from kdzoo.suite.study.study import Study, StudyStage
from kdzoo.suite.study.study_files import read_study, study_file
from kdzoo.text import number_of

if TYPE_CHECKING:
    from kdzoo.suite.study.evidence import Evidence


@dataclass(frozen=True)
class StudyRequest:
    """A study as it was asked for.

    name_or_file: the study, as it was asked for. seeds: how many every stage has; None for the study's own. options: further keys of every
    bench, such as `device`.
    """

    study: Study
    name_or_file: str
    results: Path
    seeds: int | None
    options: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where its stages and its table lie."""
        return study_folder(self.results, Path(self.name_or_file).stem)

    def bench(self, stage: StudyStage) -> BenchConfig:
        """The bench of a stage, with what it takes from earlier stages; of a race, the bench that it adds seeds to."""
        return stage_config(self.study, self.study.bench_of(stage), self.folder, self.seeds, self.options)


def request_study(name_or_file: str, results: Path, seeds: int | None, options: Mapping[str, Any]) -> StudyRequest:
    """A study by its name or file, with the options of a command or a call; raises InputError with all that is wrong with either."""
    problems = [f"seeds: expected a number >= 1, got {seeds}"] if seeds is not None and seeds < 1 else []
    with collect_problems(problems):
        study = read_study(study_file(name_or_file))
        if not problems:
            check_benches(study, seeds, options)
    if problems:
        raise InputError(*problems)
    request = StudyRequest(study, name_or_file, results, seeds, options)
    refuse_other_seeds(request)
    return request


def refuse_other_seeds(request: StudyRequest) -> None:
    """Raise InputError where a stage with a refit was begun with other seeds: seeds of its refit and of a race follow the sweep's."""
    problems = []
    for stage in request.study.benches:
        config = request.study.config(stage, request.seeds)
        starts = read_starts(request.folder / stage.name) if wants_refit(config) else []
        if starts and (begun := list(starts[-1].config["seeds"])) != list(config.seeds):
            problems.append(
                f"stage {stage.name} in {request.folder} was begun with seeds {_listed(begun)} and would now have {_listed(config.seeds)}; "
                f"the seeds of its refit lie behind them: use the same --seeds, or another --results"
            )
    if problems:
        raise InputError(*problems)


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))


def check_benches(study: Study, seeds: int | None, options: Mapping[str, Any]) -> None:
    """Raise InputError with what is wrong with the benches of a study under further options, each fault once."""
    problems = wrong_seeds(study, seeds)
    for stage in study.benches:
        try:
            study.config(stage, seeds, **options)
        except InputError as error:
            problems += [_of_option(problem, f"stages.{stage.name}.bench.", options) for problem in error.problems]
    if problems:
        raise InputError(*dict.fromkeys(problems))


def _of_option(problem: str, place: str, options: Mapping[str, Any]) -> str:
    """A fault without its place in the study's file where an option gave the value."""
    return problem.removeprefix(place) if any(problem.startswith(f"{place}{name}:") for name in options) else problem


def check_stages(request: StudyRequest) -> None:
    """Plan every later stage whose networks are known already, so that its faults are told before the first one is trained."""
    later = [s for s in request.study.benches[1:] if s.teacher is None and not (request.folder / s.name / "runs").is_dir()]
    if not later:
        return
    from kdzoo.contract.plugins import load_plugins
    from kdzoo.suite.plan.sweep import plan

    problems: list[str] = []
    for stage in later:
        with collect_problems(problems):
            load_plugins(request.study.config(stage).plugin)
            plan(request.study.config(stage, request.seeds, results=str(request.folder), **request.options))
    if problems:
        raise InputError(*problems)


@dataclass(frozen=True)
class Reproduced:
    """A study's results, the stage at which it stopped, and what failed there; no stage where all are done."""

    evidence: Evidence
    stopped: StudyStage | None = None
    outcome: Outcome | None = None
    problems: tuple[str, ...] = ()


Train = Callable[[BenchConfig, Race | None], Outcome]
"""trains what is missing of a bench, or of the seeds that a race adds to it"""


def reproduce_stages(request: StudyRequest, train: Train, tell: Callable[[str], None]) -> Reproduced:
    """Train or do what is missing of every stage, and write the study's table after each: the next one may take days.

    Stops at a stage that fails, but not for runs that diverged, which are results. tell: prints a line.
    """
    from kdzoo.suite.study.evidence import write_evidence

    check_stages(request)
    diverged: tuple[StudyStage | None, Outcome] = (None, Outcome())
    for number, stage in enumerate(request.study.stages, start=1):
        tell(f"stage {number} of {len(request.study.stages)}: {stage.name}")
        try:
            outcome = _stage_done(request, stage, train, tell)
        except InputError as error:
            if number == 1:  # nothing has been trained
                raise
            return Reproduced(write_evidence(request.study, request.name_or_file, request.folder), stage, None, error.problems)
        if others_than_divergence(outcome.failed):
            return Reproduced(write_evidence(request.study, request.name_or_file, request.folder), stage, outcome)
        if outcome.failed:
            diverged = (stage, outcome)
        if number < len(request.study.stages):
            write_evidence(request.study, request.name_or_file, request.folder)
    stage_of, outcome = diverged
    return Reproduced(write_evidence(request.study, request.name_or_file, request.folder), stage_of, outcome if stage_of else None)


def _stage_done(request: StudyRequest, stage: StudyStage, train: Train, tell: Callable[[str], None]) -> Outcome:
    """Train or do what is missing of a stage."""
    if stage.step is not None:
        return perform_stage(request, stage, tell)
    if stage.race is not None and request.seeds is not None:
        tell("left out: --seeds says how many seeds every method has")
        return Outcome()
    return train(request.bench(stage), stage.race)


def perform_stage(request: StudyRequest, stage: StudyStage, tell: Callable[[str], None]) -> Outcome:
    """Do what is missing of a step, and tell it; no run of it can fail by itself."""
    from kdzoo.suite.study.steps.perform import perform

    assert stage.step is not None
    tell(f"step     {stage.kind}: {stage.step.words()}")
    count = perform(request.study, stage, request.folder, request.seeds, request.options, lambda text: tell(f"note: {text}"))
    tell(f"{number_of(count, 'result')} written to {request.folder / stage.name}" if count else "nothing is left to do")
    return Outcome(set())
