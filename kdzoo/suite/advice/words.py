"""Advice in words, with its grounds. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdzoo.suite.advice.rule import LARGE, Choice
from kdzoo.suite.advice.trials import Trial
from kdzoo.suite.plan.config import KD
from kdzoo.suite.plan.doses import two_digits
from kdzoo.suite.report.cells import method_words
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.task import Metric
from kdzoo.text import format_number, number_of

if TYPE_CHECKING:
    from kdzoo.suite.advice.advise import Advice
    from kdzoo.suite.advice.facts import Capacity, TeacherFacts

MOST_NAMED = 6


def teacher_lines(facts: TeacherFacts) -> list[str]:
    """What a teacher says, in a few lines."""
    over = facts.confidence - facts.accuracy
    sure = (
        "as sure as it is right" if abs(over) < 0.005 else f"{abs(100 * over):.1f} points {'more' if over > 0 else 'less'} sure than right"
    )
    entropies = ", ".join(f"{value:.2f} at T = {temperature:g}" for temperature, value in facts.entropy.items())
    return [
        f"{facts.name}: {100 * facts.accuracy:.1f} % of {number_of(facts.images, f'{facts.part} image')}",
        f"calibration error {100 * facts.calibration:.1f} points: {sure}",
        f"entropy of its class probabilities: {entropies}; uniform is {facts.most:.2f} nats",
    ]


def kept_lines(advice: Advice) -> list[str]:
    """The kept teachers of the same network and images, each with the option that names it."""
    headline = CLASSIFICATION.headline
    return [
        f"--teacher {teacher.id} ({', '.join([number_of(teacher.epochs, 'epoch'), *_test_words(teacher.test, headline)])})"
        for teacher in advice.kept_teachers
    ]


def _test_words(value: float | None, headline: Metric) -> list[str]:
    return [] if value is None else [f"test {headline.heading} {headline.brief(value)}"]


def capacity_line(capacity: Capacity) -> str:
    """How small the student is."""
    own, of_teacher = capacity.student, capacity.teacher
    size = f"{own.parameters:,} parameters, {own.macs:,} multiply-accumulates an image"
    if of_teacher is None:
        return size
    return f"{size}: {100 * own.parameters / of_teacher.parameters:.2g} % and {100 * own.macs / of_teacher.macs:.2g} % of the teacher's"


def choice_lines(choices: Sequence[Choice]) -> list[str]:
    """Each choice with its setting, and below it its grounds."""
    return [
        line
        for number, choice in enumerate(choices, 1)
        for line in (f"{number}. {method_words(choice.method)}, {setting_words(choice)}", f"   {grounds(choice)}")
    ]


def setting_words(choice: Choice) -> str:
    """At what setting a method is to be begun with."""
    here = "" if choice.published_dose is None else f" (dose {two_digits(choice.published_dose):g} here)"
    weight = f"published weight{here}" if choice.dose is None else f"dose {choice.dose:g}, not the published weight{here}"
    return weight if choice.temperature is None else f"T = {choice.temperature:g}, {weight}"


def grounds(choice: Choice) -> str:
    """Where a method has been tried, and what it gained over tuned plain KD."""
    if choice.method == KD:
        return f"the yardstick, tuned in {number_of(len(choice.trials), 'table')}" if choice.trials else "the yardstick"
    return f"against tuned plain KD {', '.join(map(trial_words, choice.trials))}"


def trial_words(trial: Trial) -> str:
    """What a method gained where it was tried."""
    seeds = number_of(trial.seeds, "seed")
    return f"{format_number(trial.gain, '+.1f')} points on {trial.data} ({seeds}{', collapsed' if trial.collapsed else ''})"


def dose_lines(advice: Advice) -> list[str]:
    """What the published weights come to on these networks."""
    if not advice.doses:
        return []
    values = sorted(map(two_digits, advice.doses.values()))
    lines = [f"published weights of {number_of(len(values), 'method')} come to doses of {values[0]:g} to {values[-1]:g}"]
    if advice.too_large:
        names = ", ".join(f"{name} {two_digits(advice.doses[name]):g}" for name in advice.too_large[:MOST_NAMED])
        more = f" and {len(advice.too_large) - MOST_NAMED} more" if len(advice.too_large) > MOST_NAMED else ""
        lines.append(f"of maps and relations, {LARGE:g} or more, too large to be tried as they are: {names}{more}")
    return lines


def passed_over(advice: Advice) -> list[str]:
    """What the advice leaves out, counted."""
    lines = []
    if advice.refused:
        names = list(advice.refused)
        text = f"{', '.join(names[:MOST_NAMED])}{' and others' if len(names) > MOST_NAMED else ''}"
        lines.append(f"{number_of(len(names), 'method')} cannot be trained with this pair: {text}")
    untold = [name for name in advice.without_dose if name != KD]
    if advice.doses and untold:
        lines.append(f"{number_of(len(untold), 'method')} without a dose: published without cross-entropy, or in two stages")
    return lines
