"""Which runs of a bench stand in one table, at which settings, and which of these are collapsed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kdzoo.runs.flatten import flatten
from kdzoo.suite.plan.config import NONE
from kdzoo.suite.report.blocks import HEAD, Block, Standing
from kdzoo.suite.report.records import Place, Record, by_place, taught_on
from kdzoo.suite.report.selection import Candidate, candidates, choose, why_collapsed


def make_blocks(records: Iterable[Record]) -> tuple[Block, ...]:
    """The tables that runs stand in, in a fixed order."""
    places = by_place(records)
    options = {
        place: {method: candidates(r for r in records if r.method == method) for method in sorted({r.method for r in records})}
        for place, records in places.items()
    }
    sweeps = {place: _sweeps_of(place, records, places) for place, records in places.items()}
    chosen = {place: [candidate for o in options[place].values() for candidate in choose(o)] for place in places}
    verdicts = {place: _verdicts(chosen[place]) for place in places}
    recipes = _recipes(places)

    def standing(place: Place, candidate: Candidate) -> Standing:
        record = candidate.records[0]
        number = max(len(options[source].get(record.method, ())) for source in (place, *sweeps[place]))
        own = verdicts[place][record.setting_key]
        swept = verdicts[sweeps[place][0]].get(record.setting_key) if len(sweeps[place]) == 1 else None
        return Standing(candidate, number, own or (f"in the sweep: {swept}" if swept else None))

    def searched(place: Place) -> tuple[Record, ...]:
        of_sweep = [record for sweep in sweeps[place] or (place,) for record in places[sweep]]
        return tuple(of_sweep) if any(record.state == "paused" for record in of_sweep) else ()

    return tuple(
        Block(place, recipes[place], tuple(records), tuple(standing(place, candidate) for candidate in chosen[place]), searched(place))
        for place, records in places.items()
    )


def _verdicts(chosen: Sequence[Candidate]) -> dict[str, str | None]:
    """Why each chosen setting of a table is collapsed, by setting."""
    alone = [candidate for candidate in chosen if candidate.records[0].method == NONE and candidate.done]
    base = alone[0] if len(alone) == 1 else None
    return {candidate.records[0].setting_key: why_collapsed(candidate, base) for candidate in chosen}


def _sweeps_of(place: Place, records: Iterable[Record], places: Iterable[Place]) -> tuple[Place, ...]:
    """The sweep that a refit's settings were chosen in; several where its records do not tell of which teacher it was."""
    if place.phase != "refit":
        return ()
    alike = [other for other in places if other.phase == "sweep" and _sweep_key(other) == _sweep_key(place)]
    teachers = {record.about["sweep_teacher"] for record in records if record.about.get("sweep_teacher")}
    same = [other for other in alike if (other.teacher == place.teacher if not teachers else _start(other) in teachers)]
    return tuple(same if same or teachers else alike)


def _start(place: Place) -> str | None:
    """The weights that a table's teacher starts from; None where there is no teacher."""
    start = json.loads(place.teacher or "{}").get("start")
    return None if start is None else str(start)


def _sweep_key(place: Place) -> tuple[Any, ...]:
    """Equal for a sweep and its refit, which differ in what is held out and in the teacher's weights."""
    ground = json.loads(place.ground)
    ground["data"].pop("val_fraction")
    return (place.pair, place.recipe, json.dumps(ground))


def _recipes(places: Mapping[Place, Sequence[Record]]) -> dict[Place, str]:
    """Every table's recipe by name, its transfer set, and in words what else differs between tables that bear the same names."""
    alike: dict[tuple[Any, ...], list[Place]] = {}
    for place in places:
        alike.setdefault(place[: len(HEAD)], []).append(place)
    named: dict[Place, str] = {}
    for group in alike.values():
        parts = {place: flatten({**json.loads(place.ground), "teacher": json.loads(place.teacher or "{}")}) for place in group}
        names = sorted({name for part in parts.values() for name in part})
        differing = [name for name in names if name != "data.transfer.classes" and len(_values_of(name, parts.values())) > 1]
        for place, part in parts.items():
            transfer = taught_on(places[place][0])
            words = [f"taught on {transfer}"] if transfer else []
            named[place] = ", ".join([place.recipe, *words, *(f"{name}={part[name]}" for name in differing if name in part)])
    return named


def _values_of(name: str, parts: Iterable[Mapping[str, Any]]) -> set[str]:
    """What tables say of one name; that a recipe leaves something out is said by its not being there."""
    return {json.dumps(part.get(name)) for part in parts if name in part or name.startswith("recipe.")}
