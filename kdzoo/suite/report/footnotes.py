"""What stands below a leaderboard: the protocol, what its columns mean, the error model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd

from kdzoo.suite.plan.config import KD
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.blocks import CONTROLS, Block, Standing, labels
from kdzoo.suite.report.budget_words import search_note
from kdzoo.suite.report.cells import STUDENT_ALONE, method_words
from kdzoo.suite.report.columns import ALL_COLUMNS, columns_for
from kdzoo.suite.report.comparisons import comparisons
from kdzoo.suite.report.editions import edition_words
from kdzoo.suite.report.error_model import ROWS_TO_FIT
from kdzoo.suite.report.licences import licence_words
from kdzoo.suite.report.over_pairs import MANY_PAIRS, pair_groups
from kdzoo.suite.report.selection import at_published_coefficients, collapse_words, rule_words
from kdzoo.tasks.task import Metric

ONE_SEED = (
    "One seed: nothing is ranked; rows are in order of their test value. How far two runs of one method differ is not known here, "
    "and differences of a point or more between seeds are common; three seeds give intervals; claims need five."
)


ENTERS = "A collapsed or failed setting counts with the lowest gain of a healthy one on that pair."


FEW = f"Over pairs: mean difference to tuned KD ± standard error over the pairs; about these pairs only. {ENTERS}"


MANY = (
    "Over pairs: mean difference to tuned KD ± standard error; p: Wilcoxon's signed-rank test on the pairs' means, *: after Holm's "
    f"correction for all methods; mean rank with a 95 % bootstrap interval over pairs. {ENTERS}"
)


def footnotes(bench: BenchRecords, board: pd.DataFrame, frames: Sequence[pd.DataFrame]) -> list[str]:
    """The protocol, what the columns of `frames` mean and the error model; nothing of what is not shown.

    Table by table only where tables differ.
    """
    blocks = [block for block in bench.blocks if len(block.rows_of(board))]
    names = {name for frame in frames for name in frame.columns}
    tested = any(name.startswith(("vs ", "p ")) for name in names)
    at_once = any(name.endswith(f" {ALL_COLUMNS}") for name in names)
    notes_of: list[Callable[[Block], str]] = [lambda block: search_note(block.searched), one_seed, ranks]
    if tested:
        notes_of.append((lambda block: errors(block) + family(block)) if at_once else errors)
    if any(name.startswith("vs ") for name in names) and not at_once:
        notes_of.append(alone_or_at_once)
    if "why" in names:
        notes_of.append(collapsed)
    if tested:
        notes_of += [resolution, control]
    groups = pair_groups(blocks) if any("pairs" in frame for frame in frames) else []
    pairs = [len(group) for _, group in groups]
    about_pairs = [FEW if any(n < MANY_PAIRS for n in pairs) else "", MANY if any(n >= MANY_PAIRS for n in pairs) else ""]
    lines = [
        *_shared(blocks, protocol),
        meanings(frames, bench.task.headline),
        *(line for say in notes_of for line in _shared(blocks, say)),
        *about_pairs,
        *_shared(blocks, lambda block: licence_words(block.records)),
        edition_words(bench.folder, bench.records, searched=any(block.searched for block in bench.blocks)),
    ]
    return [line for line in lines if line]


def _shared(blocks: Sequence[Block], say: Callable[[Block], str]) -> list[str]:
    """The footnotes of every table, each once where it is the same for several tables."""
    texts = {label: text for label, block in zip(labels(blocks), blocks, strict=True) if (text := say(block))}
    if len(set(texts.values())) <= 1:
        return list(dict.fromkeys(texts.values()))
    return [f"{label}: {text}" for label, text in texts.items()]


def meanings(frames: Sequence[pd.DataFrame], metric: Metric) -> str:
    """What the columns mean that stand in one of these tables."""
    tables = [frame for frame in frames if "pairs" not in frame]
    headings = {str(name) for frame in tables for name in frame.columns}
    cells = [cell for frame in tables for name in frame for cell in frame[name] if str(name).startswith("vs ")]
    intervals, marks = any("[" in cell for cell in cells), any(cell.endswith("*") for cell in cells)
    whose = {"vs KD": "tuned Hinton KD (hinton)", f"vs {STUDENT_ALONE}": "the student alone"}
    controls = [name for name in whose if name in headings]
    words = []
    if controls:
        words.append(
            f"{' and '.join(controls)}: difference{'s' * (len(controls) > 1)} to {' and to '.join(whose[name] for name in controls)} "
            f"in {metric.difference_words}" + (", with the 95 % interval of this row by itself." if intervals else ".")
        )
    if any(name.startswith("p ") for name in headings):
        words.append("p: its p-value.")
    if any(name.endswith(f" {ALL_COLUMNS}") for name in headings):
        words.append("all: the interval and p-value for all rows at once, from which a row picked from the table may be claimed.")
    if marks:
        words.append("*: stands after Holm's correction for all rows.")
    words += [f"{column.name}: {column.meaning}." for column in columns_for(metric) if column.name in headings and column.meaning]
    return " ".join(words)


def protocol(block: Block) -> str:
    """How the numbers of one table came about: seeds, split and choice."""
    data = block.records[0].run.data
    seeds = ", ".join(map(str, sorted({record.run.seed for record in block.records})))
    lacking = sorted({method_words(s.record.method) for s in block.standings if s.done and not s.candidate.complete})
    spread = f"of seed {seeds}" if block.has_one_seed and seeds.isdecimal() else f"mean ± sample sd over seeds {seeds}"
    return (
        f"{block.metric.title} on the test set after the last epoch, {spread}; "
        f"held out for validation: {100 * data.val_fraction:g} %. {_choice(block)}."
        + (f" Not all seeds are done of: {', '.join(lacking)}." if lacking else "")
    )


def ranks(block: Block) -> str:
    """On which seeds the rows of a table are ranked, where they do not all have the same; empty where they have."""
    if block.has_one_seed or all(s.values.keys() == block.common_seeds for s in block.healthy):
        return ""
    if not block.ranked:
        return "No ranks: no two rows share two seeds."
    text = f"Rows do not all have the same seeds: ranks compare means over seeds {_listed(block.common_seeds)}, which all ranked rows have."
    without_rank = [f"{method_words(s.record.method)} ({_seeds_words(s)})" for s in block.healthy if s not in block.ranked]
    return text + (f" No rank: {', '.join(without_rank)}." if without_rank else "")


def _seeds_words(standing: Standing) -> str:
    return f"seed{'s' * (len(standing.values) != 1)} {_listed(standing.values)}"


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def control(block: Block) -> str:
    """A warning where plain KD was trained with other coefficients than its published ones alone; else empty."""
    kd = block.only(KD)
    runs = [record for record in block.records if record.method == KD]
    if kd is None or block.table_key.phase == "refit" or any(map(at_published_coefficients, runs)):
        return ""
    return (
        f"The KD control is at {kd.setting}: an axis such as --weights or --alphas varies the controls too, and its published "
        "coefficients were not among the settings tried."
    )


def _choice(block: Block) -> str:
    methods = [standing.record.method for standing in block.standings]
    if len(set(methods)) < len(methods):
        return "Nothing was chosen: every setting is shown"
    if block.table_key.phase == "refit":
        return f"Setting chosen in the sweep: {rule_words(block.records[0].task)}"
    return f"Setting chosen: {rule_words(block.records[0].task)}"


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


def alone_or_at_once(block: Block) -> str:
    """Why an interval of the verdict is wider than that of the same row; empty where both are of one comparison, or there are none."""
    if not errors(block) or max(_families(block)) < 2:
        return ""
    return "An interval in the table is for its row alone; those of the verdict hold for the whole table at once, and are wider."


def errors(block: Block) -> str:
    """Which model a table's intervals and p-values come from, in words; empty where there are none."""
    model = block.model
    if model is None or math.isnan(model.pooled) or model.pooled <= 0 or not _families(block):
        return ""
    rows = len(block.compared)
    sd = f"{block.metric.spread_text(math.sqrt(float(model.prior.variance)))} {block.metric.difference_words}"
    seeds = (
        f"{rows} healthy rows share their seeds, so each seed's mean over them is subtracted"
        if model.paired
        else f"{rows} healthy rows do not all have the same seeds, so nothing is paired"
    )
    if math.isinf(model.prior.freedom):
        why = "too few rows to tell their spreads apart" if rows < ROWS_TO_FIT else "the rows' spreads differ by no more than chance"
        spread = f"one sd for all rows, {sd} ({why})"
    else:
        weight = f"with the weight of {model.prior.freedom:.1f} further seeds"
        spread = f"each row's variance is shrunk towards a common {sd} {weight}"
    return f"Error model: {seeds}; {spread}; t with at most {model.pooled:g} degrees of freedom."


def collapsed(block: Block) -> str:
    """What makes a row a collapsed one; empty where none is."""
    if not any(standing.collapsed for standing in block.standings):
        return ""
    return f"Collapsed: {collapse_words(block.metric)}. Such a row is in no test and does not affect any other row's error."


def resolution(block: Block) -> str:
    """The difference that half of a table's rows would not have told from 0; empty where nothing was done twice."""
    tests = [comparisons(block, control) for control in CONTROLS.values()]
    tested = next((test for test in tests if test.contrast is not None and test.family), None)
    if tested is None or tested.contrast is None or np.isnan(tested.contrast.detectable).any():
        return ""
    seeds = sorted({len(standing.done) for standing in block.compared})
    detectable = block.metric.spread_text(float(np.median(tested.contrast.detectable)))
    return (
        f"With {' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds a difference below "
        f"{detectable} {block.metric.difference_words} would probably go unnoticed in a row by itself "
        "(80 % power, two-sided 5 %; the median over the healthy rows)."
    )
