"""`kdzoo bench`: the sweep."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdzoo.cli.bench_options import BENCH, read_options, takes_options
from kdzoo.cli.declare import SWEEP, option
from kdzoo.cli.dry_run import print_plan
from kdzoo.cli.notify import NOTIFY, kept_command, notification
from kdzoo.cli.options import Config, RetryFailed, SmallStem
from kdzoo.cli.output import console, print_view
from kdzoo.cli.training import configure_bench, print_lines, report_failures, train_missing
from kdzoo.runs.options import RUNNING
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.jobs import Outcome
from kdzoo.suite.plan.layers import quick as quick_options
from kdzoo.suite.plan.layers import refuse_published
from kdzoo.text import number_of

if TYPE_CHECKING:
    from kdzoo.suite.report.table_files import BenchOutcome


@takes_options(*BENCH, before="small_stem")
def bench(
    ctx: typer.Context,
    small_stem: SmallStem = False,
    quick: Annotated[
        bool, option("--quick", text="A demonstration: one seed, a few epochs, two settings of each method.", default="off", panel=SWEEP)
    ] = False,
    config: Config = None,
    retry_failed: RetryFailed = False,
    dry_run: Annotated[
        bool, option("--dry-run", text="Print the plan and an estimate of the time; write nothing.", default="off", panel=RUNNING)
    ] = False,
    notify: Annotated[
        str | None,
        option(
            NOTIFY,
            text="A command to run at the end; KDZOO_STATUS tells it done, failed or interrupted, and KDZOO_BENCH the folder.",
            default="none",
            panel=RUNNING,
            metavar="COMMAND",
        ),
    ] = None,
    **keys: Any,
) -> int:
    """Train every method at every setting and seed, and rank them: one command from an empty folder to a leaderboard.

    Without options it is the default bench, on real handwritten digits. The student alone and plain Hinton KD are always
    among the runs. Settings are chosen on validation images. Run the same command again, also after Ctrl-C or a crash, and
    it trains only what is missing.

    \b
    Examples:
      kdzoo bench --methods hinton,at --temperatures 2,4 --alphas 0.5,0.9
      kdzoo bench --pairs resnet56/resnet20 --data cifar100 --tune 5 --refit
      kdzoo bench --methods crd --grid crd.tau=0.07,0.1 --dry-run
      kdzoo bench --plugin my_loss.py --methods hinton,my_loss --quick
    """
    options = read_options(keys, small_stem=small_stem)
    refuse_published(options, config)
    configuration = configure_bench(quick_options(options, config) if quick else options, config)
    if configuration.searches is not None:
        command = kept_command(ctx.obj or "")
        return train_searches(configuration, command=command, retry_failed=retry_failed, dry_run=dry_run, notify=notify)
    if dry_run:
        return print_plan(configuration, retry_failed=retry_failed)
    return train(configuration, command=kept_command(ctx.obj or ""), retry_failed=retry_failed, notify=notify)


def train(config: BenchConfig, *, command: str, retry_failed: bool, notify: str | None = None) -> int:
    """Run a bench with its display, print its leaderboard, run the command `notify`; 1 where some run failed."""
    folder = Path(config.results) / config.name
    with notification(notify, folder) as ending:
        ending.outcome = train_missing(config, command=command, retry_failed=retry_failed)
        return _end(config, folder, ending.outcome)


def train_searches(config: BenchConfig, *, command: str, retry_failed: bool, dry_run: bool, notify: str | None) -> int:
    """Run the searches of a bench one after the other and write what they came to together; 1 where some run failed."""
    from kdzoo.suite.plan.searches import searches

    folder = Path(config.results) / config.name
    planned = searches(config)
    if dry_run:
        print_lines([f"{number_of(config.searches or 1, 'search', 'searches')} like the following, each with seeds of its own:"])
        return print_plan(next(planned), retry_failed=retry_failed)
    failed = 0
    with notification(notify, folder) as ending:
        ending.outcome = Outcome()
        for search in planned:
            outcome = train_missing(search, command=command, retry_failed=retry_failed)
            ending.outcome = ending.outcome.joined(outcome)
            failed |= report_failures(outcome, shlex.join(["kdzoo", "status", str(folder / search.name)]))
    from kdzoo.suite.report.searches import write_searches
    from kdzoo.suite.report.terminal import sections_view

    table = write_searches(folder)
    print_view(sections_view([(f"{config.name}: {number_of(config.searches or 1, 'search', 'searches')}", table)], console().width))
    first = shlex.join(["kdzoo", "leaderboard", str(folder / "search-1")])
    print_lines([f"searches: {folder / 'searches.md'}, with searches.csv beside it; each is a bench: {first}"])
    return failed


def _end(config: BenchConfig, folder: Path, outcome: BenchOutcome) -> int:
    """Print the leaderboard, where it lies, and what one may do next; the exit status."""
    from kdzoo.cli.leaderboard import print_leaderboard
    from kdzoo.suite.report.table_files import write_tables

    print_leaderboard(outcome.tables or write_tables(folder))
    print_lines([f"leaderboard: {folder / 'leaderboard.md'}, with leaderboard.csv and runs.csv beside it"])
    if not outcome.failed:
        print_lines([f"next: {_next_command(config, folder)}"])
    return report_failures(outcome, shlex.join(["kdzoo", "status", str(folder)]))


ENOUGH_SEEDS = 5
"""what a claim about two methods takes"""


def _next_command(config: BenchConfig, folder: Path) -> str:
    if len(config.seeds) < ENOUGH_SEEDS:
        return f"the same command with --seeds {ENOUGH_SEEDS} trains the missing seeds and can detect smaller differences"
    return f"`kdzoo compare {shlex.quote(str(folder))} OTHER` puts another bench beside it"
