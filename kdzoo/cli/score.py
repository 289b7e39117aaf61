"""`kdzoo score`: one number a method over all tables of some benches. Free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from kdzoo.cli import complete
from kdzoo.cli.declare import argument
from kdzoo.cli.lookup import bench_folder, find_all
from kdzoo.cli.options import ResultsFolder
from kdzoo.cli.orders import print_order
from kdzoo.cli.output import console, print_text, print_view
from kdzoo.cli.table_options import TableFormat, TableFormatOption


def score(
    benches: Annotated[
        list[str], argument("Names of benches below --results, or their folders.", metavar="BENCHES", names_of=complete.bench_names)
    ],
    results: ResultsFolder = Path("results"),
    output_format: TableFormatOption = TableFormat.table,
) -> int:
    """Show one score of every method over all pairs, data sets and recipes of some benches: its mean gain over tuned KD.

    Of every table the refit counts where there is one. Methods that do not stand in all tables have no score. The interval
    and the mean rank's are over tables; up to ten tables speak of themselves alone. Below it stands in which tables a method is
    better than tuned KD, and how far each two tables have their methods in the same order.

    \b
    Examples:
      kdzoo score cifar100 cifar10_16 digits
      kdzoo score zoo digits --format json
    """
    from kdzoo.suite.report.bench import read_bench
    from kdzoo.suite.report.render import render
    from kdzoo.suite.report.score import note_on_score, score_frame, scored_blocks, shown_score
    from kdzoo.suite.report.terminal import sections_view

    read = [read_bench(folder) for folder in find_all(benches, results, bench_folder)]
    blocks = scored_blocks(read)
    frame = score_frame(blocks)
    if output_format is not TableFormat.table:
        print(render(frame, output_format, read[0].task).rstrip("\n"))
        return 0
    title = f"Over {len(blocks)} tables: {', '.join(block.title for block in blocks)}"
    print_view(sections_view([(title, shown_score(frame, blocks[0].metric))], console().width))
    print_text(note_on_score(len(blocks)))
    names = [str(number) for number in range(1, len(blocks) + 1)]
    if print_order(names, blocks):
        for name, block in zip(names, blocks, strict=True):
            print_text(f"{name}: {block.title}")
    return 0
