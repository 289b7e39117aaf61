"""What 8 bits cost and gain: accuracy and agreement on test images with intervals, latency and size beside float32."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kdzoo.data.dataset import Subset
from kdzoo.data.loader import fetch
from kdzoo.data.split import Splits
from kdzoo.data.views import evaluation_view
from kdzoo.runs.atomic import write_bytes
from kdzoo.seeds import generator
from kdzoo.suite.export.graph import BATCH, INPUT, graph_scores, open_graph
from kdzoo.suite.export.quantise import Quantisation, quantise
from kdzoo.suite.export.student import Student
from kdzoo.suite.report.intervals import paired_difference, wilson
from kdzoo.training.latency import machine_load, shortest_milliseconds

Way = Literal["static", "qat"]
"""how 8 bits are made: post-training quantisation, alone or after quantisation-aware training"""
CALIBRATED, CHOSEN = 128, 256
"""training images from which ranges of activations are taken, and further ones on which the way to quantise is chosen"""
PLAIN_LOSS = 0.005
"""a loss of accuracy that is said plainly: half a point"""


@dataclass(frozen=True)
class Tuned:
    """The graph in float32 of a student after quantisation-aware training, and who taught it, in words."""

    graph: Path
    teacher: str


@dataclass(frozen=True)
class Measured:
    """A graph in 8 bits beside the student's in float32, on `images` test images.

    teacher: who taught it in quantisation-aware training, in words; empty without. calibrated: training images from which ranges of
    activations are taken; chosen_on: further ones on which the way to quantise was chosen, 0 where there were none beyond these. right,
    right_float: how many each names right. same: on how many both name one class. low, high: the 95 % interval of the difference of
    their accuracies on the same images. milliseconds: of one image, the shortest of
    many, in one thread. load: how busy the machine was, in words.
    """

    how: Quantisation
    calibrated: int
    chosen_on: int
    images: int
    right: int
    right_float: int
    low: float
    high: float
    same: int
    size: int
    size_float: int
    milliseconds: float
    milliseconds_float: float
    load: str
    teacher: str = ""

    @property
    def loss(self) -> float:
        """The accuracy that 8 bits lose, as a share; negative where they gain."""
        return (self.right_float - self.right) / self.images

    @property
    def loses_much(self) -> bool:
        return self.loss > PLAIN_LOSS


def write_int8(out: Path, graph: Path, student: Student, splits: Splits, *, pixels: bool, tuned: Tuned | None = None) -> Measured:
    """Quantise a student's graph on training images, write it to `out`, and measure both on the test images.

    tuned: the graph of the student after quantisation-aware training, which is quantised in its place. Raises WorkFailed where
    onnxruntime cannot quantise it.
    """
    order = torch.randperm(len(splits.train.targets), generator=generator(0, "int8"))
    calibrated = calibrating(len(order))
    calibration, choice = (
        list(_inputs(student, splits.train, part, pixels=pixels)) for part in (order[:calibrated], order[CALIBRATED:][:CHOSEN])
    )
    best = quantise(graph if tuned is None else tuned.graph, calibration, choice or calibration)
    write_bytes(out, best.content)
    chosen_on = min(CHOSEN, max(len(order) - CALIBRATED, 0))
    found = measure(out, graph, student, splits.test, best.how, calibrated, chosen_on, pixels=pixels)
    return found if tuned is None else replace(found, teacher=tuned.teacher)


def calibrating(images: int) -> int:
    """From how many of so many training images ranges are taken: CALIBRATED at most, and whole batches, or less than one.

    onnxruntime joins the histograms of batches of one size alone.
    """
    return min(CALIBRATED, images // BATCH * BATCH or images)


def measure(
    out: Path, graph: Path, student: Student, test: Subset, how: Quantisation, calibrated: int, chosen_on: int, *, pixels: bool
) -> Measured:
    """Both graphs on all test images, and their times in turn."""
    sessions = [open_graph(file) for file in (out, graph)]
    predictions: list[list[np.ndarray]] = [[], []]
    one: np.ndarray | None = None
    for batch in _inputs(student, test, torch.arange(len(test.targets)), pixels=pixels):
        one = batch[:1]
        for labels, session in zip(predictions, sessions, strict=True):
            labels.append(graph_scores(session, batch).argmax(1))
    labels8, labels32 = (np.concatenate(labels) for labels in predictions)
    right8, right32 = (labels == test.targets.numpy() for labels in (labels8, labels32))
    both, only8, only32 = int((right8 & right32).sum()), int((right8 & ~right32).sum()), int((right32 & ~right8).sum())
    low, high = paired_difference(both, only8, only32, len(right8) - both - only8 - only32)
    times = [shortest_milliseconds(lambda session=session: session.run(None, {INPUT: one})) for session in sessions]  # type: ignore[misc]
    return Measured(
        how=how,
        calibrated=calibrated,
        chosen_on=chosen_on,
        images=len(right8),
        right=int(right8.sum()),
        right_float=int(right32.sum()),
        low=low,
        high=high,
        same=int((labels8 == labels32).sum()),
        size=out.stat().st_size,
        size_float=graph.stat().st_size,
        milliseconds=times[0],
        milliseconds_float=times[1],
        load=str(machine_load() or "load not known"),
    )


def _inputs(student: Student, part: Subset, places: Tensor, *, pixels: bool) -> Iterator[np.ndarray]:
    """What a student's graph is given for images of a part, in batches."""
    with torch.no_grad():
        for batch in fetch(part.images, torch.split(places.to(part.images.device), BATCH), torch.device("cpu")):
            view = evaluation_view(batch, student.recipe.augment)
            yield (view if pixels else student.body.normalise(view)).numpy()


