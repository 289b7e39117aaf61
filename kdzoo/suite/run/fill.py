"""Which strategy fills a GPU best with the runs of a bench: one after the other, as a stack, or in several processes. Measured.

Free of torch: what is measured runs in processes of its own (`fill_probe`), as it will in the bench.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kdzoo.errors import InputError, KdzooError
from kdzoo.runs.options import ELSEWHERE, ExecutionSpec, WorkerOptions
from kdzoo.runs.sealed_json import read_sealed_json, write_sealed_json
from kdzoo.suite.plan.planned import PlannedRun
from kdzoo.suite.run.launchers import launcher_name
from kdzoo.suite.run.launchers.gpus import environment_of
from kdzoo.text import first_line, number_of

NAME = "fill.json"
"""the file of a bench's folder that keeps what was measured"""
MOST_RUNS = 24
"""runs that are measured at most: what fills a GPU with these fills it with more"""
JOBS = (1, 2, 4, 6, 8)
TOLERANCE = 1.05
"""a strategy counts as fast as the fastest where a step takes up to so many times as long"""
LAST_LINES = 3
"""lines that are told of what a failed process wrote to its standard error"""
PROGRAM = ("-m", "kdzoo.suite.run.fill_probe")
"""what a process that measures runs, behind the interpreter and before its folder"""
REQUEST, ERRORS = "request.json", "stderr.txt"
"""the files in that folder"""


@dataclass(frozen=True)
class Strategy:
    """How runs share a GPU: `jobs` processes have a part of the runs each, which each trains as one stack or one after the other."""

    jobs: int
    stacked: bool = False

    def __str__(self) -> str:
        return "a stack of students" if self.stacked else number_of(self.jobs, "process", "processes")


def strategies_for(runs: int) -> list[Strategy]:
    """The strategies to measure for so many runs: fewer processes first; last the stack, whose results differ in the last bits."""
    return [*(Strategy(jobs) for jobs in JOBS if jobs <= runs), *([Strategy(1, stacked=True)] if runs > 1 else [])]


def fastest(seconds: Mapping[Strategy, float]) -> Strategy:
    """The strategy with the shortest step of all runs; among those within TOLERANCE of it the first."""
    shortest = min(seconds.values())
    return next(strategy for strategy, own in seconds.items() if own <= TOLERANCE * shortest)


