"""Benches beside each other: methods joined by name, differences with tests, and where their protocols differ."""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from kdzoo.errors import InputError, unknown
from kdzoo.suite.leaderboard import TEACHER, leaderboard_frame
from kdzoo.suite.records import BenchRecords, read_bench
from kdzoo.suite.stats import difference, sample_sd, t_quantile, welch, welch_p

FORMATS = ("table", "csv", "md", "latex", "json")
KEYS = ["pair", "data", "phase", "method"]


@dataclass(frozen=True)
class Side:
    """One of the things compared: its rows by method, its single runs where they are known, and its protocol."""

    name: str
    rows: pd.DataFrame
    seeds: Mapping[tuple[Any, ...], Mapping[int, float]]
    protocol: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Comparison:
    """frame: a row a method, with each side's mean, and every other side's difference to the first. warnings: in words."""

    frame: pd.DataFrame
    warnings: tuple[str, ...]


def compare(paths: Sequence[Path]) -> Comparison:
    """Join benches (folders) and tables (leaderboard.csv, runs.csv, or columns method, top1[, seed]).

    Differences are in test top-1 to the first side, with a 95 % interval: paired by seed where both sides have the
    same seeds and say so run by run, else Welch's from means and standard deviations. A row that only one side has is
    kept. Warns for every part of the protocol that is not the same on all sides.
    """
    sides = [read_side(path) for path in paths]
    names = _distinct_names([side.name for side in sides])
    keys = KEYS if all(_has_places(side.rows) for side in sides) else ["method"]
    joined: dict[tuple[Any, ...], dict[str, Any]] = {}
    for side, name in zip(sides, names, strict=True):
        for _, row in side.rows.iterrows():
            key = tuple(row[k] for k in keys)
            joined.setdefault(key, dict(zip(keys, key, strict=True)))[name] = row
    rows = [_row(entry, keys, names, sides) for entry in joined.values()]
    columns = [*keys, *(f"{name} {part}" for name in names for part in ("top1", "sd", "n"))]
    columns += [f"{name} - {names[0]}{part}" for name in names[1:] for part in ("", " low", " high", " p", " test")]
    return Comparison(pd.DataFrame(rows, columns=columns), tuple(_warnings(sides, names)))


def read_side(path: Path) -> Side:
    """A bench's folder, or a CSV; raises InputError for what is neither."""
    if path.is_dir():
        return _bench_side(path.resolve().name, read_bench(path))
    if not path.is_file():
        raise InputError(f"compare: {path}: no such bench or file")
    try:
        table = pd.read_csv(path)
    except (ValueError, pd.errors.ParserError) as error:
        raise InputError(f"compare: {path}: no CSV table ({error})") from error
    column = next((c for c in ("test_top1", "top1", "accuracy") if c in table), None)
    if "method" not in table or column is None:
        raise InputError(f"compare: {path}: expected columns method and test_top1 (or top1), found: {', '.join(map(str, table.columns))}")
    name = path.parent.resolve().name if path.name in ("leaderboard.csv", "runs.csv") else path.stem
    table = table.rename(columns={column: "top1"})
    if (table["top1"] > 1).any():  # a table in per cent
        percent = [c for c in ("top1", "sd", "test_sd", "val_top1") if c in table]
        table[percent] = table[percent] / 100
    return _runs_side(name, table) if "seed" in table and "n" not in table else _means_side(name, table)


def _bench_side(name: str, bench: BenchRecords) -> Side:
    board = leaderboard_frame(bench).rename(columns={"test_top1": "top1", "test_sd": "sd"})
    board = board[board["method"] != TEACHER]
    seeds: dict[tuple[Any, ...], dict[int, float]] = {}
    for _, row in board.iterrows():
        key = tuple(row[k] for k in KEYS)
        seeds[key] = {
            r.run.seed: r.result["last"]["test"]["top1"]
            for r in bench.records
            if r.result and (r.about.get("pair"), r.run.data.name, r.about.get("phase"), r.method) == key and _is_setting(row, r)
        }
    return Side(name, board, seeds, _protocol(bench))


