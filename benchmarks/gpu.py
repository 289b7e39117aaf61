"""All that only a GPU can show, in one command of under nine minutes: is it right, how fast is it, what bounds it.

    python benchmarks/gpu.py --data cifar100.zip                   # into results/gpu/
    python benchmarks/gpu.py --data DIR --resume results/gpu/crd240.tar.gz
    python benchmarks/gpu.py --device cpu --quick --data DIR       # does it run?

`--data` is a folder with cifar100/train.npz and cifar100/test.npz, or a zip or tar archive of these two. The most telling
parts come first, and JSON and table are written anew after each, so that what is measured stays when the command is cut
off. The results begin with the targets and what was found of them. What is left of the minutes goes into CRD against KD on
resnet56 -> resnet20 by the whole published recipe, from the checkpoints of `--resume` where there are some. What the numbers
mean: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # before torch: its profiler reports every start and stop otherwise

import gpu_accuracy
import gpu_checks as checks
import gpu_study
import speed
import speed_kdzoo as ours
import speed_peers as peers
import torch
from compiled import compare
from gpu_bounds import STEPS, bounds_of
from gpu_filled import EPOCHS, FILLINGS, FIRST, SECOND, Filling, filled_cell, whole_epochs
from gpu_report import markdown
from gpu_targets import found_targets
from speed import EPOCH_IMAGES, FLOOR, Make
from speed_clock import LeftOut
from speed_report import SWEEP, machine
from speed_setup import ALPHAS, RECIPE, TEMPERATURES, Setup

from kdzoo.runs.options import WorkerOptions
from kdzoo.suite.plan.cohorts import groups_in_lockstep
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.run.fill import Strategy
from kdzoo.suite.run.fill import measure as measure_strategies
from kdzoo.training.run_data import load_dataset

Record = dict[str, Any]
MINUTES = 8.5
PAIRS = (FIRST, SECOND)
BATCHES = (128, 64, 1024)
"""the targets' own, the published one, and one that fills a GPU by itself"""
STACK = 27
JOBS = (1, 2, 4, 6, 8)
COMPILE_ROUNDS = 15
CIFAR100 = ("cifar100/train.npz", "cifar100/test.npz")
ACCURACY_SECONDS = 90
"""what the short run and its teacher are given"""
ASIDE_SECONDS = 15
"""what writing the last results is given"""


@dataclass(frozen=True)
class Settings:
    """What is measured: the options of the command line, resolved. methods: None for the whole zoo. threads: of the host.

    profiled: steps in a profile. bench_epochs: of the quick bench. launcher: of that and of the study.
    """

    device: str
    threads: int
    minutes: float
    pairs: tuple[str, ...]
    batches: tuple[int, ...]
    fillings: tuple[Filling, ...]
    sweep: int
    stack: int
    jobs: tuple[int, ...]
    repeats: int
    seconds: float
    profiled: int
    bench_epochs: int
    launcher: str
    accuracy_pair: str
    accuracy_epochs: int
    study_pair: str
    study_epochs: int | None
    methods: tuple[str, ...] | None
    plain: bool


@dataclass(frozen=True)
class Part:
    """Something to measure: the section of the results, its name, how long it takes on a large GPU, and the act."""

    section: str
    name: str
    seconds: float
    act: Callable[[], Record]


def options(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder or an archive with CIFAR-100 (see above)")
    parser.add_argument("--device", default="cuda", help="cuda or cpu (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for everything (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/gpu"), help="folder of the results (default: %(default)s)")
    parser.add_argument("--resume", type=Path, help="crd240.tar.gz of an earlier call")
    parser.add_argument("--quick", action="store_true", help="tiny networks, few rounds: does it run?")
    return parser.parse_args(words)


