"""Train the same small students in two checkouts and compare their weights and results byte for byte.

    python benchmarks/same_weights.py main                  # this checkout against a revision of this repository
    python benchmarks/same_weights.py ../other-checkout     # or against a folder

For changes that move or rename code and must change no number. Both sides train on this machine, one after the other, on
one thread, since other machines and other numbers of threads give other last bits. What is compared: the ids of the runs,
their specification, every number of every epoch and of the result, predictions and weights. Clocks, memory and the
environment are left out, and of results of two schemas what only one of them has. Exits with 1 where anything differs.
Some four minutes on one CPU core.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parent.parent
COMMON = (
    *("--data", "digits", "--pairs", "digits", "--limit", "320", "--epochs", "2", "--seeds", "1", "--no-refit"),
    *("--keep", "predictions,student", "--jobs", "1", "--threads", "1", "--set", "teacher_recipe.epochs=6", "--allow-chance-teacher"),
)
ZOO = ("--methods", "hinton,at,crd,simkd,dml,mlld,fitnet_two_stage")
CACHE_OPTIONS = ("--teacher-cache", "--teacher-memo")
"""the option that turns the teacher's cache off, by its names, the newest first"""
CLOCKS = ("seconds", "started", "finished", "step_seconds", "time_ratio", "train_seconds", "student_milliseconds")
MEASURED = frozenset((*CLOCKS, "environment", "memory_bytes", "memo", "teacher_cache", "digest"))
"""keys of results that clocks, memory and the machine decide, and the digest of them all"""


@dataclass(frozen=True)
class Trial:
    """A bench that both sides train: its folder's name and its options; cached: whether the teacher's outputs are cached."""

    name: str
    options: tuple[str, ...]
    cached: bool = True


TRIALS = (
    Trial("zoo", ZOO),
    Trial("zoo_warm", ZOO),  # the cache that `zoo` has filled
    Trial("zoo_uncached", ZOO, cached=False),
    Trial("mixed", ("--methods", "hinton,at", "--set", "recipe.mixup=0.8", "--set", "recipe.ema=0.9")),
    Trial("drop_last", ("--methods", "hinton,at", "--set", "recipe.drop_last=true", "--set", "recipe.batch_size=60")),
    Trial("dot", ("--methods", "hinton,at", "--set", "recipe.dot=0.075", "--set", "recipe.nesterov=false", "--set", "recipe.momentum=0.9")),
)


@contextmanager
def checkout(base: str) -> Iterator[Path]:
    """The folder of a checkout: `base` itself, or a temporary worktree of the revision of that name."""
    if (Path(base) / "kdzoo").is_dir():
        yield Path(base).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="kdzoo-base-") as place:
        folder = Path(place) / "base"
        subprocess.run(["git", "worktree", "add", "--detach", "--quiet", str(folder), base], cwd=ROOT, check=True)
        try:
            yield folder
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(folder)], cwd=ROOT, check=True)


def train(source: Path, trials: Sequence[Trial], place: Path) -> None:
    """Run every trial with the code of one checkout, into `place`; raises CalledProcessError where one fails."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(source),
        "KDZOO_CACHE": str(place / "cache"),
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "disabled",
    }
    command = [sys.executable, "-m", "kdzoo", "bench"]
    place.mkdir(parents=True, exist_ok=True)
    described = subprocess.run([*command, "--help"], env=environment, cwd=place, check=True, capture_output=True, text=True).stdout
    option = next(name for name in CACHE_OPTIONS if name in described)
    for trial in trials:
        cache = [] if trial.cached else [option, "off"]
        words = [*command, *COMMON, *trial.options, *cache, "--results", str(place / "results"), "--name", trial.name]
        subprocess.run(words, env=environment, cwd=place, check=True, stdout=subprocess.DEVNULL)


def differences(ours: Path, theirs: Path) -> list[str]:
    """What differs between two folders of benches, a line each; raises ValueError where there is nothing to compare."""
    found: list[str] = []
    runs = {side: {folder.relative_to(side) for folder in side.glob("*/runs/*")} for side in (ours, theirs)}
    if not runs[ours] and not runs[theirs]:
        raise ValueError(f"no runs in {ours} and {theirs}")
    found += [f"{run}: only in this checkout" for run in sorted(runs[ours] - runs[theirs])]
    found += [f"{run}: only in the base" for run in sorted(runs[theirs] - runs[ours])]
    for run in sorted(runs[ours] & runs[theirs]):
        found += [f"{run}: {what}" for what in _run_differences(ours / run, theirs / run)]
    return found


def _run_differences(ours: Path, theirs: Path) -> list[str]:
    names = {file.name for side in (ours, theirs) for file in side.iterdir() if file.suffix in READERS}
    found = []
    for name in sorted(names):
        there = [(side / name).is_file() for side in (ours, theirs)]
        if not all(there):
            found.append(f"{name} only {'in this checkout' if there[0] else 'in the base'}")
            continue
        read = READERS[Path(name).suffix]
        one, other = read(ours / name), read(theirs / name)
        if one.get("schema") != other.get("schema"):  # a field that a schema has added is no number that has changed
            one, other = ({key: side[key] for key in one.keys() & other.keys() - {"schema"}} for side in (one, other))
        found += [f"{name}: {key}" for key in sorted(one.keys() | other.keys()) if one.get(key) != other.get(key)]
    return found


def _arrays(found: Mapping[str, np.ndarray]) -> dict[str, object]:
    return {key: (value.dtype.str, value.shape, value.tobytes()) for key, value in found.items()}


def _npz(path: Path) -> dict[str, object]:
    with np.load(path) as found:
        return _arrays(found)


def _flat(value: Any, place: str = "") -> dict[str, object]:
    """Every number and text of a JSON value by its place, without what is measured."""
    if isinstance(value, dict):
        items = [(str(key), part) for key, part in value.items() if key not in MEASURED]
    elif isinstance(value, list):
        items = [(str(index), part) for index, part in enumerate(value)]
    else:
        return {place: value}
    return {key: leaf for name, part in items for key, leaf in _flat(part, f"{place}.{name}".lstrip(".")).items()}


READERS = {
    ".json": lambda path: _flat(json.loads(path.read_text())),
    ".jsonl": lambda path: _flat([json.loads(line) for line in path.read_text().splitlines()]),
    ".npz": _npz,
    ".safetensors": lambda path: _arrays(load_file(path)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="a revision of this repository, or the folder of another checkout")
    parser.add_argument("--trials", nargs="+", choices=[trial.name for trial in TRIALS], default=[trial.name for trial in TRIALS])
    options = parser.parse_args(arguments)
    trials = [trial for trial in TRIALS if trial.name in options.trials]
    with checkout(options.base) as base, tempfile.TemporaryDirectory(prefix="kdzoo-same-") as place:
        for side, source in (("ours", ROOT), ("base", base)):
            print(f"training {len(trials)} benches with {source}", flush=True)
            train(source, trials, Path(place) / side)
        ours, theirs = Path(place) / "ours" / "results", Path(place) / "base" / "results"
        found = differences(ours, theirs)
        count = len(list(ours.glob("*/runs/*/result.json")))
    print(*found or [f"{count} runs: the same ids, numbers, predictions and weights"], sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
