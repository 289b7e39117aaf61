"""Leaderboards as text: the tables and footnotes that a person reads, in a file or a terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from kdzoo.suite.blocks import CONTROLS, Block, blocks_of, comparisons
from kdzoo.suite.over_pairs import MANY_PAIRS, over_pairs, pair_groups
from kdzoo.suite.records import BenchRecords
from kdzoo.suite.select import BELOW, COLLAPSE_RULE, RULE
from kdzoo.suite.stats import ROWS_TO_FIT
from kdzoo.text import markdown_text


def as_markdown(bench: BenchRecords, board: pd.DataFrame) -> str:
    """The leaderboard for a reader: per cent, standard deviations, differences with intervals, and the protocol below."""
    lines = [f"# {markdown_text(bench.name)}", ""]
    for title, shown in sections(bench, board):
        lines += [f"## {markdown_text(title)}", "", *markdown_table(shown), ""]
    lines += [f"{markdown_text(line)}\n" for line in footnotes(bench)]
    failed = [record for record in bench.records if record.state == "failed"]
    lines += [f"- failed: `{record.id}` (seed {record.run.seed}): {markdown_text(record.error)}" for record in failed]
    lines += [f"- {markdown_text(note)}" for note in bench.portable_notes]
    return "\n".join(lines).rstrip() + "\n"


def sections(bench: BenchRecords, board: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """What a reader sees of a leaderboard, part by part: every table, below it its collapsed rows, and methods over pairs."""
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
    return shown


def markdown_table(shown: pd.DataFrame) -> list[str]:
    """A frame of text as the lines of a Markdown table."""
    rows = [list(map(str, shown.columns)), ["---"] * len(shown.columns), *shown.itertuples(index=False)]
    return ["| " + " | ".join(map(markdown_text, row)) + " |" for row in rows]


MEANINGS = (
    "vs KD and vs alone: differences to tuned Hinton KD and to the student alone, each with its 95 % interval and its p-value, "
    "which speak for one row by itself. Columns with all: the same for all rows of the table at once; what stays apart from 0 there "
    "may be claimed of rows picked from the table. *: stands after Holm's correction for all rows. Gap closed: share of the way "
    "from the student alone to the teacher. Tried: settings tried. Train s: a solo run with a live teacher, from a probe of a few "
    "steps."
)
ONE_SEED = (
    "One seed: this table ranks nothing. How far two runs of one method lie apart is not known here, and differences of a point or more "
    "between seeds are common; three seeds give intervals, claims want five."
)
ENTERS = "A collapsed or failed setting enters at the lowest gain of a healthy one on that pair."
FEW = f"Over pairs: mean difference to tuned KD ± standard error over the pairs; about these pairs only. {ENTERS}"
MANY = (
    "Over pairs: mean difference to tuned KD ± standard error; p: Wilcoxon's signed-rank test on the pairs' means, *: after Holm's "
    f"correction for all methods; mean rank with a 95 % bootstrap interval over pairs. {ENTERS}"
)


def footnotes(bench: BenchRecords) -> list[str]:
    """The protocol, the error model and what the columns mean, in a few lines; table by table only where tables differ."""
    blocks = blocks_of(bench)
    sayings: tuple[Callable[[Block], str], ...] = (errors, collapsed, resolution)
    pairs = [len(group) for _, group in pair_groups(blocks)]
    about_pairs = [FEW if any(n < MANY_PAIRS for n in pairs) else "", MANY if any(n >= MANY_PAIRS for n in pairs) else ""]
    return [*_shared(blocks, protocol), MEANINGS, *(line for say in sayings for line in _shared(blocks, say)), *filter(None, about_pairs)]


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


def errors(block: Block) -> str:
    """Which model a table's intervals and p-values come from, in words."""
    model = block.model
    if block.ranks_nothing and any(standing.done for standing in block.standings):
        return ONE_SEED
    if model is None or math.isnan(model.pooled) or model.pooled <= 0:
        return ""
    families = [tests.family for control in CONTROLS.values() if (tests := comparisons(block, control)).family]
    if not families:
        return ""
    rows = len(block.healthy)
    sd = 100 * math.sqrt(float(model.prior.variance))
    pairing = (
        f"{rows} healthy rows share their seeds, so each seed's mean over them is taken off"
        if model.paired
        else f"{rows} healthy rows do not all have the same seeds, so nothing is paired"
    )
    if math.isinf(model.prior.freedom):
        why = "too few rows to tell their spreads apart" if rows < ROWS_TO_FIT else "the rows' spreads differ by no more than chance"
        spread = f"one sd for all rows, {sd:.2f} points ({why})"
    else:
        spread = f"each row's variance is drawn towards a common {sd:.2f} points with the weight of {model.prior.freedom:.1f} further seeds"
    return f"Error model: {pairing}; {spread}; t with at most {model.pooled:g} degrees of freedom; all: m = {max(families)}."


