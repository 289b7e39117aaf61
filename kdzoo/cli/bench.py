"""`kdzoo bench`: the sweep."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdzoo.cli import complete
from kdzoo.cli.options import (
    SWEEP,
    Config,
    Data,
    DataRoot,
    Epochs,
    LabelFraction,
    Limit,
    Plugins,
    Rate,
    RecipeName,
    Results,
    RetryFailed,
    Set,
    SkipUnreadable,
    SmallStem,
    SplitSeed,
    TransferClasses,
    TransferData,
    TransferOnly,
    ValFraction,
    Wandb,
    declared,
    option,
    takes_options,
)
from kdzoo.cli.output import console, duration, labelled, say, tell
from kdzoo.errors import InputError
from kdzoo.runs.options import ALL, PAIR, RESULTS, RUNNING
from kdzoo.runs.store import cache_folder, writable
from kdzoo.suite.plan.config import NONE, BenchConfig, ConfigError, assignments, bench_config, quick, wants_refit
from kdzoo.suite.plan.jobs import Outcome
from kdzoo.suite.plan.outline import outline
from kdzoo.suite.plan.starts import is_complete
from kdzoo.suite.run.display import open_display
from kdzoo.suite.run.finished import finished_runs
from kdzoo.suite.run.launchers import LauncherSetup, create_launcher
from kdzoo.suite.run.launchers.launcher import Launcher
from kdzoo.suite.run.wording import label_words
from kdzoo.text import number_of, one_line

if TYPE_CHECKING:
    from kdzoo.suite.plan.sweep import Plan, Planned
    from kdzoo.suite.run.prepare import Prepared


@takes_options(*ALL, before="skip_unreadable")
def bench(
    ctx: typer.Context,
    methods: Annotated[
        str | None,
        option(
            text="Methods, such as hinton,at; sums, such as at+hinton; or exact weights, such as 0.1*ce+0.9*hinton.",
            default=declared("methods"),
            panel=SWEEP,
            metavar="NAME,...",
            names_of=complete.methods,
        ),
    ] = None,
    temperatures: Annotated[
        str | None,
        option(
            text="Temperatures to try, such as 1,2,4.",
            default="each method's own",
            panel=SWEEP,
            metavar="T,...",
        ),
    ] = None,
    alphas: Annotated[
        str | None,
        option(
            text="Weights of the teacher to try, such as 0,0.5,0.9: L = (1 - alpha) CE + alpha scale D.",
            default="the published weights",
            panel=SWEEP,
            metavar="A,...",
        ),
    ] = None,
    weights: Annotated[
        str | None, option(text="Factors on each method's weight to try, such as 0.3,1,3.", default="1", panel=SWEEP, metavar="W,...")
    ] = None,
    doses: Annotated[
        str | None,
        option(
            text="Doses to try, such as 0.03,0.1,0.3,1, instead of alphas and weights. A dose is the size of a method's gradient "
            "relative to that of cross-entropy; it is measured once on these networks and sets the weight.",
            default="none",
            panel=SWEEP,
            metavar="D,...",
        ),
    ] = None,
    doses_from: Annotated[
        str | None,
        option(
            text="Reuse the doses measured in this bench's folder where networks, data and recipe are the same.",
            default="none",
            panel=SWEEP,
            metavar="FOLDER",
        ),
    ] = None,
    grid: Annotated[
        list[str] | None,
        option(
            text="METHOD.FIELD=VALUE,...: values of a hyper-parameter, or of METHOD.dose, to try (repeatable).",
            default="none",
            panel=SWEEP,
            metavar="AXIS",
        ),
    ] = None,
    tune: Annotated[
        int | None,
        option(
            text="Try the first K settings of every method's own search list, instead of the axes above.",
            default="3 in the default bench, else off",
            panel=SWEEP,
            metavar="K",
        ),
    ] = None,
    refit: Annotated[
        bool | None,
        option(
            "--refit/--no-refit",
            text="Train the chosen settings again, with fresh seeds, on the whole training set.",
            default="the recipe's",
            panel=SWEEP,
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        option(
            text="How many seeds (3: seeds 0, 1, 2), or which ones: a list such as 5,7, or 5, (with its comma) for one.",
            default="3",
            panel=SWEEP,
            metavar="N",
        ),
    ] = None,
    control_seeds: Annotated[
        int | None,
        option(
            text="More seeds for the student alone and plain KD than for the other methods. Comparisons are then no longer paired by seed.",
            default="as --seeds",
            panel=SWEEP,
            metavar="N",
        ),
    ] = None,
    refit_seeds: Annotated[
        int | None, option(text="Number of seeds for the refit.", default="as many as the sweep's", panel=SWEEP, metavar="N")
    ] = None,
    plugin: Plugins = None,
    quick_: Annotated[
        bool, option("--quick", text="A demonstration: one seed, a few epochs, two settings of each method.", default="off", panel=SWEEP)
    ] = False,
    pairs: Annotated[
        str | None,
        option(
            text="Named pairs (see `kdzoo pairs`), or TEACHER/STUDENT of any two networks.",
            default="digits, or the pair that goes with the data",
            panel=PAIR,
            metavar="T/S,...",
            names_of=complete.pairs,
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        option(
            text="A network to train, NAME:pretrained, a file of weights, NAME:FILE, or a run's id; then @small, @SIZE, "
            "@norm=imagenet, @weights=ema. Or saved:FILE, a file of a teacher's answers (`kdzoo teachers save`).",
            default="the pair's",
            panel=PAIR,
            metavar="NAME",
            names_of=complete.teachers,
        ),
    ] = None,
    student: Annotated[
        str | None,
        option(
            text="A network, NAME:pretrained or NAME:FILE.", default="the pair's", panel=PAIR, metavar="NAME", names_of=complete.networks
        ),
    ] = None,
    small_stem: SmallStem = False,
    data: Data = None,
    data_root: DataRoot = None,
    limit: Limit = None,
    label_fraction: LabelFraction = None,
    transfer_classes: TransferClasses = None,
    transfer_data: TransferData = None,
    transfer_only: TransferOnly = None,
    val_fraction: ValFraction = None,
    split_seed: SplitSeed = None,
    recipe: RecipeName = None,
    epochs: Epochs = None,
    lr: Rate = None,
    config: Config = None,
    set_: Set = None,
    results: Results = None,
    name: Annotated[
        str | None,
        option(
            text="The bench's name: its folder below --results.",
            default="digits for the default bench, else bench",
            panel=RESULTS,
            metavar="NAME",
            names_of=complete.bench_names,
        ),
    ] = None,
    wandb: Wandb = None,
    skip_unreadable: SkipUnreadable = None,
    fine_tune: Annotated[
        bool | None,
        option(
            "--fine-tune",
            text="First fine-tune a teacher that was made for other classes on this data set.",
            default=declared("fine_tune"),
            panel=PAIR,
        ),
    ] = None,
    retry_failed: RetryFailed = False,
    dry_run: Annotated[
        bool, option("--dry-run", text="Print the plan and an estimate of the time; write nothing.", default="off", panel=RUNNING)
    ] = False,
    **execution: Any,
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
    options = given_of_bench(ctx.params)
    asked = configured(quick(options, config) if quick_ else options, config)
    if dry_run:
        return print_plan(asked, retry_failed=retry_failed)
    return train(asked, command=ctx.obj or "", retry_failed=retry_failed)


def given_of_bench(params: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `kdzoo bench` that were given, as keys of a BenchConfig."""
    return given(without(params, *NOT_CONFIGURATION))


