"""leaderboard.md, and tables of text in Markdown."""

from __future__ import annotations

import pandas as pd

from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.columns import ALL_COLUMNS, selected
from kdzoo.suite.report.footnotes import footnotes
from kdzoo.suite.report.sections import sections
from kdzoo.suite.report.verdict import verdicts
from kdzoo.text import markdown_text


def as_markdown(bench: BenchRecords, board: pd.DataFrame, columns: str = ALL_COLUMNS) -> str:
    """The leaderboard for a reader: the verdict, per cent with standard deviations and intervals, and the protocol below."""
    lines = [f"# {markdown_text(bench.name)}", ""]
    lines += [f"{markdown_text(line)}\n" for line in verdicts(bench)]
    parts = [(title, selected(frame, columns, bench.task.headline)) for title, frame in sections(bench, board)]
    for title, frame in parts:
        lines += [f"## {markdown_text(title)}", "", *markdown_table(frame), ""]
    lines += [f"{markdown_text(line)}\n" for line in footnotes(bench, board, [frame for _, frame in parts])]
    failed = [record for record in bench.records if record.state == "failed"]
    lines += [f"- failed: `{record.id}` (seed {record.run.seed}): {markdown_text(record.error)}" for record in failed]
    lines += [f"- {markdown_text(note)}" for note in bench.portable_notes]
    return "\n".join(lines).rstrip() + "\n"


def markdown_table(shown: pd.DataFrame) -> list[str]:
    """A frame of text as the lines of a Markdown table."""
    rows = [list(map(str, shown.columns)), ["---"] * len(shown.columns), *shown.itertuples(index=False)]
    return ["| " + " | ".join(map(markdown_text, row)) + " |" for row in rows]
