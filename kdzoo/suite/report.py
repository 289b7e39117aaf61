"""Tables for a terminal: as many columns as fit, and everything that went wrong below."""

from __future__ import annotations

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kdzoo.suite.leaderboard import TEACHER, blocks_of, display_frame, footnotes
from kdzoo.suite.records import BenchRecords

ESSENTIAL = ("#", "method", "setting", "n", "test top-1", "vs KD")
OPTIONAL = ("vs alone", "gap closed", "val", "p", "best epoch", "best on test (oracle)", "tried", "train s")
WORDS = {"method", "setting", "pair", "data", "phase", "recipe"}


def leaderboard_view(bench: BenchRecords, board: pd.DataFrame, width: int) -> RenderableType:
    """The leaderboard, a table for every pair and phase, with its footnotes, failed runs and notes."""
    parts: list[RenderableType] = []
    for block in blocks_of(bench):
        rows = block.rows_of(board)
        if len(rows):
            parts.append(frame_table(fitting(display_frame(rows), width), f"{bench.name}: {block.title}"))
    parts.append(Text("\n".join(footnotes(bench)), style="dim"))
    for record in bench.records:
        if record.state == "failed":
            parts.append(Text(f"failed: {record.id} (seed {record.run.seed}): {record.error}", style="red"))
    parts.extend(Text(f"note: {note}", style="yellow") for note in bench.notes)
    return Group(*parts)


def fitting(shown: pd.DataFrame, width: int) -> pd.DataFrame:
    """The columns that fit into `width` characters, the essential ones first, in their own order."""
    wide = {name: max([len(str(name)), *shown[name].map(len)]) + 3 for name in shown.columns}
    chosen = {name for name in ESSENTIAL if name in wide}
    room = width - 1 - sum(wide[name] for name in chosen)
    for name in OPTIONAL:
        if name in wide and shown[name].any() and wide[name] <= room:
            chosen.add(name)
            room -= wide[name]
    return shown[[name for name in shown.columns if name in chosen]]


def frame_table(frame: pd.DataFrame, title: str | None = None) -> Table:
    """A frame of text as a table, numbers to the right, the teacher's reference row dimmed. Brackets are no markup."""
    table = Table(title=None if title is None else Text(title), title_justify="left", title_style="bold", header_style="bold")
    for name in map(str, frame.columns):
        table.add_column(Text(name), justify="left" if name in WORDS or name.endswith(" test") else "right", overflow="fold")
    for _, row in frame.iterrows():
        table.add_row(*(Text(str(cell)) for cell in row), style="dim" if row.get("method") == TEACHER else None)
    return table