def _is_setting(row: pd.Series, record: Any) -> bool:
    from kdzoo.spec import canonical
    from kdzoo.suite.records import setting_of

    setting = setting_of(record.run.objective, record.about.get("methods", {}))
    others = json.dumps(canonical(dict(setting.others)), sort_keys=True) if setting.others else None
    mine = (setting.temperature, setting.alpha, setting.weight, others)
    return all(_same(a, row[c]) for a, c in zip(mine, ("temperature", "alpha", "weight", "others"), strict=True))


def _same(a: Any, b: Any) -> bool:
    return bool((a is None and pd.isna(b)) or a == b)


def _runs_side(name: str, table: pd.DataFrame) -> Side:
    keys = [key for key in KEYS if key in table]
    table = table[table["top1"].notna()]
    rows, seeds = [], {}
    settings = [c for c in ("temperature", "alpha", "weight", "others") if c in table]
    for key, group in table.groupby(keys, dropna=False):
        parts = [part for _, part in group.groupby(settings, dropna=False)] if settings else [group]
        if len(parts) > 1 and "val_top1" in group and group["val_top1"].notna().all():
            parts = [max(parts, key=lambda part: part["val_top1"].mean())]
        chosen = parts[0] if len(parts) == 1 else group
        values = dict(zip(chosen["seed"].astype(int), chosen["top1"], strict=False))
        rows.append(
            {
                **dict(zip(keys, key, strict=True)),
                "top1": np.mean(list(values.values())),
                "sd": sample_sd(list(values.values())),
                "n": len(values),
            }
        )
        seeds[tuple(key)] = values
    return Side(name, pd.DataFrame(rows), seeds, {})


def _means_side(name: str, table: pd.DataFrame) -> Side:
    table = table[table["method"] != TEACHER].rename(columns={"test_sd": "sd"})
    for column, default in (("sd", math.nan), ("n", 1)):
        if column not in table:
            table[column] = default
    return Side(
        name, table, {}, {c: frozenset(map(str, table[c].dropna().unique())) for c in ("recipe", "epochs", "data", "phase") if c in table}
    )


def _has_places(rows: pd.DataFrame) -> bool:
    return all(key in rows for key in KEYS)


def _protocol(bench: BenchRecords) -> dict[str, frozenset[str]]:
    """Every part of the runs' specification that has to be equal for numbers to be compared, and its values."""
    found: dict[str, set[str]] = {}
    for record in bench.records:
        run = record.run.model_dump(mode="json")
        flat = {f"data.{key}": value for key, value in run["data"].items()} | {
            f"recipe.{key}": value for key, value in run["recipe"].items()
        }
        flat |= {"engine": run["engine"], "student": run["student"]["name"], "phase": record.about.get("phase")}
        flat |= {f"version of {term['method']}": term["version"] for term in run["objective"]["terms"]}
        if record.result:
            flat |= {"device": record.result["environment"]["device"], "torch": record.result["environment"]["torch"]}
        for key, value in flat.items():
            found.setdefault(key, set()).add(json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else str(value))
    found["seeds"] = {str(sorted({record.run.seed for record in bench.records}))}
    return {key: frozenset(values) for key, values in found.items()}


def _warnings(sides: Sequence[Side], names: Sequence[str]) -> list[str]:
    said = []
    for key in sorted({key for side in sides for key in side.protocol}):
        values = [side.protocol.get(key) for side in sides]
        known = [value for value in values if value is not None]
        if key.startswith("version of") and len(known) < len(sides):
            continue
        if len(set(known)) > 1:
            listed = ", ".join(
                f"{name} has {' and '.join(sorted(v)) if v else 'nothing said'}" for name, v in zip(names, values, strict=True)
            )
            said.append(f"{key} differs: {listed}")
    return said


