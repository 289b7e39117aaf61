"""The question that a table answers, and the answer: the best method, by how much, how sure, at what cost, and what was not tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from kdzoo.contract.catalogue import own_methods
from kdzoo.suite.page.tables import BenchTables
from kdzoo.suite.plan.config import KD, NONE
from kdzoo.suite.report.blocks import TEACHER, Block
from kdzoo.suite.report.cells import bytes_text, interval_of, method_words, setting_words, spread_words
from kdzoo.suite.report.footnotes import resolution
from kdzoo.suite.report.settings import AXIS_WORDS
from kdzoo.suite.report.verdict import verdict
from kdzoo.text import number_of


@dataclass(frozen=True)
class Answer:
    """One table in sentences. verdict: what it says of methods against KD; details: the rest under a word each."""

    title: str
    question: str
    verdict: str
    details: tuple[tuple[str, str], ...]


def answers(tables: BenchTables) -> list[Answer]:
    """An answer for every table of a bench, in their order."""
    return [_answer(block, tables) for block in tables.bench.blocks]


def _answer(block: Block, tables: BenchTables) -> Answer:
    rows = block.rows_of(tables.board)
    ranked = rows[(rows["method"] != TEACHER) & rows["collapsed"].isna() & rows[f"test_{block.metric.name}"].notna()]
    details = [
        ("Best", _best(ranked, block)),
        ("How sure", _how_sure(ranked, block, tables)),
        ("At what cost", _cost(ranked, block)),
        ("Not tried", _not_tried(block, tables)),
    ]
    sentence = verdict(block)
    return Answer(block.title, _question(block), sentence[0].upper() + sentence[1:], tuple(part for part in details if part[1]))


def _question(block: Block) -> str:
    teacher, _, student = block.place.pair.partition("/")
    methods = {standing.record.method for standing in block.standings} - {KD, NONE}
    rivals = f"one of {number_of(len(methods), 'other method')}" if len(methods) > 1 else next(iter(methods), "another method")
    return f"Does {rivals} make a better {student} out of {teacher} than plain KD does, on {block.place.data}?"


def _best(ranked: pd.DataFrame, block: Block) -> str:
    """The first row, whoever it is, and how far the controls lie from it."""
    if ranked.empty:
        return "No setting is done and healthy yet."
    metric = block.metric
    row = ranked.iloc[0]
    value = spread_words(row[f"test_{metric.name}"], row["test_sd"], metric)
    unit = " %" if metric.unit == "share" else ""
    words = f"{_name(row)} has the {metric.superlative} mean test {metric.heading}: {value}{unit} over {number_of(int(row['n']), 'seed')}"
    beside = [
        f"{interval_of(row, column, metric)} {metric.difference_words} to {control}"
        for column, control, method in (("vs_alone", "the student alone", NONE), ("vs_kd", "tuned KD", KD))
        if row["method"] != method and not pd.isna(row[column])
    ]
    closed = "" if pd.isna(row["gap_closed"]) else f"; it closes {100 * row['gap_closed']:.0f} % of the gap to the teacher"
    return words + (f", {' and '.join(beside)}" if beside else "") + closed + "."


def _how_sure(ranked: pd.DataFrame, block: Block, tables: BenchTables) -> str:
    """The intervals' level, what would go unnoticed, and how firmly the seeds choose the best row's setting."""
    if ranked.empty or block.has_one_seed:
        return "With one seed no difference can be told from chance."
    sentences = ["Brackets are 95 % intervals of a row by itself; the verdict holds for all rows of the table at once.", resolution(block)]
    sweep = tables.sweeps
    here = sweep[(sweep[list(block.head)] == pd.Series(block.head)).all(axis="columns") & sweep["chosen"].astype(bool)]
    own = here[here["method"] == ranked.iloc[0]["method"]]
    if len(own) and not pd.isna(share := own.iloc[0]["chosen_share"]):
        sentences.append(f"Its setting would be chosen again in {100 * share:.0f} % of resamples of the seeds.")
    return " ".join(filter(None, sentences))


def _cost(ranked: pd.DataFrame, block: Block) -> str:
    """What the first row's training costs, and which cheaper row is not told apart from it."""
    if ranked.empty:
        return ""
    row = ranked.iloc[0]
    parts = [
        f"{row['macs_ratio']:.3g} times the multiplications" if not pd.isna(row["macs_ratio"]) else "",
        f"{row['time_ratio']:.3g} times the processor time" if not pd.isna(row["time_ratio"]) else "",
    ]
    known = " and ".join(filter(None, parts))
    memory = f", with {bytes_text(row['memory_bytes'])} of memory" if not pd.isna(row["memory_bytes"]) else ""
    if not known:
        return "" if not memory else f"To train it takes {memory.removeprefix(', with ')}."
    return f"To train it takes {known} of the student alone{memory}."


def _not_tried(block: Block, tables: BenchTables) -> str:
    """Methods, settings beyond the edge of a sweep, and other things that this table says nothing of."""
    tried = {term.method for record in block.records for term in record.run.objective.terms}
    untried = sorted(set(own_methods()) - tried - {NONE})
    sentences = (
        [f"{number_of(len(untried), 'method')} of the zoo ({', '.join(untried[:6])}{', ...' if len(untried) > 6 else ''})"]
        if untried
        else []
    )
    single = sorted({method_words(s.record.method) for s in block.standings if s.tried == 1 and s.record.method != NONE})
    if single:
        sentences.append(f"more than one setting of {', '.join(single[:6])}{' and others' if len(single) > 6 else ''}")
    sentences += edges(block, tables)
    if not any(other.place.phase == "refit" for other in tables.bench.blocks):
        sentences.append("a refit of the chosen settings with fresh seeds")
    pairs = {other.place.pair for other in tables.bench.blocks}
    if len(pairs) == 1:
        sentences.append("another pair of networks")
    return "; ".join(sentences) + "." if sentences else ""


def edges(block: Block, tables: BenchTables) -> list[str]:
    """Axes of which the chosen setting has the largest or the smallest value that was tried, so that the best may lie beyond."""
    sweeps = tables.sweeps
    here = sweeps[(sweeps[list(block.head)] == pd.Series(block.head)).all(axis="columns")]
    return [words for _, rows in here.groupby("sweep", sort=False) for along in ("column", "row") for words in _edge(rows, along)]


def _edge(rows: pd.DataFrame, along: Literal["column", "row"]) -> list[str]:
    """The edge of one axis on which the chosen cell lies, in words; none where it lies inside, or where fewer than three values stand."""
    values, axis = pd.to_numeric(rows[along], errors="coerce"), rows[f"{along}_axis"].iloc[0]
    chosen = values[rows["chosen"].astype(bool)]
    if pd.isna(axis) or values.isna().any() or values.nunique() < 3 or chosen.empty:
        return []
    sides = {"above": values.max(), "below": values.min()}
    method, name, value = rows["method"].iloc[0], AXIS_WORDS.get(axis, axis), chosen.iloc[0]
    return [f"{method} with {name} {word} {value:g}, the edge at which it was chosen" for word, edge in sides.items() if value == edge]


def _name(row: pd.Series) -> str:
    setting = setting_words(row)
    return method_words(row["method"]) + (f" ({setting})" if setting else "")
