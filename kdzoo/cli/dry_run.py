"""The plan of a bench in words, for `--dry-run`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kdzoo.cli.cells import duration
from kdzoo.cli.output import announce_if_slow, print_text, with_label
from kdzoo.cli.training import nothing_left_text, prepare_bench, print_outline
from kdzoo.suite.plan.config import NONE, BenchConfig
from kdzoo.suite.plan.outline import epochs_in_words
from kdzoo.suite.plan.refit import wants_refit
from kdzoo.suite.run.finished import finished_runs
from kdzoo.suite.run.wording import label_words
from kdzoo.text import number_of

if TYPE_CHECKING:
    from kdzoo.suite.plan.planned import Plan, PlannedRun
    from kdzoo.suite.run.prepare import Prepared
    from kdzoo.suite.run.untrained import Untrained


PROBE_SECONDS = 0.5
"""how long a probe may take unannounced: there is one for each kind of run, and they add up"""


def print_plan(config: BenchConfig, *, retry_failed: bool) -> int:
    """What a bench would do, without doing any of it."""
    if (runs := finished_runs(config)) is not None:
        print_outline(config)
        print_text(nothing_left_text(runs))
        return 0
    for line in plan_lines(prepare_bench(config), retry_failed=retry_failed):
        print_text(with_label(line))
    return 0


def weights_to_measure(plan: Plan) -> list[tuple[str, str]]:
    """Which methods have settings whose weights are not known before something is measured."""
    labels = sorted({planned.run.objective.label for planned in plan.students if planned.provisional})
    return [("doses", f"measured before training, for {', '.join(labels)}")] if labels else []


def plan_lines(prepared: Prepared, *, retry_failed: bool) -> list[tuple[str, str]]:
    """The plan in words: grid points, distinct runs and why fewer, what is left of them, and how long that will take."""
    from kdzoo.data.report import data_lines
    from kdzoo.runs.store import teacher_store
    from kdzoo.suite.plan.cohorts import make_jobs
    from kdzoo.suite.run.bench import data_command
    from kdzoo.suite.run.disk_space import bytes_of_bench, free_space
    from kdzoo.suite.run.estimate import Probes, estimate, estimate_refit
    from kdzoo.suite.run.search_left import left_of
    from kdzoo.teachers.disk import size_text

    # the refit trains kinds of runs that the sweep trains
    probes = Probes.of(prepared, watch=partial(announce_if_slow, seconds=PROBE_SECONDS))
    plan, states, options = prepared.plan, prepared.states, prepared.options
    states_left = {"new", "started", "paused", "damaged"} | ({"failed"} if retry_failed else set())
    left = {planned.run.id for planned in left_of(prepared.config, plan).runs}
    open_runs = [
        planned
        for planned in plan.students
        if (state := states[planned.run.id]) in states_left and (planned.run.id in left or state == "failed")
    ]
    teachers = [planned.run for planned in plan.teachers.values() if teacher_store().run(planned.run.id).state() != "done"]
    about_data = data_lines(plan.data, data_command(prepared.config))
    cohorts = [job for job in make_jobs(open_runs, plan, options, prepared.jobs) if job.kind == "students"]
    counts = Counter(states.values())
    behind = counts["paused"] - sum(states[planned.run.id] == "paused" for planned in open_runs)
    paused = f", {behind} paused" if behind else ""
    failed = f", {counts['failed']} failed (--retry-failed trains them again)" if counts["failed"] and not retry_failed else ""
    lines = [
        ("bench", f"{plan.name}, in {plan.folder}"),
        *setting_lines(plan.students),
        *((("seeds", ", ".join(map(str, sorted({planned.run.seed for planned in plan.students})))),) if plan.students else ()),
        *recipe_lines(prepared),
        ("networks", ", ".join(dict.fromkeys(str(planned.about["pair"]) for planned in plan.students))),
        *(("data" if number == 0 else "", line.removeprefix("data: ")) for number, line in enumerate(about_data)),
        ("grid points", f"{plan.grid_size}: methods x settings x pairs x seeds, with the controls"),
        *(("", f"{number} of them are duplicates: {reason}") for reason, number in plan.duplicates.items()),
        ("distinct runs", f"{len(plan.students)}: {counts['done']} done{paused}, {len(open_runs)} left{failed}"),
        *budget_lines(prepared),
        *(("note", text) for text in plan.notes),
        *(("teacher", f"{run.student.name} is trained first, for {number_of(run.recipe.epochs, 'epoch')} ({run.id})") for run in teachers),
        *weights_to_measure(plan),
        (
            "cohorts",
            f"{len(cohorts)}, in {number_of(prepared.jobs, 'process', 'processes')} of {number_of(options.threads, 'thread')} on "
            f"{options.device}",
        ),
        (
            "disk",
            f"about {size_text(bytes_of_bench(prepared.config, open_runs, plan, probes.untrained))} of results; "
            f"{size_text(free_space(plan.folder))} are free",
        ),
        *memory_lines(prepared, open_runs, probes.untrained),
        ("time", f"about {duration(estimate(prepared, probes))} of training" if open_runs or teachers else "nothing is left to do"),
    ]
    if wants_refit(prepared.config):
        lines.append(
            (
                "refit",
                f"then the chosen settings with fresh seeds on the whole training set: {_more(estimate_refit(prepared, probes))}",
            )
        )
    return lines


def memory_lines(prepared: Prepared, open_runs: Iterable[PlannedRun], untrained: Untrained) -> list[tuple[str, str]]:
    """What the largest cohort takes in memory, where something is left to train on this machine."""
    from kdzoo.runs.options import ELSEWHERE
    from kdzoo.suite.run.memory import MemoryNeeds, free_for_process
    from kdzoo.teachers.disk import size_text

    options, left = prepared.options, list(open_runs)
    if not left or options.launcher in ELSEWHERE:
        return []
    needs = MemoryNeeds(prepared.plan, options, untrained)
    if unknown := needs.unknown(left):
        return [("memory", f"not known: {unknown[0]}")]
    run = max(needs.of_run(one) + needs.of_teacher(one) for one in left)
    cohort = needs.of_largest_cohort(left, prepared.jobs)
    free = f"{size_text(free_for_process(options))} are free on {options.device} for each process"
    return [("memory", f"about {size_text(run)} for a run with its teacher, {size_text(cohort)} for the largest cohort; {free}")]


def budget_lines(prepared: Prepared) -> list[tuple[str, str]]:
    """The rungs of a search within a budget, where there is one."""
    from kdzoo.suite.plan.budget import cost, rungs_in_words, search_rungs

    config, students = prepared.config, prepared.plan.students
    if config.budget is None:
        return []
    rungs = search_rungs(config, students)
    whole = cost(rungs) * len(config.seeds) / rungs[-1].epoch
    return [("budget", f"{rungs_in_words(rungs)}: {whole:.1f} of {number_of(config.budget, 'whole run')}")]


def _more(seconds: float) -> str:
    return f"about {duration(seconds)} more" if seconds else "done"


def setting_lines(students: Iterable[PlannedRun]) -> list[tuple[str, str]]:
    """Every method with the settings that are tried; those tried at their published one alone share a line."""
    from kdzoo.suite.report.settings import setting_text

    settings: dict[str, dict[str, None]] = {}
    for planned in students:
        text = setting_text(planned.run, planned.about)
        if planned.provisional:  # its weight is a stand-in until the ratio is measured
            text = re.sub(r"weight \S+ \((dose \S+)\)", r"\1", text)
        settings.setdefault(planned.run.objective.label, {})[text] = None
    at_published = [label_words(label) for label, texts in settings.items() if list(texts) == [""]]
    lines = [", ".join(at_published) + (" (published weight)" if at_published != [label_words(NONE)] else "")] if at_published else []
    lines += [
        f"{label}: {', '.join(text or 'published weight' for text in texts)}" for label, texts in settings.items() if list(texts) != [""]
    ]
    return [("methods" if number == 0 else "", line) for number, line in enumerate(lines)]


def recipe_lines(prepared: Prepared) -> list[tuple[str, str]]:
    """The recipe and the epochs of the students; several where networks are trained for other lengths."""
    epochs = epochs_in_words(planned.run for planned in prepared.plan.students)
    return [("recipe", f"{Path(prepared.config.recipe).stem}, {epochs} a run")]
