"""Learning curves as a frame, from the runs' metrics.jsonl."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from kdzoo.runs.metrics_file import read_lines
from kdzoo.runs.store import Store
from kdzoo.suite.page.frames.series import colours_of, names_of
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.blocks import HEAD, Block, Standing
from kdzoo.tasks.task import Task

MOST_EPOCHS = 60
"""number of epochs that a curve shows at the most; of more, evenly spaced ones and the last"""
COLUMNS = ("table", *HEAD, "measure", "method", "setting", "series", "colour", "epoch", "n", "mean", "low", "high")

Lines = Sequence[Mapping[str, Any]]


def curve_frame(bench: BenchRecords) -> pd.DataFrame:
    """A row a setting, measure and epoch: mean, lowest and highest over the seeds that have come so far.

    Of the chosen settings and the controls: the task's headline on validation, where something was held out, and the task's part of the
    training loss, which methods have in common. table: counts the tables of the bench, from 0.
    """
    rows = [row for number, block in enumerate(bench.blocks) for row in _rows(number, block, bench)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(number: int, block: Block, bench: BenchRecords) -> Iterator[dict[str, Any]]:
    standings = [standing for standing in block.standings if standing.done]
    colours = colours_of(block)
    for name, standing in zip(names_of(standings), standings, strict=True):
        lines = [read_lines(Store(bench.folder).run(record.id).metrics, record.id) for record in standing.done]
        for measure, values_by_epoch in _measures(lines, bench.task, standing).items():
            for epoch in _shown(values_by_epoch):
                values = values_by_epoch[epoch]
                yield {
                    "table": number,
                    **block.head,
                    "measure": measure,
                    "method": standing.record.method,
                    "setting": standing.setting,
                    "series": name,
                    "colour": colours[name],
                    "epoch": epoch,
                    "n": len(values),
                    "mean": sum(values) / len(values),
                    "low": min(values),
                    "high": max(values),
                }


def _measures(runs: Iterable[Lines], task: Task, standing: Standing) -> dict[str, dict[int, list[float]]]:
    """The values of every measure by epoch, over the runs."""
    metric = standing.metric
    measures: dict[str, dict[int, list[float]]] = {}
    for lines in runs:
        for line in lines:
            found = {
                f"validation {metric.heading}": (line.get("val") or {}).get(metric.name),
                f"training loss: {task.loss_name}": (line.get("parts") or {}).get(task.loss_name, line.get("loss")),
            }
            for measure, value in found.items():
                if isinstance(value, int | float):
                    measures.setdefault(measure, {}).setdefault(int(line["epoch"]), []).append(float(value))
    return measures


def _shown(values_by_epoch: Mapping[int, list[float]]) -> list[int]:
    """All epochs, or evenly spaced ones and the last."""
    epochs = sorted(values_by_epoch)
    if len(epochs) <= MOST_EPOCHS:
        return epochs
    return [epochs[round(at * (len(epochs) - 1) / (MOST_EPOCHS - 1))] for at in range(MOST_EPOCHS)]
