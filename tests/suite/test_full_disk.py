"""A disk that is full when a file is to be written: it is told, nothing is lost, and the same command ends when there is space."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from moments import assert_undisturbed, bench, ended, epochs
from processes import members_of_group
from small_disks import small_disk

FILES = {
    "a run's plan": r"driver open odd-\w+/\.run\.json\. 1",
    "the bench's command": r"driver open r/b/\.bench\.json\. 1",
    "a checkpoint": r"worker open odd-\w+/checkpoint/\.state\.pt\. 2",
    "predictions": r"worker open odd-\w+/\.predictions\.npz\. 1",
    "weights": r"worker open odd-\w+/\.student\.safetensors\. 1",
    "a result": r"worker open odd-\w+/\.result\.json\. 1",
    "a table": r"driver open r/b/\.leaderboard\.csv\. 1",
}
LINE = "worker step 2 1"
"""in the first epoch, before its line"""


@pytest.fixture
def disk(calm: Path, tmp_path: Path) -> Iterator[Path]:
    """A disk that holds the results and a cache with a teacher."""
    with small_disk(tmp_path / "disk", "40m") as folder:
        shutil.copytree(calm / "cache", folder / "cache")
        yield folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*FILES, "a line of the metrics"])
def test_a_disk_that_is_full_at_any_kind_of_file_costs_nothing_that_was_there(disk: Path, calm: Path, kind: str) -> None:
    options = ("--checkpoint-seconds", "1000") if kind not in FILES else ()
    process = bench(disk, *options, moment=f"{FILES.get(kind, LINE)} fill")
    output, _ = process.communicate(timeout=240)
    assert (disk / "filler").stat().st_size > 1_000_000, "it was not filled"
    assert process.returncode == 2, output
    assert "cannot write" in output
    assert "No space left on device" in output
    assert "Traceback" not in output
    assert members_of_group(process.pid) == []
    assert not list((disk / "r").rglob(".*.part")), "what did not fit is removed"
    (disk / "filler").unlink()
    ended(bench(disk))
    assert_undisturbed(disk, calm)


@pytest.mark.slow
def test_a_cache_without_space_costs_no_result_and_is_told(calm: Path, tmp_path: Path) -> None:
    """Rows of the teacher's cache, its predictions, the log of a method that prints, costs, the record of what is finished."""
    with small_disk(tmp_path / "cache", "40m") as cache:
        shutil.copytree(calm / "cache", cache, dirs_exist_ok=True)
        shutil.rmtree(cache / "teacher-cache")
        (cache / "costs.json").unlink()
        environment = {"KDZOO_TEST_PRINT": "1", "KDZOO_TEST_FILL": str(cache)}
        output = ended(bench(tmp_path, moment=r"driver open r/b/\.bench\.json\. 1 fill", environment=environment))
        assert (cache / "filler").stat().st_size > 1_000_000, "it was not filled"
    shutil.copytree(calm / "cache", tmp_path / "cache", dirs_exist_ok=True)
    assert "teacher cache" in output
    assert "No space left on device" in output
    assert_undisturbed(tmp_path, calm)


@pytest.mark.slow
def test_doses_that_cannot_be_written_are_measured_again(disk: Path) -> None:
    words, doses = ["--methods", "odd"], ["--doses", "0.5"]
    process = bench(disk, *words, weights=doses, moment=r"worker open r/b/\.doses\.json\. 1 fill")
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 2, output
    assert "cannot write r/b/doses.json: No space left on device" in output
    (disk / "filler").unlink()
    ended(bench(disk, *words, weights=doses))
    doses_there = json.loads((disk / "r/b/doses.json").read_text())["doses"].values()
    assert {dose["method"]: dose["ratio"] > 0 for dose in doses_there} == {"odd": True, "hinton": True}
    assert all(len(epochs(run)) == 2 for run in (disk / "r/b/runs").iterdir())
