"""Images per second of kdzoo, of a plain loop, of timm and of torchdistill, and what a sweep costs, in one process.

    python benchmarks/speed.py                                    # everything, into results/speed/
    python benchmarks/speed.py --pairs resnet56/resnet20 --batch 64 --sections sides
    python benchmarks/speed.py --device cuda                      # under nine minutes
    python benchmarks/speed.py --quick --out my-results/speed     # does it run?
    python benchmarks/speed.py --quick main                       # is a step slower than in that revision, or checkout?

What is measured and what the numbers mean: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import logging
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # before torch: its profiler reports every start and stop otherwise

import speed_base
import speed_kdzoo as ours
import speed_peers as peers
import torch
from rich.console import Console
from speed_clock import LeftOut, Side, Timing, alternate, close, steps_for, with_peak
from speed_report import COLUMNS, SWEEP, TARGET_COLUMNS, left_out, machine, markdown, notes_of, rich_table, rows, target_rows, targets
from speed_setup import Precision, Setup, costs
from speed_share import share_of

from kdzoo.errors import InputError
from kdzoo.suite.plan.layers import bench_config
from kdzoo.training.run_data import load_dataset

Make = Callable[[Setup], Side]
Planned = tuple[str, str, Callable[[], dict[str, Any] | list[dict[str, Any]]]]
"""the section of the results, the name, and how it is measured"""
SIDES: dict[str, Make] = {
    "plain": peers.plain,
    "plain_kernels": peers.plain_kernels,
    "timm": peers.timm_task,
    "torchdistill": peers.torchdistill,
    "kdzoo": partial(ours.live, runs=1),
    "kdzoo_sweep": partial(ours.live, runs=SWEEP),
    "kdzoo_cold": partial(ours.cold, runs=SWEEP),
    "kdzoo_warm": partial(ours.warm, runs=SWEEP),
    "kdzoo_stacked": partial(ours.stacked, runs=SWEEP),
    "student": partial(ours.live, runs=0),
    "teacher": ours.teacher,
    "bare": ours.bare,
}
FLOOR = {name: SIDES[name] for name in ("student", "teacher")}
SECTIONS = ("sides", "growth", "share", "fit")
PAIRS = "resnet56/resnet20,resnet32x4/resnet8x4,wrn_40_2/wrn_16_2"
EPOCH_IMAGES = 50_000
TABLE_WIDTH = 130
FAILED = "failed:"
LOGITS = ("hinton", "dkd", "dist", "logit_std", "nkd", "ttm")
FEATURES = ("at", "fitnet", "vid", "reviewkd", "srrl", "cwd", "nst", "semckd")
RELATIONS = ("rkd", "crd", "sp", "pkt", "cc", "ickd")
METHODS = tuple(name for names in itertools.zip_longest(LOGITS, FEATURES, RELATIONS) for name in names if name is not None)
"""twenty in an order in which the families take turns"""


@dataclass(frozen=True)
class Settings:
    """What is measured: the options of the command line, resolved."""

    pairs: tuple[str, ...]
    batches: tuple[int, ...]
    sides: tuple[str, ...]
    sections: tuple[str, ...]
    growth_runs: tuple[int, ...]
    growth_batches: tuple[int, ...]
    growth_methods: tuple[int, ...]
    growth_images: tuple[int, ...]
    repeats: int
    seconds: float
    fit_seconds: float
    minutes: float
    device: str
    threads: int
    precision: Precision
    data: str


@dataclass(frozen=True)
class Options:
    """The settings, the folder that results are written to, and the revision that steps are compared with instead, if any."""

    settings: Settings
    folder: Path
    base: str | None


def options(words: list[str] | None) -> Options:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", help=f"TEACHER/STUDENT, joined with commas (default {PAIRS})")
    parser.add_argument("--batch", help="batch sizes, joined with commas (default 64,128)")
    parser.add_argument("--sides", default=",".join(SIDES), help="names, joined with commas (default: all)")
    parser.add_argument("--sections", help=f"of {', '.join(SECTIONS)} (default: all; fit on cuda alone)")
    parser.add_argument("--repeats", type=int, help="rounds of which the median is taken (default 5, its least but for --quick)")
    parser.add_argument("--seconds", type=float, help="how long a side is timed in a round (default 3; 0.2 on cuda)")
    parser.add_argument("--fit-seconds", type=float, default=80, help="how long the section fit may take (default 80)")
    parser.add_argument("--minutes", type=float, help="no part is begun after so many minutes (default 600; 7 on cuda)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads in this process (default 2)")
    parser.add_argument("--precision", default="float32", choices=get_args(Precision), help="of kdzoo's sides (default float32)")
    parser.add_argument("--data", default="cifar100")
    parser.add_argument("--quick", action="store_true", help="a small pair, few runs, two rounds: does it run?")
    parser.add_argument("base", nargs="?", metavar="BASE", help="with --quick: only whether a step is slower than in this revision")
    parser.add_argument("--out", type=Path, default=Path("results/speed"), help="folder for the JSON and the table")
    given = parser.parse_args(words)
    cuda, quick = given.device.startswith("cuda"), given.quick
    settings = Settings(
        pairs=tuple((given.pairs or ("resnet20/resnet8" if quick else PAIRS)).split(",")),
        batches=tuple(map(int, (given.batch or ("32" if quick else "64,128")).split(","))),
        sides=tuple(given.sides.split(",")),
        sections=tuple((given.sections or ("sides,growth,share,fit" if cuda else "sides,growth,share")).split(",")),
        growth_runs=(1, 3) if quick else (1, 3, 9, 27),
        growth_batches=(32,) if quick else (64, 128, 256, 512, 1024),
        growth_methods=(1, 3) if quick else (1, 5, 10, 20),
        growth_images=(128,) if quick else (5_000, 20_000, 50_000),
        repeats=given.repeats or (2 if quick else 5),
        seconds=given.seconds or (0.05 if quick else 0.2 if cuda else 3.0),
        fit_seconds=given.fit_seconds,
        minutes=given.minutes or (7 if cuda else 600),
        device=given.device,
        threads=given.threads,
        precision=given.precision,
        data=given.data,
    )
    wrong = [f"--sides: unknown {name!r}; known: {', '.join(SIDES)}" for name in settings.sides if name not in SIDES]
    wrong += [f"--sections: unknown {name!r}; known: {', '.join(SECTIONS)}" for name in settings.sections if name not in SECTIONS]
    wrong += [f"--pairs: expected TEACHER/STUDENT, got {pair!r}" for pair in settings.pairs if pair.count("/") != 1]
    wrong += ["--repeats: expected 5 or more, without --quick"] if settings.repeats < 5 and not quick else []
    wrong += ["BASE: only with --quick"] if given.base and not quick else []
    if wrong:
        parser.error("; ".join(wrong))
    return Options(settings, given.out, given.base)


def made(setup: Setup, makes: Mapping[str, Make], say: Callable[[str], None]) -> tuple[dict[str, Side], dict[str, int], dict[str, str]]:
    """The sides after their first two steps, the memory that these took, and why the others are missing."""
    sides: dict[str, Side] = {}
    memory: dict[str, int] = {}
    missing: dict[str, str] = {}
    for name, make in makes.items():
        say(f"{setup.pair}, batch {setup.batch}: {name}")
        try:
            sides[name], memory[name] = with_peak(partial(_begun, make, setup), setup.device)
        except LeftOut as why:
            missing[name] = str(why)
        except Exception as error:  # a side that breaks is named with its error, in the tables and in the exit status
            missing[name] = f"{FAILED} {type(error).__name__}: {error}"
    return sides, memory, missing


def _begun(make: Make, setup: Setup) -> Side:
    side = make(setup)
    for _ in range(2):
        side.step()
    return side


def measured(
    setup: Setup, makes: Mapping[str, Make], settings: Settings, say: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, Timing]]:
    """One cell of the results: every side of one pair at one batch size, timed in turns."""
    sides, memory, missing = made(setup, makes, say)
    say(f"{setup.pair}, batch {setup.batch}: {settings.repeats} rounds of {len(sides)} sides")
    timings = alternate(sides, batch=setup.batch, repeats=settings.repeats, seconds=settings.seconds, device=setup.device, memory=memory)
    close(list(sides.values()))
    del sides
    gc.collect()
    found = {name: timing.record(EPOCH_IMAGES) for name, timing in timings.items()}
    return {"pair": setup.pair, "batch": setup.batch, "sides": found, "left_out": missing}, timings


def side_cell(setup: Setup, settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    """A cell of the main table, with its targets, the size of the networks and what the floor computes a second."""
    cell, timings = measured(setup, {name: SIDES[name] for name in settings.sides}, settings, say)
    sizes = costs(setup)
    reached = {}
    for role, passes in (("student", 3), ("teacher", 1)):  # forward and backward are three forwards' work
        if role in timings:
            reached[role] = 2 * passes * sizes[role].macs * setup.batch / timings[role].median / 1e9
    other = 1 - timings["bare"].median / timings["kdzoo"].median if {"bare", "kdzoo"} <= timings.keys() else None
    return {
        **cell,
        "targets": targets(setup.pair, timings, setup.device.type),
        "networks": {role: asdict(size) for role, size in sizes.items()},
        "gflops": reached,
        "neither_network_nor_loss": other,
    }


def growth_by_runs(setup: Setup, settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    """Time and memory of sweeps of more and more runs, beside the floor."""
    off = {f"kdzoo_sweep of {runs}": partial(ours.live, runs=runs) for runs in settings.growth_runs}
    remembered = {f"kdzoo_warm of {runs}": partial(ours.warm, runs=runs) for runs in settings.growth_runs}
    return {"by": "runs", **measured(setup, {**FLOOR, **off, **remembered}, settings, say)[0]}


def growth_by_batch(setup: Setup, settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    """Time and memory of a sweep at another batch size, beside the floor."""
    runs = SWEEP if SWEEP in settings.growth_runs else max(settings.growth_runs)
    sweeps: dict[str, Make] = {"kdzoo_sweep": partial(ours.live, runs=runs), "kdzoo_warm": partial(ours.warm, runs=runs)}
    return {"by": "batch", **measured(setup, {**FLOOR, **sweeps}, settings, say)[0]}


def growth_by_methods(setup: Setup, settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    """Time and memory of a sweep of more and more different methods, beside the floor."""
    sweeps: dict[str, Make] = {
        f"kdzoo_methods of {count}": partial(ours.methods, names=METHODS[:count]) for count in settings.growth_methods
    }
    return {"by": "methods", **measured(setup, {**FLOOR, **sweeps}, settings, say)[0]}


def growth_by_images(setup: Setup, settings: Settings, images: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Time and memory of a cold sweep on so many training images, and the seconds that the beginning of an epoch takes."""
    runs = max(count for count in settings.growth_runs if count <= SWEEP)
    sweeps: dict[str, Make] = {f"kdzoo_cold on {images:,} images": partial(ours.cold, runs=runs, images=images)}
    cell = measured(setup, {**FLOOR, **sweeps}, settings, say)[0]
    return {"by": "images", "images": images, "opening_seconds": ours.opening_seconds(setup, runs, images), **cell}


