"""Tables derived from run.json and result.json alone: a row a run, and a row a method at its chosen setting."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kdzoo.spec import canonical
from kdzoo.store import write_bytes
from kdzoo.suite.records import BenchRecords, Place, Record, by_place, read_bench, setting_of
from kdzoo.suite.select import RULE, Candidate, candidates, choose
from kdzoo.suite.stats import detectable, difference, dunnett_p, pooled_sd, sample_sd

NONE, KD, TEACHER = "none", "hinton", "teacher"
METRICS = ("top1", "top5", "balanced", "nll", "ece", "agreement", "teacher_kl")
COSTS = ("step_seconds", "train_seconds", "memory_bytes", "extra_parameters", "views", "student_passes", "teacher_passes")
HEAD = ("pair", "data", "recipe", "epochs", "phase")
SETTING = ("temperature", "alpha", "weight", "others")


@dataclass(frozen=True)
class Standing:
    """A setting that stands in a table, and among how many of its method it was chosen."""

    candidate: Candidate
    tried: int

    @property
    def record(self) -> Record:
        return self.candidate.records[0]

    @property
    def done(self) -> tuple[Record, ...]:
        return self.candidate.done

    @property
    def top1(self) -> dict[int, float]:
        """Test top-1 of the last epoch by seed."""
        return {record.run.seed: record.result["last"]["test"]["top1"] for record in self.done if record.result}


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
        return f"{self.place.pair} on {self.place.data}, {self.recipe} ({self.place.epochs} epochs), {self.place.phase}"

    def only(self, method: str) -> Standing | None:
        """A control's chosen setting; None where it is not there, not done, or where nothing could be chosen."""
        found = [standing for standing in self.standings if standing.record.method == method and standing.done]
        return found[0] if len(found) == 1 else None

    def rows_of(self, board: pd.DataFrame) -> pd.DataFrame:
        """The rows of a leaderboard that belong to this table."""
        return board[(board[list(HEAD)] == pd.Series(self.head)).all(axis="columns")]


def blocks_of(bench: BenchRecords) -> tuple[Block, ...]:
    """A bench's tables, in a fixed order."""
    places = by_place(bench.records)
    options = {
        place: {method: candidates(r for r in records if r.method == method) for method in sorted({r.method for r in records})}
        for place, records in places.items()
    }
    tried = {(_sweep_key(place), method): len(o) for place in places if place.phase == "sweep" for method, o in options[place].items()}
    recipes = _recipes(places)
    return tuple(
        Block(
            place,
            recipes[place],
            tuple(records),
            tuple(
                Standing(candidate, max(len(o), tried.get((_sweep_key(place), method), 0)))
                for method, o in options[place].items()
                for candidate in choose(o)
            ),
        )
        for place, records in places.items()
    )


def _sweep_key(place: Place) -> tuple[Any, ...]:
    """Equal for a sweep and its refit, which differ in what is held out and in the teacher's weights."""
    ground = json.loads(place.ground)
    ground["data"].pop("val_fraction")
    return (place.pair, place.recipe, json.dumps(ground))


def _recipes(places: Iterable[Place]) -> dict[Place, str]:
    """Every table's recipe by name, and in words what differs between tables that bear the same names."""
    alike: dict[tuple[Any, ...], list[Place]] = {}
    for place in places:
        alike.setdefault(place[: len(HEAD)], []).append(place)
    named: dict[Place, str] = {}
    for group in alike.values():
        parts = {place: _flat({**json.loads(place.ground), "teacher": json.loads(place.teacher or "{}")}) for place in group}
        names = sorted({name for part in parts.values() for name in part})
        differing = [name for name in names if len(_said(name, parts.values())) > 1]
        for place, part in parts.items():
            named[place] = ", ".join([place.recipe, *(f"{name}={part[name]}" for name in differing if name in part)])
    return named