def collapsed(block: Block) -> str:
    """What makes a row a collapsed one; empty where none is."""
    if not any(standing.collapsed for standing in block.standings):
        return ""
    return f"Collapsed: {COLLAPSE_RULE}. Such a row is in no test and changes no other row's error."


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


def display_frame(board: pd.DataFrame) -> pd.DataFrame:
    """The healthy rows' main columns as text, as a person reads them; accuracies in per cent."""
    board = board[board["collapsed"].isna()]
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
            **{
                column: cells
                for name, words in (("kd", "KD"), ("alone", "alone"))
                for column, cells in {
                    f"vs {words}": [_interval(row, f"vs_{name}") + _mark(row[f"vs_{name}_holm"]) for row in rows],
                    f"p {words}": [_p_value(row[f"p_vs_{name}"]) for row in rows],
                    f"vs {words}, all": [_bounds(row, f"vs_{name}_all") for row in rows],
                    f"p {words}, all": [_p_value(row[f"p_vs_{name}_all"]) for row in rows],
                }.items()
            },
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


def collapsed_frame(board: pd.DataFrame) -> pd.DataFrame:
    """The collapsed rows as text: what they came to and why they are in no test."""
    board = board[board["collapsed"].notna()]
    rows = [row for _, row in board.iterrows()]
    return pd.DataFrame(
        {
            "method": [row["method"] for row in rows],
            "setting": [_setting_words(row) for row in rows],
            "n": [_count(row) for row in rows],
            "test top-1": [_spread(row["test_top1"], row["test_sd"]) for row in rows],
            "vs KD": [_interval(row, "vs_kd") for row in rows],
            "vs alone": [_interval(row, "vs_alone") for row in rows],
            "why": [row["collapsed"].replace(BELOW, "below alone") for row in rows],
        },
        index=board.index,
        dtype=object,
    )


def pairs_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """Methods over pairs as text."""
    many = rows["p_vs_kd"].notna().any()
    shown = {
        "method": list(rows["method"]),
        "pairs": [f"{n}" if not c else f"{n} ({c} collapsed)" for n, c in zip(rows["pairs"], rows["collapsed"], strict=True)],
        "vs KD": [
            f"{100 * gain:+.2f}" + ("" if pd.isna(error) else f" ± {100 * error:.2f}") + _mark(holm_)
            for gain, error, holm_ in zip(rows["vs_kd"], rows["vs_kd_error"], rows["vs_kd_holm"], strict=True)
        ],
    }
    if many:
        shown["p KD"] = [_p_value(p) for p in rows["p_vs_kd"]]
        shown["mean rank"] = [
            "" if pd.isna(rank) else f"{rank:.1f} [{low:.1f}, {high:.1f}]"
            for rank, low, high in zip(rows["rank"], rows["rank_low"], rows["rank_high"], strict=True)
        ]
    return pd.DataFrame(shown, index=rows.index, dtype=object)


def _number(value: float, form: str) -> str:
    return "" if pd.isna(value) else f"{value:{form}}"


def _p_value(p: float) -> str:
    """Three decimals, or as many more as it takes to see on which side of 0.05 it lies."""
    if not pd.isna(p) and p < 0.001:
        return "<0.001"
    return next((text for digits in (3, 4, 6) if (text := _number(p, f".{digits}f")).rstrip("0") != "0.05"), _number(p, ".10g"))


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
    return f"{100 * row[name]:+.2f} {_bounds(row, name)}".rstrip()


def _bounds(row: pd.Series, name: str) -> str:
    return "" if pd.isna(row[f"{name}_low"]) else f"[{100 * row[f'{name}_low']:+.2f}, {100 * row[f'{name}_high']:+.2f}]"


def _mark(stands: object) -> str:
    return " *" if stands is True else ""