def _row(entry: Mapping[str, Any], keys: Sequence[str], names: Sequence[str], sides: Sequence[Side]) -> dict[str, Any]:
    row: dict[str, Any] = {key: entry[key] for key in keys}
    for name in names:
        if name in entry:
            row |= {f"{name} {part}": entry[name][part] for part in ("top1", "sd", "n")}
    base = entry.get(names[0])
    for name, side in zip(names[1:], sides[1:], strict=True):
        if base is None or name not in entry:
            continue
        column = f"{name} - {names[0]}"
        key = tuple(entry[k] for k in keys)
        mine, theirs = side.seeds.get(key), sides[0].seeds.get(key)
        row[column] = entry[name]["top1"] - base["top1"]
        if mine and theirs and mine.keys() == theirs.keys() and len(mine) > 1:
            gap = difference(mine, theirs)
            n = len(mine)
            error = (gap.high - gap.mean) / t_quantile(0.975, n - 1)
            row |= {f"{column} low": gap.low, f"{column} high": gap.high, f"{column} test": "paired by seed"}
            row[f"{column} p"] = welch_p(gap.mean, error, n - 1)
        elif min(entry[name]["n"], base["n"]) > 1 and not (pd.isna(entry[name]["sd"]) or pd.isna(base["sd"])):
            error, freedom = welch(entry[name]["sd"], int(entry[name]["n"]), base["sd"], int(base["n"]))
            half = t_quantile(0.975, freedom) * error
            row |= {f"{column} low": row[column] - half, f"{column} high": row[column] + half, f"{column} test": "Welch"}
            row[f"{column} p"] = welch_p(row[column], error, freedom)
    return row


def _distinct_names(names: Sequence[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name} ({position})" for position, name in enumerate(names, start=1)]


def sorted_by(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """The frame in the order of a column, best first for accuracies; raises InputError with the nearest column."""
    if column not in frame:
        raise InputError(unknown("sort", column, map(str, frame.columns)))
    ascending = not re.search(r"top1|acc|gap_closed|agreement|balanced|vs_| - ", column)
    return frame.sort_values(column, ascending=ascending, kind="stable", na_position="last")


OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge, "<=": operator.le, "!=": operator.ne, ">": operator.gt, "<": operator.lt, "=": operator.eq,
}  # fmt: skip


def filtered(frame: pd.DataFrame, condition: str) -> pd.DataFrame:
    """The rows for which `column=value`, `column>0.9` (or >=, <, <=, !=) holds; raises InputError for any other text."""
    match = re.fullmatch(r"\s*(.+?)\s*(>=|<=|!=|>|<|=)\s*(.+?)\s*", condition)
    if match is None:
        raise InputError(f"filter: expected COLUMN=VALUE or COLUMN>NUMBER, got {condition!r}")
    column, sign, value = match.groups()
    if column not in frame:
        raise InputError(unknown("filter", column, map(str, frame.columns)))
    if pd.api.types.is_numeric_dtype(frame[column]):
        try:
            return cast(pd.DataFrame, frame[OPERATORS[sign](frame[column], float(value))])
        except ValueError:
            raise InputError(f"filter: {column} holds numbers, got {value!r}") from None
    return cast(pd.DataFrame, frame[OPERATORS[sign](frame[column].astype(str), value)])


def render(frame: pd.DataFrame, how: str) -> str:
    """A frame as csv, md, latex or json text; raises InputError with the known formats."""
    if how == "csv":
        return str(frame.to_csv(index=False, float_format="%.10g", lineterminator="\n"))
    if how == "json":
        return json.dumps(json.loads(frame.to_json(orient="records", double_precision=15)), indent=1)
    shown = words(frame)
    if how == "md":
        lines = ["| " + " | ".join(shown.columns) + " |", "|" + " --- |" * len(shown.columns)]
        return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in shown.itertuples(index=False))])
    if how == "latex":
        head = " & ".join(_tex(name) for name in shown.columns) + r" \\"
        body = [" & ".join(_tex(cell) for cell in row) + r" \\" for row in shown.itertuples(index=False)]
        return "\n".join(
            [rf"\begin{{tabular}}{{{'l' * len(shown.columns)}}}", r"\hline", head, r"\hline", *body, r"\hline", r"\end{tabular}"]
        )
    raise InputError(unknown("format", how, FORMATS))


SHARES = re.compile(r"top1| sd$|_sd$| - .*?( low| high)?$|^vs_|ece|balanced|agreement|gap_closed|detectable")


def words(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame as text for a reader, shares in per cent."""
    shown = frame.copy().astype(object)
    for column in map(str, frame.columns):
        share = bool(SHARES.search(column)) and not column.endswith((" p", " test"))
        shown[column] = [_word(value, share) for value in frame[column]]
    return shown


def _word(value: Any, share: bool) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float | int | np.number) and not isinstance(value, bool):
        return f"{100 * float(value):.2f}" if share else f"{float(value):.4g}"
    return str(value)


def _tex(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", str(text)).replace("±", r"$\pm$")
