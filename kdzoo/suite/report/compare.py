"""Benches beside each other: methods joined by name, differences with tests, and where their protocols differ."""

from __future__ import annotations

import itertools
import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from kdzoo.errors import InputError, unknown
from kdzoo.runs.spec import Recipe
from kdzoo.suite.report.blocks import TEACHER, blocks_of, flat
from kdzoo.suite.report.leaderboard import SETTING, as_csv, setting_columns
from kdzoo.suite.report.records import BenchRecords, read_bench, taught_on
from kdzoo.suite.report.stats import WELCH, independent_model, paired_model, sample_sd
from kdzoo.suite.report.tables import interval_words, markdown_table, method_words, p_value_words, setting_words, spread_words

TABLE_FILES = ("leaderboard.csv", "runs.csv")
FORMATS = ("table", "csv", "md", "latex", "json")
KEYS = ("pair", "data", "phase", "method")
DETAILS = ("recipe", "epochs", *SETTING)
"""join rows only where KEYS leave several of one side"""
SAME_AS = {"epochs": "recipe.epochs", "data": "data.name", "recipe": "recipe", "phase": "phase", "n": "n"}
"""the columns of a table that say something of its protocol, by the name a bench has for it"""


@dataclass(frozen=True)
class Entry:
    """One row of a side: its place, and its test top-1; by seed where single runs are known, n where it is known.

    collapsed: whether its table says so; such a row has a difference and no test. images: how many it was tested on.
    setting: its chosen setting in words. ids: of its runs by seed, where they are known.
    """

    where: Mapping[str, Any]
    top1: float
    sd: float
    n: int | None
    seeds: Mapping[int, float] | None = None
    collapsed: bool = False
    images: int | None = None
    setting: str = ""
    ids: Mapping[int, str] = field(default_factory=dict)

    def same_runs(self, other: Entry) -> int:
        """How many of its runs are the other's: those of equal ids, where all of them have equal accuracies too.

        Where one has not, the runs were trained again, on another machine or by another version of torch.
        """
        if self.seeds is None or other.seeds is None:
            return 0
        shared = [seed for seed, run_id in self.ids.items() if other.ids.get(seed) == run_id]
        return len(shared) if all(self.seeds[seed] == other.seeds[seed] for seed in shared) else 0


@dataclass(frozen=True)
class Side:
    """One of the things compared: its rows, and every part of its protocol that it says, with all values it has there."""

    name: str
    entries: tuple[Entry, ...]
    protocol: Mapping[str, frozenset[str]]

    def has(self, key: str) -> bool:
        return all(key in entry.where for entry in self.entries)


@dataclass(frozen=True)
class Comparison:
    """frame: a row a method, with each side's mean, and every other side's difference to the first. warnings: in words.

    names: what the sides are called in the columns, in their order.
    """

    frame: pd.DataFrame
    warnings: tuple[str, ...]
    names: tuple[str, ...]


def compare(paths: Sequence[Path]) -> Comparison:
    """Join benches (folders) and tables (leaderboard.csv, runs.csv, or columns method, top1[, seed] or [, sd, n]).

    Differences are in test top-1 to the first side, with a 95 % interval: paired by seed where both sides have the
    same seeds run by run, else Welch's from means and standard deviations; none where a side's own table calls the row
    collapsed, or where both sides hold the same runs (a copy). A row that only one side has is kept, and where a side has
    several rows for one of another's, each is compared with it. Warns for every part of the protocol that is not the same
    on all sides, and of copies.
    """
    sides = [read_side(path) for path in paths]
    names = _distinct_names([side.name for side in sides], paths)
    keys = _keys(sides)
    shown = [key for key in (*KEYS, *DETAILS) if key in keys or (key in KEYS and any(side.has(key) for side in sides))]
    rows = [_row(entries, shown, names) for entries in _joined(sides, keys)]
    columns = [*shown, *(f"{name} {part}" for name in names for part in ("setting", "top1", "sd", "n"))]
    columns += [f"{name} - {names[0]}{part}" for name in names[1:] for part in ("", " low", " high", " p", " test")]
    frame = pd.DataFrame(rows, columns=columns)
    return Comparison(frame, (*_copies(frame, names), *_warnings(sides, names)), tuple(names))


