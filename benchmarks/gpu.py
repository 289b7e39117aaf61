"""All that only a GPU can show, in one command of under nine minutes: is it right, how fast is it, what bounds it.

    python benchmarks/gpu.py --data cifar100.zip                   # into results/gpu/
    python benchmarks/gpu.py --data DIR --resume results/gpu/crd240.tar.gz
    python benchmarks/gpu.py --device cpu --quick --data DIR       # does it run?

`--data` is a folder with cifar100/train.npz and cifar100/test.npz, or a zip or tar archive of these two. The most telling
parts come first, and JSON and table are written anew after each, so that what is measured stays when the command is cut
off. What is left of the minutes goes into CRD against KD on resnet56 -> resnet20 by the whole published recipe, from the
checkpoints of `--resume` where there are some. What the numbers mean: benchmarks/README.md.
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

import gpu_checks as checks
import gpu_study
import speed
import speed_kdzoo as ours
import speed_peers as peers
import torch
from compiled import compare
from gpu_bounds import bounds_of
from gpu_report import markdown
from speed import FLOOR, Make
from speed_clock import LeftOut
from speed_report import SWEEP, machine
from speed_setup import ALPHAS, RECIPE, TEMPERATURES, Precision, Setup

from kdzoo.runs.options import WorkerOptions
from kdzoo.suite.plan.cohorts import groups_in_lockstep
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.run.fill import Strategy
from kdzoo.suite.run.fill import measure as measure_strategies
from kdzoo.training.run_data import load_dataset

Record = dict[str, Any]
MINUTES = 8.5
PAIRS = ("resnet56/resnet20", "resnet32x4/resnet8x4")
BATCHES = (64, 1024, 128)
STACKS = (4, 16, 64)
GRAPHS = (1, 9, 27)
"""runs of a sweep whose steps are replayed as CUDA graphs"""
JOBS = (1, 2, 4, 6, 8)
COMPILE_ROUNDS = 15
CIFAR100 = ("cifar100/train.npz", "cifar100/test.npz")
ASIDE_SECONDS = 15
"""what writing the last results is given"""


@dataclass(frozen=True)
class Settings:
    """What is measured: the options of the command line, resolved. methods: None for the whole zoo. threads: of the host."""

    device: str
    threads: int
    minutes: float
    pairs: tuple[str, ...]
    batches: tuple[int, ...]
    sweep: int
    stacks: tuple[int, ...]
    graphs: tuple[int, ...]
    jobs: tuple[int, ...]
    repeats: int
    seconds: float
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
        sweep=SWEEP,
        stacks=STACKS,
        graphs=GRAPHS,
        jobs=JOBS,
        repeats=5,
        seconds=0.2,
        study_pair=gpu_study.PAIR,
        study_epochs=None,
        methods=None,
        plain=True,
    )
    if not given.quick:
        return whole
    # one thread: a second one spins between operations this small, five times the work for the same numbers
    tiny = replace(
        whole,
        threads=1,
        pairs=("resnet14/resnet8",),
        batches=(16,),
        sweep=3,
        stacks=(4,),
        graphs=(1,),
        jobs=(1, 2),
        repeats=2,
        seconds=0.01,
    )
    return replace(tiny, study_pair=tiny.pairs[0], study_epochs=1, methods=("hinton", "at", "crd"), plain=False)


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
        **{f"kdzoo_stacked of {runs}": partial(ours.stacked, runs=runs) for runs in settings.stacks},
        "plain_kernels": peers.plain_kernels,
    }
    return sides | ({"plain": peers.plain} if settings.plain else {})


def cell(setup: Setup, settings: Settings) -> Record:
    """Images a second and seconds per epoch of every side of one pair at one batch size."""
    return measured(setup, makes_of(settings), settings)


def filled_cell(setup: Setup, settings: Settings) -> Record:
    """The ways to keep a device busy: steps replayed as CUDA graphs, students as one batch, and both."""
    sides: dict[str, Make] = {
        "student": FLOOR["student"],
        "kdzoo_warm of 1": partial(ours.warm, runs=1),
        **{f"kdzoo_graphs of {runs}": partial(ours.recorded, runs=runs) for runs in settings.graphs},
        **{f"kdzoo_stacked of {runs}": partial(ours.stacked, runs=runs) for runs in settings.stacks},
        **{f"kdzoo_stacked_graphs of {runs}": partial(ours.recorded, runs=runs, stack=True) for runs in settings.stacks},
    }
    return measured(setup, sides, settings)


def jobs_cell(setup: Setup, settings: Settings, data: Path, *, graphs: bool) -> Record:
    """A step of 24 runs, or as many as there are, in one process, in several and as a stack: what `--fill-gpu` chooses from."""
    settings_of_sweep = {"data": "cifar100", "data_root": str(data), "pairs": setup.pair, "methods": "hinton", "seeds": "1"}
    grid = {"temperatures": TEMPERATURES[: settings.sweep], "alphas": ALPHAS} if settings.plain else {"alphas": ALPHAS}
    with tempfile.TemporaryDirectory() as results:
        made = plan(
            bench_config(
                {**settings_of_sweep, **grid, "results": results, "recipe": RECIPE, "set": {"recipe.batch_size": setup.batch}}, None
            )
        )
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
        "runs": found.runs,
        "best": str(found.best),
        "of": {str(strategy): seconds for strategy, seconds in found.seconds.items()},
        "left_out": {str(strategy): reason for strategy, reason in found.failures.items()},
    }


def measured(setup: Setup, makes: Mapping[str, Make], settings: Settings) -> Record:
    timing = speed.options(["--quick"]).settings
    chosen = replace(timing, repeats=settings.repeats, seconds=settings.seconds)
    return speed.measured(setup, makes, chosen, lambda _: None)[0]


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
    """Launches, waits and the device's share of the time in a step of one run, a warm sweep and a stacked one."""
    found = {}
    makes = {"kdzoo": partial(ours.live, runs=1), "kdzoo_warm": partial(ours.warm, runs=settings.sweep)}
    for name, make in {**makes, "kdzoo_stacked": partial(ours.stacked, runs=settings.stacks[-1])}.items():
        try:
            side = make(setup)
        except LeftOut as why:
            found[name] = {"left_out": str(why)}
            continue
        found[name] = bounds_of(side, setup.device)
        side.close()
    return {"pair": setup.pair, "batch": setup.batch, "of": found}


