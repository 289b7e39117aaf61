"""`kdzoo bench`: the sweep."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdzoo.cli.output import console, duration, say
from kdzoo.errors import InputError
from kdzoo.store import cache_folder, writable
from kdzoo.suite.config import BenchConfig, ConfigError, assignments, bench_config, quick
from kdzoo.suite.display import open_display
from kdzoo.suite.launch import Pool

if TYPE_CHECKING:
    from kdzoo.suite.bench import Prepared
    from kdzoo.suite.jobs import Outcome
    from kdzoo.suite.sweep import Plan

SWEEP, PAIR, TRAINING, RUNNING, RESULTS = "What is swept", "Networks and data", "Training", "Where it runs", "What is kept"

Config = Annotated[Path | None, typer.Option("--config", "-c", help="A YAML file with these options as keys; the command line wins.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One more key, such as recipe.batch_size=128 or recipe.augment.cutout=8 (repeatable).",
        rich_help_panel=TRAINING,
    ),
]
Data = Annotated[
    str | None, typer.Option(help="digits, mnist, cifar10, cifar100 or folder:PATH; see `kdzoo data list`.", rich_help_panel=PAIR)
]
DataRoot = Annotated[str | None, typer.Option(help="Where data sets lie; else KDZOO_DATA.", rich_help_panel=PAIR)]
Limit = Annotated[int | None, typer.Option(help="Use so many training images.", rich_help_panel=PAIR)]
LabelFraction = Annotated[float | None, typer.Option(help="The share of training images with a label.", rich_help_panel=PAIR)]
ValFraction = Annotated[float | None, typer.Option(help="The share held out for validation; 0 for reproductions.", rich_help_panel=PAIR)]
SplitSeed = Annotated[int | None, typer.Option(help="Draws the split, the same for teacher and students.", rich_help_panel=PAIR)]
SmallStem = Annotated[
    bool, typer.Option("--small-stem", help="Stems made for small images, for timm networks meant for 224 pixels.", rich_help_panel=PAIR)
]
RecipeName = Annotated[str | None, typer.Option(help="A recipe's name or file; see `kdzoo recipes`.", rich_help_panel=TRAINING)]
Epochs = Annotated[int | None, typer.Option(help="Instead of the recipe's.", rich_help_panel=TRAINING)]
Rate = Annotated[float | None, typer.Option("--lr", help="The learning rate, instead of the recipe's.", rich_help_panel=TRAINING)]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda.", rich_help_panel=RUNNING)]
Threads = Annotated[
    int | None,
    typer.Option(
        help=r"CPU threads of each process; part of bit-for-bit repeatability. \[default: OMP_NUM_THREADS, else the cores shared out]",
        rich_help_panel=RUNNING,
    ),
]
Resident = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="What a folder's decoded images may take; a larger one is decoded while training, to the same pixels. [default: 16GB]",
        rich_help_panel=RUNNING,
    ),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin", help="A Python file that registers methods, networks, data, pairs or recipes (repeatable).", rich_help_panel=SWEEP
    ),
]
Wandb = Annotated[str | None, typer.Option(metavar="MODE", help="online, offline or disabled.", rich_help_panel=RESULTS)]
Results = Annotated[str | None, typer.Option(help=r"The folder of all benches. \[default: results]", rich_help_panel=RESULTS)]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Train runs that failed again.", rich_help_panel=RUNNING)]


def bench(
    ctx: typer.Context,
    methods: Annotated[
        str | None, typer.Option(help="hinton,at; sums such as at+hinton, or exactly 0.1*ce+0.9*hinton.", rich_help_panel=SWEEP)
    ] = None,
    temperatures: Annotated[str | None, typer.Option(metavar="T,...", help="1,2,4", rich_help_panel=SWEEP)] = None,
    alphas: Annotated[
        str | None, typer.Option(metavar="A,...", help="0,0.5,0.9: L = (1 - alpha) CE + alpha scale D.", rich_help_panel=SWEEP)
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="W,...", help="0.3,1,3: factors on each method's weight.", rich_help_panel=SWEEP)
    ] = None,
    doses: Annotated[
        str | None,
        typer.Option(
            metavar="D,...",
            help="0.03,0.1,0.3,1: the size of each method's gradient beside cross-entropy's. It is measured once for the networks at "
            "hand and sets the weight. Instead of --alphas and --weights.",
            rich_help_panel=SWEEP,
        ),
    ] = None,
    doses_from: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Use what another bench measured, where it is of the same networks, data and recipe.",
            rich_help_panel=SWEEP,
        ),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AXIS", help="METHOD.FIELD=V,...: any hyper-parameter, or METHOD.dose, as an axis (repeatable).", rich_help_panel=SWEEP
        ),
    ] = None,
    tune: Annotated[
        int | None, typer.Option(metavar="K", help="Try the first K settings of every method's own list.", rich_help_panel=SWEEP)
    ] = None,
    refit: Annotated[
        bool | None,
        typer.Option(
            "--refit/--no-refit", help="Train the chosen settings again with fresh seeds on the whole train set.", rich_help_panel=SWEEP
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="3 for the seeds 0, 1, 2; or a list such as 5,7 (5, for one).", rich_help_panel=SWEEP)
    ] = None,
    control_seeds: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="More seeds for the student alone and plain KD; it ends the pairing by seed.", rich_help_panel=SWEEP
        ),
    ] = None,
    refit_seeds: Annotated[
        int | None, typer.Option(metavar="N", help="Seeds of the refit, where they are not as many as the sweep's.", rich_help_panel=SWEEP)
    ] = None,
    plugin: Plugins = None,
    quick_: Annotated[bool, typer.Option("--quick", help="One seed and a few epochs: a demonstration.", rich_help_panel=SWEEP)] = False,
    pairs: Annotated[
        str | None, typer.Option(metavar="T/S,...", help="Named pairs, or TEACHER/STUDENT of any two networks.", rich_help_panel=PAIR)
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="A network to train, NAME:pretrained, a file, NAME:FILE, or a run's id; then @small, @SIZE, @norm=imagenet, @weights=ema.",
            rich_help_panel=PAIR,
        ),
    ] = None,
    student: Annotated[str | None, typer.Option(help="A network, NAME:pretrained or NAME:FILE.", rich_help_panel=PAIR)] = None,
    small_stem: SmallStem = False,
    data: Data = None,
    data_root: DataRoot = None,
    limit: Limit = None,
    label_fraction: LabelFraction = None,
    val_fraction: ValFraction = None,
    split_seed: SplitSeed = None,
    recipe: RecipeName = None,
    epochs: Epochs = None,
    lr: Rate = None,
    config: Config = None,
    set_: Set = None,
    results: Results = None,
    name: Annotated[str | None, typer.Option(help="The bench's name, its folder below --results.", rich_help_panel=RESULTS)] = None,
    keep: Annotated[
        str | None,
        typer.Option(help="predictions,student,checkpoint: what stays of a finished run; or nothing.", rich_help_panel=RESULTS),
    ] = None,
    oracle: Annotated[
        bool | None, typer.Option("--oracle", help="Also record the best epoch on the test set.", rich_help_panel=RESULTS)
    ] = None,
    wandb: Wandb = None,
    device: Device = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", help="Processes that train at the same time.", rich_help_panel=RUNNING)
    ] = None,
    threads: Threads = None,
    resident: Resident = None,
    channels_last: Annotated[
        bool | None,
        typer.Option(
            "--channels-last/--channels-first", help="The memory layout of maps; unless said, what pays.", rich_help_panel=RUNNING
        ),
    ] = None,
    stack_students: Annotated[
        bool | None,
        typer.Option(
            "--stack-students",
            help="A cohort's students of one architecture as one batched computation, for GPUs that one leaves idle; equal up to rounding.",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    compile: Annotated[
        bool | None,
        typer.Option(
            "--compile",
            help="Students run through torch.compile; equal up to rounding. On a CPU it gains nothing.",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    teacher_memo: Annotated[
        str | None,
        typer.Option(
            metavar="off|auto|SIZE",
            help="What the teacher says is kept for all runs: never, in a share of what is free, or in so much (4GB).",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    checkpoint_seconds: Annotated[float | None, typer.Option(help="How often a run in work is saved.", rich_help_panel=RUNNING)] = None,
    allow_chance_teacher: Annotated[
        bool | None, typer.Option("--allow-chance-teacher", help="A teacher at chance may teach: a control.", rich_help_panel=PAIR)
    ] = None,
    fine_tune: Annotated[
        bool | None, typer.Option("--fine-tune", help="A teacher made for other classes is trained on these first.", rich_help_panel=PAIR)
    ] = None,
    retry_failed: RetryFailed = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and a time estimate; write nothing.", rich_help_panel=RUNNING)
    ] = False,
) -> int:
    """Train every method at every setting and seed, and rank them: one command from an empty folder to a leaderboard.

    Without options it is the default bench on real handwritten digits. The student alone and plain Hinton KD are always
    among the runs. Settings are chosen on validation. The same command again trains only what is missing, after Ctrl-C
    or a crash too.

    \b
    Examples:
      kdzoo bench --methods hinton,at --temperatures 2,4 --alphas 0.5,0.9
      kdzoo bench --pairs resnet56/resnet20 --data cifar100 --val-fraction 0.1 --tune 5 --refit
      kdzoo bench --methods crd --grid crd.tau=0.07,0.1 --dry-run
      kdzoo bench --plugin my_loss.py --methods hinton,my_loss --quick
    """
    options = given(ctx.params)
    asked = configured(quick(options, config) if quick_ else options, config)
    if dry_run:
        return print_plan(asked, retry_failed=retry_failed)
    return train(asked, retry_failed=retry_failed)


def configured(options: dict[str, Any], file: Path | None) -> BenchConfig:
    """The bench that was asked for; raises InputError with its faults and with those of the plan that the rest comes to."""
    try:
        return bench_config(options, file)
    except ConfigError:
        from kdzoo.suite.bench import asked

        return asked(options, file)


def given(params: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as keys of a BenchConfig; raises InputError for a --set or --grid without `=`."""
    options = {key: value for key, value in params.items() if key in BenchConfig.model_fields and value not in (None, (), [])}
    changes = assignments(params.get("set_") or ())
    if params.get("small_stem"):
        changes = {"student.stem": "small", "teacher.stem": "small", **changes}
    wrong = [f"--grid {text}: expected METHOD.FIELD=VALUE,..." for text in params.get("grid") or () if "=" not in text]
    if wrong:
        raise InputError(*wrong)
    axes = dict(text.split("=", 1) for text in params.get("grid") or ())
    return options | ({"set": changes} if changes else {}) | ({"grid": axes} if axes else {})


