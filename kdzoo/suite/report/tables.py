"""Leaderboards as text: the tables and footnotes that a person reads, in a file or a terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from kdzoo.errors import InputError, unknown
from kdzoo.suite.plan.config import KD, NONE
from kdzoo.suite.report.blocks import CONTROLS, Block, Standing, blocks_of, comparisons, labels
from kdzoo.suite.report.over_pairs import MANY_PAIRS, over_pairs, pair_groups
from kdzoo.suite.report.records import BenchRecords, Setting
from kdzoo.suite.report.selection import BELOW, COLLAPSE_RULE, RULE, at_published_coefficients
from kdzoo.suite.report.stats import ROWS_TO_FIT
from kdzoo.suite.report.verdict import verdicts
from kdzoo.text import markdown_text

STUDENT_ALONE = "student alone"
ALL_COLUMNS = "all"


def method_words(method: str) -> str:
    """A method as tables for a reader name it; the CSV has its own name, which `--methods` and `--filter` take."""
    return STUDENT_ALONE if method == NONE else method


def as_markdown(bench: BenchRecords, board: pd.DataFrame, columns: str = ALL_COLUMNS) -> str:
    """The leaderboard for a reader: the verdict, per cent with standard deviations and intervals, and the protocol below."""
    lines = [f"# {markdown_text(bench.name)}", ""]
    lines += [f"{markdown_text(line)}\n" for line in verdicts(bench)]
    parts = [(title, selected(shown, columns)) for title, shown in sections(bench, board)]
    for title, shown in parts:
        lines += [f"## {markdown_text(title)}", "", *markdown_table(shown), ""]
    lines += [f"{markdown_text(line)}\n" for line in footnotes(bench, board, [shown for _, shown in parts])]
    failed = [record for record in bench.records if record.state == "failed"]
    lines += [f"- failed: `{record.id}` (seed {record.run.seed}): {markdown_text(record.error)}" for record in failed]
    lines += [f"- {markdown_text(note)}" for note in bench.portable_notes]
    return "\n".join(lines).rstrip() + "\n"


def sections(bench: BenchRecords, board: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """What a reader sees of a leaderboard, part by part: every table, below it its collapsed rows, and methods over pairs.

    Columns in which no row has a value are left out.
    """
    blocks = blocks_of(bench)
    shown = []
    for block in blocks:
        rows = block.rows_of(board)
        collapsed = rows["collapsed"].notna()
        if not collapsed.all():
            shown.append((block.title, display_frame(rows[~collapsed])))
        if collapsed.any():
            shown.append((f"Collapsed: {block.title}", collapsed_frame(rows[collapsed])))
    for title, group in pair_groups(blocks):
        rows_over_pairs = over_pairs(group)
        wanted = rows_over_pairs["method"].isin(board["method"])
        if wanted.any():
            shown.append((title, pairs_frame(rows_over_pairs[wanted])))
    return [(title, _without_empty_columns(frame)) for title, frame in shown]


def _without_empty_columns(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[[name for name in frame.columns if name == "method" or frame[name].any()]]


def selected(shown: pd.DataFrame, columns: str) -> pd.DataFrame:
    """The columns with the headings in a text such as `setting,test top-1`, as far as this table has them; `all` for all.

    Raises InputError with the nearest heading for one that no table has.
    """
    return columns_of(shown, columns, HEADINGS)


def columns_of(frame: pd.DataFrame, columns: str, known: Sequence[str] = ()) -> pd.DataFrame:
    """The columns named in a text, separated by commas, the method first; `all` for all. Large and small letters are alike.

    known: names that another table may have. Raises InputError with the nearest name for any other.
    """
    if columns.strip().lower() == ALL_COLUMNS:
        return frame
    names = {str(name).lower(): str(name) for name in (*known, *frame.columns)}
    wanted = [name.strip() for name in columns.split(",") if name.strip()]
    if wrong := [unknown("columns", name, sorted(names.values())) for name in wanted if name.lower() not in names]:
        raise InputError(*wrong)
    first = ("method",) if known or "method" in frame else ()
    return frame[[name for name in dict.fromkeys((*first, *(names[name.lower()] for name in wanted))) if name in frame]]


def markdown_table(shown: pd.DataFrame) -> list[str]:
    """A frame of text as the lines of a Markdown table."""
    rows = [list(map(str, shown.columns)), ["---"] * len(shown.columns), *shown.itertuples(index=False)]
    return ["| " + " | ".join(map(markdown_text, row)) + " |" for row in rows]


ONE_SEED = (
    "One seed: nothing is ranked; rows are in order of accuracy. How far two runs of one method differ is not known here, "
    "and differences of a point or more between seeds are common; three seeds give intervals; claims need five."
)
ENTERS = "A collapsed or failed setting enters at the lowest gain of a healthy one on that pair."
FEW = f"Over pairs: mean difference to tuned KD ± standard error over the pairs; about these pairs only. {ENTERS}"
MANY = (
    "Over pairs: mean difference to tuned KD ± standard error; p: Wilcoxon's signed-rank test on the pairs' means, *: after Holm's "
    f"correction for all methods; mean rank with a 95 % bootstrap interval over pairs. {ENTERS}"
)


def footnotes(bench: BenchRecords, board: pd.DataFrame, frames: Sequence[pd.DataFrame]) -> list[str]:
    """The protocol, what the columns of `frames` mean and the error model; nothing of what is not shown.

    Table by table only where tables differ.
    """
    blocks = [block for block in blocks_of(bench) if len(block.rows_of(board))]
    names = {name for frame in frames for name in frame.columns}
    tested = any(name.startswith(("vs ", "p ")) for name in names)
    at_once = any(name.endswith(f" {ALL_COLUMNS}") for name in names)
    sayings: list[Callable[[Block], str]] = [one_seed, ranks]
    if tested:
        sayings.append((lambda block: errors(block) + family(block)) if at_once else errors)
    if "why" in names:
        sayings.append(collapsed)
    if tested:
        sayings += [resolution, control]
    groups = pair_groups(blocks) if any("pairs" in frame for frame in frames) else []
    pairs = [len(group) for _, group in groups]
    about_pairs = [FEW if any(n < MANY_PAIRS for n in pairs) else "", MANY if any(n >= MANY_PAIRS for n in pairs) else ""]
    lines = [*_shared(blocks, protocol), meanings(frames), *(line for say in sayings for line in _shared(blocks, say)), *about_pairs]
    return [line for line in lines if line]


def _shared(blocks: Sequence[Block], say: Callable[[Block], str]) -> list[str]:
    """The footnotes of every table, each once where it is the same for several tables."""
    texts = {label: text for label, block in zip(labels(blocks), blocks, strict=True) if (text := say(block))}
    if len(set(texts.values())) <= 1:
        return list(dict.fromkeys(texts.values()))
    return [f"{label}: {text}" for label, text in texts.items()]


def meanings(frames: Sequence[pd.DataFrame]) -> str:
    """What the columns mean that stand in one of these tables."""
    tables = [frame for frame in frames if "pairs" not in frame]
    shown = {str(name) for frame in tables for name in frame.columns}
    cells = [cell for frame in tables for name in frame for cell in frame[name] if str(name).startswith("vs ")]
    intervals, marks = any("[" in cell for cell in cells), any(cell.endswith("*") for cell in cells)
    whose = {"vs KD": "tuned Hinton KD (hinton)", f"vs {STUDENT_ALONE}": "the student alone"}
    named = [name for name in whose if name in shown]
    words = []
    if named:
        words.append(
            f"{' and '.join(named)}: difference{'s' * (len(named) > 1)} to {' and to '.join(whose[name] for name in named)} in points"
            + (", with the 95 % interval of this row by itself." if intervals else ".")
        )
    if any(name.startswith("p ") for name in shown):
        words.append("p: its p-value.")
    if any(name.endswith(f" {ALL_COLUMNS}") for name in shown):
        words.append("all: the interval and p-value for all rows at once, from which a row picked from the table may be claimed.")
    if marks:
        words.append("*: stands after Holm's correction for all rows.")
    words += [f"{column.name}: {column.meaning}." for column in COLUMNS if column.name in shown and column.meaning]
    return " ".join(words)


def protocol(block: Block) -> str:
    """How the numbers of one table came about: seeds, split and choice."""
    data = block.records[0].run.data
    seeds = ", ".join(map(str, sorted({record.run.seed for record in block.records})))
    lacking = sorted({method_words(s.record.method) for s in block.standings if s.done and not s.candidate.complete})
    spread = f"of seed {seeds}" if block.has_one_seed and seeds.isdecimal() else f"mean ± sample sd over seeds {seeds}"
    return (
        f"Top-1 in per cent on the test set after the last epoch, {spread}; "
        f"held out for validation: {100 * data.val_fraction:g} %. {_choice(block)}."
        + (f" Not all seeds are done of: {', '.join(lacking)}." if lacking else "")
    )


def ranks(block: Block) -> str:
    """On which seeds the rows of a table are ranked, where they do not all have the same; empty where they have."""
    if block.has_one_seed or all(s.top1.keys() == block.common_seeds for s in block.healthy):
        return ""
    if not block.ranked:
        return "No ranks: no two rows share two seeds."
    text = f"Rows do not all have the same seeds: ranks compare means over seeds {_listed(block.common_seeds)}, which all ranked rows have."
    left = [f"{method_words(s.record.method)} ({_seeds_words(s)})" for s in block.healthy if s not in block.ranked]
    return text + (f" No rank: {', '.join(left)}." if left else "")


def _seeds_words(standing: Standing) -> str:
    return f"seed{'s' * (len(standing.top1) != 1)} {_listed(standing.top1)}"


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def control(block: Block) -> str:
    """A warning where plain KD was trained with other coefficients than its published ones alone; else empty."""
    kd = block.only(KD)
    tried = [record for record in block.records if record.method == KD]
    if kd is None or block.place.phase == "refit" or any(map(at_published_coefficients, tried)):
        return ""
    return (
        f"The KD control is at {kd.setting}: an axis such as --weights or --alphas varies the controls too, and its published "
        "coefficients were not among the settings tried."
    )


def _choice(block: Block) -> str:
    methods = [standing.record.method for standing in block.standings]
    if len(set(methods)) < len(methods):
        return "Nothing was chosen: every setting is shown"
    if block.place.phase == "refit":
        return f"Setting chosen in the sweep: {RULE}"
    return f"Setting chosen: {RULE}"


def one_seed(block: Block) -> str:
    """What a table of one seed cannot tell; empty for any other."""
    return ONE_SEED if block.has_one_seed and any(standing.done for standing in block.standings) else ""


def _families(block: Block) -> list[int]:
    """How many rows are compared with each control that has a test at all."""
    return [tests.family for name in CONTROLS.values() if (tests := comparisons(block, name)).family]


def family(block: Block) -> str:
    """How many rows the columns for all rows at once speak for."""
    known = block.model is not None and block.model.pooled > 0
    return f" Columns with all: {max(_families(block))} rows at once." if known and _families(block) else ""


def errors(block: Block) -> str:
    """Which model a table's intervals and p-values come from, in words; empty where there are none."""
    model = block.model
    if model is None or math.isnan(model.pooled) or model.pooled <= 0 or not _families(block):
        return ""
    rows = len(block.healthy)
    sd = 100 * math.sqrt(float(model.prior.variance))
    pairing = (
        f"{rows} healthy rows share their seeds, so each seed's mean over them is subtracted"
        if model.paired
        else f"{rows} healthy rows do not all have the same seeds, so nothing is paired"
    )
    if math.isinf(model.prior.freedom):
        why = "too few rows to tell their spreads apart" if rows < ROWS_TO_FIT else "the rows' spreads differ by no more than chance"
        spread = f"one sd for all rows, {sd:.2f} points ({why})"
    else:
        weight = f"with the weight of {model.prior.freedom:.1f} further seeds"
        spread = f"each row's variance is shrunk towards a common {sd:.2f} points {weight}"
    return f"Error model: {pairing}; {spread}; t with at most {model.pooled:g} degrees of freedom."