def share_cell(setup: Setup, settings: Settings) -> dict[str, Any]:
    """Where the time of a step goes: a single run, a sweep with the live teacher, and one with the cache."""
    found = {}
    for name in ("kdzoo", "kdzoo_sweep", "kdzoo_warm"):
        side = SIDES[name](setup)
        found[name] = share_of(side, steps_for(side, settings.seconds, setup.device), setup.device).record()
        side.close()
    return {"pair": setup.pair, "batch": setup.batch, "of": found}


def fits(setup: Setup, settings: Settings, cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Whole fits of a sweep: 20 epochs, or as many as the time allows, by what its step was measured to take."""
    timed = next((cell["sides"]["kdzoo_sweep"] for cell in cells if "kdzoo_sweep" in cell["sides"]), None)
    an_epoch = timed["seconds_per_run_and_epoch"] * SWEEP if timed else settings.fit_seconds
    epochs = min(20, max(1, int(settings.fit_seconds / 2 / an_epoch)))
    try:
        found = ours.whole_fits(setup, SWEEP, epochs, {"cold": "auto", "warm": "auto"})
    except LeftOut:
        found = ours.whole_fits(setup, SWEEP, epochs, {"off": "off"})
    return [{"pair": setup.pair, "batch": setup.batch, **fit} for fit in found]


def planned(settings: Settings, setups: list[Setup], content: dict[str, Any], say: Callable[[str], None]) -> Iterable[Planned]:
    """What there is to measure, the most wanted first; growth and fits are of the first pair alone."""
    for setup in setups if "sides" in settings.sections else []:
        yield "cells", f"{setup.pair} at {setup.batch}", partial(side_cell, setup, settings, say)
    if "fit" in settings.sections:
        yield "fit", f"fits of {setups[0].pair}", partial(fits, setups[0], settings, content["cells"])
    for setup in setups if "share" in settings.sections else []:
        yield "share", f"profile of {setup.pair} at {setup.batch}", partial(share_cell, setup, settings)
    if "growth" in settings.sections:
        yield "growth", "growth by runs", partial(growth_by_runs, setups[0], settings, say)
        for batch in settings.growth_batches:
            yield "growth", f"growth at batch {batch}", partial(growth_by_batch, replace(setups[0], batch=batch), settings, say)
        yield "growth", "growth by methods", partial(growth_by_methods, setups[0], settings, say)
        for images in settings.growth_images:
            yield "growth", f"growth on {images:,} images", partial(growth_by_images, setups[0], settings, images, say)


def measure(settings: Settings, scratch: Path, keep: Callable[[dict[str, Any]], object], say: Callable[[str], None]) -> dict[str, Any]:
    """Everything that was asked for, until the time is up; `keep` is given the results so far after each part."""
    device = torch.device(settings.device)
    torch.set_num_threads(settings.threads)
    began, images = time.monotonic(), load_dataset(settings.data, None, None)
    channels_last = bench_config({}, None).channels_last
    content: dict[str, Any] = {
        "environment": machine(device, settings.threads),
        "settings": {**asdict(settings), "channels_last": channels_last},
        **{section: [] for section in ("cells", "growth", "share", "fit", "not_reached")},
        "seconds": 0.0,
    }
    setups = [
        Setup(teacher, student, batch, images, device, settings.threads, channels_last, settings.precision, scratch)
        for teacher, _, student in (pair.partition("/") for pair in settings.pairs)
        for batch in settings.batches
    ]
    for section, name, act in planned(settings, setups, content, say):
        if time.monotonic() - began > 60 * settings.minutes:
            content["not_reached"].append(name)
            continue
        say(name)
        found = act()
        content[section] += found if isinstance(found, list) else [found]
        content["seconds"] = time.monotonic() - began
        content["environment"]["load_average_after"] = os.getloadavg()[0]
        keep(content)
    return content


def write(folder: Path, content: dict[str, Any]) -> Path:
    """Write `<device>.json` and `<device>.md`; where they lie."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^a-z0-9]+", "-", str(content["environment"]["device"]).lower()).strip("-")
    file = folder / f"{stem}.json"
    file.write_text(json.dumps(content, indent=1) + "\n")
    file.with_suffix(".md").write_text(markdown(content))
    return file


def main(words: list[str] | None = None) -> None:
    asked = options(words)
    if asked.base:
        speed_base.main(asked.base)
        return
    settings, folder = asked.settings, asked.folder
    warnings.filterwarnings("ignore", category=UserWarning)
    logging.getLogger("torchdistill").setLevel(logging.ERROR)
    console, notes = Console(), Console(stderr=True)
    console.width = max(console.width, TABLE_WIDTH)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["KDZOO_CACHE"] = scratch  # nothing that was remembered before may make a side warm
        try:
            content = measure(settings, Path(scratch), partial(write, folder), notes.print)
        except InputError as error:
            sys.exit("\n".join(error.problems))
    console.print(rich_table("Speed", COLUMNS, rows(content)))
    for line in notes_of(content):
        console.print(line)
    if found := target_rows(content):
        console.print(rich_table("Targets", TARGET_COLUMNS, found))
    notes.print(f"{write(folder, content)}: {content['seconds']:.0f} s")
    if any(FAILED in line for line in left_out(content)):
        sys.exit(1)


if __name__ == "__main__":
    main()
