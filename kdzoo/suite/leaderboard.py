"""Tables derived from run.json and result.json alone: a row a run, and a row a method at its chosen setting."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kdzoo.spec import canonical
from kdzoo.store import write_bytes
from kdzoo.suite.records import BenchRecords, Record, read_bench, setting_of
from kdzoo.suite.select import RULE, Candidate, candidates, choose
from kdzoo.suite.stats import detectable, difference, dunnett_p, pooled_sd, sample_sd

NONE, KD, TEACHER = "none", "hinton", "teacher"
METRICS = ("top1", "top5", "balanced", "nll", "ece", "agreement", "teacher_kl")
COSTS = ("step_seconds", "train_seconds", "memory_bytes", "extra_parameters", "views", "student_passes", "teacher_passes")


def runs_frame(bench: BenchRecords) -> pd.DataFrame:
    """A row a run, in the order of pair, phase, method, setting and seed. Accuracies are shares."""
    records = sorted(bench.records, key=lambda r: (r.place, r.method, r.setting_key, r.run.seed, r.id))
    return pd.DataFrame([_run_row(record) for record in records], columns=list(_run_row(None)))


def _run_row(record: Record | None) -> dict[str, Any]:
    """A run's row; the columns, with nothing in them, for None."""
    result = (record.result if record else None) or {}
    last, best, oracle = result.get("last") or {}, result.get("best") or {}, result.get("oracle") or {}
    teacher, student, cost = result.get("teacher") or {}, result.get("student") or {}, result.get("cost") or {}
    run, about = (record.run, record.about) if record else (None, {})
    setting = setting_of(run.objective, about.get("methods", {})) if run else None
    return {
        "id": record and record.id,
        "pair": about.get("pair"),
        "data": run and run.data.name,
        "recipe": about.get("recipe"),
        "epochs": run and run.recipe.epochs,
        "phase": about.get("phase"),
        "method": record and record.method,
        "temperature": setting and setting.temperature,
        "alpha": setting and setting.alpha,
        "weight": setting and setting.weight,
        "others": json.dumps(canonical(dict(setting.others)), sort_keys=True) if setting and setting.others else None,
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


def leaderboard_frame(bench: BenchRecords) -> pd.DataFrame:
    """A row a method at its chosen setting, best first, for every pair, data set and phase; the teacher as a reference.

    Differences are in test top-1 of the last epoch, to tuned plain KD and to the student alone, with 95 % intervals;
    p_vs_kd is Dunnett's, over all methods of the block.
    """
    blocks: dict[tuple[str, ...], list[Record]] = {}
    for record in bench.records:
        blocks.setdefault(record.place, []).append(record)
    rows = [row for place in sorted(blocks) for row in _block(blocks[place])]
    _add_tried_in_sweep(rows)
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _add_tried_in_sweep(rows: Sequence[dict[str, Any]]) -> None:
    """A refit tries one setting: what counts is how many the sweep tried to find it."""
    same = ("pair", "data", "recipe", "epochs", "method")
    tried = {tuple(row[k] for k in same): row.get("settings_tried") for row in rows if row["phase"] == "sweep"}
    for row in rows:
        if row["phase"] == "refit" and "settings_tried" in row:
            row["settings_tried"] = tried.get(tuple(row[k] for k in same), row["settings_tried"])


_COLUMNS = (
    "pair", "data", "recipe", "epochs", "phase", "rank", "method", "temperature", "alpha", "weight", "others", "swept",
    "settings_tried", "n", "planned", "failed", "test_top1", "test_sd", "best_test_top1", "oracle_test_top1", "val_top1",
    "vs_kd", "vs_kd_low", "vs_kd_high", "vs_kd_test", "p_vs_kd", "vs_alone", "vs_alone_low", "vs_alone_high", "vs_alone_test",
    "gap_closed", "detectable", "test_balanced", "test_nll", "test_ece", "test_agreement", "test_teacher_kl", *COSTS,
    "student_parameters", "student_macs",
)  # fmt: skip


def _block(records: Sequence[Record]) -> list[dict[str, Any]]:
    chosen: dict[tuple[str, str], tuple[Candidate, int]] = {}
    for method in sorted({record.method for record in records}):
        options = candidates(record for record in records if record.method == method)
        for candidate in choose(options):
            chosen[method, candidate.records[0].setting_key] = (candidate, len(options))
    alone, kd = (_only(chosen, name) for name in (NONE, KD))
    teachers = [record.result["teacher"] for record in records if record.result and record.result["teacher"]]
    rows = [_row(candidate, tried, alone, kd, teachers) for candidate, tried in chosen.values()]
    _add_dunnett(rows, [candidate for candidate, _ in chosen.values()], kd)
    _add_detectable(rows, [candidate for candidate, _ in chosen.values()])
    rows.sort(key=lambda row: (-_or(row["test_top1"], -1.0), row["method"], str(row["others"]), _or(row["alpha"], -1.0)))
    for rank, row in enumerate((row for row in rows if row["n"]), start=1):
        row["rank"] = rank
    return [_teacher_row(records[0], teachers[0]), *rows] if teachers else rows


def _only(chosen: Mapping[tuple[str, str], tuple[Candidate, int]], method: str) -> Candidate | None:
    """A control's chosen setting; None where it is not there, not done, or where nothing could be chosen."""
    found = [candidate for (name, _), (candidate, _) in chosen.items() if name == method and candidate.done]
    return found[0] if len(found) == 1 else None


def _row(
    candidate: Candidate, tried: int, alone: Candidate | None, kd: Candidate | None, teachers: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    record, done = candidate.records[0], candidate.done
    setting = setting_of(record.run.objective, record.about.get("methods", {}))
    row = {
        **_head(record),
        "method": record.method,
        "temperature": setting.temperature,
        "alpha": setting.alpha,
        "weight": setting.weight,
        "others": json.dumps(canonical(dict(setting.others)), sort_keys=True) if setting.others else None,
        "swept": ",".join(record.about.get("swept", ())) or None,
        "settings_tried": tried,
        "n": len(done),
        "planned": len(candidate.records),
        "failed": sum(r.state == "failed" for r in candidate.records),
        "test_top1": _mean(done, "last", "test", "top1"),
        "test_sd": sample_sd(list(_top1(candidate).values())) if done else None,
        "best_test_top1": _mean(done, "best", "test", "top1"),
        "oracle_test_top1": _mean(done, "oracle", "test", "top1"),
        "val_top1": _mean(done, "last", "val", "top1"),
        **{f"test_{name}": _mean(done, "last", "test", name) for name in ("balanced", "nll", "ece", "agreement", "teacher_kl")},
        **{name: _median(done, name) for name in COSTS},
        "student_parameters": done[0].result["student"]["parameters"] if done and done[0].result else None,
        "student_macs": done[0].result["student"]["macs"] if done and done[0].result else None,
    }
    for name, control in (("vs_kd", kd), ("vs_alone", alone)):
        if control is not None and control is not candidate and done:
            gap = difference(_top1(candidate), _top1(control))
            row |= {name: gap.mean, f"{name}_low": gap.low, f"{name}_high": gap.high, f"{name}_test": gap.kind}
    if alone is not None and teachers and done:
        base = float(np.mean(list(_top1(alone).values())))
        gap_to_teacher = float(np.mean([teacher["test"]["top1"] for teacher in teachers])) - base
        if gap_to_teacher > 0:
            row["gap_closed"] = (float(np.mean(list(_top1(candidate).values()))) - base) / gap_to_teacher
    return row


def _head(record: Record) -> dict[str, Any]:
    about, run = record.about, record.run
    return {
        "pair": about.get("pair"),
        "data": run.data.name,
        "recipe": about.get("recipe"),
        "epochs": run.recipe.epochs,
        "phase": about.get("phase"),
    }


def _teacher_row(record: Record, teacher: Mapping[str, Any]) -> dict[str, Any]:
    test = teacher["test"]
    return {
        **_head(record),
        "method": TEACHER,
        "n": 1,
        "test_top1": test["top1"],
        "val_top1": (teacher["val"] or {}).get("top1"),
        "test_balanced": test["balanced"],
        "test_nll": test["nll"],
        "test_ece": test["ece"],
        "student_parameters": teacher["parameters"],
        "student_macs": teacher["macs"],
    }


def _add_dunnett(rows: Sequence[dict[str, Any]], chosen: Sequence[Candidate], kd: Candidate | None) -> None:
    if kd is None:
        return
    others = [i for i, candidate in enumerate(chosen) if candidate is not kd and len(candidate.done) > 1]
    samples = [list(_top1(chosen[i]).values()) for i in others]
    for i, p in zip(others, dunnett_p(samples, list(_top1(kd).values())), strict=True):
        rows[i]["p_vs_kd"] = p


def _add_detectable(rows: Sequence[dict[str, Any]], chosen: Sequence[Candidate]) -> None:
    pooled = pooled_sd([list(_top1(candidate).values()) for candidate in chosen if candidate.done])
    for row in rows:
        row["detectable"] = detectable(pooled, row["n"])


def _top1(candidate: Candidate) -> dict[int, float]:
    """Test top-1 of the last epoch by seed."""
    return {record.run.seed: record.result["last"]["test"]["top1"] for record in candidate.done if record.result}


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
    for place, block in board.groupby(["pair", "data", "recipe", "epochs", "phase"], sort=False, dropna=False):
        pair, data, recipe, epochs, phase = place
        lines += [f"## {pair} on {data}, {recipe} ({epochs} epochs), {phase}", ""]
        shown = display_frame(block)
        lines += ["| " + " | ".join(shown.columns) + " |", "|" + " --- |" * len(shown.columns)]
        lines += ["| " + " | ".join(row) + " |" for row in shown.itertuples(index=False)]
        lines.append("")
    lines += [f"{line}\n" for line in footnotes(bench, board)]
    failed = [record for record in bench.records if record.state == "failed"]
    lines += [f"- failed: `{record.id}` (seed {record.run.seed}): {record.error}" for record in failed]
    lines += [f"- {note}" for note in bench.notes if "/" not in note]
    return "\n".join(lines).rstrip() + "\n"


def display_frame(block: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard's main columns as text, as a person reads them; accuracies in per cent."""
    shown = pd.DataFrame(
        {
            "#": ["" if pd.isna(rank) else f"{rank:.0f}" for rank in block["rank"]],
            "method": block["method"],
            "setting": [_setting_words(row) for _, row in block.iterrows()],
            "n": [_count(row) for _, row in block.iterrows()],
            "test top-1": [_spread(row["test_top1"], row["test_sd"]) for _, row in block.iterrows()],
            "best epoch": [_percent(value) for value in block["best_test_top1"]],
            "val": [_percent(value) for value in block["val_top1"]],
            "vs KD": [_interval(row, "vs_kd") for _, row in block.iterrows()],
            "p": ["" if pd.isna(p) else f"{p:.3f}" if p >= 0.001 else "<0.001" for p in block["p_vs_kd"]],
            "vs alone": [_interval(row, "vs_alone") for _, row in block.iterrows()],
            "gap closed": ["" if pd.isna(share) else f"{100 * share:.0f} %" for share in block["gap_closed"]],
            "tried": ["" if pd.isna(tried) else f"{tried:.0f}" for tried in block["settings_tried"]],
            "train s": ["" if pd.isna(value) else f"{value:.3g}" for value in block["train_seconds"]],
        }
    )
    if block["oracle_test_top1"].notna().any():
        shown.insert(6, "best on test (oracle)", [_percent(value) for value in block["oracle_test_top1"]])
    return shown


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


def footnotes(bench: BenchRecords, board: pd.DataFrame) -> list[str]:
    """The protocol and what the columns mean, in a few lines."""
    seeds = sorted({record.run.seed for record in bench.records})
    held = sorted({record.run.data.val_fraction for record in bench.records})
    n = board.loc[board["rank"].notna(), "n"]
    worst = board["detectable"].max()
    lines = [
        f"Top-1 in per cent on the test set after the last epoch, mean ± sample sd over seeds {', '.join(map(str, seeds))}; "
        f"held out for validation: {', '.join(f'{100 * share:g} %' for share in held)}. Setting chosen: {RULE}.",
        "vs KD and vs alone: differences to tuned Hinton KD and to the student alone with 95 % intervals, paired by seed where the "
        "seeds are the same. p: Dunnett's test against KD. Gap closed: share of the way from the student alone to the teacher. "
        "Tried: settings tried. Train s: a solo run with a live teacher, from a probe of a few steps.",
    ]
    if not pd.isna(worst) and len(n):
        lines.append(
            f"With {int(n.min())} seeds a difference below {100 * worst:.2f} points would probably go unnoticed "
            "(80 % power, two-sided 5 %)."
        )
    return lines