def train(config: BenchConfig, *, retry_failed: bool) -> int:
    """Run a bench with its display, print its leaderboard; 1 where some run failed."""
    with worker_pool(config) as pool:
        pool.warm()  # a worker's imports run while this process imports and plans
        from kdzoo.suite.bench import prepare, run

        prepared = prepare(config)
        pool.size = prepared.jobs
        with open_display(console()) as display:
            outcome = run(prepared, pool, display.handle, retry_failed=retry_failed)
    from kdzoo.cli.tables import print_leaderboard

    print_leaderboard(prepared.plan.folder)
    return say_failures(outcome, f"kdzoo status {prepared.plan.folder}")


def worker_pool(config: BenchConfig) -> Pool:
    """Worker processes that know the bench's plugins; what they print is logged in the cache folder."""
    logs = cache_folder() / "logs" / config.name
    writable(logs)
    return Pool(1, config.plugin, logs)


def say_failures(outcome: Outcome, look: str) -> int:
    """The exit status, and where to look when some run failed."""
    if outcome.failed:
        total = len(outcome.done) + len(outcome.failed)
        say(f"{len(outcome.failed)} of {total} runs failed; see `{look}`; the same command with --retry-failed repeats them")
    return 1 if outcome.failed else 0


def print_plan(config: BenchConfig, *, retry_failed: bool) -> int:
    """What a bench would do, without doing any of it."""
    from kdzoo.suite.bench import prepare

    for name, text in plan_lines(prepare(config), retry_failed=retry_failed):
        console().print(f"{name:14}{text}", markup=False, soft_wrap=True)
    return 0


