"""The question that a table answers, and the answer: the best method, by how much, how sure, at what cost, and what was not tried."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from kdzoo.suite.page.not_tried import not_tried
from kdzoo.suite.page.tables import BenchTables
from kdzoo.suite.plan.config import KD, NONE
from kdzoo.suite.report.blocks import TEACHER, Block
from kdzoo.suite.report.cells import bytes_text, interval_of, method_words, setting_words, spread_words
from kdzoo.suite.report.footnotes import resolution
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
        ("Not tried", not_tried(block, tables)),
    ]
    return Answer(block.title, _question(block), _as_sentence(verdict(block)), tuple(part for part in details if part[1]))


def _as_sentence(words: str) -> str:
    """With a capital letter; names of methods stand in quotes, and stay as they are."""
    return words[0].upper() + words[1:]


def _question(block: Block) -> str:
    teacher, _, student = block.table_key.pair.partition("/")
    methods = {standing.record.method for standing in block.standings} - {KD, NONE}
    if not methods:
        return f"Does plain KD make a better {student} out of {teacher} than training it alone, on {block.table_key.data}?"
    rivals = f"one of {number_of(len(methods), 'other method')}" if len(methods) > 1 else methods.pop()
    return f"Does {rivals} make a better {student} out of {teacher} than plain KD does, on {block.table_key.data}?"


def _best(ranked: pd.DataFrame, block: Block) -> str:
    """The first row, whoever it is, and how far the controls lie from it."""
    if ranked.empty:
        return "No setting is done and healthy yet."
    metric = block.metric
    row = ranked.iloc[0]
    value = spread_words(row[f"test_{metric.name}"], row["test_sd"], metric)
    unit = " %" if metric.unit == "share" else ""
    means = metric.sign * ranked[f"test_{metric.name}"]
    stands = (
        f"has the {metric.superlative} mean test {metric.heading}"
        if means.iloc[0] >= means.max()
        else "ranks first on the seeds that all have"
    )
    words = f"{_name(row)} {stands}: {value}{unit} over {number_of(int(row['n']), 'seed')}"
    beside = [
        f"{interval_of(row, column, metric)} {metric.difference_words} to {control}"
        for column, control, method in (("vs_alone", "the student alone", NONE), ("vs_kd", "tuned KD", KD))
        if row["method"] != method and not pd.isna(row[column])
    ]
    closed = "" if pd.isna(row["gap_closed"]) else f"; it closes {100 * row['gap_closed']:.0f} % of the gap to the teacher"
    above = ranked[means > means.iloc[0]]
    others = [f"{_name(other)} has {metric.with_unit(other[f'test_{metric.name}'])} over other seeds" for _, other in above.iterrows()]
    return (
        words
        + (f", {' and '.join(beside)}" if beside else "")
        + closed
        + (f"; {', '.join(others)}" if others else "")
        + "."
        + _unvalidated(block)
    )


def _unvalidated(block: Block) -> str:
    """What a reader has to know of a table whose settings nothing chose."""
    methods = [standing.record.method for standing in block.standings]
    several = len(methods) > len(set(methods))
    return (
        " Nothing was held out: of several settings the best is picked here by its test images."
        if several and not any(standing.candidate.validated for standing in block.standings)
        else ""
    )


def _how_sure(ranked: pd.DataFrame, block: Block, tables: BenchTables) -> str:
    """The intervals' level, what would go unnoticed, and how firmly the seeds choose the best row's setting."""
    if ranked.empty:
        return ""
    if block.has_one_seed:
        return "With one seed no difference can be told from chance."
    sentences = ["Brackets are 95 % intervals of a row by itself; the verdict holds for all rows of the table at once.", resolution(block)]
    sweep = block.rows_of(tables.sweeps)
    own = sweep[sweep["chosen"].astype(bool) & (sweep["method"] == ranked.iloc[0]["method"])]
    if len(own) and not pd.isna(share := own.iloc[0]["chosen_share"]):
        sentences.append(f"Its setting would be chosen again in {100 * share:.0f} % of resamples of the seeds.")
    return " ".join(filter(None, sentences))


def _cost(ranked: pd.DataFrame, block: Block) -> str:
    """The training cost of the first row, and that of tuned KD where the two are not told apart."""
    if ranked.empty or not (words := _price(ranked.iloc[0])):
        return ""
    row = ranked.iloc[0]
    if row["method"] == NONE:
        return "Nothing beside the training of the student itself."
    sentences = [f"To train it takes {words}{_live_teacher(block, row)}."]
    kd = ranked[ranked["method"] == KD]
    if len(kd) == 1 and row["vs_kd_all_low"] <= 0 <= row["vs_kd_all_high"]:
        sentences.append(f"Tuned KD, from which it is not told apart, takes {_price(kd.iloc[0])}.")
    return " ".join(sentences)


def _live_teacher(block: Block, row: pd.Series) -> str:
    """That a cost counts a teacher that answers in every step, and how many answers of this method's runs were read from the cache."""
    standing = next((one for one in block.healthy if one.record.method == row["method"] and one.record.run.teacher is not None), None)
    if standing is None:
        return ""
    uses = [use for record in standing.done if (use := (record.result or {}).get("teacher_cache"))]
    lookups = sum(use["lookups"] for use in uses)
    remark = ", counting a teacher that is run in every step"
    if not lookups:
        return remark
    return (
        f"{remark}; here {100 * sum(use['hits'] for use in uses) / lookups:.0f} % of the teacher's outputs were read from the cache instead"
    )


def _price(row: pd.Series) -> str:
    """The cost of training in words, as far as it was measured."""
    ratios = {"multiplications": row["macs_ratio"], "processor time": row["time_ratio"]}
    known = " and ".join(f"{value:.3g} times the {name}" for name, value in ratios.items() if not pd.isna(value))
    memory = "" if pd.isna(row["memory_bytes"]) else f"{bytes_text(row['memory_bytes'])} of memory"
    return ", with ".join(filter(None, [f"{known} of the student alone" if known else "", memory]))


def _name(row: pd.Series) -> str:
    setting = setting_words(row)
    return method_words(row["method"]) + (f" ({setting})" if setting else "")
