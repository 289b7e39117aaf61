"""Tables before they are numbers: which runs stand together, at which setting, which are healthy, and tests among them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from kdzoo.suite.plan.config import KD, NONE
from kdzoo.suite.report.records import BenchRecords, Place, Record, by_place, setting_text, taught_on
from kdzoo.suite.report.selection import Candidate, candidates, choose, why_collapsed
from kdzoo.suite.report.stats import Contrast, ErrorModel, common_seeds, holm, model_of
from kdzoo.text import number_of

TEACHER = "teacher"
HEAD = ("pair", "data", "recipe", "epochs", "phase")
CONTROLS = {"kd": KD, "alone": NONE}
"""the row that each family of comparisons is made with, by the word for it in column names"""


@dataclass(frozen=True)
class Standing:
    """A setting that stands in a table, among how many of its method it was chosen, and why it is collapsed if it is."""

    candidate: Candidate
    tried: int
    collapsed: str | None = None

    @property
    def record(self) -> Record:
        return self.candidate.records[0]

    @property
    def setting(self) -> str:
        """Its coefficients in words, such as `T=4 alpha=0.9`; empty at the published ones of a method without such words."""
        return setting_text(self.record.run, self.record.about)

    @property
    def done(self) -> tuple[Record, ...]:
        return self.candidate.done

    @property
    def top1(self) -> dict[int, float]:
        """Test top-1 of the last epoch by seed."""
        return {record.run.seed: record.result["last"]["test"]["top1"] for record in self.done if record.result}

    @property
    def images(self) -> int:
        """How many images its runs were tested on."""
        return min(int(record.result["last"]["test"]["n"]) for record in self.done if record.result)

    @property
    def mean_top1(self) -> float:
        return float(np.mean(list(self.top1.values())))


@dataclass(frozen=True)
class Block:
    """One table: runs that may be compared with each other, and the settings that stand in it.

    recipe: its name, with what tells this table from others of the same names, such as `smoke, recipe.lr=0.05`.
    """

    place: Place
    recipe: str
    records: tuple[Record, ...]
    standings: tuple[Standing, ...]

    @property
    def head(self) -> dict[str, Any]:
        """The columns that say which table a row belongs to."""
        return {name: self.recipe if name == "recipe" else getattr(self.place, name) for name in HEAD}

    @property
    def title(self) -> str:
        return f"{self.place.pair} on {self.place.data}, {self.recipe} ({number_of(self.place.epochs, 'epoch')}), {self.place.phase}"

    def only(self, method: str) -> Standing | None:
        """A control's chosen setting; None where it is not there, not done, or where nothing could be chosen."""
        return _only([standing for standing in self.standings if standing.record.method == method])

    @cached_property
    def healthy(self) -> tuple[Standing, ...]:
        """The settings that are done, in part at least, and not collapsed: those that statistics are made with."""
        return tuple(standing for standing in self.standings if standing.done and standing.collapsed is None)

    @cached_property
    def model(self) -> ErrorModel | None:
        """The errors of the healthy settings, in their order; None where there is none."""
        resolution = max((1 / standing.images for standing in self.healthy), default=0.0)
        return model_of([standing.top1 for standing in self.healthy], resolution) if self.healthy else None

    @cached_property
    def common_seeds(self) -> frozenset[int]:
        """The seeds that the ranks of this table are made on (`stats.common_seeds`)."""
        return common_seeds([standing.top1.keys() for standing in self.healthy])

    @cached_property
    def comparable(self) -> tuple[Standing, ...]:
        """The healthy settings that have all the common seeds; none where there is no common seed."""
        return tuple(s for s in self.healthy if self.common_seeds and self.common_seeds <= s.top1.keys())

    @cached_property
    def ranked(self) -> tuple[Standing, ...]:
        """The settings that have a rank: those on two common seeds or more. One seed ranks nothing, nor does one row."""
        return self.comparable if len(self.common_seeds) > 1 and len(self.comparable) > 1 else ()

    def common_top1(self, standing: Standing) -> float:
        """Mean test top-1 of a comparable setting over the common seeds."""
        return float(np.mean([standing.top1[seed] for seed in sorted(self.common_seeds)]))

    @cached_property
    def has_one_seed(self) -> bool:
        """Whether no setting has a second seed: differences are then as large as chance, and nothing says how large that is."""
        return all(len(standing.done) <= 1 for standing in self.standings)

    def rows_of(self, board: pd.DataFrame) -> pd.DataFrame:
        """The rows of a leaderboard that belong to this table."""
        return board[(board[list(HEAD)] == pd.Series(self.head)).all(axis="columns")]