def settings_of(given: argparse.Namespace) -> Settings:
    whole = Settings(
        device=given.device,
        threads=min(4, len(os.sched_getaffinity(0))),
        minutes=given.minutes,
        pairs=PAIRS,
        batches=BATCHES,
        fillings=FILLINGS,
        sweep=SWEEP,
        stack=STACK,
        jobs=JOBS,
        repeats=5,
        seconds=0.2,
        profiled=STEPS,
        bench_epochs=5,
        launcher="local",
        accuracy_pair=gpu_accuracy.PAIR,
        accuracy_epochs=gpu_accuracy.EPOCHS,
        study_pair=gpu_study.PAIR,
        study_epochs=None,
        methods=None,
        plain=True,
    )
    if not given.quick:
        return whole
    pair = "resnet8/resnet8"
    # one thread: a second one spins between operations this small, five times the work for the same numbers
    tiny = replace(
        whole,
        threads=1,
        pairs=(pair,),
        batches=(16,),
        fillings=(Filling(pair, 16, "bfloat16", (1,), (3,), (3,), 60, 25), Filling(pair, 16, "float32", (1,), (), (), 60)),
        sweep=3,
        stack=3,
        jobs=(1,),
        repeats=1,
        seconds=0.01,
        profiled=2,
        bench_epochs=1,
        launcher="here",
        accuracy_pair=pair,
        accuracy_epochs=1,
    )
    return replace(tiny, study_pair=pair, study_epochs=1, methods=("hinton", "at", "crd"), plain=False)


def data_folder(path: Path, work: Path) -> Path:
    """The folder that has CIFAR-100; an archive is unpacked first. Exits with what was missing."""
    if path.is_file():
        shutil.unpack_archive(path, work / "data", **({"filter": "data"} if ".tar" in path.name or path.suffix == ".tgz" else {}))
        path = work / "data"
    missing = [name for name in CIFAR100 if not (path / name).is_file()]
    if missing:
        sys.exit(f"--data: {path} has no {' and no '.join(missing)}; expected a folder or an archive with {' and '.join(CIFAR100)}")
    return path


def makes_of(settings: Settings) -> dict[str, Make]:
    """The sides of a cell of the table of speeds."""
    sides: dict[str, Make] = {
        **FLOOR,
        "kdzoo": partial(ours.live, runs=1),
        "kdzoo_sweep": partial(ours.live, runs=settings.sweep),
        "kdzoo_cold": partial(ours.cold, runs=settings.sweep),
        "kdzoo_warm": partial(ours.warm, runs=settings.sweep),
        "plain_kernels": peers.plain_kernels,
    }
    return sides | ({"plain": peers.plain} if settings.plain else {})


def cell(setup: Setup, settings: Settings) -> Record:
    """Images a second and seconds per epoch of every side of one pair at one batch size."""
    return measured(setup, makes_of(settings), settings)


