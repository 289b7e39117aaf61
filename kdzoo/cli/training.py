"""What the commands that train have in common: the launcher, the display, how failures are reported."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdzoo.cli.interruption import Interrupted, raise_if_interrupted
from kdzoo.cli.output import announce_if_slow, console, print_message, print_text, with_label
from kdzoo.garbage import uncollected
from kdzoo.runs.atomic import ensure_writable
from kdzoo.runs.store import teacher_store
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.first_look import faults_of_options, has_no_known_fault, refuse_early
from kdzoo.suite.plan.jobs import Outcome
from kdzoo.suite.plan.layers import ConfigError, bench_config
from kdzoo.suite.plan.outline import outline
from kdzoo.suite.plan.starts import is_complete
from kdzoo.suite.run.display import Display, open_display
from kdzoo.suite.run.finished import finished_runs
from kdzoo.suite.run.launchers import LauncherSetup, create_launcher
from kdzoo.suite.run.launchers.launcher import Launcher
from kdzoo.text import number_of, one_line

if TYPE_CHECKING:
    from kdzoo.suite.report.table_files import BenchOutcome
    from kdzoo.suite.run.prepare import Prepared


def configure_bench(options: dict[str, Any], file: Path | None) -> BenchConfig:
    """The configuration of a bench; raises InputError with its faults and with those of the plan that the rest comes to.

    What is missing, or plainly wrong, is told at once, before anything is loaded that plans.
    """
    try:
        config = bench_config(options, file)
        refuse_early(config)
        return config
    except ConfigError:
        from kdzoo.suite.run.prepare import configure

        return configure(options, file)


@contextmanager
def training_display() -> Iterator[Display]:
    """The progress display; raises Interrupted where a signal arrived earlier and its exception was swallowed."""
    raise_if_interrupted()
    with open_display(console()) as display:
        yield display


def train_missing(config: BenchConfig, *, command: str, retry_failed: bool) -> BenchOutcome:
    """Train the runs of a bench that are not done yet, with its display, and write its tables.

    Faults stand alone: what is going to be trained is printed first only where no fault is left that planning is known to find.
    """
    if (runs := finished_runs(config)) is not None:
        print_outline(config)
        print_text(nothing_left_text(runs))
        from kdzoo.suite.report.table_files import BenchOutcome

        return BenchOutcome(set(runs))
    if announced := has_no_known_fault(config):
        announce(config)
    with ExitStack() as stack:
        with uncollected():
            launcher = stack.enter_context(open_launcher(config))
            if not is_complete(config):
                launcher.warm_up()  # a worker's imports run while this process imports and plans
            prepared = prepare_bench(config)
        if not announced:
            announce(config)
        from kdzoo.suite.run.bench import run

        with training_display() as display:
            return run(prepared, launcher, display.handle, retry_failed=retry_failed, command=command)


def announce(config: BenchConfig) -> None:
    """Print what a bench is going to train; raises InputError before that where results or teachers cannot be written."""
    ensure_writable(teacher_store().folder)
    ensure_writable(Path(config.results) / config.name)
    print_outline(config)


def print_outline(config: BenchConfig) -> None:
    """Print what a bench is going to train, as far as that is known without torch."""
    if (planned := outline(config)) is not None:
        print_lines(map(with_label, planned.lines()))


def prepare_bench(config: BenchConfig) -> Prepared:
    """The plan of a bench with all that can be checked of it; what takes longer than some seconds is said, unless it will be refused."""
    text = f"planning: reading {config.data}, building each network once and checking every setting"
    with nullcontext() if faults_of_options(config) else announce_if_slow(text):
        from kdzoo.suite.run.prepare import prepare

        return prepare(config)


def nothing_left_text(runs: Collection[str]) -> str:
    """The message for a bench whose runs are all done."""
    return f"nothing is left to do: {'the run is' if len(runs) == 1 else f'all {len(runs)} runs are'} done"


def print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print_text(one_line(line))


STOPPING = "stopping: what is being trained is checkpointed first; Ctrl-C once more ends it at once"


@contextmanager
def open_launcher(config: BenchConfig) -> Iterator[Launcher]:
    """The launcher whose workers know the bench's plugins; what they print is logged in the cache folder.

    An interruption that takes its workers longer than some seconds is announced.
    """
    setup = LauncherSetup.of_bench(config)
    ensure_writable(setup.logs)
    with ExitStack() as stack:
        launcher = stack.enter_context(create_launcher(setup, config.launcher))
        try:
            yield launcher
        except Interrupted:
            with announce_if_slow(STOPPING):
                stack.close()
            raise


def report_failures(outcome: Outcome, look: str) -> int:
    """The exit status, and where to look when some run failed."""
    if outcome.failed:
        total = len(outcome.done) + len(outcome.failed)
        again = "run the same command with --retry-failed to train them again"
        print_message(f"{len(outcome.failed)} of {number_of(total, 'run')} failed; see `{look}`; {again}")
    return 1 if outcome.failed else 0


def train_plan(prepared: Prepared, launcher: Launcher) -> Outcome:
    """Train what is missing of a plan with the display of a bench, whatever became of its runs before."""
    from kdzoo.suite.run.repair import renew_unlocked
    from kdzoo.suite.run.train_plan import train_plan as train_jobs

    with training_display() as display:
        for planned in prepared.plan.students:
            renew_unlocked(prepared.plan.store.run(planned.run.id), display.handle)
        return train_jobs(prepared, launcher, display.handle, retry_failed=True)