SAME_RUNS = "none: the same runs"


def _copies(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """A warning for every side of which rows are made of the first side's runs."""
    warnings = []
    for name in names[1:]:
        tests = frame[f"{name} - {names[0]} test"]
        same = tests.eq(SAME_RUNS).sum()
        if same:
            rows = int(tests.notna().sum())
            warnings.append(f"{name}: {same} of {rows} rows hold the same runs as {names[0]} (a copy): they have no test")
    return warnings


def _keys(sides: Sequence[Side]) -> list[str]:
    """What rows are joined by: what all sides say, in as much detail as it takes to tell a side's rows apart."""
    keys = [key for key in KEYS if all(side.has(key) for side in sides)]

    def distinct(by: Sequence[str]) -> int:
        return sum(len({_key(entry, by) for entry in side.entries}) for side in sides)

    for detail in DETAILS:
        if all(side.has(detail) for side in sides) and distinct([*keys, detail]) > distinct(keys):
            keys.append(detail)
    return keys


def _key(entry: Entry, keys: Iterable[str]) -> tuple[Any, ...]:
    return tuple(entry.where[key] for key in keys)


def _joined(sides: Sequence[Side], keys: Sequence[str]) -> list[tuple[Entry | None, ...]]:
    """The rows of all sides that belong together, in the order in which the sides have them."""
    found: dict[tuple[Any, ...], list[list[Entry | None]]] = {}
    for position, side in enumerate(sides):
        for entry in side.entries:
            found.setdefault(_key(entry, keys), [[] for _ in sides])[position].append(entry)
    return [row for groups in found.values() for row in itertools.product(*(group or [None] for group in groups))]


def _row(entries: Sequence[Entry | None], shown: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    present = [entry for entry in entries if entry is not None]
    row: dict[str, Any] = {key: next((e.where[key] for e in present if e.where.get(key) is not None), None) for key in shown}
    for name, entry in zip(names, entries, strict=True):
        if entry is not None:
            row |= {f"{name} setting": entry.setting or None, f"{name} top1": entry.top1, f"{name} sd": entry.sd, f"{name} n": entry.n}
    for name, entry in zip(names[1:], entries[1:], strict=True):
        if entry is not None and entries[0] is not None:
            row |= {f"{name} - {names[0]}{part}": value for part, value in _difference(entry, entries[0]).items()}
    return row


def _difference(entry: Entry, base: Entry) -> dict[str, Any]:
    """The difference of two rows, with what can be said of its chance: a paired test, Welch's, or nothing."""
    difference = {"": entry.top1 - base.top1}
    if same := entry.same_runs(base):
        whole = same == max(len(entry.seeds or ()), len(base.seeds or ()))
        return {**difference, " test": SAME_RUNS if whole else f"none: {same} runs are the same"}
    if entry.collapsed or base.collapsed:
        return {**difference, " test": "none: collapsed"}
    resolution = 1 / min(side.images for side in (base, entry) if side.images) if base.images and entry.images else 0.0
    if entry.seeds and base.seeds and entry.seeds.keys() == base.seeds.keys() and len(base.seeds) > 1:
        values = np.array([[side.seeds[seed] for seed in base.seeds] for side in (base, entry) if side.seeds])
        model, test = paired_model(values, resolution), "paired by seed"
    elif (entry.n or 0) > 1 and (base.n or 0) > 1 and not (math.isnan(entry.sd) or math.isnan(base.sd)):
        means, sds = np.array([base.top1, entry.top1]), np.array([base.sd, entry.sd])
        model, test = independent_model(means, sds**2, np.array([base.n, entry.n]), resolution, WELCH), "Welch"
    else:
        return difference
    contrast = model.against(0)
    low, high = contrast.interval()
    return {**difference, " low": low[1], " high": high[1], " p": contrast.p()[1], " test": test}


def read_side(path: Path) -> Side:
    """A bench's folder, or a CSV; raises InputError for what is neither."""
    if path.is_dir():
        return _bench_side(read_bench(path))
    if not path.is_file():
        raise InputError(f"compare: {path}: no such bench or file")
    try:
        table = pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise InputError(f"compare: {path}: not a CSV table ({error})") from error
    column = next((c for c in ("test_top1", "top1", "accuracy") if c in table), None)
    if "method" not in table or column is None:
        raise InputError(f"compare: {path}: expected columns method and test_top1 (or top1), found: {', '.join(map(str, table.columns))}")
    name = path.parent.resolve().name if path.name in TABLE_FILES else path.stem
    table = table.rename(columns={column: "top1", "test_sd": "sd"})
    table = _as_shares(_with_numbers(table, path))
    table = table[table["top1"].notna() & (table["method"] != TEACHER)]
    by_seed = "seed" in table and "n" not in table
    entries = _entries_by_seed(table, path) if by_seed else _entries_of_means(table)
    protocol = {k: frozenset(_text(v) for v in table[c].dropna()) for c, k in SAME_AS.items() if c in table}
    return Side(name, tuple(entries), {"n": _counts(entries), **protocol})


def _with_numbers(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The table with numbers where numbers have to be; raises InputError that names what is none."""
    problems = []
    for column in [c for c in ("top1", "sd", "n", "seed", "val_top1", "val_nll") if c in table]:
        numbers = pd.to_numeric(table[column], errors="coerce").astype(float)
        wrong = numbers.isna() & table[column].notna()
        lines = [line for line, bad in enumerate(wrong, start=2) if bad]
        problems += [f"compare: {path}: {column}: expected a number, got {table[column][line - 2]!r} (line {line})" for line in lines]
        table = table.assign(**{column: numbers})
    if problems:
        raise InputError(*problems)
    return table


def _as_shares(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracies as shares, where the table has them in per cent."""
    if not (table["top1"] > 1).any():
        return table
    return table.assign(**{c: table[c] / 100 for c in ("top1", "sd", "val_top1") if c in table})


def _bench_side(bench: BenchRecords) -> Side:
    entries = [
        Entry(
            where={**block.head, "method": standing.record.method, **setting_columns(standing.record)},
            top1=standing.mean_top1,
            sd=sample_sd(list(standing.top1.values())),
            n=len(standing.done),
            seeds=standing.top1,
            collapsed=standing.collapsed is not None,
            images=standing.images,
            setting=standing.setting,
            ids={record.run.seed: record.id for record in standing.done},
        )
        for block in blocks_of(bench)
        for standing in block.standings
        if standing.done
    ]
    return Side(bench.name, tuple(entries), {**_protocol(bench), "n": _counts(entries)})


def _entries_by_seed(table: pd.DataFrame, path: Path) -> list[Entry]:
    """A row for every method, at the setting that is best on validation where the table has that, else for every setting."""
    keys = [key for key in (*KEYS, "recipe", "epochs") if key in table]
    settings = [key for key in SETTING if key in table]
    entries = []
    for _, group in table.groupby(keys, dropna=False, sort=False):
        options = [part for _, part in group.groupby(settings, dropna=False, sort=False)] if settings else [group]
        if len(options) > 1 and "val_top1" in group and group["val_top1"].notna().all():
            options = [max(options, key=_rank)]
        for option in options:
            twice = option.loc[option["seed"].duplicated(), "seed"]
            if len(twice):
                raise InputError(f"compare: {path}: {option['method'].iloc[0]} has seed {twice.iloc[0]:g} twice in one setting")
            values = {int(seed): float(top1) for seed, top1 in zip(option["seed"], option["top1"], strict=True)}
            ids = {int(seed): str(run_id) for seed, run_id in zip(option["seed"], option["id"], strict=True)} if "id" in option else {}
            mean, sd = float(np.mean(list(values.values()))), sample_sd(list(values.values()))
            where = _where(option.iloc[0], [*keys, *settings])
            entries.append(Entry(where, mean, sd, len(values), values, setting=setting_words(option.iloc[0]), ids=ids))
    return entries


def _rank(option: pd.DataFrame) -> tuple[float, ...]:
    """As settings are chosen in a bench: seeds, validation top-1, validation NLL."""
    nll = -float(option["val_nll"].mean()) if "val_nll" in option else 0.0
    return (len(option), round(float(option["val_top1"].mean()), 10), round(nll, 10))


def _entries_of_means(table: pd.DataFrame) -> list[Entry]:
    keys = [key for key in (*KEYS, *DETAILS) if key in table]
    return [
        Entry(
            where=_where(row, keys),
            top1=float(row["top1"]),
            sd=float(row.get("sd", math.nan)),
            n=int(row["n"]) if "n" in row and not pd.isna(row["n"]) else None,
            collapsed="collapsed" in row and not pd.isna(row["collapsed"]),
            setting=setting_words(row),
        )
        for _, row in table.iterrows()
    ]


def _where(row: pd.Series, keys: Iterable[str]) -> dict[str, Any]:
    return {key: None if pd.isna(row[key]) else row[key] for key in keys}


def _counts(entries: Iterable[Entry]) -> frozenset[str]:
    return frozenset(str(entry.n) for entry in entries if entry.n is not None)


def _protocol(bench: BenchRecords) -> dict[str, frozenset[str]]:
    """Every part of the runs' specification that has to be equal for numbers to be compared, and its values.

    Nested parts have names such as `student.stem`, so that a warning names what differs and nothing that is equal.
    """
    found: dict[str, set[str]] = {}
    for record in bench.records:
        run = record.run.model_dump(mode="json")
        data = {key: value for key, value in run["data"].items() if key != "transfer"}
        whole = {"data": data, "recipe": dict.fromkeys(Recipe.model_fields) | run["recipe"]}
        parts = flat(whole)
        parts |= {"transfer set": taught_on(record) or "all training images"}
        parts |= {"engine": run["engine"], "phase": record.place.phase, "recipe": record.place.recipe}
        parts |= {f"version of {term['method']}": term["version"] for term in run["objective"]["terms"]}
        parts |= flat({part: run[part] for part in ("student", "teacher") if run[part]})
        if record.result:
            environment = record.result["environment"]
            parts |= {key: environment[key] for key in ("device", "threads", "torch") if key in environment}
        for key, value in parts.items():
            found.setdefault(key, set()).add(_text(value))
    found["seeds"] = {str(sorted({record.run.seed for record in bench.records}))}
    return {key: frozenset(values) for key, values in found.items()}


def _text(value: Any) -> str:
    """A value as it is named in a warning; whole numbers alike, whatever they were read from."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _warnings(sides: Sequence[Side], names: Sequence[str]) -> list[str]:
    warnings = []
    for key in sorted({key for side in sides for key in side.protocol}):
        known = {name: side.protocol[key] for name, side in zip(names, sides, strict=True) if side.protocol.get(key)}
        if len(set(known.values())) > 1:
            warnings.append(f"{key} differs: {', '.join(f'{name} has {_listed(values)}' for name, values in known.items())}")
    silent = [name for name, side in zip(names, sides, strict=True) if "data.fingerprint" not in side.protocol]
    if silent and len(sides) > 1:
        warnings.append(
            f"{', '.join(silent)}: a table alone does not tell how its numbers were made, so the protocols could not be compared"
        )
    return warnings


def _listed(values: frozenset[str]) -> str:
    return " and ".join(sorted(values, key=lambda value: (len(value), value)))


def _distinct_names(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Names that differ: with as many folders before them as that takes, and with their position where the paths are equal."""
    parents = [_folder_of(path.resolve()) for path in paths]
    found = list(names)
    for depth in range(1, max(len(parent.parts) for parent in parents)):
        if len(set(found)) == len(found):
            return found
        longer = ["/".join((*parent.parts[1:][-depth:], name)) for parent, name in zip(parents, names, strict=True)]
        found = [long if names.count(name) > 1 else name for long, name in zip(longer, names, strict=True)]
    return [name if found.count(name) == 1 else f"{name} ({position})" for position, name in enumerate(names, start=1)]


def _folder_of(path: Path) -> Path:
    """The folder that a side's name stands in: a bench's own tables bear the bench's name."""
    return path.parent.parent if path.name in TABLE_FILES else path.parent


def sorted_by(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """The frame in the order of a column, best first for accuracies; raises InputError with the nearest column."""
    if column not in frame:
        raise InputError(unknown("sort", column, map(str, frame.columns)))
    higher_is_better = re.search(r"top1|acc|gap_closed|agreement|balanced|vs_| - ", column)
    ascending = not higher_is_better or bool(re.search(r"(^p_| p| test|_test| sd|_sd)$|^p_", column))
    return frame.sort_values(column, ascending=ascending, kind="stable", na_position="last")


OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge, "<=": operator.le, "!=": operator.ne, ">": operator.gt, "<": operator.lt, "=": operator.eq,
}  # fmt: skip


def filtered(frame: pd.DataFrame, condition: str) -> pd.DataFrame:
    """The rows for which `column=value`, `column>0.9` (or >=, <, <=, !=) holds; raises InputError for any other text.

    A cell without a value fulfils no condition but !=.
    """
    match = re.fullmatch(r"\s*(.+?)\s*(>=|<=|!=|>|<|=)\s*(.+?)\s*", condition)
    if match is None:
        raise InputError(f"filter: expected COLUMN=VALUE or COLUMN>NUMBER, or one of != < <= >=, got {condition!r}")
    column, sign, value = match.groups()
    if column not in frame:
        raise InputError(unknown("filter", column, map(str, frame.columns)))
    cells = frame[column]
    if pd.api.types.is_numeric_dtype(cells):
        try:
            return cast(pd.DataFrame, frame[OPERATORS[sign](cells, float(value))])
        except ValueError:
            raise InputError(f"filter: {column} holds numbers, got {value!r}") from None
    return cast(pd.DataFrame, frame[OPERATORS[sign](cells.astype(str), value) & (cells.notna() | (sign == "!="))])


def comparison_sections(frame: pd.DataFrame, names: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    """A comparison for a reader: a table for all rows of one pair, data set and phase, with their title."""
    heads = [name for name in ("pair", "data", "recipe", "epochs", "phase") if name in frame and frame[name].notna().any()]
    if not heads:
        return [("", comparison_frame(frame, names))]
    groups = [rows for _, rows in frame.groupby(heads, dropna=False, sort=False)]
    titles = [", ".join(filter(None, (_word(rows[head].iloc[0], False) for head in heads))) for rows in groups]
    return [(title, comparison_frame(rows, names)) for title, rows in zip(titles, groups, strict=True)]


def comparison_frame(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Rows of a comparison as text: every side's setting, mean ± sd and n, and differences to the first side with intervals.

    Settings are one column where all sides that have a row have the same there.
    """
    rows = [row for _, row in frame.iterrows()]
    shown = {"method": [method_words(str(row["method"])) for row in rows]}
    settings = [[_word(row[f"{name} setting"], False) for name in names if not pd.isna(row[f"{name} top1"])] for row in rows]
    if all(len(set(of_row)) <= 1 for of_row in settings):
        shown["setting"] = [of_row[0] if of_row else "" for of_row in settings]
    else:
        shown |= {f"{name} setting": [_word(row[f"{name} setting"], False) for row in rows] for name in names}
    for name in names:
        shown[name] = [spread_words(row[f"{name} top1"], row[f"{name} sd"]) for row in rows]
    for name in names:
        shown[f"{name} n"] = [_word(row[f"{name} n"], False) for row in rows]
    for name in names[1:]:
        difference = f"{name} - {names[0]}"
        shown[difference] = [interval_words(*(row[f"{difference}{part}"] for part in ("", " low", " high"))) for row in rows]
        shown[f"{difference} p"] = [p_value_words(row[f"{difference} p"]) for row in rows]
        shown[f"{difference} test"] = [_word(row[f"{difference} test"], False) for row in rows]
    return pd.DataFrame(shown, index=frame.index, dtype=object)


def render(frame: pd.DataFrame, how: str) -> str:
    """A frame as table (plain text), csv, md, latex or json; raises InputError with the known formats.

    csv and json hold the numbers as they are, the others text for a reader, shares in per cent.
    """
    if how == "csv":
        return as_csv(frame).decode()
    if how == "json":
        return json.dumps(json.loads(_with_integers(frame).to_json(orient="records", double_precision=15)), indent=1, ensure_ascii=False)
    shown = words(frame)
    if how == "table":
        return str(shown.to_string(index=False))
    if how == "md":
        return "\n".join(markdown_table(shown))
    if how == "latex":
        return _latex(shown)
    raise InputError(unknown("format", how, FORMATS))


COUNTED = re.compile(r"(^|[ _])(n|seed|seeds|epochs?|rank|planned|failed|tried|views|passes|macs|parameters|bytes|samples|threads|pairs)$")
"""columns that count something: a column with a missing value holds floats, which a reader of JSON should not see"""


def _with_integers(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with integers in the columns that count, as far as they hold whole numbers (a median may not)."""
    counted = [name for name in frame.columns if COUNTED.search(str(name)) and pd.api.types.is_numeric_dtype(frame[name])]
    whole = [name for name in counted if (frame[name].dropna() % 1 == 0).all()]
    return frame.astype(dict.fromkeys(whole, "Int64"))


SHARES = re.compile(r"top1|top5| sd$|_sd$| - .*?( low| high)?$|^vs_|ece|balanced|agreement|gap_closed|detectable")


DIFFERENCES = re.compile(r" - |^vs_")
"""columns of differences, which show their sign"""


def words(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame as text for a reader, shares in per cent."""
    shown = frame.copy().astype(object)
    for column in map(str, frame.columns):
        share = bool(SHARES.search(column)) and not column.endswith((" p", " test"))
        sign = "+" if share and DIFFERENCES.search(column) else ""
        shown[column] = [_word(value, share, sign) for value in frame[column]]
    return shown


def _word(value: Any, share: bool, sign: str = "") -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float | int | np.number) and not isinstance(value, bool):
        return f"{100 * float(value):{sign}.2f}" if share else f"{float(value):.4g}"
    return str(value)


def _latex(shown: pd.DataFrame) -> str:
    head, *body = [list(map(str, shown.columns)), *shown.itertuples(index=False)]
    lines = [" & ".join(map(_tex, cells)) + r" \\" for cells in (head, *body)]
    opened = rf"\begin{{tabular}}{{{'l' * len(head)}}}"
    return "\n".join([opened, r"\hline", lines[0], r"\hline", *lines[1:], r"\hline", r"\end{tabular}"])


TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": "$<$", ">": "$>$"} | {
    sign: rf"\{sign}" for sign in "&%$#_{}"
}


def _tex(text: object) -> str:
    return "".join(TEX.get(sign, sign) for sign in str(text))
