"""Which runs of a bench stand in one table, at which settings, and which of these are collapsed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kdzoo.runs.flatten import flatten
from kdzoo.suite.plan.config import NONE
from kdzoo.suite.report.blocks import HEAD, Block, Standing
from kdzoo.suite.report.records import Record, TableKey, by_table, taught_on
from kdzoo.suite.report.selection import Candidate, candidates, choose, why_collapsed


def make_blocks(records: Iterable[Record]) -> tuple[Block, ...]:
    """The tables that runs stand in, in a fixed order."""
    tables = by_table(records)
    options = {
        key: {method: candidates(r for r in records if r.method == method) for method in sorted({r.method for r in records})}
        for key, records in tables.items()
    }
    sweeps = {key: _sweeps_of(key, records, tables) for key, records in tables.items()}
    chosen = {key: [candidate for o in options[key].values() for candidate in choose(o)] for key in tables}
    verdicts = {key: _verdicts(chosen[key]) for key in tables}
    recipes = _recipes(tables)

    def standing(key: TableKey, candidate: Candidate) -> Standing:
        record = candidate.records[0]
        number = max(len(options[source].get(record.method, ())) for source in (key, *sweeps[key]))
        own = verdicts[key][record.setting_key]
        swept = verdicts[sweeps[key][0]].get(record.setting_key) if len(sweeps[key]) == 1 else None
        return Standing(candidate, number, own or (f"in the sweep: {swept}" if swept else None))

    def searched(key: TableKey) -> tuple[Record, ...]:
        of_sweep = [record for sweep in sweeps[key] or (key,) for record in tables[sweep]]
        return tuple(of_sweep) if any(record.state == "paused" for record in of_sweep) else ()

    return tuple(
        Block(key, recipes[key], tuple(records), tuple(standing(key, candidate) for candidate in chosen[key]), searched(key))
        for key, records in tables.items()
    )


def _verdicts(chosen: Sequence[Candidate]) -> dict[str, str | None]:
    """Why each chosen setting of a table is collapsed, by setting."""
    alone = [candidate for candidate in chosen if candidate.records[0].method == NONE and candidate.done]
    base = alone[0] if len(alone) == 1 else None
    return {candidate.records[0].setting_key: why_collapsed(candidate, base) for candidate in chosen}


def _sweeps_of(key: TableKey, records: Iterable[Record], tables: Iterable[TableKey]) -> tuple[TableKey, ...]:
    """The sweep that a refit's settings were chosen in; several where its records do not tell of which teacher it was."""
    if key.phase != "refit":
        return ()
    alike = [other for other in tables if other.phase == "sweep" and _sweep_key(other) == _sweep_key(key)]
    teachers = {record.about["sweep_teacher"] for record in records if record.about.get("sweep_teacher")}
    same = [other for other in alike if (other.teacher == key.teacher if not teachers else _start(other) in teachers)]
    return tuple(same if same or teachers else alike)


def _start(key: TableKey) -> str | None:
    """The weights that a table's teacher starts from; None where there is no teacher."""
    start = json.loads(key.teacher or "{}").get("start")
    return None if start is None else str(start)


def _sweep_key(key: TableKey) -> tuple[Any, ...]:
    """Equal for a sweep and its refit, which differ in what is held out and in the teacher's weights."""
    ground = json.loads(key.ground)
    ground["data"].pop("val_fraction")
    return (key.pair, key.recipe, json.dumps(ground))


def _recipes(tables: Mapping[TableKey, Sequence[Record]]) -> dict[TableKey, str]:
    """Every table's recipe by name, its transfer set, and in words what else differs between tables that bear the same names."""
    alike: dict[tuple[Any, ...], list[TableKey]] = {}
    for key in tables:
        alike.setdefault(key[: len(HEAD)], []).append(key)
    words_of: dict[TableKey, str] = {}
    for group in alike.values():
        parts = {key: flatten({**json.loads(key.ground), "teacher": json.loads(key.teacher or "{}")}) for key in group}
        names = sorted({name for part in parts.values() for name in part})
        differing = [name for name in names if name != "data.transfer.classes" and len(_values_of(name, parts.values())) > 1]
        for key, part in parts.items():
            transfer = taught_on(tables[key][0])
            words = [f"taught on {transfer}"] if transfer else []
            words_of[key] = ", ".join([key.recipe, *words, *(f"{name}={part[name]}" for name in differing if name in part)])
    return words_of


def _values_of(name: str, parts: Iterable[Mapping[str, Any]]) -> set[str]:
    """What tables say of one name; that a recipe leaves something out is said by its not being there."""
    return {json.dumps(part.get(name)) for part in parts if name in part or name.startswith("recipe.")}
