"""A process killed at each of the moments that the store knows costs no result: the same command ends as if nothing had been."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from moments import EPOCHS, assert_undisturbed, bench, ended
from processes import members_of_group

from kdzoo.runs.store import Store

PLANNED = {
    "the bench's command is about to be kept": r"r/b/bench\.json$",
    "some runs are planned, another one is about to be": r"odd-\w+/run\.json$",
}
"""what only a driver does before anything is trained"""
TRAINED = {
    "a run is about to begin": r"os.rename odd-\w+/metrics\.jsonl$ 1",
    "the first checkpoint is written but has no name": r"os.rename odd-\w+/checkpoint/state\.pt$ 1",
    "the first checkpoint is there, the second is not": r"os.rename odd-\w+/checkpoint/state\.pt$ 2",
    "in the middle of the second epoch": f"step {EPOCHS} 6",
    "the line of the first epoch is written, its checkpoint is not": r"os.rename odd-\w+/checkpoint/state\.pt$ 4",
    "predictions are written but have no name": r"os.rename odd-\w+/predictions\.npz$ 1",
    "predictions are there, weights are not": r"open odd-\w+/\.student\.safetensors\.\w+\.part$ 1",
    "the result is written but has no name": r"os.rename odd-\w+/result\.json$ 1",
    "the result has its name": r"os.remove odd-\w+/error\.txt$ 1",
}
"""what a worker does with a run"""
TAUGHT = {
    "the teacher's first checkpoint is there": r"os.rename teachers/runs/[\w-]+/checkpoint/state\.pt$ 2",
    "the teacher's weights are written but have no name": r"os.rename teachers/runs/[\w-]+/student\.safetensors$ 1",
    "the teacher's result has its name": r"os.remove teachers/runs/[\w-]+/error\.txt$ 1",
}
TABLES = {
    "no table is there": r"r/b/runs\.csv$",
    "one table is there, two are not": r"r/b/leaderboard\.csv$",
    "two tables are there, one is not": r"r/b/leaderboard\.md$",
}


@pytest.fixture
def folder(calm: Path, tmp_path: Path) -> Path:
    """An empty folder with a teacher in its cache."""
    shutil.copytree(calm / "cache", tmp_path / "cache")
    return tmp_path


def killed(folder: Path, moment: str, act: str, *, who: str = "worker") -> subprocess.Popen[str]:
    """A bench that is killed, or whose worker is, at a moment."""
    return bench(folder, moment=f"{who} {moment} {act}")


def unfinished(folder: Path) -> list[Path]:
    """Files that were being written."""
    return [file for place in ("r", "cache/teachers") for file in (folder / place).rglob(".*.part")]


def assert_nothing_is_left(folder: Path, *groups: int) -> None:
    """No process, and no lock that is held."""
    assert [process for group in groups for process in members_of_group(group)] == []
    for store in (Store(folder / "r/b"), Store(folder / "cache/teachers")):
        for run_id in store.ids():
            with store.run(run_id).lock() as free:
                assert free, f"{run_id} is locked"


@pytest.mark.slow
@pytest.mark.parametrize("moment", TRAINED)
def test_a_worker_that_is_killed_is_replaced_and_its_run_goes_on(folder: Path, calm: Path, moment: str) -> None:
    process = killed(folder, TRAINED[moment], "kill")
    output = ended(process)
    assert (folder / "reached").exists(), "the moment never came"
    assert "a worker was killed by SIGKILL" in output
    assert_nothing_is_left(folder, process.pid)
    assert_undisturbed(folder, calm)


@pytest.mark.slow
@pytest.mark.parametrize("moment", TRAINED)
def test_a_driver_that_is_killed_takes_its_workers_with_it_and_the_same_command_ends(folder: Path, calm: Path, moment: str) -> None:
    """At every second moment the worker dies with it, as with the machine; else it notices that its driver is gone."""
    act = "kill-all" if list(TRAINED).index(moment) % 2 else "kill-driver"
    process = killed(folder, TRAINED[moment], act)
    ended(process, -9)
    assert (folder / "reached").exists(), "the moment never came"
    assert_nothing_is_left(folder, process.pid)
    for file in unfinished(folder):
        os.utime(file, (0, 0))  # what is new may be another process's, which is writing it
    again = bench(folder)
    ended(again)
    assert_nothing_is_left(folder, again.pid)
    assert unfinished(folder) == []
    assert_undisturbed(folder, calm)


@pytest.mark.slow
def test_a_driver_that_is_killed_again_and_again_before_anything_is_trained_plans_every_run_once(folder: Path, calm: Path) -> None:
    for place in PLANNED.values():
        ended(killed(folder, f"os.rename {place} 1", "kill", who="driver"), -9)
        (folder / "reached").unlink()
    again = bench(folder)
    ended(again)
    assert_nothing_is_left(folder, again.pid)
    assert_undisturbed(folder, calm)


@pytest.mark.slow
@pytest.mark.parametrize("moment", TABLES)
def test_tables_that_were_half_written_are_written_again_from_the_runs(folder: Path, calm: Path, moment: str) -> None:
    process = killed(folder, f"os.rename {TABLES[moment]} 1", "kill", who="driver")
    ended(process, -9)
    assert (folder / "reached").exists(), "the moment never came"
    again = bench(folder)
    assert "3 done" in ended(again), "nothing is trained again"
    assert_nothing_is_left(folder, process.pid, again.pid)
    assert_undisturbed(folder, calm)


@pytest.mark.slow
@pytest.mark.parametrize("moment", TAUGHT)
def test_a_worker_that_is_killed_with_a_teacher_goes_on_with_it(tmp_path: Path, calm: Path, moment: str) -> None:
    process = killed(tmp_path, TAUGHT[moment], "kill")
    assert "was killed by SIGKILL" in ended(process)
    assert (tmp_path / "reached").exists(), "the moment never came"
    assert_nothing_is_left(tmp_path, process.pid)
    assert_undisturbed(tmp_path, calm)
