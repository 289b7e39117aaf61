"""Which way to train the runs of a bench fills a GPU best: one after the other, as a stack, or in several processes. Measured.

Free of torch: what is measured runs in processes of its own (`fill_probe`), as it will.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdzoo.errors import KdzooError
from kdzoo.runs.options import ELSEWHERE, ExecutionSpec, WorkerOptions
from kdzoo.suite.plan.planned import PlannedRun
from kdzoo.suite.run.launchers.gpus import environment_of
from kdzoo.text import number_of

LARGEST = 24
"""runs that are tried at most: what fills a device with these fills it with more"""
JOBS = (1, 2, 4, 6, 8)
CLOSE = 1.05
"""what is slower by no more than this is as fast"""


@dataclass(frozen=True)
class Way:
    """How runs share a device: dealt out to so many processes, those of each as one stack or one after the other."""

    jobs: int
    stacked: bool = False

    def __str__(self) -> str:
        return "a stack of students" if self.stacked else number_of(self.jobs, "process", "processes")


def ways(runs: int) -> list[Way]:
    """What is tried for so many runs, what takes least first; a stack last, since it changes last bits."""
    return [*(Way(jobs) for jobs in JOBS if jobs <= runs), *([Way(1, stacked=True)] if runs > 1 else [])]


def fastest(seconds: Mapping[Way, float]) -> Way:
    """The way with the shortest step of all runs; of those that are as fast the first."""
    shortest = min(seconds.values())
    return next(way for way, own in seconds.items() if own <= CLOSE * shortest)


@dataclass(frozen=True)
class Filling:
    """What was measured: the seconds of a step of so many runs by way, and why others could not be."""

    runs: int
    seconds: Mapping[Way, float]
    left_out: Mapping[Way, str]

    @property
    def best(self) -> Way:
        return fastest(self.seconds)

    def __str__(self) -> str:
        each = ", ".join(f"{way} {1000 * own:.3g} ms" for way, own in self.seconds.items())
        rest = "".join(f"; {way}: {why}" for way, why in self.left_out.items())
        return f"a step of {number_of(self.runs, 'run')} takes: {each}{rest}; taken: {self.best}"


def problems_of_filling(options: ExecutionSpec) -> Iterator[str]:
    """Why a bench with these options cannot choose how to fill a device, a sentence each."""
    if not options.fill_gpu:
        return
    if options.jobs is not None or options.stack_students:
        yield "fill_gpu: chooses jobs and stack_students itself; leave them out"
    if options.launcher in (*ELSEWHERE, "torchrun", "here") or options.processes_per_run > 1:
        yield "fill_gpu: chooses how many processes of this machine train, each a part of the runs; take the launcher local"


def measure(
    group: Sequence[PlannedRun], options: WorkerOptions, plugins: Sequence[str], gpus: Sequence[str], tried: Sequence[Way] | None = None
) -> Filling:
    """Some steps of runs that may train in lockstep, every way in turn. Raises KdzooError where none of them can be measured."""
    runs = list(group[:LARGEST])
    seconds, left_out = {}, {}
    for way in ways(len(runs)) if tried is None else tried:
        answer = _step_of(way, runs, options, plugins, gpus)
        if isinstance(answer, str):
            left_out[way] = answer
        else:
            seconds[way] = answer
    if not seconds:
        raise KdzooError(f"fill_gpu: nothing could be measured ({'; '.join(left_out.values())})")
    return Filling(len(runs), seconds, left_out)


def _step_of(way: Way, runs: Sequence[PlannedRun], options: WorkerOptions, plugins: Sequence[str], gpus: Sequence[str]) -> float | str:
    """Seconds of a step of all runs, dealt out to processes that begin together; a reason (str) where one cannot."""
    own_options = options.model_copy(update={"stack_students": way.stacked, "jobs": way.jobs})
    processes = [_Probe(runs[number :: way.jobs], own_options, plugins, gpus) for number in range(way.jobs)]
    try:
        answers = [process.answer() for process in processes]  # each says that it is ready, or why it is not
        if whys := [answer["why"] for answer in answers if "why" in answer]:
            return str(whys[0])
        for process in processes:
            process.go()
        ended = [process.answer() for process in processes]
        if whys := [answer["why"] for answer in ended if "why" in answer]:
            return str(whys[0])
        return max(float(answer["seconds"]) for answer in ended)
    finally:
        for process in processes:
            process.close()


class _Probe:
    """A process that measures its part of the runs."""

    def __init__(self, runs: Sequence[PlannedRun], options: WorkerOptions, plugins: Sequence[str], gpus: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kdzoo.suite.run.fill_probe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **environment_of(0, gpus)},
        )
        request = {
            "runs": [{"run": one.run.model_dump(mode="json"), "paths": one.about["paths"]} for one in runs],
            "options": options.model_dump(mode="json"),
            "plugins": list(plugins),
        }
        self._write(json.dumps(request))

    def go(self) -> None:
        self._write("go")

    def answer(self) -> dict[str, Any]:
        """The next thing that it says; why it says nothing where it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"why": f"the process ended with status {self._process.wait()}"}
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # it has ended, and `answer` says so
            pass
