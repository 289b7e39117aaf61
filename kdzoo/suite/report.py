"""Tables for a terminal: as many columns as fit, and everything that went wrong below."""

from __future__ import annotations

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kdzoo.suite.blocks import TEACHER
from kdzoo.suite.records import BenchRecords
from kdzoo.suite.tables import footnotes, sections
from kdzoo.text import one_line

ESSENTIAL = ("#", "method", "setting", "n", "test top-1", "vs KD", "pairs", "mean rank", "why")
OPTIONAL = (
    "p KD", "vs alone", "p alone", "gap closed", "p KD, all", "p alone, all", "vs KD, all", "vs alone, all",
    "val", "best epoch", "best on test (oracle)", "tried", "train s",
)  # fmt: skip
GAP = 2
"""characters between columns"""
WORDS = {"method", "setting", "pair", "data", "phase", "recipe", "why"}


def leaderboard_view(bench: BenchRecords, board: pd.DataFrame, width: int) -> RenderableType:
    """The leaderboard, a table for every pair and phase, with its collapsed rows, footnotes, failed runs and notes."""
    parts: list[RenderableType] = []
    for title, shown in sections(bench, board):
        parts.append(frame_table(fitting(shown, width), f"{bench.name}: {title}"))
    parts.append(Text("\n".join(footnotes(bench)), style="dim"))
    for record in bench.records:
        if record.state == "failed":
            parts.append(Text(one_line(f"failed: {record.id} (seed {record.run.seed}): {record.error}"), style="red"))
    parts.extend(Text(one_line(f"note: {note}"), style="yellow") for note in bench.notes)
    return Group(*parts)


def fitting(shown: pd.DataFrame, width: int) -> pd.DataFrame:
    """The columns that fit into `width` characters, the essential ones first, in their own order."""
    wide = {name: max([len(str(name)), *shown[name].map(len)]) + GAP for name in shown.columns}
    chosen = {name for name in ESSENTIAL if name in wide}
    room = width - sum(wide[name] for name in chosen)
    for name in OPTIONAL:
        if name in wide and shown[name].any() and wide[name] <= room:
            chosen.add(name)
            room -= wide[name]
    return shown[[name for name in shown.columns if name in chosen]]


def frame_table(frame: pd.DataFrame, title: str | None = None) -> Table:
    """A frame of text as a table, numbers to the right, the teacher's reference row dimmed. Brackets are no markup."""
    table = Table(
        title=None if title is None else Text(one_line(title)),
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, GAP - 1, 0, 0),
    )
    for name in map(str, frame.columns):
        word = name in WORDS or name.endswith(" test")
        table.add_column(Text(name), justify="left" if word else "right", overflow="fold", no_wrap=not word)
    for _, row in frame.iterrows():
        table.add_row(*(Text(one_line(cell)) for cell in row), style="dim" if row.get("method") == TEACHER else None)
    return table