def weights_to_measure(made: Plan) -> list[tuple[str, str]]:
    """Which methods have settings whose weights are not known before something is measured."""
    labels = sorted({planned.run.objective.label for planned in made.students if planned.open})
    return [("doses", f"weight measured at start of: {', '.join(labels)}")] if labels else []


def plan_lines(prepared: Prepared, *, retry_failed: bool) -> list[tuple[str, str]]:
    """The plan in words: grid points, distinct runs and why fewer, what is left of them, and how long that will take."""
    from kdzoo.data.report import data_lines
    from kdzoo.store import teacher_store
    from kdzoo.suite.bench import cut, estimate, wants_refit

    made, states, options = prepared.plan, prepared.states, prepared.options
    states_left = {"new", "started", "damaged"} | ({"failed"} if retry_failed else set())
    left = [planned for planned in made.students if states[planned.run.id] in states_left]
    teachers = [planned.run for planned in made.teachers.values() if teacher_store().run(planned.run.id).state() != "done"]
    cohorts = [job for job in cut(left, made, options, prepared.jobs) if job.kind == "students"]
    counts = Counter(states.values())
    failed = f", {counts['failed']} failed (--retry-failed repeats them)" if counts["failed"] and not retry_failed else ""
    lines = [
        ("bench", f"{made.name}, in {made.folder}"),
        *(("data" if number == 0 else "", line.removeprefix("data: ")) for number, line in enumerate(data_lines(made.data))),
        ("grid points", f"{made.points}: methods x settings x pairs x seeds, with the controls"),
        *(("", f"{number} of them are another's run: {reason}") for reason, number in made.merged.items()),
        ("distinct runs", f"{len(made.students)}: {counts['done']} done, {len(left)} left{failed}"),
        *(("note", text) for text in made.notes),
        *(("teacher", f"{run.student.name} has to be trained first, {run.recipe.epochs} epochs ({run.id})") for run in teachers),
        *weights_to_measure(made),
        ("cohorts", f"{len(cohorts)}, in {prepared.jobs} process(es) of {options.threads} thread(s) on {options.device}"),
        ("time", f"about {duration(estimate(prepared))} of training" if left or teachers else "nothing is left to do"),
    ]
    if wants_refit(prepared.config):
        lines.append(("refit", "then the chosen settings with fresh seeds on the whole train set, not counted above"))
    return lines
