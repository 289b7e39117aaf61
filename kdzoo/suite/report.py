"""Tables for a terminal: as many columns as fit, and everything that went wrong below."""

from __future__ import annotations

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kdzoo.suite.leaderboard import display_frame, footnotes
from kdzoo.suite.records import BenchRecords

ESSENTIAL = ("#", "method", "setting", "n", "test top-1", "vs KD")
OPTIONAL = ("vs alone", "gap closed", "val", "p", "best epoch", "best on test (oracle)", "tried", "train s")
NUMBERS = {"#", "n", "test top-1", "best epoch", "val", "vs KD", "p", "vs alone", "gap closed", "tried", "train s"}


def leaderboard_view(bench: BenchRecords, board: pd.DataFrame, width: int) -> RenderableType:
    """The leaderboard, a table for every pair and phase, with its footnotes, failed runs and notes."""
    parts: list[RenderableType] = []
    for place, block in board.groupby(["pair", "data", "recipe", "epochs", "phase"], sort=False, dropna=False):
        pair, data, recipe, epochs, phase = place
        title = f"{bench.name}: {pair} on {data}, {recipe} ({epochs} epochs)" + (", refit" if phase == "refit" else "")
        parts.append(frame_table(fitting(display_frame(block), width), title))
    parts.append(Text("\n".join(footnotes(bench, board)), style="dim"))
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
    """A frame of text as a table, numbers to the right."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for name in frame.columns:
        table.add_column(str(name), justify="right" if name in NUMBERS else "left", overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*map(str, row), style="dim" if "teacher" in row else None)
    return table