def jobs_cell(setup: Setup, settings: Settings, data: Path, *, graphs: bool) -> Record:
    """A step of 24 runs, or as many as there are, in one process, in several and as a stack: what `--fill-gpu` chooses from."""
    settings_of_sweep = {"data": "cifar100", "data_root": str(data), "pairs": setup.pair, "methods": "hinton", "seeds": "1"}
    changes = {"recipe.batch_size": setup.batch, "recipe.precision": setup.precision}
    grid = {"temperatures": TEMPERATURES[: settings.sweep], "alphas": ALPHAS} if settings.plain else {"alphas": ALPHAS}
    with tempfile.TemporaryDirectory() as results:
        made = plan(bench_config({**settings_of_sweep, **grid, "results": results, "recipe": RECIPE, "set": changes}, None))
    plain = WorkerOptions(device=settings.device, threads=settings.threads, graphs=graphs)

    def options_of(strategy: Strategy) -> WorkerOptions:
        """What a bench gives its processes on this machine."""
        threads = max(1, min(settings.threads, len(os.sched_getaffinity(0)) // strategy.jobs))
        return plain.model_copy(update={"jobs": strategy.jobs, "stack_students": strategy.stacked, "threads": threads})

    group = max(groups_in_lockstep(made.students), key=len)
    strategies = [*(Strategy(jobs) for jobs in settings.jobs), Strategy(1, stacked=True)]
    found = measure_strategies(group, options_of, (), (), strategies)
    return {
        "pair": setup.pair,
        "batch": setup.batch,
        "graphs": graphs,
        "precision": setup.precision,
        "runs": found.runs,
        "best": str(found.best),
        "seconds_for_240_epochs": {
            str(strategy): EPOCHS * seconds / found.runs * EPOCH_IMAGES / setup.batch for strategy, seconds in found.seconds.items()
        },
        "of": {str(strategy): seconds for strategy, seconds in found.seconds.items()},
        "left_out": {str(strategy): reason for strategy, reason in found.failures.items()},
    }


def measured(setup: Setup, makes: Mapping[str, Make], settings: Settings) -> Record:
    timing = speed.options(["--quick"]).settings
    chosen = replace(timing, repeats=settings.repeats, seconds=settings.seconds)
    found = speed.measured(setup, makes, chosen, lambda _: None)[0]
    for side in found["sides"].values():
        side["seconds_for_240_epochs"] = EPOCHS * side["seconds_per_run_and_epoch"]
    return found


def compiled_cell(setup: Setup, settings: Settings) -> Record:
    """The warm sweep with and without torch.compile, and a student's step eager, compiled and replayed from CUDA graphs."""
    sides: dict[str, Make] = {
        "kdzoo_warm": partial(ours.warm, runs=settings.sweep),
        "kdzoo_compiled": partial(ours.compiled, runs=settings.sweep),
    }
    return {
        **measured(setup, sides, settings),
        "student": compare(setup.student, setup.batch, COMPILE_ROUNDS if settings.repeats > 2 else 2, setup.device),
    }


def bounds(setup: Setup, settings: Settings) -> Record:
    """Launches, waits and the device's share of the time in a step of one run, a warm sweep, a stack, and the last two as graphs."""
    found = {}
    makes: dict[str, Make] = {
        "kdzoo": partial(ours.live, runs=1),
        "kdzoo_warm": partial(ours.warm, runs=settings.sweep),
        "kdzoo_graphs": partial(ours.by_way, runs=settings.sweep, stack=False, graphs=True),
        "kdzoo_stacked": partial(ours.stacked, runs=settings.stack),
        "kdzoo_stacked_graphs": partial(ours.by_way, runs=settings.stack, stack=True, graphs=True),
    }
    for name, make in makes.items():
        try:
            side = make(setup)
        except LeftOut as why:
            found[name] = {"left_out": str(why)}
            continue
        found[name] = bounds_of(side, setup.device, settings.profiled)
        side.close()
    return {"pair": setup.pair, "batch": setup.batch, "of": found}


def parts(settings: Settings, setups: list[Setup], data: Path, content: Record, left: Callable[[], float]) -> Iterable[Part]:
    """What there is to measure, the most telling first. content: what was measured so far; left: seconds that may still be spent."""
    first, half = setups[0], replace(setups[0], precision="bfloat16")
    yield Part("correct", "losses of the first steps", 12, partial(checks.first_losses, first))
    yield Part("correct", "stacked against serial", 8, partial(checks.stacked, first))
    yield Part("correct", "replayed against computed", 10, partial(checks.recorded, first))
    yield Part("correct", "teacher cache on the device", 8, partial(checks.remembered, first))
    yield Part("correct", "images on the device", 2, partial(checks.resident, first))
    main, *others = settings.fillings
    yield from filling_parts(main, settings, setups, content)
    for filling in others:
        if filling.pair != main.pair:
            yield from filling_parts(filling, settings, setups, content)
    yield Part(
        "accuracy",
        f"the published accuracy in {settings.accuracy_epochs} epochs",
        ACCURACY_SECONDS,
        partial(accuracy, settings, data, half, left),
    )
    for filling in others:
        if filling.pair == main.pair:
            yield from filling_parts(filling, settings, setups, content)
    yield Part("bounds", f"profile of {first.pair} at {first.batch}", 15, partial(bounds, half, settings))
    if settings.device != "cpu":
        yield Part("jobs", "processes with graphs", 60, partial(jobs_cell, half, settings, data, graphs=True))
    # what follows is measured in what the parts before it have left of their seconds
    yield from wider_parts(settings, first)
    yield Part("jobs", "processes without graphs", 60, partial(jobs_cell, half, settings, data, graphs=False))
    for setup in setups[1:]:
        yield Part("speed", f"{setup.pair} at {setup.batch}", 45, partial(cell, setup, settings))
    yield Part("compiled", f"torch.compile on {first.pair} at {first.batch}", 90, partial(compiled_cell, first, settings))
    for setup in setups[1:2]:
        yield Part(
            "bounds", f"profile of {setup.pair} at {setup.batch}", 15, partial(bounds, replace(setup, precision="bfloat16"), settings)
        )


def filling_parts(filling: Filling, settings: Settings, setups: list[Setup], content: Record) -> Iterable[Part]:
    """The steps of a filling's ways, and whole epochs by the fastest of them."""
    setup, name = filling.setup(setups), f"graphs and stacks of {filling.name}"
    yield Part("filled", name, filling.seconds, partial(filled_cell, filling, setup, partial(measured, settings=settings)))
    if filling.epochs_seconds is not None:
        measured_cells = {cell["name"]: cell for cell in content.get("filled", [])}
        act = partial(whole_epochs, filling, setup, measured_cells.get(name))
        yield Part("epochs", f"whole epochs of {filling.name}", filling.epochs_seconds, act)


def wider_parts(settings: Settings, first: Setup) -> Iterable[Part]:
    """Every method, a whole bench, and the sides of the first pair beside the plain loop."""
    precision = "bfloat16"
    yield Part("correct", f"every method in {precision}", 40, partial(checks.methods_step, settings.device, precision, settings.methods))
    bench = partial(checks.quick_bench, settings.device, epochs=settings.bench_epochs, launcher=settings.launcher)
    yield Part("correct", "quick bench", 30, bench)
    yield Part("speed", f"{first.pair} at {first.batch}", 45, partial(cell, first, settings))


def accuracy(settings: Settings, data: Path, setup: Setup, left: Callable[[], float]) -> Record:
    """The short run, for the seconds of its part at most."""
    until = time.monotonic() + min(ACCURACY_SECONDS, left())
    graphs = setup.device.type == "cuda"
    pair, epochs = settings.accuracy_pair, settings.accuracy_epochs
    stop = (lambda: time.monotonic() > until) if graphs else (lambda: False)
    recipe = {"recipe.epochs": epochs, "recipe.batch_size": setup.batch}
    options = WorkerOptions(device=settings.device, threads=settings.threads, graphs=graphs, keep=())
    return gpu_accuracy.short_run(pair, recipe, options, data, setup.scratch, stop)


def measure(settings: Settings, data: Path, work: Path, keep: Callable[[Record], object]) -> Record:
    """Every part that can end in time, then the study; `keep` is given the results after each."""
    began, device = time.monotonic(), torch.device(settings.device)

    def left() -> float:
        """Seconds that may still be spent."""
        return 60 * settings.minutes - ASIDE_SECONDS - (time.monotonic() - began)

    torch.set_num_threads(settings.threads)
    images, channels_last = load_dataset("cifar100", str(data), None), bench_config({}, None).channels_last
    content: Record = {
        "environment": machine(device, settings.threads),
        "settings": asdict(settings),
        "targets": found_targets({}),
        "failed": {},
        "not_reached": [],
    }
    setups = [
        Setup(teacher, student, batch, images, device, settings.threads, channels_last, "float32", work)
        for batch in settings.batches
        for teacher, _, student in (pair.partition("/") for pair in settings.pairs)
    ]
    for part in parts(settings, setups, data, content, left):
        if device.type == "cuda" and part.seconds > left():
            content["not_reached"].append(part.name)
            continue
        print(f"{time.monotonic() - began:4.0f} s  {part.section}: {part.name}", file=sys.stderr, flush=True)
        try:
            content.setdefault(part.section, []).append({"name": part.name, **part.act()})
        except Exception as error:  # one part that breaks is named, and the rest is measured
            content["failed"][part.name] = traceback.format_exc()
            print(f"        failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        gc.collect()
        content["targets"] = found_targets(content)
        content["seconds"] = time.monotonic() - began
        keep(content)
    if left() > gpu_study.LEAST_SECONDS:
        os.environ["KDZOO_DATA"] = str(data)
        pair, epochs = settings.study_pair, settings.study_epochs
        content["study"] = gpu_study.study(settings.device, "cifar100", left(), work, pair=pair, epochs=epochs, launcher=settings.launcher)
    else:
        content["not_reached"].append("CRD against KD")
    content["seconds"] = time.monotonic() - began
    keep(content)
    return content


def write(folder: Path, content: Record) -> None:
    """Write gpu.json and gpu.md, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("gpu.json", json.dumps(content, indent=1) + "\n"), ("gpu.md", markdown(content))):
        part = folder / f"{name}.part"
        part.write_text(text)
        os.replace(part, folder / name)


def main(words: list[str] | None = None) -> None:
    given = options(words)
    warnings.filterwarnings("ignore", category=UserWarning)
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("--device cuda: torch finds no GPU here; --device cpu --quick tries the script")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ["KDZOO_CACHE"] = str(checks.cache_of(work))  # nothing that was remembered before may make a side warm
        gpu_study.unpack(given.resume, work)
        content = measure(settings_of(given), data_folder(given.data, work), work, partial(write, given.out))
        gpu_study.pack(work, given.out / "crd240.tar.gz")
    print(markdown(content))
    if content["failed"] or not all(found["holds"] for found in content.get("correct", [])):
        sys.exit(1)


if __name__ == "__main__":
    main()
