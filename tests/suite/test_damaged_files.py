"""Small files of kdzoo's own that are cut, zeroed, flipped or swapped: each is read as what was written, or counts as none, or is told."""

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_shared_work import job, published

from kdzoo.errors import InputError
from kdzoo.runs.costs import RunCost, keep_costs, read_costs
from kdzoo.runs.events import Note, RunDone
from kdzoo.runs.fence import ClaimLost, Fence
from kdzoo.runs.store import RunFolder
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.doses import MeasuredRatio, keep_doses, read_doses
from kdzoo.suite.plan.starts import Start, keep_start, read_starts
from kdzoo.suite.run.claim import Claim
from kdzoo.suite.run.fill import Measurement, Strategy, keep_measurement, read_measurement
from kdzoo.suite.run.take_work import do_claimed
from kdzoo.suite.run.work_folder import End, EventLog, EventTail, JobFolder


@dataclass(frozen=True)
class Kind:
    """A kind of file. write: put it into a folder, for one of two runs, jobs or benches; returns the file.

    read: what a bench or a worker reads of it. nothing: what is read where it does not count, and is made again; told: a part
    of the message where it is told instead.
    """

    write: Callable[[Path, str], Path]
    read: Callable[[Path], object]
    nothing: Sequence[object] = ()
    told: str = ""


def write_paused(folder: Path, run: str) -> Path:
    RunFolder(folder / run).pause({"one": 3, "other": 5}[run], 9)
    return folder / run / "paused.json"


def write_job(folder: Path, run: str) -> Path:
    return published(folder / "bench", job(run)).path / "job.json"


def write_end(folder: Path, run: str) -> Path:
    at = JobFolder(folder / run)
    at.write_end(End(failed="its teacher is at chance") if run == "one" else End())
    return at.path / "end.json"


def write_events(folder: Path, run: str) -> Path:
    at = JobFolder(folder / run)
    at.path.mkdir()
    (at.path / "claimed").write_text("t 1")
    for event in (Note("begins"), RunDone(run, "at", "alpha 0.5", 0, "classification", None, 0.5, 1.0)):
        EventLog(at, Fence(at.path / "claimed", "t 1")).append(event)
    return at.events


def write_claimed(folder: Path, run: str) -> Path:
    file = folder / run / "claimed"
    file.parent.mkdir()
    file.write_text(f"{run} 1 host-3")
    return file


def may_write(file: Path) -> bool:
    Fence(file, "one 1 host-3").check()
    return True


def write_fill(folder: Path, run: str) -> Path:
    keep_measurement(folder / run, Measurement(2, {Strategy(1): 0.5, Strategy(2): 0.25}, {}, {"plan": run}))
    return folder / run / "fill.json"


def write_doses(folder: Path, run: str) -> Path:
    (folder / run).mkdir()
    keep_doses(folder / run, {run: MeasuredRatio("at", "at", {}, "a/b", "digits", "digits", 3, 0.125, 1.0, 8.0, 4, 16)})
    return folder / run / "doses.json"


def write_start(folder: Path, run: str) -> Path:
    (folder / run).mkdir()
    keep_start(folder / run, Start.of("kdzoo bench", BenchConfig(name=run), ["at-1", "at-2"]))
    return folder / run / "bench.json"


