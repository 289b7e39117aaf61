"""What is asked of a sweep on a CPU beside what it takes: nine logit methods, stages among them, bfloat16, and the default bench.

    python benchmarks/cpu_targets.py                  # writes results/speed/cpu-targets.json and prints the table; some ten minutes
    python benchmarks/cpu_targets.py --quick --output FILE

Processor time of this process on one thread, for a resnet20 under a resnet56 on 512 random images of 32x32 in batches of 64. The
sides take turns: in each round every side trains the same epoch once more, through the step that `kdzoo bench` runs, with its
teacher's answers known from a round before the first; medians over the rounds. The default bench is the README's command in an
empty folder, with all its processes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from cache_mixes import CROPS, IMAGES, LOGITS_ALONE, ROOM, cohorts, random_images, seconds_a_step
from speed_report import machine
from speed_setup import Setup

from kdzoo.training.cohort import Cohort

LOGIT_METHODS = ("hinton", "dkd", "dist", "logit_std", "nkd", "ctkd", "ttm", "wttm", "wsld")
"""nine that read logits alone"""
MIXED = ("hinton", "dkd", "dist")
"""logit methods beside one that reads stages"""
STAGES = ("at",)
RESULTS = Path(__file__).resolve().parent.parent / "results" / "speed" / "cpu-targets.json"


@dataclass(frozen=True)
class Target:
    """What is asked: a figure's name, the most that it may be, and its unit."""

    name: str
    asked: float
    unit: str


TARGETS = {
    "logits": Target("a run of a warm sweep of nine logit methods", 1.03, "of the student alone"),
    "mixed": Target("a run of a logit method in a warm sweep with stages, which are cached", 1.10, "of the student alone"),
    "apart": Target("a run of a logit method in a warm sweep with stages, which do not fit", 1.10, "of the student alone"),
    "half": Target("a run of a warm sweep of nine logit methods in bfloat16", 0.62, "of the student alone in float32"),
    "bench": Target("a run of the default bench, its teacher, refit and tables among them", 3.6, "CPU-seconds"),
}


@dataclass(frozen=True)
class Found:
    """A target with what was measured."""

    target: Target
    found: float

    @property
    def verdict(self) -> str:
        """Whether it is met, or by how much not."""
        beyond = self.found / self.target.asked - 1
        return "met" if beyond <= 0 else f"missed by {beyond:.0%}"


@dataclass(frozen=True)
class Mix:
    """A side: methods that are trained together. cache: bytes that the teacher's answers may take. weights: which teacher's."""

    methods: Sequence[str]
    cache: int
    weights: int


SIDES = {
    "student": Mix(("none",), 0, 0),
    "logits": Mix(LOGIT_METHODS, LOGITS_ALONE, 1),
    "stages": Mix(STAGES, ROOM, 2),
    "mixed": Mix((*MIXED, *STAGES), ROOM, 3),
    "apart": Mix((*MIXED, *STAGES), LOGITS_ALONE, 4),
}
HALF_SIDES = {"half student": Mix(("none",), 0, 0), "half": Mix(LOGIT_METHODS, LOGITS_ALONE, 5)}


def measure(setup: Setup, rounds: int) -> dict[str, float]:
    """Processor seconds of a step of each side: the median over the rounds. Of `apart` that of its logit methods' own cohort."""
    halved = replace(setup, precision="bfloat16")
    sides = {name: list(cohorts(setup, mix.methods, CROPS, mix.cache, mix.weights)) for name, mix in SIDES.items()}
    sides |= {name: list(cohorts(halved, mix.methods, CROPS, mix.cache, mix.weights)) for name, mix in HALF_SIDES.items()}
    if [len(sides[name]) for name in ("mixed", "apart")] != [1, 2]:
        raise RuntimeError("methods that read stages are to train apart where these do not fit, and only there")
    for members in sides.values():
        _train(members)
    sides["apart"] = sides["apart"][1:]  # those with stages train first, with the teacher in every step
    names, found = list(sides), {name: list[float]() for name in sides}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(_train(sides[name]))
            print(f"round {number + 1} of {rounds}: {name} {1000 * found[name][-1]:.1f} ms", file=sys.stderr, flush=True)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def _train(members: Sequence[Cohort]) -> float:
    """Processor seconds of a step of all of a side's runs in the first epoch, which is trained again every time."""
    return sum(seconds_a_step(one, [0]) for one in members)


def ratios(seconds: Mapping[str, float]) -> dict[str, float]:
    """What the targets are about, by their names, from the seconds of a step of each side."""
    student = seconds["student"]
    return {
        "logits": seconds["logits"] / len(LOGIT_METHODS) / student,
        "mixed": (seconds["mixed"] - seconds["stages"]) / len(MIXED) / student,
        "apart": seconds["apart"] / len(MIXED) / student,
        "half": seconds["half"] / len(LOGIT_METHODS) / student,
    }


def bench_seconds(words: Sequence[str]) -> float:
    """Processor seconds a run of a bench from the command line, with everything that it does."""
    with tempfile.TemporaryDirectory() as folder:
        before = _spent_by_children()
        command = [sys.executable, "-m", "kdzoo", "bench", *words, "--name", "bench", "--results", folder]
        environment = {**os.environ, "KDZOO_CACHE": f"{folder}/cache", "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        runs = len(list(Path(folder).glob("bench/runs/*/result.json")))
        return (_spent_by_children() - before) / runs


def _spent_by_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(found: Sequence[Found]) -> str:
    """The targets as Markdown."""
    lines = ["| target | asked, at most | found |  |", "| --- | --- | --- | --- |"]
    for one in found:
        lines.append(f"| {one.target.name} | {one.target.asked:g} {one.target.unit} | {one.found:.2f} | {one.verdict} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="rounds of which the median is taken (7)")
    parser.add_argument("--quick", action="store_true", help="tiny networks, few images, one round, the quick bench: does it run?")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    pair, batch, rounds = (("resnet14", "resnet8"), 256, 1) if given.quick else (("resnet56", "resnet20"), 64, given.rounds)
    torch.set_num_threads(1)
    bench = bench_seconds(["--methods", "hinton,at", *(["--quick"] if given.quick else [])])
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KDZOO_CACHE"] = f"{folder}/cache"
        setup = Setup(*pair, batch, random_images(16 if given.quick else IMAGES), torch.device("cpu"), 1, None, "float32", Path(folder))
        seconds = measure(setup, rounds)
    found = [Found(TARGETS[name], value) for name, value in (ratios(seconds) | {"bench": bench}).items()]
    record = {
        "pair": "/".join(pair),
        "batch": batch,
        "rounds": rounds,
        "step_seconds": seconds,
        "targets": [{**asdict(one), "verdict": one.verdict} for one in found],
        "environment": machine(torch.device("cpu"), 1),
    }
    given.output.write_text(json.dumps(record, indent=2) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
