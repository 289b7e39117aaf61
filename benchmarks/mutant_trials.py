"""Runs tests against mutants, each in a fork of a process that has imported torch and collected the tests."""

from __future__ import annotations

import compileall
import contextlib
import gc
import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import IO

import pytest
from hypothesis import Phase, settings
from mutant_patch import Unpatchable, live_functions, patch
from mutant_tests import ROOT, Selection

SECONDS = 120
"""of processor time for the tests against one mutant: many times what they need where nothing is changed"""
WAIT_SECONDS = 900
"""tests that wait for what does not come use none of it"""
UNPATCHABLE = 98
"""the status of a fork in which the mutant could not be put"""


@dataclass(frozen=True)
class Job:
    """A module, its source, those of its mutants, and the tests that are run against each."""

    module: str
    before: str
    texts: Sequence[str]
    selection: Selection


@dataclass(frozen=True)
class Answer:
    """The first test that fails against a job's text, or what else ended it; None where all pass. text: None for the module as it is."""

    job: int
    text: int | None
    failed: str | None


class Copy:
    """A copy of the package that stands first on the path of what it forks, so that mutants reach new processes too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._told = folder / "failed.txt"
        self._seconds = folder / "seconds.json"
        shutil.copytree(ROOT / "kdzoo", folder / "kdzoo", ignore=shutil.ignore_patterns("__pycache__"))
        for other in ROOT.iterdir():
            if other.name not in {"kdzoo", ".git"}:
                (folder / other.name).symlink_to(other)
        for path in (folder / "kdzoo").rglob("*.py"):  # bytecode is kept by whole seconds and size
            os.utime(path, (10**9, 10**9))
        compileall.compile_dir(str(folder / "kdzoo"), quiet=2)

    def first_failures(self, jobs: Sequence[Job]) -> Iterator[Answer]:
        """For each job an answer without a change and, where it is None, one for each of its texts.

        The tests of all jobs are collected once, and the live functions changed in each fork; where a text differs in more
        than the inside of functions, pytest runs anew. The shortest tests run first.
        """
        files = list(dict.fromkeys(file for job in jobs for file in job.selection.files if (ROOT / file).exists()))
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.setsid()
            with os.fdopen(writing, "w") as answers:
                _leave(lambda: self._collect(files, _Trials(self, jobs, answers)))
        os.close(writing)
        try:
            with os.fdopen(reading) as answers:
                for line in answers:
                    yield Answer(**json.loads(line))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        if status:
            raise SystemExit(f"The tests could not be collected or run: {files}")

    def first_failure(self, job: Job, text: int | None, run: Callable[[], None] | None = None) -> str | None:
        """The first test that fails against one text of a job, or without a change; run: instead of pytest, in a fork."""
        path = self._folder / job.module
        original = path.read_text()
        if text is not None:
            path.write_text(job.texts[text])
        try:
            return self._try(run or (lambda: self._collect(job.selection.files, _Named(job.selection))))
        finally:
            path.write_text(original)
            os.utime(path, (10**9, 10**9))

    def run(self, items: Sequence[pytest.Item]) -> None:
        """In a fork: runs collected tests up to the first that fails."""
        teller = _Teller(self._told)
        items[0].config.pluginmanager.register(teller)
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self._told.exists():
                return
        self._seconds.write_text(json.dumps(teller.seconds))

    def path_of(self, module: str) -> str:
        return str(self._folder / module)

    def seconds(self) -> dict[str, float]:
        """What each test took in the last run in which all passed."""
        seconds: dict[str, float] = json.loads(self._seconds.read_text()) if self._seconds.exists() else {}
        return seconds

    def _collect(self, files: Sequence[str], plugin: object) -> None:
        """In a fork: runs pytest on the files with everything imported from this copy."""
        os.environ.update(PYTHONPATH=str(self._folder), PYTHONDONTWRITEBYTECODE="1", KDZOO_TURN="all")
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(self._folder))
        os.chdir(ROOT)
        tests = str(ROOT / "tests")
        for name, module in list(sys.modules.items()):  # of another mutant, or of a test of this tool
            if name.split(".")[0] == "kdzoo" or str(getattr(module, "__file__", None)).startswith(tests):
                del sys.modules[name]
        import kdzoo

        assert Path(kdzoo.__file__).is_relative_to(self._folder), kdzoo.__file__
        words = ["-q", "-x", "-p", "no:cacheprovider", "--rootdir", str(ROOT), "--basetemp", str(self._folder / f"run-{os.getpid()}")]
        there = [file for file in files if (ROOT / file).exists()]
        status = pytest.main([*words, *there], plugins=[_FirstExamples(), _Teller(self._told), plugin])
        if status not in {0, pytest.ExitCode.NO_TESTS_COLLECTED} and not self._told.exists():
            self._told.write_text(f"pytest, with status {status}")

    def _try(self, run: Callable[[], None]) -> str | None:
        """The first test that fails in a fork that runs this, or what else ended it; None where all pass."""
        self._told.unlink(missing_ok=True)
        cache = self._folder / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        child = os.fork()
        if child == 0:
            os.setsid()
            os.environ["KDZOO_CACHE"] = str(cache)
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            _leave(run)
        status = _wait(child)
        if self._told.exists():
            return self._told.read_text()
        if status is None or status == -signal.SIGXCPU:
            return f"more than {SECONDS} seconds"
        if status == UNPATCHABLE:
            raise Unpatchable
        return None if status == 0 else f"status {status}"


class _Named:
    """Keeps the tests that a selection names."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if self._selection.takes(item.nodeid)]