def labels(blocks: Sequence[Block]) -> list[str]:
    """What tells tables of one bench apart, as briefly as it goes: the pair, with its phase, or the whole title."""
    forms: tuple[Callable[[Block], str], ...] = (
        lambda block: block.place.pair,
        lambda block: f"{block.place.pair}, {block.place.phase}",
    )
    for form in forms:
        names = [form(block) for block in blocks]
        if len(set(names)) == len(names):
            return names
    return [block.title for block in blocks]


def _only(standings: Sequence[Standing]) -> Standing | None:
    found = [standing for standing in standings if standing.done]
    return found[0] if len(found) == 1 else None


def blocks_of(bench: BenchRecords) -> tuple[Block, ...]:
    """A bench's tables, in a fixed order."""
    places = by_place(bench.records)
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

    return tuple(
        Block(place, recipes[place], tuple(records), tuple(standing(place, candidate) for candidate in chosen[place]))
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
    taught = {record.about["sweep_teacher"] for record in records if record.about.get("sweep_teacher")}
    same = [other for other in alike if (other.teacher == place.teacher if not taught else _start(other) in taught)]
    return tuple(same if same or taught else alike)


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
        parts = {place: flat({**json.loads(place.ground), "teacher": json.loads(place.teacher or "{}")}) for place in group}
        names = sorted({name for part in parts.values() for name in part})
        differing = [name for name in names if name != "data.transfer.classes" and len(_values_of(name, parts.values())) > 1]
        for place, part in parts.items():
            taught = taught_on(places[place][0])
            words = [f"taught on {taught}"] if taught else []
            named[place] = ", ".join([place.recipe, *words, *(f"{name}={part[name]}" for name in differing if name in part)])
    return named


def _values_of(name: str, parts: Iterable[Mapping[str, Any]]) -> set[str]:
    """What tables say of one name; that a recipe leaves something out is said by its not being there."""
    return {json.dumps(part.get(name)) for part in parts if name in part or name.startswith("recipe.")}


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with names such as `recipe.lr`."""
    leaves: dict[str, Any] = {}
    for name, value in content.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return leaves


def position_of(standings: Sequence[Standing], standing: Standing | None) -> int | None:
    return next((at for at, other in enumerate(standings) if other is standing), None)


@dataclass(frozen=True)
class Comparisons:
    """A family: every healthy row of a table against one control. Empty where the control is not there or collapsed."""

    standings: tuple[Standing, ...]
    contrast: Contrast | None
    stands: np.ndarray

    @property
    def family(self) -> int:
        return len(self.standings)

    def columns(self, name: str, standing: Standing) -> dict[str, Any]:
        """One row's interval and p-value, and those of the whole family."""
        at = position_of(self.standings, standing)
        if self.contrast is None or at is None:
            return {}
        columns: dict[str, Any] = {}
        for word, family in (("", 1), ("_all", self.family)):
            low, high = self.contrast.interval(family)
            columns |= {f"{name}{word}_low": low[at], f"{name}{word}_high": high[at], f"p_{name}{word}": self.contrast.p(family)[at]}
        return columns | {f"{name}_holm": None if math.isnan(self.contrast.error[at]) else bool(self.stands[at])}

    def detectable(self, standing: Standing) -> float | None:
        at = position_of(self.standings, standing)
        return None if self.contrast is None or at is None else float(self.contrast.detectable[at])


def comparisons(block: Block, control: str) -> Comparisons:
    """Every healthy row of a table against a control, by the table's error model."""
    position = position_of(block.healthy, block.only(control))
    if block.model is None or position is None:
        return Comparisons((), None, np.zeros(0, bool))
    others = [at for at in range(len(block.healthy)) if at != position]
    whole = block.model.against(position)
    contrast = Contrast(whole.mean[others], whole.error[others], whole.freedom[others])
    return Comparisons(tuple(block.healthy[at] for at in others), contrast, holm(contrast.p()))
