"""What a distillation came to: the distilled student beside the same student trained alone and the teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kdzoo.text import number_of

BATCHES = (1, 32)
"""of which latencies are measured"""
LEVEL = 0.05
NEEDED = 4
"""the columns that a table has at least: which of the three, network, accuracy, parameters"""


@dataclass(frozen=True)
class Measured:
    """One of the three networks of a verdict. accuracy: top-1 on the held-out images, with its 95 % interval (Wilson)."""

    name: str
    accuracy: float
    low: float
    high: float
    balanced: float
    parameters: int
    macs: int
    milliseconds: Mapping[int, float]
    """of a forward, by batch size: the shortest of many"""


@dataclass(frozen=True)
class CutShort:
    """Where the time was over before training had ended: the epoch of each student that validation chose, of those that were trained."""

    distilled_epoch: int
    alone_epoch: int
    trained_epochs: int
    planned_epochs: int


@dataclass(frozen=True)
class Verdict:
    """What the three networks came to.

    images: how many the accuracies are of, none of which any of the three was trained on; validation_images of them are
    validation images, the rest test images: nothing was chosen on either. cut_short: where training ended before its schedule did;
    validation then chose the students, and no validation image is among those that judge. only_distilled, only_alone: how many of them
    the distilled student alone named right, and the student trained alone; difference_low, difference_high: the 95 %
    interval of the difference of their accuracies on the same images (`intervals.paired_difference`), p: of the exact McNemar
    test, by itself. Both are about these two trained networks: another seed gives others. threads, load: with how many threads the
    latencies were measured, and how busy the machine was, in words.
    """

    distilled: Measured
    alone: Measured
    teacher: Measured
    classes: tuple[str, ...]
    images: int
    validation_images: int
    only_distilled: int
    only_alone: int
    difference_low: float
    difference_high: float
    p: float
    method: str
    threads: int
    device: str
    load: str
    notes: tuple[str, ...]
    cut_short: CutShort | None = None

    @property
    def told_apart(self) -> bool:
        """Whether the images show which student is better: the interval and the exact test agree on it."""
        return self.p < LEVEL and not self.difference_low <= 0 <= self.difference_high

    @property
    def kept(self) -> Literal["distilled", "alone"]:
        """Which of the two students is delivered: the distilled one, unless it is shown to be worse."""
        return "alone" if self.told_apart and self.difference_high < 0 else "distilled"

    def __str__(self) -> str:
        return "\n".join([*table(self), "", *self.notes, conclusion(self)])


def table(verdict: Verdict) -> list[str]:
    """The verdict as lines of a table with all of its columns."""
    rows = rows_of(verdict)
    return _aligned(rows, range(len(rows[0])))


def table_of_width(verdict: Verdict, width: int, page: str) -> list[str]:
    """The same in lines of at most `width` characters: without the last columns where they do not fit, which are named with their place.

    page: the file that has all columns. Where names are too long for accuracies and parameters beside them, every network has
    lines of its own.
    """
    rows = rows_of(verdict)
    count = max((n for n in range(1, len(rows[0]) + 1) if max(map(len, _aligned(rows, range(n)))) <= width), default=0)
    if count < NEEDED:
        head, *networks = rows
        return [
            line for name, *cells in networks for line in (name, *(f"  {word}: {cell}" for word, cell in zip(head[1:], cells, strict=True)))
        ]
    left = rows[0][count:]
    return [*_aligned(rows, range(count)), *([f"not shown: {', '.join(left)}; see {page}"] if left else [])]


def rows_of(verdict: Verdict) -> list[list[str]]:
    """The cells of the table, its head first."""
    rows = [["", "network", f"accuracy on {verdict.images} images", "parameters", "MACs", *(f"ms (batch {b})" for b in BATCHES)]]
    for name, one in (("distilled", verdict.distilled), ("student alone", verdict.alone), ("teacher", verdict.teacher)):
        accuracy = f"{100 * one.accuracy:.1f} % [{100 * one.low:.1f}, {100 * one.high:.1f}]"
        times = [f"{one.milliseconds[b]:.1f}" for b in BATCHES]
        rows.append([name, one.name, accuracy, f"{one.parameters / 1e6:.2f} M", f"{one.macs / 1e6:.0f} M", *times])
    return rows


def _aligned(rows: Sequence[Sequence[str]], columns: Sequence[int]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in columns]
    return ["  ".join(row[i].ljust(width) for i, width in zip(columns, widths, strict=True)).rstrip() for row in rows]


def conclusion(verdict: Verdict) -> str:
    """The verdict in a few sentences."""
    gain = 100 * (verdict.distilled.accuracy - verdict.alone.accuracy)
    share = verdict.distilled.parameters / verdict.teacher.parameters
    time = verdict.distilled.milliseconds[1] / verdict.teacher.milliseconds[1]
    alone = "the same student trained alone"
    shown = f"{abs(gain):.1f} points {'better' if gain > 0 else 'worse'} than {alone}"
    stands = shown if verdict.told_apart else f"not shown to be better or worse than {alone}: {_points(gain / 100)} points"
    between = f"95 % interval {_points(verdict.difference_low)} to {_points(verdict.difference_high)}"
    doubt = "" if verdict.told_apart else ", so these few images do not tell the two apart"
    consequence = "" if verdict.kept == "distilled" else " It is worse, so the student trained alone is the one that is kept."
    test = verdict.images - verdict.validation_images
    both = f"{test} test and {verdict.validation_images} validation images" if verdict.validation_images else f"{test} test images"
    early = "" if verdict.cut_short is None else f"{_cut_short_words(verdict.cut_short)} "
    return (
        f"{early}The distilled student has {100 * share:.1f} % of the teacher's parameters, takes {100 * time:.0f} % of its time for one "
        f"image, and is {stands} ({between}, over images, of one seed; the distilled one is right on "
        f"{number_of(verdict.only_distilled, 'image')} on which the other is wrong, and wrong on {verdict.only_alone:,} on which the "
        f"other is right; exact McNemar test p = {verdict.p:.2g}{doubt}).{consequence} "
        f"Accuracies are of {both} that no network was trained on or chosen by. Times are the shortest of many forwards on this "
        f"machine ({number_of(verdict.threads, 'thread')}, {verdict.device}; {verdict.load})."
    )


def _cut_short_words(cut: CutShort) -> str:
    return (
        f"The time was over after {cut.trained_epochs} of {cut.planned_epochs} epochs. Each student is that of its best epoch on the "
        f"validation images, which therefore judge nothing: epoch {cut.distilled_epoch} distilled, {cut.alone_epoch} alone. The same "
        f"command resumes the training."
    )


def _points(share: float) -> str:
    """A difference in points with its sign; what rounds to zero has a plus, never a minus."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"