def int8_words(found: Measured) -> str:
    """What 8 bits came to, in Markdown; a loss of more than half a point is said first and plainly."""
    n = found.images
    plain = f"**{_loss(found)}** on the test images; the graph in float32 lies beside it. " if found.loses_much else ""
    rows = [
        ("", "8 bits", "float32"),
        ("---", "---", "---"),
        ("top-1 [95 % interval]", _share(found.right, n), _share(found.right_float, n)),
        ("size", f"{found.size / 1e6:.2f} MB", f"{found.size_float / 1e6:.2f} MB"),
        ("one image", f"{found.milliseconds:.2f} ms", f"{found.milliseconds_float:.2f} ms"),
    ]
    return "\n".join(
        [
            f"{plain}{_way(found)} (weights int8 by channel, activations uint8, calibrated on {found.calibrated} training "
            f"images; {found.how}, chosen on {f'{found.chosen_on} other training images' if found.chosen_on else 'the same images'}), "
            f"measured on {n} test images:",
            "",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            f"Difference in top-1: {_difference(found)} on the same images. Both name the same class on {_share(found.same, n)}. "
            f"Times: the shortest of many in one thread ({found.load}).",
        ]
    )


def int8_line(found: Measured) -> str:
    """The same in a line."""
    n = found.images
    loss = f"{_loss(found)}; " if found.loses_much else ""
    trained = f"trained for it under {found.teacher}; " if found.teacher else ""
    return (
        f"{loss}{trained}in 8 bits top-1 {_share(found.right, n)}, in float32 {_share(found.right_float, n)}, difference "
        f"{_difference(found)} on {n} test images; the same class on {_share(found.same, n)}; {found.size / 1e6:.2f} and "
        f"{found.size_float / 1e6:.2f} MB; {found.milliseconds:.2f} and {found.milliseconds_float:.2f} ms an image ({found.load})"
    )


def _way(found: Measured) -> str:
    return f"Quantisation-aware training under {found.teacher}, then quantisation" if found.teacher else "Post-training quantisation"


def _loss(found: Measured) -> str:
    return f"8 bits cost {100 * found.loss:.1f} points of accuracy"


def _difference(found: Measured) -> str:
    gain, low, high = (f"{round(100 * share, 2) + 0.0:+.2f}" for share in (-found.loss, found.low, found.high))
    return f"{gain} points [{low}, {high}]"


def _share(count: int, n: int) -> str:
    low, high = wilson(count, n)
    return f"{100 * count / n:.2f} % [{100 * low:.2f}, {100 * high:.2f}]"
