"""A bench's tables for a reader as HTML, for the output of a notebook's cell: text alone, no script and no style of its own."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

import pandas as pd

from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.footnotes import footnotes
from kdzoo.suite.report.sections import sections
from kdzoo.suite.report.terminal import as_many_as_fit, essential_columns, is_words, missing_columns, optional_columns
from kdzoo.suite.report.verdict import verdicts
from kdzoo.text import number_of, one_line

WIDTH = 120
"""characters of a table: what a cell's output shows without scrolling"""


def as_html(bench: BenchRecords, board: pd.DataFrame) -> str:
    """The verdict, the tables with the columns that fit, failed runs and notes; footnotes behind a word that opens them."""
    metric, frames = bench.task.headline, []
    parts = [_paragraph(line, "strong") for line in verdicts(bench)]
    for title, whole in sections(bench, board):
        frame = as_many_as_fit(whole, WIDTH, essential_columns(metric), optional_columns(metric))
        frames.append(frame)
        parts.append(html_table(frame, f"{bench.name}: {title}"))
        if left := missing_columns(whole, frame):
            parts.append(_paragraph(f"{number_of(len(left), 'more column')} in leaderboard.csv: {'; '.join(left)}", "small"))
    failed = [record for record in bench.records if record.state == "failed"]
    parts += [_paragraph(f"failed: {record.id} (seed {record.run.seed}): {record.error}") for record in failed]
    parts += [_paragraph(f"note: {note}") for note in bench.notes]
    parts.append(_details("How to read it", [line for note in footnotes(bench, board, frames) for line in note.splitlines()]))
    return "\n".join(parts)


def html_table(frame: pd.DataFrame, title: str) -> str:
    """A frame of text as a table with its title; numbers to the right."""
    sides = ["left" if is_words(str(name)) else "right" for name in frame.columns]
    head = "".join(_cell("th", name, side, ' scope="col"') for name, side in zip(frame.columns, sides, strict=True))
    rows = ["".join(_cell("td", cell, side) for cell, side in zip(row, sides, strict=True)) for row in frame.itertuples(index=False)]
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    caption = f'<caption style="text-align: left">{_text(title)}</caption>'
    return f'<table class="dataframe">{caption}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>'


def _cell(tag: str, content: object, side: str, more: str = "") -> str:
    return f'<{tag}{more} style="text-align: {side}">{_text(content)}</{tag}>'


def _paragraph(text: str, tag: str = "") -> str:
    return f"<p><{tag}>{_text(text)}</{tag}></p>" if tag else f"<p>{_text(text)}</p>"


def _details(summary: str, lines: Iterable[str]) -> str:
    return f"<details><summary>{_text(summary)}</summary>{''.join(map(_paragraph, lines))}</details>"


def _text(content: object) -> str:
    return escape(one_line(content))