def write_costs(folder: Path, run: str) -> Path:
    """The other one is a file of another kind: there is one record of costs on a machine."""
    if run == "other":
        return write_doses(folder, run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDZOO_CACHE", str(folder / run))
        keep_costs({"kind": RunCost(1.0, 0.5, 0.25)})
    return folder / run / "costs.json"


def costs_at(file: Path) -> dict[str, RunCost]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDZOO_CACHE", str(file.parent))
        return read_costs()


KINDS: dict[str, Kind] = {
    "paused.json": Kind(write_paused, lambda file: RunFolder(file.parent).paused_after(), [None]),
    "job.json": Kind(write_job, lambda file: JobFolder(file.parent).read(), told="the same `kdzoo bench` again writes it anew"),
    "end.json": Kind(write_end, lambda file: JobFolder(file.parent).end(), [None]),
    "events.jsonl": Kind(
        write_events,
        lambda file: [event for event in EventTail(JobFolder(file.parent)).new_events() if getattr(event, "id", "one") == "one"],
        [[], [Note("begins")], [RunDone("one", "at", "alpha 0.5", 0, "classification", None, 0.5, 1.0)]],
    ),
    "claimed": Kind(write_claimed, may_write, told="another worker has taken over this job"),
    "fill.json": Kind(write_fill, lambda file: read_measurement(file.parent, {"plan": "one"}), [None]),
    "doses.json": Kind(
        write_doses, lambda file: read_doses(file.parent).get("one"), [None], told="delete it to have the doses measured again"
    ),
    "bench.json": Kind(
        write_start,
        lambda file: [start.runs for start in read_starts(file.parent) if start.config["name"] == "one"],
        [[]],
        told="bench.json: damaged (",
    ),
    "costs.json": Kind(write_costs, costs_at, [{}]),
}


def damage(file: Path, other: Path, how: str) -> None:
    content = file.read_bytes()
    match how:
        case "empty":
            file.write_bytes(b"")
        case "cut":
            file.write_bytes(content[: len(content) // 2])
        case "zeroed":
            file.write_bytes(bytes(len(content)))
        case "half of it zeroed":
            file.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
        case "nested":
            file.write_bytes(b"[" * 100_000)
        case "a folder":
            file.unlink()
            file.mkdir()
        case "swapped":
            shutil.copyfile(other, file)


@pytest.mark.parametrize("how", ["empty", "cut", "zeroed", "half of it zeroed", "nested", "a folder", "swapped"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_counts_as_none_or_is_told(tmp_path: Path, kind: str, how: str) -> None:
    of = KINDS[kind]
    file, other = of.write(tmp_path, "one"), of.write(tmp_path, "other")
    damage(file, other, how)
    assert_none_or_told(of, file, sound=None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_changes_nothing_that_is_read(tmp_path: Path, kind: str) -> None:
    """In each of the last bytes, where a digest stands, and in bytes drawn from all."""
    of = KINDS[kind]
    file = of.write(tmp_path, "one")
    content, sound = file.read_bytes(), of.read(file)
    places = [*range(max(0, len(content) - 90), len(content)), *(random.Random(seed).randrange(len(content)) for seed in range(60))]
    for number, at in enumerate(places):
        changed = bytearray(content)
        changed[at] ^= 1 << number % 8
        file.write_bytes(changed)
        assert_none_or_told(of, file, sound)


def assert_none_or_told(of: Kind, file: Path, sound: object) -> None:
    found = outcome(of, file)
    if isinstance(found, str):
        assert of.told
        assert of.told in found
    else:
        assert found in ([*of.nothing] if sound is None else [*of.nothing, sound])


def outcome(of: Kind, file: Path) -> object:
    """What is read, or the message that is told."""
    try:
        return of.read(file)
    except (InputError, ClaimLost) as error:
        return str(error)


class NoWorkers:
    """Whoever asks for a worker here would train."""

    def launcher_for(self, *_: object) -> object:
        raise WouldTrain

    def close(self) -> None: ...


class WouldTrain(Exception):
    pass


def test_a_job_whose_end_cannot_be_read_is_done_again_and_told(tmp_path: Path) -> None:
    """Whether it was refused, or its teacher failed, nobody knows; of its runs only those are trained that are not over."""
    folder = published(tmp_path, job("at-1"))
    folder.write_end(End(failed="its teacher is at chance"))
    file = folder.path / "end.json"
    file.write_bytes(file.read_bytes().replace(b"chance", b"choice"))
    assert folder.end() is None
    told: list[object] = []
    shared = folder.read()
    with pytest.raises(WouldTrain):
        do_claimed(folder, shared, Claim(folder, shared.token, 60.0), NoWorkers(), told.append, lambda: False)
    (note,) = told
    assert isinstance(note, Note)
    assert note.text == f"{file}: damaged; the job is done again, but for runs that are over, and the file is kept as end.json.damaged"