def _said(name: str, parts: Iterable[Mapping[str, Any]]) -> set[str]:
    """What tables say of one name; that a recipe leaves something out is said by its not being there."""
    return {json.dumps(part.get(name)) for part in parts if name in part or name.startswith("recipe.")}


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with names such as `recipe.lr`."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def runs_frame(bench: BenchRecords) -> pd.DataFrame:
    """A row a run, in the order of pair, phase, method, setting and seed. Accuracies are shares."""
    records = sorted(bench.records, key=lambda r: (r.place[:-1], r.method, r.setting_key, r.run.seed, r.id))
    recipes = {record.id: block.recipe for block in reversed(blocks_of(bench)) for record in block.records}
    return pd.DataFrame([_run_row(r, recipes.get(r.id, r.place.recipe)) for r in records], columns=list(_run_row(None, None)))


def _run_row(record: Record | None, recipe: str | None) -> dict[str, Any]:
    """A run's row; the columns, with nothing in them, for None."""
    result = (record.result if record else None) or {}
    last, best, oracle = result.get("last") or {}, result.get("best") or {}, result.get("oracle") or {}
    teacher, student, cost = result.get("teacher") or {}, result.get("student") or {}, result.get("cost") or {}
    run, place = (record.run, record.place) if record else (None, None)
    return {
        "id": record and record.id,
        "pair": place and place.pair,
        "data": place and place.data,
        "recipe": recipe,
        "epochs": place and place.epochs,
        "phase": place and place.phase,
        "method": record and record.method,
        **(setting_columns(record) if record else dict.fromkeys(SETTING)),
        "seed": run and run.seed,
        "state": record and record.state,
        **{f"val_{name}": (last.get("val") or {}).get(name) for name in METRICS},
        **{f"test_{name}": (last.get("test") or {}).get(name) for name in METRICS},
        "best_epoch": best.get("epoch"),
        "best_val_top1": (best.get("val") or {}).get("top1"),
        "best_test_top1": (best.get("test") or {}).get("top1"),
        "oracle_epoch": oracle.get("epoch"),
        "oracle_test_top1": (oracle.get("test") or {}).get("top1"),
        "train_loss": (result.get("train") or {}).get("loss"),
        "train_samples": (result.get("train") or {}).get("samples"),
        "teacher_val_top1": (teacher.get("val") or {}).get("top1"),
        "teacher_test_top1": (teacher.get("test") or {}).get("top1"),
        "teacher_parameters": teacher.get("parameters"),
        "student_parameters": student.get("parameters"),
        "student_macs": student.get("macs"),
        **{name: cost.get(name) for name in COSTS},
        "device": (result.get("environment") or {}).get("device"),
        "threads": (result.get("environment") or {}).get("threads"),
        "seconds": result.get("seconds"),
        "error": record and record.error,
    }


def setting_columns(record: Record) -> dict[str, Any]:
    setting = setting_of(record.run.objective, record.about.get("methods", {}))
    others = json.dumps(canonical(dict(setting.others)), sort_keys=True) if setting.others else None
    return {"temperature": setting.temperature, "alpha": setting.alpha, "weight": setting.weight, "others": others}


def leaderboard_frame(bench: BenchRecords) -> pd.DataFrame:
    """A row a method at its chosen setting, best first, for every pair, data set and phase; the teacher as a reference.

    Differences are in test top-1 of the last epoch, to tuned plain KD and to the student alone, with 95 % intervals;
    p_vs_kd is Dunnett's, over all methods of the block.
    """
    return pd.DataFrame([row for block in blocks_of(bench) for row in _block_rows(block)], columns=list(_COLUMNS))


_COLUMNS = (
    *HEAD, "rank", "method", *SETTING, "swept",
    "settings_tried", "n", "planned", "failed", "test_top1", "test_sd", "best_test_top1", "oracle_test_top1", "val_top1",
    "vs_kd", "vs_kd_low", "vs_kd_high", "vs_kd_test", "p_vs_kd", "vs_alone", "vs_alone_low", "vs_alone_high", "vs_alone_test",
    "gap_closed", "detectable", "test_balanced", "test_nll", "test_ece", "test_agreement", "test_teacher_kl", *COSTS,
    "student_parameters", "student_macs",
)  # fmt: skip