def parts(settings: Settings, setups: list[Setup], data: Path) -> Iterable[Part]:
    """What there is to measure, the most telling first."""
    first, half = setups[0], "bfloat16"
    yield Part("correct", "losses of the first steps", 15, partial(checks.first_losses, first))
    yield Part("correct", "stacked against serial", 15, partial(checks.stacked, first))
    yield Part("correct", "replayed against computed", 15, partial(checks.recorded, first))
    yield Part("correct", "teacher cache on the device", 15, partial(checks.remembered, first))
    yield Part("correct", "images on the device", 5, partial(checks.resident, first))
    yield Part("correct", f"every method in {half}", 40, partial(checks.methods_step, settings.device, half, settings.methods))
    yield Part("correct", "quick bench", 30, partial(checks.quick_bench, settings.device))
    yield Part("speed", f"{first.pair} at {first.batch}", 45, partial(cell, first, settings))
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for precision in precisions:
        own = replace(first, precision=precision)
        yield Part("filled", f"graphs and stacks of {first.pair} in {precision}", 60, partial(filled_cell, own, settings))
    for graphs in (True, False) if settings.device != "cpu" else (False,):
        yield Part(
            "jobs", f"processes {'with' if graphs else 'without'} graphs", 75, partial(jobs_cell, first, settings, data, graphs=graphs)
        )
    yield Part("bounds", f"profile of {first.pair} at {first.batch}", 20, partial(bounds, first, settings))
    for setup in sorted(setups[1:], key=lambda setup: settings.batches.index(setup.batch)):
        yield Part("speed", f"{setup.pair} at {setup.batch}", 45, partial(cell, setup, settings))
    yield Part("compiled", f"torch.compile on {first.pair} at {first.batch}", 90, partial(compiled_cell, first, settings))
    for setup in setups[1:2]:
        yield Part("bounds", f"profile of {setup.pair} at {setup.batch}", 20, partial(bounds, setup, settings))


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
        "failed": {},
        "not_reached": [],
    }
    setups = [
        Setup(teacher, student, batch, images, device, settings.threads, channels_last, "float32", work)
        for batch in settings.batches
        for teacher, _, student in (pair.partition("/") for pair in settings.pairs)
    ]
    for part in parts(settings, setups, data):
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
        content["seconds"] = time.monotonic() - began
        keep(content)
    if left() > gpu_study.LEAST_SECONDS:
        os.environ["KDZOO_DATA"] = str(data)
        pair, epochs = settings.study_pair, settings.study_epochs
        content["study"] = gpu_study.study(settings.device, "cifar100", left(), work, pair=pair, epochs=epochs)
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
