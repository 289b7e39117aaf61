"""Jobs as files in a bench's folder, for workers on every machine that sees it. Free of torch.

<bench>/work/<job>/  job.json     what is to be done, and what a machine needs for it
                     claim.rw/    the lease of the worker that does it (filelock's)
                     claimed      the mark of the latest claim, which fences off earlier ones
                     events.jsonl what its workers told, one event a line
                     end.json     written last: its presence, whole, means that the job has ended
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdzoo.contract.code_version import version_of_plugin
from kdzoo.errors import InputError
from kdzoo.files import cache_folder
from kdzoo.runs.atomic import StoreError, set_aside
from kdzoo.runs.events import Event, decode, encode
from kdzoo.runs.fence import Fence
from kdzoo.runs.sealed_json import line_with_digest, line_without_digest, read_sealed_json, write_sealed_json
from kdzoo.runs.spec import ENGINE
from kdzoo.suite.plan.jobs import Job
from kdzoo.suite.run.launchers.launcher import LauncherSetup
from kdzoo.version import VERSION

WORK = "work"
KEPT_VARIABLES = ("KDZOO_DATA",)
"""variables of the driver's environment that its workers have too, beside the cache folder"""
WRITTEN_ANEW = "the same `kdzoo bench` again writes it anew"
OF_ONE_DRIVER = ("token", "number", "working_folder")
"""what differs between two publications of one job"""


@dataclass(frozen=True)
class SharedJob:
    """A job, and what a machine needs to do it.

    token: of this publication, so that a claim on an earlier one is never taken for one on this. number: the place in the order.
    plugins: their files, each with its version on the driver's machine.
    """

    job: Job
    token: str
    number: int
    plugins: dict[str, str]
    device: str
    working_folder: str
    environment: dict[str, str]
    lease_seconds: float
    version: str = VERSION
    engine: int = ENGINE

    def content(self) -> dict[str, Any]:
        """The job as its file has it."""
        return {**vars(self), "job": json.loads(self.job.to_json())}

    @property
    def bench(self) -> str:
        """The bench's folder, also where the runs are teachers of a store of their own."""
        return self.job.checked_run[0] if self.job.checked_run else self.job.folder

    @property
    def needs(self) -> tuple[object, ...]:
        """All that `faults` looks at: the jobs of a bench need the same."""
        machine = (self.version, self.engine, self.working_folder)
        return (*machine, self.bench, tuple(self.environment.items()), tuple(self.plugins.items()))

    def faults(self) -> list[str]:
        """What this machine lacks, one line each."""
        machine = socket.gethostname()
        faults = []
        if (self.version, self.engine) != (VERSION, ENGINE):
            faults.append(f"{machine}: expected kdzoo {self.version} (engine {self.engine}), found {VERSION} (engine {ENGINE})")
        requirements = {
            "the bench's folder": self.bench,
            "the working folder": self.working_folder,
            "the cache folder": self.environment["KDZOO_CACHE"],
            **({"the data folder": self.environment["KDZOO_DATA"]} if "KDZOO_DATA" in self.environment else {}),
        }
        faults += [f"{machine}: {what} {path} is not there" for what, path in requirements.items() if not Path(path).is_dir()]
        for path, version in self.plugins.items():
            if not Path(path).exists():
                faults.append(f"{machine}: the plugin {path} is not there")
            elif (found := version_of_plugin(Path(path))) != version:
                faults.append(f"{machine}: the plugin {path}, with the modules beside it, is version {found}, the driver's is {version}")
        return faults


@dataclass(frozen=True)
class End:
    """How a job ended. refused: why it cannot be done; failed: why a teacher could not be trained."""

    refused: tuple[str, ...] = ()
    failed: str | None = None

    @property
    def is_good(self) -> bool:
        return not self.refused and self.failed is None


def name_of(job: Job) -> str:
    """The name of a job's folder."""
    return f"{job.kind}-{hashlib.sha256(json.dumps([job.name, job.ids]).encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class JobFolder:
    """The folder of one job."""

    path: Path

    @property
    def claim(self) -> Path:
        return self.path / "claim"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    def exists(self) -> bool:
        return (self.path / "job.json").exists()

    def write(self, shared: SharedJob) -> None:
        """Publish a job."""
        write_sealed_json(self.path / "job.json", shared.content())

    def holds(self, shared: SharedJob) -> bool:
        """Whether the same is published here already; who asked for it, from which working folder, does not count."""
        try:
            content = read_sealed_json(self.path / "job.json")
        except InputError:  # damaged, and written anew
            return False
        asked = json.loads(json.dumps(shared.content()))
        return all(content.get(name) == value for name, value in asked.items() if name not in OF_ONE_DRIVER)

    def read(self) -> SharedJob:
        """What is to be done; raises InputError where that is gone or damaged."""
        file = self.path / "job.json"
        try:
            content = read_sealed_json(file)
            job = Job.from_json(json.dumps(content.pop("job")))
            if name_of(job) != self.path.name:
                raise ValueError(f"it describes {name_of(job)}")
            return SharedJob(**{**content, "job": job, "plugins": dict(content["plugins"])})
        except InputError as error:
            raise InputError(f"{error.problems[0]}; {WRITTEN_ANEW}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{file}: damaged ({error}); {WRITTEN_ANEW}") from error

    def fence(self, mark: str) -> Fence:
        return Fence(self.path / "claimed", mark)

    def end(self) -> End | None:
        """How the job ended; None while it has not, and where the file does not say: whether it was refused or failed nobody knows then."""
        try:
            content = read_sealed_json(self.path / "end.json")
            end = End(tuple(content["refused"]), content["failed"])
        except (InputError, KeyError, TypeError):
            return None
        return end if content.get("job") == self.path.name else None

    def has_damaged_end(self) -> bool:
        """Whether there is an end.json that does not say how the job ended."""
        return (self.path / "end.json").exists() and self.end() is None

    def forget_damaged_end(self) -> str | None:
        """Rename such a file, so that the job is done again; what is to be told, None where there is none."""
        if not self.has_damaged_end():
            return None
        file = self.path / "end.json"
        return f"{file}: damaged; the job is done again, but for runs that are over, and the file is kept as {set_aside(file).name}"

    def is_over(self) -> bool:
        """Whether its runs are students that have all come out, in this job or in another one."""
        try:
            job = self.read().job
        except InputError:  # the next driver publishes it anew
            return False
        return job.kind == "students" and is_over(job)

    def write_end(self, end: End) -> None:
        write_sealed_json(self.path / "end.json", {"job": self.path.name, "refused": list(end.refused), "failed": end.failed})