def collapsed(block: Block) -> str:
    """What makes a row a collapsed one; empty where none is."""
    if not any(standing.collapsed for standing in block.standings):
        return ""
    return f"Collapsed: {COLLAPSE_RULE}. Such a row is in no test and does not affect any other row's error."


def resolution(block: Block) -> str:
    """The difference that half of a table's rows would not have told from 0; empty where nothing was done twice."""
    tests = [comparisons(block, control) for control in CONTROLS.values()]
    found = next((test for test in tests if test.contrast is not None and test.family), None)
    if found is None or found.contrast is None or np.isnan(found.contrast.detectable).any():
        return ""
    seeds = sorted({len(standing.done) for standing in block.healthy})
    return (
        f"With {' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds a difference below "
        f"{100 * float(np.median(found.contrast.detectable)):.2f} points would probably go unnoticed in a row by itself "
        "(80 % power, two-sided 5 %; the median over the healthy rows)."
    )


@dataclass(frozen=True)
class Column:
    """One column of a leaderboard for a reader: its heading, a row's cell as text, and what a footnote says of it."""

    name: str
    cell: Callable[[pd.Series], str]
    meaning: str = ""


def _control_columns(name: str, words: str) -> tuple[Column, ...]:
    """A control's columns: difference and p-value of a row by itself, and those for all rows at once."""
    short = words.split()[-1]
    return (
        Column(f"vs {words}", lambda row: _interval(row, f"vs_{name}") + _mark(row[f"vs_{name}_holm"])),
        Column(f"p {short}", lambda row: p_value_words(row[f"p_vs_{name}"])),
        Column(f"vs {short} {ALL_COLUMNS}", lambda row: _bounds(row, f"vs_{name}_all")),
        Column(f"p {short} {ALL_COLUMNS}", lambda row: p_value_words(row[f"p_vs_{name}_all"])),
    )


