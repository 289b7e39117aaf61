"""What kdzoo claims of its speed, each claim as a test: pytest benchmarks/bench_claims.py

They are no part of the tests, which a busy machine must not fail: run them on one that does nothing else.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "suite"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from losses import LARGEST_SHARE, LAYERS_TAKE_MORE, PAIRS, Loss, Pair, losses_on, measured, names_without_networks, share
from losses import pair as build_pair
from test_leaderboard import objective, write

from kdzoo.suite.report.table_files import write_tables

CPU = torch.device("cpu")
CNNS, VITS = PAIRS
SAMPLED, SEED = 8, 0
"""how many losses are timed on the ViTs, and which"""
LIBRARIES, LIBRARIES_SECONDS = "import pandas, pydantic, rich.table, typer", 0.33
"""what tables are made with, and how long an idle core takes to import it"""


def seconds_to(*words: str) -> float:
    """How long a command takes an idle core: its processor time, with that of the libraries' imports beside it as the clock.

    Neighbours stretch processor time too, by caches and clock rates, and both of them alike.
    """
    times = [(processor_seconds("-m", "kdzoo", *words), processor_seconds("-c", LIBRARIES)) for _ in range(3)]
    command, libraries = (min(column) for column in zip(*times, strict=True))
    return command / libraries * LIBRARIES_SECONDS


def processor_seconds(*words: str) -> float:
    """The processor time of one run of Python, with compiled modules kept between starts, as an installed package has them."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, capture_output=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_help_and_status_answer_within_a_second(folder: Path) -> None:
    for words in (["--help"], ["bench", "--help"], ["status"]):
        assert seconds_to(*words) < 1, words


def test_lists_answer_within_a_second(folder: Path) -> None:
    """None of them imports torch (tests/test_cli.py). That of studies reads fourteen files and counts their runs."""
    for words in (["methods"], ["explain", "at+hinton", "--alpha", "0.9"], ["data"], ["networks"], ["pairs"], ["recipes"], ["teachers"]):
        assert seconds_to(*words) < 1, words
    assert seconds_to("reproduce") < 2


def test_a_dry_run_takes_five_seconds_and_a_bench_with_nothing_to_do_one(folder: Path) -> None:
    assert seconds_to("bench", "--dry-run") < 5.5, "torch and timm are three of them"
    subprocess.run([sys.executable, "-m", "kdzoo", "bench", *SMALL], check=True, capture_output=True)
    for words in (["bench", *SMALL], ["bench", *SMALL, "--dry-run"]):
        assert seconds_to(*words) < 1.5, words


SMALL = ("--threads", "1", "--jobs", "1", "--epochs", "1", "--seeds", "2", "--methods", "hinton", "--temperatures", "4")


def test_tables_answer_within_a_second(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "kdzoo", "bench", *SMALL], check=True, capture_output=True)
    for words in (["status", "digits"], ["leaderboard", "digits"], ["compare", "digits", "digits"]):
        assert seconds_to(*words) < 1, words


def test_five_hundred_runs_make_their_tables_in_two_seconds(folder: Path) -> None:
    for seed in range(50):
        for temperature in range(1, 11):
            write(folder / "big", objective("hinton", float(temperature)), seed, val=0.8 + seed / 1000, test=0.8)
    began = time.process_time()
    write_tables(folder / "big")
    assert time.process_time() - began < 2


def too_dear(pair: Pair, losses: Mapping[str, Loss]) -> dict[str, float]:
    """Losses that cost more than LARGEST_SHARE in each of three measurements, with the least found: noise does not come thrice."""
    least: dict[str, float] = {}
    left = dict(losses)
    for _ in range(3):
        steps, spent = measured(pair, list(left.values()), rounds=3)
        for name, seconds in zip(left, spent, strict=True):
            least[name] = min(least.get(name, float("inf")), share(steps, seconds))
        left = {name: loss for name, loss in left.items() if least[name] > LARGEST_SHARE}
        if not left:
            break
    return {name: least[name] for name in left}


def timed_names(choose: Callable[[list[str]], Iterable[str]]) -> Iterable[str]:
    return choose([name for name in names_without_networks() if name not in LAYERS_TAKE_MORE])


def test_no_loss_costs_more_than_a_quarter_of_a_cnns_step() -> None:
    """Processor time of this process, in ratio to the step's in the same round, so that a busy machine changes little."""
    pair = build_pair(CNNS, CPU)
    assert too_dear(pair, losses_on(pair, timed_names(list))) == {}


def test_nor_of_a_vits_by_a_sample_of_them() -> None:
    """On one stage of 8x8 cells all are cheap, those with layers too."""
    pair = build_pair(VITS, CPU)
    names = timed_names(lambda found: random.Random(SEED).sample(found, SAMPLED))
    assert too_dear(pair, losses_on(pair, names)) == {}
