"""Run folders, locked while their run is trained, and the stores that hold them. Free of torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from kdzoo.errors import InputError
from kdzoo.files import cache_folder, read_file, read_text
from kdzoo.runs.atomic import read_record_file, set_aside, write_bytes
from kdzoo.runs.failure import Failure, read_failure
from kdzoo.runs.fence import Fence
from kdzoo.runs.locks import file_lock
from kdzoo.runs.plan_text import PlanText, PlanTexts
from kdzoo.runs.read_run import PlanFile, read_plan_file
from kdzoo.runs.result_file import NewerSchema, complete, last_epoch_metrics, parse_result, read_result
from kdzoo.runs.sealed_json import read_sealed_json, write_sealed_json
from kdzoo.runs.spec import Run

State = Literal["done", "failed", "damaged", "paused", "started", "new"]

Stamp = tuple[int, ...]
"""number, size and times of a file: while they are the same, nobody has written it anew"""


class KnownRun(NamedTuple):
    """A run that is done, as its files were read; they are not read again while they have these stamps. Not to be changed.

    plan: what run.json says; None, as its stamp is, where it is not the text that was planned.
    """

    result_stamp: Stamp
    result: dict[str, Any]
    plan_stamp: Stamp | None
    plan: PlanFile | None


PAUSED = "paused.json"
"""the file of a run that was trained for a part of its epochs and may go on"""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; `path.name` is the run's id.

    fence: the claim under which it is written, where workers on several machines share the runs.
    """

    path: Path
    fence: Fence | None = field(default=None, compare=False)

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint" / "state.pt"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def student(self) -> Path:
        return self.path / "student.safetensors"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.npz"

    def plan(self, run: Run, about: Mapping[str, Any], texts: PlanTexts | None = None) -> str | None:
        """Write run.json, unless the folder has it already; a damaged one is renamed. Returns what was wrong with it, or None.

        Files may have moved since a run was planned that is not done yet: its record is then written anew. That of a
        done run stays, for it says what the run was trained from. texts: those of other runs with the same record, if any.
        """
        assert run.id == self.id
        file, fault = self.path / "run.json", None
        if file.exists():
            try:
                earlier = self.plan_file()
                if earlier.parts == run.parts and earlier.about == about:
                    return None
                if earlier.faults:  # no bench and no table could read it
                    raise InputError(f"{file}: damaged ({'; '.join(earlier.faults)})")
                if earlier.about.get("paths") == about.get("paths") or self.state() == "done":
                    return None
            except InputError as error:
                fault = f"{error.problems[0]}; it is written again, and the old file is kept as {set_aside(file).name}"
        self.check_claim()
        write_bytes(file, (texts or PlanTexts()).of(run, about).text)
        return fault

    def has_plan(self, planned: PlanText) -> bool:
        """Whether run.json is this text, byte for byte."""
        try:
            return planned.is_that_of(read_file(f"{self.path}/run.json"))
        except OSError:  # none, or one that cannot be read
            return False

    def read_plan(self) -> tuple[Run, dict[str, Any]]:
        """The run and what is recorded beside it; raises InputError when run.json is missing or damaged."""
        plan = self.plan_file()
        return plan.run, plan.about

    def plan_file(self) -> PlanFile:
        """All that run.json says; raises InputError as `read_plan` does."""
        file = f"{self.path}/run.json"
        return read_plan_file(read_record_file(file), self.id, file)

    def state(self) -> State:
        """`done` where a whole result.json is; `damaged` where it is there but a bench or a table cannot read it.

        `paused` where a search within a budget has trained it for a part of its epochs, `started` where it was interrupted.
        """
        if self.has_result():
            try:
                self.result()
            except InputError:
                return "damaged"
            return "done"
        if (self.path / "error.txt").exists():
            return "failed"
        if self.paused_after() is not None:
            return "paused"
        return "started" if self.checkpoint.exists() else "new"

    def has_result(self) -> bool:
        """Whether there is a result.json, whole or not."""
        return os.path.exists(f"{self.path}/result.json")

    def _stamp(self, name: str) -> Stamp | None:
        """What changes when another file takes the place of one that is there; None where there is none."""
        try:
            status = os.stat(f"{self.path}/{name}")
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def known_run(self, run: Run, about: Mapping[str, Any], texts: PlanTexts) -> KnownRun | None:
        """The run as it is now, where it is done; None where it has no whole result. Raises NewerSchema as `result` does.

        run, about: what is planned. texts: of those beside it.
        """
        result_stamp, plan_stamp = self._stamp("result.json"), self._stamp("run.json")  # first: no file is newer than what was read
        if result_stamp is None:
            return None
        try:
            result = self.result()
        except InputError:
            return None
        planned = texts.of(run, about)
        as_planned = plan_stamp is not None and self.has_plan(planned)
        return KnownRun(result_stamp, result, *((plan_stamp, planned.content) if as_planned else (None, None)))

    def has_result_of(self, known: KnownRun) -> bool:
        """Whether result.json is still the file that was read."""
        return self._stamp("result.json") == known.result_stamp

    def has_plan_of(self, known: KnownRun) -> bool:
        """Whether run.json is still the file that was read."""
        return known.plan is not None and self._stamp("run.json") == known.plan_stamp

    def pause(self, epoch: int, epochs: int) -> None:
        """Record that the run was trained for so many of its epochs, as a search within a budget asked, and that it may go on."""
        self.check_claim()
        write_sealed_json(self.path / PAUSED, {"id": self.id, "epoch": epoch, "epochs": epochs})

    def go_on(self) -> None:
        """Forget that the run was paused: it is trained on."""
        if (self.path / PAUSED).exists():
            self.check_claim()
            (self.path / PAUSED).unlink()

    def paused_after(self) -> int | None:
        """After how many epochs a run was paused; None where it was not, or where its file does not say."""
        try:
            paused = read_sealed_json(self.path / PAUSED)
        except InputError:  # none, or a damaged one: the run is then an interrupted one, and comes to its epoch again
            return None
        epoch = paused.get("epoch")
        return epoch if isinstance(epoch, int) and paused.get("id") == self.id else None

    def is_over(self, until: int | None) -> bool:
        """Whether a run that is to be trained to the end of an epoch, None for its last, needs no more training."""
        paused = self.paused_after() if until is not None else None
        return self.state() in ("done", "failed") or (until is not None and paused is not None and paused >= until)

    def result(self) -> dict[str, Any]:
        """The content of result.json, under the present names; raises InputError, with all that is wrong, when it is missing or damaged.

        It is not to be changed: results share what they have in common. Raises NewerSchema where a later kdzoo wrote it.
        """
        file = f"{self.path}/result.json"
        content = parse_result(read_record_file(file), file)
        try:
            return read_result(content, self.id)
        except InputError as error:
            raise InputError(f"{file}: damaged ({'; '.join(error.problems)})") from error
        except NewerSchema as error:
            raise NewerSchema(f"{file}: {error}") from error

    def test_metrics(self) -> Mapping[str, Any]:
        """What was measured on the test images after the last epoch; raises as `result` does."""
        return last_epoch_metrics(self.result(), "test") or {}

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write result.json, which makes the run done, and drop an older failure; the result as it is written.

        Raises ValueError where the result is not complete.
        """
        whole = complete(result)
        self.check_claim()
        write_sealed_json(self.path / "result.json", whole)
        (self.path / "error.txt").unlink(missing_ok=True)
        return whole

    def fail(self, text: str) -> None:
        """Keep the traceback of a failure."""
        self.check_claim()
        write_bytes(self.path / "error.txt", text.encode())

    def check_claim(self) -> None:
        """Raises ClaimLost where another worker has taken over the runs that this one claims; called before every write."""
        if self.fence is not None:
            self.fence.check()

    def give_sign_of_life(self) -> None:
        """Say that this run is being trained: its folder changes, as it does with every file that is made in it."""
        with contextlib.suppress(OSError):  # no run fails because of it; what is wrong with its folder is told when it is written to
            os.utime(self.path)

    def last_sign_of_life(self) -> float:
        """When a run's folder last changed, in seconds since 1970; raises OSError where there is none."""
        return self.path.stat().st_mtime

    def failure(self) -> Failure:
        """Why the run failed, as error.txt tells; without a reason where that is missing or no plain file."""
        try:
            return read_failure(read_text(self.path / "error.txt"))
        except OSError:
            return read_failure("")

    def reset(self) -> None:
        """Make a failed or damaged run new again; a result that is there is renamed."""
        (self.path / "error.txt").unlink(missing_ok=True)
        if (self.path / "result.json").exists():
            set_aside(self.path / "result.json")

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Lock the run for this process while it is worked on; yields False where another process holds it.

        The lock is the operating system's: it goes with the process, however that ends. Raises StoreError where there is none to have.
        """
        with file_lock(self.path / ".lock", wait=False) as free:
            yield free


@dataclass(frozen=True)
class Store:
    """The runs below one folder, `<folder>/runs/<id>/`. fence: the claim under which they are written, where they are shared."""

    folder: Path
    fence: Fence | None = field(default=None, compare=False)

    @cached_property
    def place(self) -> Path:
        """The folder of the runs."""
        return self.folder / "runs"

    def run(self, run_id: str) -> RunFolder:
        return RunFolder(self.place / run_id, self.fence)

    def ids(self) -> list[str]:
        """The ids of all run folders, in order."""
        if not self.place.is_dir():
            return []
        with os.scandir(self.place) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())


def teacher_store() -> Store:
    """The store of trained teachers, shared by all benches."""
    return Store(cache_folder() / "teachers")


def is_teacher(folder: RunFolder) -> bool:
    """Whether a run is kept among the teachers, and counts for no bench."""
    return folder.path.parent.parent == teacher_store().folder