COLUMNS = (
    Column("#", lambda row: _number(row["rank"], ".0f")),
    Column("method", lambda row: method_words(row["method"])),
    Column("setting", lambda row: setting_words(row)),
    Column("n", lambda row: _count(row)),
    Column("test top-1", lambda row: spread_words(row["test_top1"], row["test_sd"])),
    Column("on common seeds", lambda row: _on_common_seeds(row), "test top-1 over the seeds that ranks are made on"),
    Column("top-1 at best val", lambda row: _percent(row["test_top1_at_best_val"]), "test top-1 of the epoch that is best on validation"),
    Column("best on test (oracle)", lambda row: _percent(row["oracle_test_top1"]), "chosen by looking at the test images, not a result"),
    Column("val top-1", lambda row: _percent(row["val_top1"]), "validation top-1 of the last epoch"),
    *_control_columns("kd", "KD"),
    *_control_columns("alone", STUDENT_ALONE),
    Column(
        "gap closed",
        lambda row: _number(row["gap_closed"], ".0%").replace("%", " %"),
        "share of the way from the student alone to the teacher, where the teacher's lead is clear of its 95 % interval",
    ),
    Column("tried", lambda row: _number(row["settings_tried"], ".0f"), "settings tried"),
    Column(
        "passes",
        lambda row: _passes(row),
        "a step's forward and backward passes of the student and forward passes of a live teacher (what a loss runs itself is in MACs)",
    ),
    Column(
        "MACs",
        lambda row: _number(row["macs_ratio"], ".2f", "x"),
        "multiply-accumulates of training (networks, losses, backward), the student alone being 1",
    ),
    Column(
        "time",
        lambda row: _number(row["time_ratio"], ".2f", "x"),
        "processor time of training (on a GPU, of the device), the student alone being 1, from a probe of both in turn",
    ),
    Column("memory", lambda row: _bytes(row["memory_bytes"]), "bytes of weights, gradients, optimiser state and saved activations"),
    Column(
        "clock s",
        lambda row: _number(row["train_seconds"], ".3g"),
        "seconds of a solo run by the clock, from a probe; depends on what else the machine does",
    ),
)  # fmt: skip
"""of a leaderboard for a reader, from left to right"""