def _block_rows(block: Block) -> list[dict[str, Any]]:
    teachers = [record.result["teacher"] for record in block.records if record.result and record.result.get("teacher")]
    pooled = pooled_sd([list(standing.top1.values()) for standing in block.standings if standing.done])
    rows = [
        {
            **block.head,
            **_row(standing),
            **_against_controls(standing, block, teachers),
            "p_vs_kd": p_value,
            "detectable": detectable(pooled, len(standing.done)),
        }
        for standing, p_value in zip(block.standings, _dunnett(block), strict=True)
    ]
    # Means of equal values may differ in the last bits: a tie is a tie, and goes by name and setting.
    rows.sort(key=lambda row: (-round(_or(row["test_top1"], -1.0), 10), row["method"], str(row["others"]), *_numbers(row)))
    for rank, row in enumerate((row for row in rows if row["n"]), start=1):
        row["rank"] = rank
    return [{**block.head, **_teacher_row(teachers[0])}, *rows] if teachers else rows


def _numbers(row: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(_or(row[name], -1.0) for name in ("alpha", "temperature", "weight"))


def _row(standing: Standing) -> dict[str, Any]:
    """What the runs of a setting say by themselves."""
    record, done = standing.record, standing.done
    student = (done[0].result or {}).get("student", {}) if done else {}
    return {
        "method": record.method,
        **setting_columns(record),
        "swept": ",".join(record.about.get("swept", ())) or None,
        "settings_tried": standing.tried,
        "n": len(done),
        "planned": len(standing.candidate.records),
        "failed": sum(r.state == "failed" for r in standing.candidate.records),
        "test_top1": _mean(done, "last", "test", "top1"),
        "test_sd": sample_sd(list(standing.top1.values())) if done else None,
        "best_test_top1": _mean(done, "best", "test", "top1"),
        "oracle_test_top1": _mean(done, "oracle", "test", "top1"),
        "val_top1": _mean(done, "last", "val", "top1"),
        **{f"test_{name}": _mean(done, "last", "test", name) for name in ("balanced", "nll", "ece", "agreement", "teacher_kl")},
        **{name: _median(done, name) for name in COSTS},
        "student_parameters": student.get("parameters"),
        "student_macs": student.get("macs"),
    }


def _against_controls(standing: Standing, block: Block, teachers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Differences to tuned KD and to the student alone, and the share of the way from there to the teacher."""
    row: dict[str, Any] = {}
    if not standing.done:
        return row
    alone = block.only(NONE)
    for name, control in (("vs_kd", block.only(KD)), ("vs_alone", alone)):
        if control is not None and control is not standing:
            gap = difference(standing.top1, control.top1)
            row |= {name: gap.mean, f"{name}_low": gap.low, f"{name}_high": gap.high, f"{name}_test": gap.kind}
    if alone is not None and teachers:
        base = float(np.mean(list(alone.top1.values())))
        whole = float(np.mean([teacher["test"]["top1"] for teacher in teachers])) - base
        if whole > 0:
            row["gap_closed"] = (float(np.mean(list(standing.top1.values()))) - base) / whole
    return row


def _teacher_row(teacher: Mapping[str, Any]) -> dict[str, Any]:
    test = teacher["test"]
    return {
        "method": TEACHER,
        "n": 1,
        "test_top1": test["top1"],
        "val_top1": (teacher.get("val") or {}).get("top1"),
        "test_balanced": test["balanced"],
        "test_nll": test["nll"],
        "test_ece": test["ece"],
        "student_parameters": teacher.get("parameters"),
        "student_macs": teacher.get("macs"),
    }


def _dunnett(block: Block) -> list[float | None]:
    """Dunnett's p-value against tuned KD for every setting of the table; None for KD itself and for a single seed."""
    kd = block.only(KD)
    tested = [s for s in block.standings if kd is not None and s is not kd and len(s.done) > 1]
    found = iter(dunnett_p([list(s.top1.values()) for s in tested], list(kd.top1.values())) if kd else [])
    return [next(found) if any(s is t for t in tested) else None for s in block.standings]


def _mean(done: Iterable[Record], *path: str) -> float | None:
    values = [_at(record.result, path) for record in done]
    return float(np.mean(values)) if values and all(value is not None for value in values) else None


def _median(done: Iterable[Record], name: str) -> float | None:
    values = [_at(record.result, ("cost", name)) for record in done]
    return float(np.median(values)) if values and all(value is not None for value in values) else None


def _at(value: Any, path: Sequence[str]) -> Any:
    for key in path:
        value = value.get(key) if value is not None else None
    return value


def _or(value: float | None, other: float) -> float:
    return other if value is None or math.isnan(value) else value


def write_tables(folder: Path) -> tuple[pd.DataFrame, BenchRecords]:
    """Rebuild runs.csv, leaderboard.csv and leaderboard.md from the run folders; the leaderboard and what it is from."""
    bench = read_bench(folder)
    board = leaderboard_frame(bench)
    write_bytes(folder / "runs.csv", as_csv(runs_frame(bench)))
    write_bytes(folder / "leaderboard.csv", as_csv(board))
    write_bytes(folder / "leaderboard.md", as_markdown(bench, board).encode())
    return board, bench


def as_csv(frame: pd.DataFrame) -> bytes:
    """A frame as CSV: ten significant digits, empty where there is no value, one kind of line end."""
    return str(frame.to_csv(index=False, float_format="%.10g", lineterminator="\n")).encode()


def as_markdown(bench: BenchRecords, board: pd.DataFrame) -> str:
    """The leaderboard for a reader: per cent, standard deviations, differences with intervals, and the protocol below."""
    lines = [f"# {bench.name}", ""]
    for block in blocks_of(bench):
        rows = block.rows_of(board)
        if len(rows):
            lines += [f"## {block.title}", "", *markdown_table(display_frame(rows)), ""]
    lines += [f"{line}\n" for line in footnotes(bench)]
    failed = [record for record in bench.records if record.state == "failed"]
    lines += [f"- failed: `{record.id}` (seed {record.run.seed}): {record.error}" for record in failed]
    lines += [f"- {note}" for note in bench.portable_notes]
    return "\n".join(lines).rstrip() + "\n"


def markdown_table(shown: pd.DataFrame) -> list[str]:
    """A frame of text as the lines of a Markdown table."""
    rows = [list(map(str, shown.columns)), ["---"] * len(shown.columns), *shown.itertuples(index=False)]
    return ["| " + " | ".join(str(cell).replace("|", r"\|") for cell in row) + " |" for row in rows]


MEANINGS = (
    "vs KD and vs alone: differences to tuned Hinton KD and to the student alone with 95 % intervals, paired by seed where the "
    "seeds are the same. p: Dunnett's test against KD. Gap closed: share of the way from the student alone to the teacher. "
    "Tried: settings tried. Train s: a solo run with a live teacher, from a probe of a few steps."
)


def footnotes(bench: BenchRecords) -> list[str]:
    """The protocol and what the columns mean, in a few lines; said table by table only where it differs between them."""
    blocks = blocks_of(bench)
    return [*_shared(blocks, protocol), MEANINGS, *_shared(blocks, resolution)]


def _shared(blocks: Sequence[Block], say: Callable[[Block], str]) -> list[str]:
    said = {block.title: say(block) for block in blocks if say(block)}
    if len(set(said.values())) <= 1:
        return list(dict.fromkeys(said.values()))
    return [f"{title}: {text}" for title, text in said.items()]


def protocol(block: Block) -> str:
    """How the numbers of one table came about: seeds, split and choice."""
    data = block.records[0].run.data
    seeds = ", ".join(map(str, sorted({record.run.seed for record in block.records})))
    lacking = sorted({s.record.method for s in block.standings if s.done and not s.candidate.complete})
    return (
        f"Top-1 in per cent on the test set after the last epoch, mean ± sample sd over seeds {seeds}; "
        f"held out for validation: {100 * data.val_fraction:g} %. {_choice(block)}."
        + (f" Not all seeds are done of: {', '.join(lacking)}." if lacking else "")
    )


def _choice(block: Block) -> str:
    methods = [standing.record.method for standing in block.standings]
    if len(set(methods)) < len(methods):
        return "Nothing was chosen: every setting is shown"
    if block.place.phase == "refit":
        return f"Setting chosen in the sweep: {RULE}"
    return f"Setting chosen: {RULE}"


def resolution(block: Block) -> str:
    """The difference that a table of so few seeds would not have found; empty where nothing was done twice."""
    done = [standing for standing in block.standings if standing.done]
    n = min((len(standing.done) for standing in done), default=0)
    found = detectable(pooled_sd([list(standing.top1.values()) for standing in done]), n)
    if math.isnan(found):
        return ""
    return f"With {n} seeds a difference below {100 * found:.2f} points would probably go unnoticed (80 % power, two-sided 5 %)."


def display_frame(board: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard's main columns as text, as a person reads them; accuracies in per cent."""
    rows = [row for _, row in board.iterrows()]
    shown = pd.DataFrame(
        {
            "#": [_number(row["rank"], ".0f") for row in rows],
            "method": [row["method"] for row in rows],
            "setting": [_setting_words(row) for row in rows],
            "n": [_count(row) for row in rows],
            "test top-1": [_spread(row["test_top1"], row["test_sd"]) for row in rows],
            "best epoch": [_percent(row["best_test_top1"]) for row in rows],
            "val": [_percent(row["val_top1"]) for row in rows],
            "vs KD": [_interval(row, "vs_kd") for row in rows],
            "p": [_p_value(row["p_vs_kd"]) for row in rows],
            "vs alone": [_interval(row, "vs_alone") for row in rows],
            "gap closed": ["" if pd.isna(row["gap_closed"]) else f"{100 * row['gap_closed']:.0f} %" for row in rows],
            "tried": [_number(row["settings_tried"], ".0f") for row in rows],
            "train s": [_number(row["train_seconds"], ".3g") for row in rows],
        },
        index=board.index,
        dtype=object,
    )
    if board["oracle_test_top1"].notna().any():
        shown.insert(6, "best on test (oracle)", [_percent(row["oracle_test_top1"]) for row in rows])
    return shown


def _number(value: float, form: str) -> str:
    return "" if pd.isna(value) else f"{value:{form}}"


def _p_value(p: float) -> str:
    return "<0.001" if not pd.isna(p) and p < 0.001 else _number(p, ".3f")


def _setting_words(row: pd.Series) -> str:
    words = [f"{name}={row[column]:g}" for name, column in (("T", "temperature"), ("alpha", "alpha")) if not pd.isna(row[column])]
    if not pd.isna(row["weight"]) and row["weight"] != 1:
        words.append(f"weight={row['weight']:g}")
    if isinstance(row["others"], str):
        words += [f"{name}={value}" for name, value in json.loads(row["others"]).items()]
    return " ".join(words)


def _count(row: pd.Series) -> str:
    return f"{row['n']:.0f}" if pd.isna(row["planned"]) or row["n"] == row["planned"] else f"{row['n']:.0f} of {row['planned']:.0f}"


def _percent(value: float) -> str:
    return "" if pd.isna(value) else f"{100 * value:.2f}"


def _spread(mean: float, sd: float) -> str:
    return "" if pd.isna(mean) else _percent(mean) + ("" if pd.isna(sd) else f" ± {100 * sd:.2f}")


def _interval(row: pd.Series, name: str) -> str:
    if pd.isna(row[name]):
        return ""
    bounds = "" if pd.isna(row[f"{name}_low"]) else f" [{100 * row[f'{name}_low']:+.2f}, {100 * row[f'{name}_high']:+.2f}]"
    return f"{100 * row[name]:+.2f}{bounds}"
