"""What the measurements say: the targets with what was found, and the tables."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from speed_clock import Timing

from kdzoo.runs.environment import environment

SWEEP = 9
SWEEPS = {"warm": "kdzoo_warm", "cold": "kdzoo_cold", "off": "kdzoo_sweep"}
"""the sides that are such sweeps, by what the teacher cache does"""
SUITES = ("timm", "torchdistill")
BEST_OF_SUITES = {"resnet56/resnet20": 1.8, "resnet32x4/resnet8x4": 2.5}
"""how many times faster than the best of the other suites a run of a sweep is to be"""
PACKAGES = ("torchvision", "torchdistill", "numpy", "Pillow")


def ratio(name: str, found: float, asked: float, *, at_most: bool) -> dict[str, Any]:
    return {
        "target": name,
        "found": found,
        "asked": asked,
        "at_most": at_most,
        "met": found <= asked if at_most else found >= asked,
    }


def targets(pair: str, timings: Mapping[str, Timing], device: str) -> list[dict[str, Any]]:
    """Each target whose sides were all measured, as a ratio of times of one run's step, with what is asked."""
    of = {name: timing.per_run for name, timing in timings.items()}
    has = of.keys()
    found: list[dict[str, Any]] = []
    sweep = next((of[name] for name in ("kdzoo_warm", "kdzoo_sweep") if name in of), None)
    which = "cache warm" if "kdzoo_warm" in of else "cache off"
    if {"student", "teacher"} <= has:
        student, teacher = of["student"], of["teacher"]
        served = 1 + 1.2 * teacher / (SWEEP * student)
        limits = {"warm": 1.03, "cold": served, "off": served}
        for what, side in SWEEPS.items():
            if side in of:
                name = f"a run of a sweep of {SWEEP}, cache {what}, over the student alone"
                found.append(ratio(name, of[side] / student, limits[what], at_most=True))
        if sweep and "plain_kernels" in of:
            possible = (student + teacher) / student
            name = f"the plain loop with the same kernels over a run of a sweep of {SWEEP}, {which}"
            found.append(ratio(name, of["plain_kernels"] / sweep, 0.9 * possible, at_most=False))
    best = min((of[name] for name in SUITES if name in of), default=None)
    if best and sweep and pair in BEST_OF_SUITES:
        name = f"the best of the other suites over a run of a sweep of {SWEEP}, {which}"
        found.append(ratio(name, best / sweep, BEST_OF_SUITES[pair], at_most=False))
    if best and "kdzoo" in of:
        found.append(ratio("a single run over the best of the other suites", of["kdzoo"] / best, 1.0, at_most=True))
    if device == "cuda" and sweep and "plain" in of:
        found.append(ratio(f"the plain loop over a run of a sweep of {SWEEP}, {which}", of["plain"] / sweep, 10.0, at_most=False))
    return found


def machine(device: torch.device, threads: int) -> dict[str, Any]:
    """Versions, commit, device and machine, and how busy the machine was already."""
    return {
        **environment(device, threads),
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "changed_since_commit": _changed(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(terse=True),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "load_average_before": os.getloadavg()[0],
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _changed() -> bool | None:
    """Whether the code differs from the commit that is named; None where there is no checkout."""
    asked = ["git", "status", "--porcelain", "--untracked-files=no", "--", "kdzoo", "benchmarks"]
    try:
        said = subprocess.run(asked, cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return bool(said.stdout.strip())


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


COLUMNS = ("pair", "batch", "side", "runs", "ms a step", "images/s", "s a run and epoch", "times S", "peak MiB")


def rows(content: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The table: a row for each side of each cell, then of growth."""
    made: list[tuple[str, ...]] = []
    for cell in [*content["cells"], *content["growth"]]:
        alone = cell["sides"].get("student", {}).get("seconds_per_run_and_epoch")
        for name, side in cell["sides"].items():
            epoch, held = side["seconds_per_run_and_epoch"], side["memory_bytes"]
            made.append(
                (
                    cell["pair"],
                    str(cell["batch"]),
                    name,
                    str(side["runs"]),
                    f"{1000 * side['step_seconds']:.1f}",
                    f"{side['images_per_second']:.0f}",
                    f"{epoch:.2f}",
                    f"{epoch / alone:.2f}" if alone else "",
                    "" if held is None else f"{held / 2**20:.0f}",
                )
            )
    return made


def left_out(content: Mapping[str, Any]) -> list[str]:
    """A line for each reason why sides are missing, with their names."""
    by_reason: dict[str, list[str]] = {}
    for cell in [*content["cells"], *content["growth"]]:
        for name, why in cell["left_out"].items():
            by_reason.setdefault(why, []).append(name)
    return [f"left out: {', '.join(dict.fromkeys(names))}: {why}" for why, names in by_reason.items()]


def notes_of(content: Mapping[str, Any]) -> list[str]:
    """A line for each whole fit, and for what is missing."""
    fits = [
        f"a whole fit of {fit['pair']}, {fit['runs']} runs of {fit['epochs']} epochs, cache {fit['cache']}: {fit['seconds']:.0f} s; "
        f"240 epochs would take {fit['seconds_of_240_epochs_a_run']:.0f} s a run"
        for fit in content["fit"]
    ]
    openings = [
        f"on {cell['images']:,} images an epoch's first batch is ready after {cell['opening_seconds']:.2f} s, "
        f"{1e6 * cell['opening_seconds'] / cell['images']:.1f} µs an image"
        for cell in content["growth"]
        if cell["by"] == "images"
    ]
    return [*fits, *openings, *left_out(content), *(f"not reached: {name}" for name in content["not_reached"])]


def target_rows(content: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Each target of each cell: what was found, what is asked, and whether it is met."""
    return [
        (
            cell["pair"],
            str(cell["batch"]),
            target["target"],
            f"{target['found']:.2f}",
            f"{'at most' if target['at_most'] else 'at least'} {target['asked']:.2f}",
            "met" if target["met"] else "missed",
        )
        for cell in content["cells"]
        for target in cell["targets"]
    ]


TARGET_COLUMNS = ("pair", "batch", "target", "found", "asked", "")


def rich_table(title: str, columns: tuple[str, ...], lines: list[tuple[str, ...]]) -> Table:
    table = Table(title=title)
    for name in columns:
        table.add_column(name, no_wrap=name != "target")
    for line in lines:
        table.add_row(*line)
    return table


def markdown(content: Mapping[str, Any]) -> str:
    """Both tables as text, with what they were measured on."""
    about = content["environment"]
    head = [
        "# Speed",
        "",
        f"{about['device']} ({about['processor']}, {about['cores']} cores), {about['threads']} threads, torch {about['torch']}, "
        f"commit {about['git']}, {about['date']}. Medians of {content['settings']['repeats']} rounds, sides in turns; S is the student "
        "alone. What the columns mean: [benchmarks/README.md](../../benchmarks/README.md).",
        "",
    ]
    text = [*head, *_lines(COLUMNS, rows(content))]
    if said := notes_of(content):
        text += ["", *(f"- {line}" for line in said)]
    if found := target_rows(content):
        text += ["", "## Targets", "", *_lines(TARGET_COLUMNS, found)]
    return "\n".join([*text, ""])


def _lines(columns: tuple[str, ...], lines: list[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in [columns, ("---",) * len(columns), *lines]]
