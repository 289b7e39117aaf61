"""The stages of a study set beside each other: whether the order of their methods carries over, as tables and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from kdzoo.suite.report.blocks import Block
from kdzoo.suite.report.markdown import markdown_table
from kdzoo.suite.report.orders import ORDERS_READ_AS, Order, Outcome, orders_of, orders_words, outcomes_of, shown_orders, shown_outcomes
from kdzoo.suite.report.score import final_blocks
from kdzoo.suite.study.stages import planned_bench
from kdzoo.suite.study.study import Study
from kdzoo.text import markdown_text

ORDER, GAINS = "order.csv", "gains.csv"


@dataclass(frozen=True)
class OrderTables:
    """The final tables of some stages, by name. missing: the stages that have none yet."""

    names: tuple[str, ...]
    blocks: tuple[Block, ...]
    missing: tuple[str, ...]

    @cached_property
    def orders(self) -> list[Order]:
        """How far each two of them have their methods in the same order."""
        return orders_of(self.blocks, self.names)

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """What each of them shows of each of its methods."""
        return outcomes_of(self.blocks, self.names)

    def order_frame(self) -> pd.DataFrame:
        """A row for each two stages, as numbers."""
        columns = ["one", "other", "methods", "correlation", "low", "high", "p"]
        found = [(order.one, order.other, order.correlation) for order in self.orders]
        return pd.DataFrame([(one, other, c.methods, c.value, c.low, c.high, c.p) for one, other, c in found], columns=columns)

    def gains_frame(self) -> pd.DataFrame:
        """A row for every method and stage: its gain over tuned KD in the headline's own unit, as numbers."""
        columns = ["stage", "method", "vs_kd", "vs_kd_all_low", "vs_kd_all_high", "outcome"]
        return pd.DataFrame([(one.table, one.method, one.gain, one.low, one.high, one.word) for one in self.outcomes], columns=columns)

    def lines(self) -> list[str]:
        """Its part of a study's README."""
        lines = ["## Does the order of methods carry over?", ""]
        lines += [f"Missing: {', '.join(map(markdown_text, self.missing))}.", ""] if self.missing else []
        if len(self.blocks) < 2:
            return lines
        tables = (shown_outcomes(self.outcomes, self.blocks, self.names), shown_orders(self.orders))
        lines += [markdown_text(orders_words(self.blocks, self.outcomes)), ""]
        return [*lines, *(line for table in tables for line in (*markdown_table(table), "")), ORDERS_READ_AS, ""]


def order_tables(study: Study, folder: Path) -> OrderTables | None:
    """The tables that a study sets beside each other, as far as their runs are done; None where it does not."""
    if not study.order:
        return None
    found = {name: _final_block(folder / name) for name in study.order}
    done = {name: block for name, block in found.items() if block is not None}
    return OrderTables(tuple(done), tuple(done.values()), tuple(name for name in found if name not in done))


def _final_block(folder: Path) -> Block | None:
    """The refit of a stage, or its sweep where it has none; None where plain KD is not done there."""
    blocks: Sequence[Block] = final_blocks(planned_bench(folder)) if (folder / "runs").is_dir() else ()
    return blocks[0] if blocks else None
