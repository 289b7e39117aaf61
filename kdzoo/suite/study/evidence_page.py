"""The README of a study."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from kdzoo.suite.plan.outline import epochs_in_words, outline
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.markdown import markdown_table
from kdzoo.suite.study.evidence_table import shown_frame
from kdzoo.suite.study.measured import Measured
from kdzoo.suite.study.order_table import OrderTables
from kdzoo.suite.study.race_table import RaceTable, page_of_races
from kdzoo.suite.study.race_text import race_words
from kdzoo.suite.study.study import Study
from kdzoo.suite.study.surface_table import Drawn, surface_lines
from kdzoo.suite.study.verdicts import ABOVE, BELOW, BY_MEAN, MISSING, OPEN, REACHED
from kdzoo.text import markdown_text, number_of


def page(
    study: Study,
    name_or_file: str,
    measured: Sequence[Measured],
    drawn: Sequence[Drawn] = (),
    races: Sequence[RaceTable] = (),
    order: OrderTables | None = None,
    benches: Mapping[str, BenchRecords] = MappingProxyType({}),
) -> str:
    """The README of a study. benches: the runs of its stages, as far as they are there."""
    notes = [(stage, note) for stage, bench in benches.items() for note in bench.portable_notes]
    count = {word: sum(one.reached == word for one in measured) for word in (REACHED, BY_MEAN, ABOVE, BELOW, OPEN, MISSING)}
    verdicts = "; ".join(f"{word} ({number})" for word, number in count.items() if number)
    lines = [f"# {markdown_text(study.title)}", "", f"Claim: {markdown_text(study.claim)} [Source]({study.source}).", ""]
    counts = f" Reached, of {number_of(len(measured), 'number')}: {verdicts}." if measured else ""
    lines += [f"`kdzoo reproduce {shlex.quote(name_or_file)}`.{counts}", ""]
    lines += order.lines() if order is not None else []
    lines += page_of_races(races)
    lines += ["## Numbers of the claim", ""] if races and measured else []
    lines += [*markdown_table(shown_frame(measured)), "", READ_AS, ""] if measured else []
    for one in drawn:
        lines += [*surface_lines(one), ""]
    lines += [*(f"Note on `{stage}/`: {markdown_text(note)}" for stage, note in notes), ""] if notes else []
    lines += ["## How it was trained", ""]
    lines += [f"- `{stage.name}/`: {_setup(study, stage.name, benches.get(stage.name))}" for stage in study.stages]
    lines += ["", "Tried before the recipe was settled: " + ("; ".join(map(markdown_text, study.tries)) or "nothing") + "."]
    return "\n".join(lines) + "\n"


READ_AS = (
    "paper: the published number and the tolerance stated before training, in either direction, or the bounds of the claim. "
    "measured: mean ± sample standard deviation over n seeds, on the test images after the last epoch; accuracies, their differences "
    "and shares are in per cent. 95 % interval: by Student's t; a single training, such as the teacher's, enters with the spread of the "
    "runs that it stands beside; a share is a ratio of means with Fieller's interval. reached: `yes`, the whole interval lies within "
    "the tolerance; `yes, by the mean alone`, the mean does; `no: above` and `no: below`, the mean lies outside; `open: runs failed`, "
    "what is left does not stand for all."
)


def _setup(study: Study, name: str, bench: BenchRecords | None) -> str:
    """A stage's networks, data, methods, seeds and recipe, or what a step does, in words. bench: its runs, where it has any."""
    stage = study.stage(name)
    if stage.race is not None:
        return markdown_text(race_words(stage.race))
    if stage.step is not None:
        return markdown_text(stage.step.words())
    planned = outline(study.config(stage))
    epochs = epochs_in_words(record.run for record in bench.records) if bench is not None and bench.records else None
    outline_words = "" if planned is None else "; ".join(text for word, text in planned.lines(epochs) if word != "bench")
    from_earlier = [f"the teacher is {study.teacher_words(stage.teacher)}"] if stage.teacher else []
    from_earlier += [f"{which.method} at the setting that stage {which.stage} chose" for which in stage.settings]
    return markdown_text("; ".join([outline_words, *from_earlier]))