def display_frame(board: pd.DataFrame) -> pd.DataFrame:
    """The healthy rows as text, as a person reads them; accuracies in per cent."""
    board = board[board["collapsed"].isna()]
    rows = [row for _, row in board.iterrows()]
    cells = {column.name: [column.cell(row) for row in rows] for column in COLUMNS}
    return pd.DataFrame(cells, index=board.index, dtype=object)


def collapsed_frame(board: pd.DataFrame) -> pd.DataFrame:
    """The collapsed rows as text: what they came to and why they are in no test."""
    board = board[board["collapsed"].notna()]
    rows = [row for _, row in board.iterrows()]
    own = {"method", "setting", "n", "test top-1"}
    return pd.DataFrame(
        {
            **{column.name: [column.cell(row) for row in rows] for column in COLUMNS if column.name in own},
            "vs KD": [_interval(row, "vs_kd") for row in rows],
            f"vs {STUDENT_ALONE}": [_interval(row, "vs_alone") for row in rows],
            "why": [row["collapsed"].replace(BELOW, "below alone on val") for row in rows],
        },
        index=board.index,
        dtype=object,
    )


PAIRS_HEADINGS = ("pairs", "p KD", "mean rank")
HEADINGS = tuple(dict.fromkeys((*(column.name for column in COLUMNS), "why", *PAIRS_HEADINGS)))
"""what a reader may ask for by `--columns`"""