class _Trials:
    """Runs jobs on the collected tests instead of the tests themselves, and writes their answers."""

    def __init__(self, copy: Copy, jobs: Sequence[Job], answers: IO[str]) -> None:
        self._copy = copy
        self._jobs = jobs
        self._answers = answers

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Failed("a file cannot be collected")
        functions = live_functions()
        gc.freeze()  # forks share what is not touched, and a collection touches everything
        seconds: dict[str, float] = {}
        for number, job in enumerate(self._jobs):
            files = {str(ROOT / file) for file in job.selection.files}
            items = [item for item in session.items if str(item.path) in files and job.selection.takes(item.nodeid)]
            new = [item for item in items if item.nodeid not in seconds]
            failed = self._copy.first_failure(job, None, lambda new=new: self._copy.run(new)) if new else None
            self._answer(Answer(number, None, failed))
            if failed is None:
                seconds |= self._copy.seconds()
                items.sort(key=lambda item: seconds[item.nodeid])
                for text in range(len(job.texts)):
                    self._answer(Answer(number, text, self._first_failure(job, text, items, functions) if items else None))
        return True

    def _first_failure(self, job: Job, text: int, items: Sequence[pytest.Item], functions: Sequence[FunctionType]) -> str | None:
        def run() -> None:
            path = self._copy.path_of(job.module)
            patch([function for function in functions if function.__code__.co_filename == path], job.before, job.texts[text])
            self._copy.run(items)

        try:
            return self._copy.first_failure(job, text, run)
        except Unpatchable:
            return self._copy.first_failure(job, text)

    def _answer(self, answer: Answer) -> None:
        self._answers.write(json.dumps(vars(answer)) + "\n")
        self._answers.flush()


class _FirstExamples:
    """Ends Hypothesis's tests at the first example that fails: nobody reads the smallest."""

    def pytest_configure(self) -> None:
        phases = [Phase.explicit, Phase.generate]
        settings.register_profile("first", settings.get_profile(settings.get_current_profile_name()), phases=phases, database=None)
        settings.load_profile("first")


class _Teller:
    """Writes down the first test that fails, and what each takes."""

    def __init__(self, told: Path) -> None:
        self.seconds: dict[str, float] = {}
        self._told = told

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._tell(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._tell(report)
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration * (report.when == "call")

    def _tell(self, report: pytest.CollectReport | pytest.TestReport) -> None:
        if report.failed and not self._told.exists():
            self._told.write_text(report.nodeid)


def _leave(run: Callable[[], None]) -> None:
    """Runs this silently, as the last thing that a fork does."""
    status = 99
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        run()
        status = 0
    except Unpatchable:
        status = UNPATCHABLE
    except BaseException as error:
        print(repr(error), file=sys.__stderr__, flush=True)
    os._exit(status)


def _wait(child: int) -> int | None:
    """The exit status of a child, below 0 for a signal; None where it waited too long. Its group ends with it."""
    end = time.monotonic() + WAIT_SECONDS
    ended = None
    while ended is None and time.monotonic() < end:
        time.sleep(0.01)
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None if ended is None else ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
