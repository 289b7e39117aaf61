"""Whether the order of methods carries over from table to table, printed. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdzoo.cli.output import console, print_text, print_view

if TYPE_CHECKING:
    from kdzoo.suite.report.blocks import Block


def print_order(names: Sequence[str], blocks: Sequence[Block]) -> bool:
    """Print each method's gains in all tables and each two tables' rank correlation; False where no two share enough methods."""
    from kdzoo.suite.report.orders import ORDERS_READ_AS, orders_of, orders_words, outcomes_of, shown_orders, shown_outcomes
    from kdzoo.suite.report.terminal import sections_view

    orders = [order for order in orders_of(blocks, names) if order.correlation.words]
    if not orders:
        return False
    outcomes = outcomes_of(blocks, names)
    tables = [("Gain over tuned KD in each table", shown_outcomes(outcomes, blocks, names)), ("The same order?", shown_orders(orders))]
    print_view(sections_view(tables, console().width))
    print_text(orders_words(blocks, outcomes))
    print_text(ORDERS_READ_AS)
    return True