def pairs_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """Methods over pairs as text."""
    many = rows["p_vs_kd"].notna().any()
    shown = {
        "method": [method_words(method) for method in rows["method"]],
        "pairs": [f"{n}" if not c else f"{n} ({c} collapsed)" for n, c in zip(rows["pairs"], rows["collapsed"], strict=True)],
        "vs KD": [
            f"{100 * gain:+.2f}" + ("" if pd.isna(error) else f" ± {100 * error:.2f}") + _mark(holm_)
            for gain, error, holm_ in zip(rows["vs_kd"], rows["vs_kd_error"], rows["vs_kd_holm"], strict=True)
        ],
    }
    if many:
        shown["p KD"] = [p_value_words(p) for p in rows["p_vs_kd"]]
        shown["mean rank"] = [
            "" if pd.isna(rank) else f"{rank:.1f} [{low:.1f}, {high:.1f}]"
            for rank, low, high in zip(rows["rank"], rows["rank_low"], rows["rank_high"], strict=True)
        ]
    return pd.DataFrame(shown, index=rows.index, dtype=object)


def _number(value: float, form: str, unit: str = "") -> str:
    return "" if pd.isna(value) else f"{value:{form}}{unit}"


def _passes(row: pd.Series) -> str:
    """`1/1/1`: forward and backward of the student, forward of the teacher, as far as they are recorded."""
    passes = [row[name] for name in ("student_passes", "backward_passes", "teacher_passes")]
    return "" if any(pd.isna(value) for value in passes) else "/".join(f"{value:.0f}" for value in passes)


def _bytes(value: float) -> str:
    """Three digits with a unit of powers of 1000."""
    units = ("B", "kB", "MB", "GB", "TB")
    power = min(sum(value >= 999.5 * 1000**above for above in range(len(units))), len(units) - 1)
    return "" if math.isnan(value) else f"{value / 1000**power:.3g} {units[power]}"


def _on_common_seeds(row: pd.Series) -> str:
    """Empty where the row has no other seeds than those."""
    same = pd.isna(row["rank_top1"]) or len(str(row["rank_seeds"]).split()) == row["n"]
    return "" if same else _percent(row["rank_top1"])


def p_value_words(p: float) -> str:
    """Three decimals, or as many more as it takes to see on which side of 0.05 it lies."""
    if not pd.isna(p) and p < 0.001:
        return "<0.001"
    return next((text for digits in (3, 4, 6) if (text := _number(p, f".{digits}f")).rstrip("0") != "0.05"), _number(p, ".10g"))


def setting_words(row: pd.Series) -> str:
    """The setting of a row of a leaderboard.csv or runs.csv, in the words of `records.Setting`; empty where there is none."""
    numbers: dict[str, Any] = {part.name: row.get(part.name) for part in fields(Setting) if part.name != "others"}
    known = {name: None if pd.isna(value) else value for name, value in numbers.items()}
    others = row.get("others")
    return str(Setting(**known, others=json.loads(others) if isinstance(others, str) else {}))


def _count(row: pd.Series) -> str:
    return f"{row['n']:.0f}" if pd.isna(row["planned"]) or row["n"] == row["planned"] else f"{row['n']:.0f} of {row['planned']:.0f}"


def _percent(value: float) -> str:
    return "" if pd.isna(value) else f"{100 * value:.2f}"


def spread_words(mean: float, sd: float) -> str:
    """`96.94 ± 0.48` of shares, in per cent."""
    return "" if pd.isna(mean) else _percent(mean) + ("" if pd.isna(sd) else f" ± {100 * sd:.2f}")


def _interval(row: pd.Series, name: str) -> str:
    return interval_words(row[name], row[f"{name}_low"], row[f"{name}_high"])


def interval_words(difference: float, low: float, high: float) -> str:
    """`+0.37 [-0.91, +1.65]` of shares, in points; without brackets where there is no interval."""
    return "" if pd.isna(difference) else f"{100 * difference:+.2f} {_range(low, high)}".rstrip()


def _bounds(row: pd.Series, name: str) -> str:
    return _range(row[f"{name}_low"], row[f"{name}_high"])


def _range(low: float, high: float) -> str:
    return "" if pd.isna(low) else f"[{100 * low:+.2f}, {100 * high:+.2f}]"


def _mark(stands: object) -> str:
    return " *" if stands is True else ""
