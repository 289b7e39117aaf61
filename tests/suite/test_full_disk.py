"""A disk that is full when a file is to be written: it is told, nothing is lost, and the same command ends when there is space."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from filelock import SoftReadWriteLock
from moments import assert_undisturbed, bench, ended, epochs
from processes import members_of_group
from small_disks import small_disk
from test_shared_work import job, published

from kdzoo.errors import InputError
from kdzoo.runs.atomic import StoreError
from kdzoo.runs.events import Note
from kdzoo.runs.fence import Fence
from kdzoo.runs.store import RunFolder
from kdzoo.suite.run.claim import Claim, driving
from kdzoo.suite.run.fill import Measurement, Strategy, keep_measurement
from kdzoo.suite.run.work_folder import End, EventLog, EventTail, JobFolder, WorkFolder

TEACHER = "a teacher's checkpoint"
FILES = {
    "a run's plan": r"driver open odd-\w+/\.run\.json\. 1",
    "the bench's command": r"driver open r/b/\.bench\.json\. 1",
    "a checkpoint": r"worker open odd-\w+/checkpoint/\.state\.pt\. 2",
    "predictions": r"worker open odd-\w+/\.predictions\.npz\. 1",
    "weights": r"worker open odd-\w+/\.student\.safetensors\. 1",
    "a result": r"worker open odd-\w+/\.result\.json\. 1",
    TEACHER: r"worker open none-\w+/checkpoint/\.state\.pt\. 2",
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
    if kind == TEACHER:
        shutil.rmtree(disk / "cache" / "teachers")
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


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", "1m") as folder:
        yield folder


def fill(folder: Path) -> Path:
    """Take all space of a disk; the file that has it."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return filler


def measured_fill(folder: Path) -> None:
    one = Strategy(1)
    keep_measurement(folder, Measurement(2, {one: 0.5}, {}, {"machine": "m" * 3000}))


def drive(folder: Path) -> None:
    with driving(WorkFolder.of_bench(folder), 60.0):
        pass


def claim(folder: Path) -> None:
    one = Claim(published(folder, job("at-1")), "t", 60.0)
    assert one.take() is not None
    one.give_back()


def append(folder: Path) -> None:
    log = EventLog(JobFolder(folder), Fence(folder / "claimed", "t 1"))
    log.append(Note("a first event"))
    log.append(Note("x" * 6000))


WRITES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "paused.json": ("r/paused.json", lambda folder: RunFolder(folder / "r").pause(1, 9)),
    "fill.json": ("fill.json", measured_fill),
    "job.json": ("work/students-[0-9a-f]+/job.json", lambda folder: published(folder, job("at-1"))),
    "the lease of a worker": ("work/students-[0-9a-f]+", claim),
    "events.jsonl": ("events.jsonl", append),
    "end.json": ("end.json", lambda folder: JobFolder(folder).write_end(End(failed="as planned"))),
    "the lease of a driver": ("work", drive),
}


@pytest.mark.parametrize("kind", WRITES)
def test_a_full_disk_is_told_by_whoever_writes_what_workers_share(small: Path, kind: str) -> None:
    """Nothing of what was there is lost, and the same is written when there is space."""
    name, write = WRITES[kind]
    (small / "r").mkdir()
    (small / "claimed").write_text("t 1")
    if kind == "the lease of a worker":
        published(small, job("at-1"))
    before = contents(small)
    filler = fill(small)
    with pytest.raises((StoreError, InputError), match=rf"cannot (write|write to|claim) {small}/{name}.*: No space left on device$"):
        write(small)
    filler.unlink()
    assert {path: text for path, text in contents(small).items() if path in before} == before
    assert not list(small.rglob("*.part"))
    write(small)
    if kind == "events.jsonl":
        assert [event.text[:7] for event in notes_of(small)][-2:] == ["a first", "x" * 7]


def notes_of(folder: Path) -> list[Note]:
    return [event for event in EventTail(JobFolder(folder)).new_events() if isinstance(event, Note)]


def test_a_claim_whose_mark_does_not_fit_any_more_is_told_and_given_back(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = published(small, job("at-1"))
    acquire = SoftReadWriteLock.acquire_write

    def acquire_then_fill(lock: SoftReadWriteLock, **options: bool) -> None:
        acquire(lock, **options)
        fill(small)

    with monkeypatch.context() as patch:
        patch.setattr(SoftReadWriteLock, "acquire_write", acquire_then_fill)
        with pytest.raises(StoreError, match=f"^cannot write {folder.path}/claimed: No space left on device$"):
            Claim(folder, "t", 1.0).take()
    (small / "filler").unlink()
    other, deadline = Claim(folder, "t", 1.0), time.monotonic() + 10
    while (fence := other.take()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    fence.check()
    other.give_back()


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
