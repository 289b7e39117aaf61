"""Which settings of a search within a budget go on at the end of a rung: on validation images alone. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kdzoo.runs.metrics_file import number_in, validation_at
from kdzoo.runs.store import RunFolder
from kdzoo.suite.report.records import read_record
from kdzoo.suite.report.selection import order_of

Order = tuple[float | str, ...]


def promoted_settings(settings: Mapping[str, Sequence[RunFolder]], epoch: int, count: int, controls: Iterable[str]) -> list[str]:
    """The names of the `count` settings that are best after an epoch, best first, by what a finished sweep chooses by.

    settings: the folders of each setting's runs, one a seed. The best setting of each control is always among them, since every
    bench contains its controls. A setting of which a run has failed never goes on, nor one that stands at no number (NaN, infinity).
    """
    orders = {name: order for name, folders in settings.items() if (order := _order_at(folders, epoch)) is not None}
    methods = {name: read_record(settings[name][0]).method for name in orders}
    return best_settings(orders, methods, count, controls)


def best_settings(orders: Mapping[str, Order], methods: Mapping[str, str], count: int, controls: Iterable[str]) -> list[str]:
    """The names of the `count` settings that stand first, best first, the best of each control among them.

    orders: what each is chosen by, the largest first (`selection.order_of`). methods: of each.
    """
    ranked = sorted(orders, key=orders.__getitem__, reverse=True)
    first = [next((name for name in ranked if methods[name] == control), None) for control in controls]
    names = list(dict.fromkeys([*(name for name in first if name is not None), *ranked]))[:count]
    return sorted(names, key=ranked.index)


def _order_at(folders: Sequence[RunFolder], epoch: int) -> Order | None:
    """What a setting is chosen by, as it stood after an epoch; None where a run of it has failed, has not come so far or has no number."""
    record = read_record(folders[0])
    values: dict[str, list[float]] = {metric.name: [] for metric in record.task.deciding}
    for folder in folders:
        val = validation_at(folder.metrics, folder.id, epoch)
        if val is None or folder.state() == "failed":
            return None
        for name, numbers in values.items():
            if (number := number_in(val, name)) is None:
                return None
            numbers.append(number)
    return order_of(record, values)