def without(params: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The parameters of a command but for some; raises KeyError for one that it does not have."""
    rest = dict(params)
    for name in names:
        del rest[name]
    return rest


def configured(options: dict[str, Any], file: Path | None) -> BenchConfig:
    """The bench that was asked for; raises InputError with its faults and with those of the plan that the rest comes to."""
    try:
        return bench_config(options, file)
    except ConfigError:
        from kdzoo.suite.run.prepare import configure

        return configure(options, file)


NOT_CONFIGURATION = ("config", "quick_", "retry_failed", "dry_run")
"""parameters of `kdzoo bench` that say what to do with a configuration"""
WORDS = ("set_", "small_stem", "grid")
"""options that are no keys of a BenchConfig as they stand"""


def given(params: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, as keys of a BenchConfig; raises InputError for a --set or --grid without `=`.

    Raises TypeError for the name of an option that is none.
    """
    if unknown := params.keys() - BenchConfig.model_fields.keys() - set(WORDS):
        raise TypeError(f"no options of a bench: {', '.join(sorted(unknown))}")
    options = {key: value for key, value in params.items() if key not in WORDS and value not in (None, (), [])}
    changes = assignments(params.get("set_") or ())
    if params.get("small_stem"):
        changes = {"student.stem": "small", "teacher.stem": "small", **changes}
    wrong = [f"--grid {text}: expected METHOD.FIELD=VALUE,..." for text in params.get("grid") or () if "=" not in text]
    if wrong:
        raise InputError(*wrong)
    axes = dict(text.split("=", 1) for text in params.get("grid") or ())
    return options | ({"set": changes} if changes else {}) | ({"grid": axes} if axes else {})


def train(config: BenchConfig, *, command: str, retry_failed: bool) -> int:
    """Run a bench with its display, print its leaderboard; 1 where some run failed."""
    outcome = train_missing(config, command=command, retry_failed=retry_failed)
    return _end(config, Path(config.results) / config.name, outcome)


def train_missing(config: BenchConfig, *, command: str, retry_failed: bool) -> Outcome:
    """Train the runs of a bench that are not done yet, with its display, and write its tables."""
    if (planned := outline(config)) is not None:
        _tell(map(labelled, planned.lines()))
    if (runs := finished_runs(config)) is not None:
        _tell([f"nothing is left to do: {'the run is' if len(runs) == 1 else f'all {len(runs)} runs are'} done"])
        return Outcome(set(runs))
    with open_launcher(config) as launcher:
        if not is_complete(config):
            launcher.warm_up()  # a worker's imports run while this process imports and plans
        from kdzoo.suite.run.bench import run
        from kdzoo.suite.run.prepare import prepare

        prepared = prepare(config)
        with open_display(console()) as display:
            return run(prepared, launcher, display.handle, retry_failed=retry_failed, command=command)


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        tell(one_line(line))


def _end(config: BenchConfig, folder: Path, outcome: Outcome) -> int:
    """Print the leaderboard, where it lies, and what one may do next; the exit status."""
    from kdzoo.cli.tables import print_leaderboard

    print_leaderboard(folder)
    _tell([f"leaderboard: {folder / 'leaderboard.md'}, with leaderboard.csv and runs.csv beside it"])
    if not outcome.failed:
        _tell([f"next: {_next_command(config, folder)}"])
    return say_failures(outcome, f"kdzoo status {folder}")


ENOUGH_SEEDS = 5
"""what a claim about two methods takes"""


def _next_command(config: BenchConfig, folder: Path) -> str:
    if len(config.seeds) < ENOUGH_SEEDS:
        return f"the same command with --seeds {ENOUGH_SEEDS} trains the missing seeds and can detect smaller differences"
    return f"`kdzoo compare {folder} OTHER` puts another bench beside it"


def open_launcher(config: BenchConfig) -> Launcher:
    """The launcher whose workers know the bench's plugins; what they print is logged in the cache folder."""
    logs = cache_folder() / "logs" / config.name
    writable(logs)
    return create_launcher(LauncherSetup(logs, config.plugin, config.device))


def say_failures(outcome: Outcome, look: str) -> int:
    """The exit status, and where to look when some run failed."""
    if outcome.failed:
        total = len(outcome.done) + len(outcome.failed)
        again = "run the same command with --retry-failed to train them again"
        say(f"{len(outcome.failed)} of {number_of(total, 'run')} failed; see `{look}`; {again}")
    return 1 if outcome.failed else 0


def print_plan(config: BenchConfig, *, retry_failed: bool) -> int:
    """What a bench would do, without doing any of it."""
    from kdzoo.suite.run.prepare import prepare

    for line in plan_lines(prepare(config), retry_failed=retry_failed):
        tell(labelled(line))
    return 0


def weights_to_measure(made: Plan) -> list[tuple[str, str]]:
    """Which methods have settings whose weights are not known before something is measured."""
    labels = sorted({planned.run.objective.label for planned in made.students if planned.open})
    return [("doses", f"weight measured at start of: {', '.join(labels)}")] if labels else []


def plan_lines(prepared: Prepared, *, retry_failed: bool) -> list[tuple[str, str]]:
    """The plan in words: grid points, distinct runs and why fewer, what is left of them, and how long that will take."""
    from kdzoo.data.report import data_lines
    from kdzoo.runs.store import teacher_store
    from kdzoo.suite.plan.cohorts import make_jobs
    from kdzoo.suite.run.bench import where_data_is_told
    from kdzoo.suite.run.estimate import estimate

    made, states, options = prepared.plan, prepared.states, prepared.options
    states_left = {"new", "started", "damaged"} | ({"failed"} if retry_failed else set())
    left = [planned for planned in made.students if states[planned.run.id] in states_left]
    teachers = [planned.run for planned in made.teachers.values() if teacher_store().run(planned.run.id).state() != "done"]
    described = data_lines(made.data, where_data_is_told(prepared.config))
    cohorts = [job for job in make_jobs(left, made, options, prepared.jobs) if job.kind == "students"]
    counts = Counter(states.values())
    failed = f", {counts['failed']} failed (--retry-failed trains them again)" if counts["failed"] and not retry_failed else ""
    lines = [
        ("bench", f"{made.name}, in {made.folder}"),
        *setting_lines(made.students),
        *((("seeds", ", ".join(map(str, sorted({planned.run.seed for planned in made.students})))),) if made.students else ()),
        *recipe_lines(prepared),
        ("networks", ", ".join(dict.fromkeys(str(planned.about["pair"]) for planned in made.students))),
        *(("data" if number == 0 else "", line.removeprefix("data: ")) for number, line in enumerate(described)),
        ("grid points", f"{made.points}: methods x settings x pairs x seeds, with the controls"),
        *(("", f"{number} of them need no run of their own: {reason}") for reason, number in made.merged.items()),
        ("distinct runs", f"{len(made.students)}: {counts['done']} done, {len(left)} left{failed}"),
        *(("note", text) for text in made.notes),
        *(("teacher", f"{run.student.name} is trained first, for {number_of(run.recipe.epochs, 'epoch')} ({run.id})") for run in teachers),
        *weights_to_measure(made),
        (
            "cohorts",
            f"{len(cohorts)}, in {number_of(prepared.jobs, 'process', 'processes')} of {number_of(options.threads, 'thread')} on "
            f"{options.device}",
        ),
        ("time", f"about {duration(estimate(prepared))} of training" if left or teachers else "nothing is left to do"),
    ]
    if wants_refit(prepared.config):
        lines.append(("refit", "then the chosen settings with fresh seeds on the whole training set, not counted above"))
    return lines


def setting_lines(students: Iterable[Planned]) -> list[tuple[str, str]]:
    """Every method with the settings that are tried; those tried at their declared one alone share a line."""
    from kdzoo.suite.report.records import setting_text

    settings: dict[str, dict[str, None]] = {}
    for planned in students:
        text = setting_text(planned.run, planned.about)
        if planned.open:  # its weight is a stand-in until the ratio is measured
            text = re.sub(r"weight \S+ \((dose \S+)\)", r"\1", text)
        settings.setdefault(planned.run.objective.label, {})[text] = None
    declared = [label_words(label) for label, texts in settings.items() if list(texts) == [""]]
    lines = [", ".join(declared) + (" (as declared)" if declared != [label_words(NONE)] else "")] if declared else []
    lines += [f"{label}: {', '.join(text or 'as declared' for text in texts)}" for label, texts in settings.items() if list(texts) != [""]]
    return [("methods" if number == 0 else "", line) for number, line in enumerate(lines)]


def recipe_lines(prepared: Prepared) -> list[tuple[str, str]]:
    """The recipe and the epochs of the students; several where networks are trained for other lengths."""
    epochs = sorted({planned.run.recipe.epochs for planned in prepared.plan.students})
    return [("recipe", f"{Path(prepared.config.recipe).stem}, {' or '.join(number_of(count, 'epoch') for count in epochs)} a run")]
