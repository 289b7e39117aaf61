"""A place of one's own: results and caches below a temporary folder, and the command line as a function."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported; spinning threads make tiny operations twenty times slower
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # where a test asks for two threads, they sleep while they wait, as a bench's do

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import turns
from hypothesis import HealthCheck, settings
from registries import registered_for_a_while
from warm_python import FORWARDS, STEPS, NewPopen, WorkerPopen, run_warm

# How long an example takes, or to draw one, is the machine's doing, and no test claims it.
settings.register_profile("kdzoo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kdzoo")


def pytest_report_header() -> str:
    return turns.report()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests begin first, so that the end is many short ones that all processes share."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@dataclass(frozen=True)
class CommandResult:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with kdzoo's cache below it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.delenv("KDZOO_DATA", raising=False)
    return tmp_path


@pytest.fixture(autouse=True, scope="session")
def _warm_workers() -> Iterator[None]:
    """The workers of a bench in this process are forked of a Python that has imported everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", WorkerPopen)
        yield


@pytest.fixture(autouse=True, scope="session")
def _few_timings() -> Iterator[tuple[int, int]]:
    """What is trained in this process is timed a few times; the numbers of a user's run, forwards and steps.

    Nothing but the times themselves depends on it, and how good they are is claimed where `all_timings` is asked for.
    """
    from kdzoo.training import cost, latency

    before = latency.REPEATS, cost.TIMED
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "REPEATS", FORWARDS)
        patch.setattr(cost, "TIMED", STEPS)
        yield before


@pytest.fixture
def all_timings(_few_timings: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are timed as often as a user's."""
    from kdzoo.training import cost, latency

    forwards, steps = _few_timings
    monkeypatch.setattr(latency, "REPEATS", forwards)
    monkeypatch.setattr(cost, "TIMED", steps)


@pytest.fixture
def new_interpreters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers of a bench in this process are started, not forked: for claims of what they are started with."""
    monkeypatch.setattr(subprocess, "Popen", NewPopen)


@pytest.fixture
def kdzoo(place: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """The command line in this process: the same parser, the same errors, the same status."""
    from kdzoo.cli.app import DEBUG, status_of

    def run(*words: object) -> CommandResult:
        given = list(map(str, words))
        capsys.readouterr()
        status = status_of([word for word in given if word != DEBUG], debug=DEBUG in given)
        said = capsys.readouterr()
        return CommandResult(status, said.out, said.err)

    return run


@pytest.fixture
def train_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command line trains is trained in this process, as `kdzoo.bench` trains what exists only there.

    For claims that are not about worker processes: to start one takes ten seconds of processor time.
    """
    monkeypatch.setenv("KDZOO_LAUNCHER", "here")


@pytest.fixture
def kdzoo_process(place: Path) -> Callable[..., CommandResult]:
    """The command line as a user starts it, in a process of its own."""

    def run(*words: object) -> CommandResult:
        done = run_warm([sys.executable, "-m", "kdzoo", *map(str, words)], cwd=place, env={**os.environ, "COLUMNS": "120"})
        return CommandResult(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(autouse=True)
def _threads_after_a_test() -> Iterator[None]:
    """A test that changes torch's number of threads, as commands do that train in this process, changes it for itself alone.

    With two threads sums have other last bits, and where processes share cores a step takes many times as long.
    """
    import torch

    before = torch.get_num_threads()
    yield
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="module")
def _registries_after_a_file() -> Iterator[None]:
    """What a fixture of a whole file registers is gone after the file: the fixture below sees it as there before its test."""
    with registered_for_a_while():
        yield


@pytest.fixture(autouse=True)
def _registries_after_a_test() -> Iterator[None]:
    """What a test registers in this process is gone after it."""
    with registered_for_a_while():
        yield