@dataclass(frozen=True)
class WorkFolder:
    """The jobs of a bench that workers may take."""

    path: Path

    @staticmethod
    def of_bench(bench: Path) -> WorkFolder:
        return WorkFolder(bench.absolute() / WORK)

    @property
    def driver(self) -> Path:
        """The lease of a driver, which may publish further jobs."""
        return self.path / "driver"

    @property
    def logs(self) -> Path:
        """What workers print, a folder for each `kdzoo work`."""
        return self.path / "logs"

    @property
    def leases(self) -> Path:
        """The files of that lease."""
        return self.path / "driver.rw"

    def has_driver(self) -> bool:
        """Whether a driver is there, or has left its lease behind."""
        return self.leases.is_dir()

    def jobs(self) -> list[JobFolder]:
        """All jobs, in no order."""
        found = [JobFolder(entry) for entry in self.path.iterdir()] if self.path.is_dir() else []
        return [folder for folder in found if folder.exists()]

    def first_jobs(self) -> list[JobFolder]:
        """The jobs that others may wait for: teachers and measurements, no cohorts of students, which may be thousands."""
        found = self.path.iterdir() if self.path.is_dir() else ()
        return [folder for folder in map(JobFolder, found) if not folder.path.name.startswith("students-") and folder.exists()]

    def publish(self, job: Job, number: int, setup: LauncherSetup) -> JobFolder:
        """Write a job for workers to take. The same that is still open stays; one that has ended, or is asked for otherwise, is new.

        What is new has no claim, so that whoever does the earlier one stops.
        """
        folder = JobFolder(self.path / name_of(job))
        variables = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ} | {"KDZOO_CACHE": str(cache_folder())}
        shared = SharedJob(
            job=job.with_absolute_folders(),
            token=secrets.token_hex(8),
            number=number,
            plugins={str(path): version_of_plugin(path) for path in (Path(plugin).absolute() for plugin in setup.plugins)},
            device=setup.device,
            working_folder=os.getcwd(),
            environment={
                **{name: str(Path(value).absolute()) for name, value in variables.items()},
                "KDZOO_CACHE": str(cache_folder().absolute()),
            },
            lease_seconds=setup.lease_seconds,
        )
        if folder.end() is None and folder.holds(shared):
            return folder
        shutil.rmtree(folder.path, ignore_errors=True)
        folder.write(shared)
        return folder

    def remove_ended(self) -> None:
        """Remove the jobs that have come to a good end, and the folder with its logs where no other job is left.

        A job whose runs have all come out has ended too: those of a driver that was killed may stand in other jobs of the next one.
        """
        for folder in self.jobs():
            end = folder.end()
            if end.is_good if end is not None else folder.is_over():
                shutil.rmtree(folder.path, ignore_errors=True)
        if not self.jobs():
            shutil.rmtree(self.path, ignore_errors=True)


def is_over(job: Job) -> bool:
    """Whether every run of a job has come out; False for one that has none."""
    return bool(job.ids) and all(job.store.run(run_id).is_over(job.options.until) for run_id in job.ids)


class EventLog:
    """Appends events to a job's file, as long as the claim stands."""

    def __init__(self, folder: JobFolder, fence: Fence) -> None:
        self._file, self._fence = folder.events, fence

    def append(self, event: Event) -> None:
        """Write an event; raises ClaimLost where another worker has taken the job over, and StoreError where it cannot be written whole."""
        self._fence.check()
        line = b"\n" + line_with_digest(encode(event).encode()) + b"\n"  # half a line of a worker that died must not spoil the event
        try:
            with self._file.open("ab", buffering=0) as file:
                while line:  # a nearly full disk takes a part of a line, and says no to the rest
                    line = line[file.write(line) :]
        except OSError as error:
            raise StoreError(f"cannot write {self._file}: {error.strerror}") from error


class EventTail:
    """Reads the events of a job as they are written."""

    def __init__(self, folder: JobFolder) -> None:
        self._file, self._offset, self._half = folder.events, 0, b""

    def new_events(self) -> Iterator[Event]:
        """The events since the last call."""
        try:
            with self._file.open("rb") as file:
                file.seek(self._offset)
                block = file.read()
        except OSError:  # no worker has begun yet
            return
        self._offset += len(block)
        *lines, self._half = (self._half + block).split(b"\n")
        for line in lines:
            with suppress(ValueError):  # a changed line is no event: how its run came out stands in the run's folder
                body, _ = line_without_digest(line)
                if (event := decode(body)) is not None:
                    yield event