@dataclass(frozen=True)
class Measurement:
    """The seconds that a step of so many runs takes by strategy, and why others could not be measured (`failures`).

    measured_on: the plan and the machine that it holds for, as JSON.
    """

    runs: int
    seconds: Mapping[Strategy, float]
    failures: Mapping[Strategy, str]
    measured_on: Mapping[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> Strategy:
        return fastest(self.seconds)

    def __str__(self) -> str:
        each = ", ".join(f"{strategy} {1000 * own:.3g} ms" for strategy, own in self.seconds.items())
        rest = "".join(f"; {strategy}: {reason}" for strategy, reason in self.failures.items())
        return f"a step of {number_of(self.runs, 'run')} takes: {each}{rest}; taken: {self.best}"


def problems_of_filling(options: ExecutionSpec, device: str | None) -> Iterator[str]:
    """Why a bench with these options cannot measure how to fill a GPU, a sentence each."""
    if not options.fill_gpu:
        return
    if device == "cpu":
        yield "fill_gpu: needs a GPU, and this runs on cpu; leave it out: there is one process for each core, or as many as jobs says"
    if options.jobs is not None or options.stack_students:
        yield "fill_gpu: chooses jobs and stack_students itself; leave them out"
    if launcher_name(options.launcher) in (*ELSEWHERE, "torchrun", "here") or options.processes_per_run > 1:
        yield "fill_gpu: chooses how many processes of this machine train, each a part of the runs; take the launcher local"


def keep_measurement(folder: Path, measurement: Measurement) -> None:
    """Write a measurement into a bench's folder, in place of an earlier one."""
    content = {
        "measured_on": measurement.measured_on,
        "runs": measurement.runs,
        "measured": [{**asdict(strategy), "step_seconds": seconds} for strategy, seconds in measurement.seconds.items()],
        "failed": [{**asdict(strategy), "reason": reason} for strategy, reason in measurement.failures.items()],
    }
    write_sealed_json(folder / NAME, content)


def read_measurement(folder: Path, measured_on: Mapping[str, Any]) -> Measurement | None:
    """The measurement in a bench's folder; None where there is none of this plan on this machine, or none that can be read."""
    try:
        content = read_sealed_json(folder / NAME)
        seconds = {Strategy(one["jobs"], one["stacked"]): float(one["step_seconds"]) for one in content["measured"]}
        failures = {Strategy(one["jobs"], one["stacked"]): str(one["reason"]) for one in content["failed"]}
        measurement = Measurement(content["runs"], seconds, failures, content["measured_on"])
    except (InputError, TypeError, ValueError, KeyError):  # it is measured again, and replaced
        return None
    return measurement if seconds and measurement.measured_on == measured_on else None


def measure(
    group: Sequence[PlannedRun],
    options_of: Callable[[Strategy], WorkerOptions],
    plugins: Sequence[str],
    gpus: Sequence[str],
    strategies: Sequence[Strategy] | None = None,
) -> Measurement:
    """Measure a step of runs that may train in lockstep by every strategy in turn.

    options_of: what each process of a strategy gets in the bench. Raises KdzooError where no strategy can be measured.
    """
    runs = list(group[:MOST_RUNS])
    seconds, failures = {}, {}
    for strategy in strategies_for(len(runs)) if strategies is None else strategies:
        try:
            seconds[strategy] = _step_seconds(strategy.jobs, runs, options_of(strategy), plugins, gpus)
        except _ProbeFailed as failure:
            failures[strategy] = str(failure)
    if not seconds:
        raise KdzooError(f"fill_gpu: nothing could be measured ({'; '.join(dict.fromkeys(failures.values()))})")
    return Measurement(len(runs), seconds, failures)


class _ProbeFailed(Exception):
    """Why a strategy could not be measured."""


def _step_seconds(jobs: int, runs: Sequence[PlannedRun], options: WorkerOptions, plugins: Sequence[str], gpus: Sequence[str]) -> float:
    """Seconds of a step of all runs, dealt out to processes that begin together. Raises _ProbeFailed where one of them fails."""
    with ExitStack() as stack:
        try:
            probes = [stack.enter_context(_start(runs[number::jobs], options, plugins, gpus)) for number in range(jobs)]
        except OSError as error:
            raise _ProbeFailed(f"a process cannot be started: {error}") from error
        for probe in probes:
            probe.answer("ready")
        for probe in probes:
            probe.go()
        return max(probe.answer("seconds") for probe in probes)


@contextmanager
def _start(runs: Sequence[PlannedRun], options: WorkerOptions, plugins: Sequence[str], gpus: Sequence[str]) -> Iterator[_Probe]:
    """A process that measures its part of the runs. It is killed at the end of the block, and what it has written is removed."""
    request = {
        "runs": [{"run": one.run.model_dump(mode="json"), "paths": one.about["paths"]} for one in runs],
        "options": options.model_dump(mode="json"),
        "plugins": list(plugins),
    }
    with TemporaryDirectory(prefix="kdzoo-fill-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / REQUEST).write_text(json.dumps(request))
        with (folder / ERRORS).open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, *PROGRAM, name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                env={**os.environ, "OMP_WAIT_POLICY": "passive", **environment_of(0, gpus)},
            )
        with process:
            try:
                yield _Probe(process, folder / ERRORS, options.run_timeout)
            finally:
                process.kill()


class _Probe:
    """A process that measures, as its parent sees it: it answers in lines of JSON, each of one key and within `timeout` seconds."""

    def __init__(self, process: subprocess.Popen[bytes], errors: Path, timeout: float) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._errors, self._timeout = process, errors, timeout
        self._to, self._from = process.stdin, process.stdout
        self._read = b""

    def go(self) -> None:
        with suppress(BrokenPipeError):  # it has ended, as its next answer tells
            self._to.write(b"go\n")

    def answer(self, key: str) -> float:
        """The value of its next answer; raises _ProbeFailed for an error, for any other line, and where none comes in time."""
        line = self._line()
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if isinstance(answer, dict) and "error" in answer:
            raise _ProbeFailed(str(answer["error"]))
        if not isinstance(answer, dict) or not isinstance(answer.get(key), int | float):
            raise self._failure(f"expected a number as {key!r}, got {first_line(line.decode(errors='replace'))!r}")
        return float(answer[key])

    def _line(self) -> bytes:
        deadline = time.monotonic() + self._timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._from, selectors.EVENT_READ)
            while b"\n" not in self._read:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise self._failure(f"no answer in {self._timeout:g} seconds (run_timeout)")
                block = os.read(self._from.fileno(), 1 << 16)
                if not block:
                    with suppress(subprocess.TimeoutExpired):  # one that hangs at its end
                        self._process.wait(self._timeout)
                    raise self._failure(f"the process ended with status {self._process.returncode}")
                self._read += block
        line, _, self._read = self._read.partition(b"\n")
        return line

    def _failure(self, reason: str) -> _ProbeFailed:
        """A reason with the last lines that the process wrote to its standard error."""
        lines = [line for line in self._errors.read_text(errors="replace").splitlines() if line.strip()]
        last = " | ".join(first_line(line) for line in lines[-LAST_LINES:])
        return _ProbeFailed(f"{reason}; its last lines: {last}" if last else reason)
