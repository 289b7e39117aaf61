"""Confidence and accuracy in bins, from the predictions that runs have kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from kdzoo.runs.predictions import Predictions, read_predictions
from kdzoo.runs.seals import DamagedFile
from kdzoo.runs.store import Store
from kdzoo.suite.page.frames.series import colours_of, names_of
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.blocks import HEAD, Block
from kdzoo.suite.report.records import Record
from kdzoo.tasks.classification import CALIBRATION_BINS

COLUMNS = ("table", *HEAD, "method", "setting", "series", "colour", "n", "bin", "confidence", "accuracy", "images")


def reliability_frame(bench: BenchRecords) -> pd.DataFrame:
    """A row a setting and bin with images: mean confidence of the likeliest class, and the share of images in which it is right.

    Of the chosen settings and the controls, the test images of all seeds together, in the bins of the calibration error. Empty where no
    run has kept its predictions.
    """
    if not bench.task.of_classes:
        return pd.DataFrame(columns=list(COLUMNS))
    rows = [row for number, block in enumerate(bench.blocks) for row in _rows(number, block, bench)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(number: int, block: Block, bench: BenchRecords) -> Iterator[dict[str, Any]]:
    standings = [standing for standing in block.standings if standing.done]
    colours = colours_of(block)
    for name, standing in zip(names_of(standings), standings, strict=True):
        parts = [part for record in standing.done if isinstance(part := _predictions(bench, record), Predictions)]
        head = {"table": number, **block.head, "method": standing.record.method, "setting": standing.setting}
        for row in _bins(parts) if parts else ():
            yield {**head, "series": name, "colour": colours[name], "n": len(parts), **row}


def damaged_predictions(bench: BenchRecords) -> list[str]:
    """What is wrong with the predictions of runs that `reliability_frame` leaves out, a line each."""
    records = {record.id: record for block in bench.blocks for standing in block.standings for record in standing.done}
    return [str(fault) for record in records.values() if isinstance(fault := _predictions(bench, record), DamagedFile)]


def _predictions(bench: BenchRecords, record: Record) -> Predictions | DamagedFile | None:
    """A run's predictions of the test images, or what is wrong with their file; None where they were not kept."""
    try:
        return read_predictions(Store(bench.folder).run(record.id).predictions, record.id, part="test", classes=record.run.data.classes)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        return error


def _bins(parts: list[Predictions]) -> Iterator[dict[str, Any]]:
    confidence = np.concatenate([np.exp(part.log_probs.max(1).astype(float)) for part in parts])
    right = np.concatenate([part.log_probs.argmax(1) == part.targets for part in parts])
    place = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    for at in np.unique(place):
        within = place == at
        yield {
            "bin": int(at),
            "confidence": float(confidence[within].mean()),
            "accuracy": float(right[within].mean()),
            "images": int(within.sum()),
        }
