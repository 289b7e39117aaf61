"""Run folders: written whole or not at all, locked while they are trained. Free of torch."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from kdzoo.errors import InputError, KdzooError
from kdzoo.files import PACKAGE, read_file, read_text
from kdzoo.runs.about import about_faults
from kdzoo.runs.fields import parse
from kdzoo.runs.results import NewerSchema, complete, read_result
from kdzoo.runs.spec import Run, canonical

STANDARD_LIBRARY = Path(os.__file__).parent
FRAME = re.compile(r'^  File "([^"]+)", line (\d+)', re.MULTILINE)
"""a frame of a traceback"""
PART = re.compile(r"^in the loss of (\S+):$", re.MULTILINE)
"""the line above a traceback that names the part of the loss"""
State = Literal["done", "failed", "damaged", "started", "new"]


def in_loss_of(part: str) -> str:
    """The first line of an error.txt whose failure is in a known part of the loss."""
    return f"in the loss of {part}:\n"


class StoreError(KdzooError):
    """Something could not be written; what was on disk is as it was."""


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file whole or leave it as it was; raises StoreError that names the file and the reason."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder to NAME.damaged (NAME.damaged-2, ... where that is taken); its new path."""
    number = 1
    while (aside := path.with_name(path.name + (".damaged" if number == 1 else f".damaged-{number}"))).exists() or aside.is_symlink():
        number += 1
    try:
        path.rename(aside)
    except OSError as error:
        raise StoreError(f"cannot rename {path} to {aside.name}: {error.strerror}") from error
    return aside


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file whole: keys in order, one indent, no NaN."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode())


def writable(folder: Path) -> None:
    """Make a folder and prove that it takes a file; raises InputError otherwise."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"kdzoo")
            file.flush()
    except OSError as error:
        raise InputError(f"results: cannot write to {folder}: {error.strerror}") from error


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; `path.name` is the run's id."""

    path: Path

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

    def plan(self, run: Run, about: Mapping[str, Any]) -> str | None:
        """Write run.json, unless the folder has it already; a damaged one is renamed. What was wrong with it, or None.

        Files may have moved since a run was planned that is not done yet: its record is then written anew. That of a
        done run stays, for it says what the run was trained from.
        """
        assert run.id == self.id
        file, fault = self.path / "run.json", None
        if file.exists():
            try:
                planned = self._whole_plan()
                if planned.get("paths") == about.get("paths") or self.state() == "done":
                    return None
            except InputError as error:
                fault = f"{error.problems[0]}; it is written again, and the old file is kept as {set_aside(file).name}"
        write_json(file, {"id": run.id, "run": canonical(run.model_dump(mode="json")), "about": about})
        return fault

    def read_plan(self) -> tuple[Run, dict[str, Any]]:
        """The run and what is recorded beside it; raises InputError when run.json is missing or damaged."""
        run, about, _ = self.read_parts()
        return run, about

    def read_parts(self) -> tuple[Run, dict[str, Any], dict[str, str]]:
        """The same with the run's parts as canonical JSON, by name."""
        file = self.path / "run.json"
        content = _read_json(file)
        run = parse(Run, content.get("run"), str(file))
        try:
            parts = run.parts(content["run"], self.id)
        except ValueError as error:
            raise InputError(f"{file}: {error}, not the run its folder is named after") from None
        return run, dict(content.get("about", {})), parts

    def _whole_plan(self) -> dict[str, Any]:
        """What is recorded beside the run; raises InputError where run.json is missing, or damaged for a bench or a table."""
        try:
            _, about = self.read_plan()
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.path / 'run.json'}: damaged (about: expected an object, {error})") from error
        if faults := about_faults(about):
            raise InputError(f"{self.path / 'run.json'}: damaged ({'; '.join(faults)})")
        return about

    def state(self) -> State:
        """`done` where a whole result.json is; `damaged` where it is there but a bench or a table cannot read it."""
        if (self.path / "result.json").exists():
            try:
                self.result()
            except InputError:
                return "damaged"
            return "done"
        if (self.path / "error.txt").exists():
            return "failed"
        return "started" if self.checkpoint.exists() else "new"

    def result(self) -> dict[str, Any]:
        """What result.json says, under the present names; raises InputError when it is missing or damaged, with all that is wrong.

        Raises NewerSchema where a later kdzoo wrote it.
        """
        file = self.path / "result.json"
        content = _read_json(file)
        try:
            return read_result(content, self.id)
        except InputError as error:
            raise InputError(f"{file}: damaged ({'; '.join(error.problems)})") from error
        except NewerSchema as error:
            raise NewerSchema(f"{file}: {error}") from error

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write result.json, which makes the run done, and drop an older failure; the result as it is written.

        Raises ValueError where the result is not complete.
        """
        whole = complete(result)
        write_json(self.path / "result.json", whole)
        (self.path / "error.txt").unlink(missing_ok=True)
        return whole

    def fail(self, text: str) -> None:
        """Keep the traceback of a failure."""
        write_bytes(self.path / "error.txt", text.encode())

    def failure(self) -> str:
        """The last line of a failure's traceback: the exception."""
        lines = self._traceback().strip().splitlines()
        return lines[-1] if lines else "no reason was kept"

    def _traceback(self) -> str:
        """What error.txt says; nothing where it is missing or no plain file."""
        try:
            return read_text(self.path / "error.txt")
        except OSError:
            return ""

    def failure_place(self) -> str | None:
        """Where a method's code failed, as `my_loss.py:12`: the deepest frame that is neither the trainer's nor a library's."""
        frames = [(Path(file), line) for file, line in FRAME.findall(self._traceback())]
        own = [
            (file, line)
            for file, line in frames
            if not _is_library(file) and (not file.is_relative_to(PACKAGE) or file.parent.name == "methods")
        ]
        return f"{own[-1][0].name}:{own[-1][1]}" if own else None

    def failure_part(self) -> str | None:
        """The part of the loss in which a run failed, where it is known."""
        found = PART.match(self._traceback())
        return found[1] if found else None

    def forget(self) -> None:
        """Make a failed or damaged run new again; a result that is there is renamed."""
        (self.path / "error.txt").unlink(missing_ok=True)
        if (self.path / "result.json").exists():
            set_aside(self.path / "result.json")

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Lock the run for this process while it is worked on; yields False where another process holds it.

        The lock is the operating system's: it goes with the process, however that ends.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


@dataclass(frozen=True)
class Store:
    """The runs below one folder, `<folder>/runs/<id>/`."""

    folder: Path

    def run(self, run_id: str) -> RunFolder:
        return RunFolder(self.folder / "runs" / run_id)

    def ids(self) -> list[str]:
        """The ids of all run folders, in order."""
        runs = self.folder / "runs"
        return sorted(entry.name for entry in runs.iterdir() if entry.is_dir()) if runs.is_dir() else []


def cache_folder() -> Path:
    """Where teachers, decoded images and downloaded data are kept: KDZOO_CACHE, else `kdzoo` in the user's cache folder."""
    named = os.environ.get("KDZOO_CACHE")
    return Path(named) if named else user_cache() / "kdzoo"


def user_cache() -> Path:
    """The user's folder for caches: XDG_CACHE_HOME, else `.cache` in the home folder; raises InputError where there is none."""
    named = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(named) if named else Path.home() / ".cache"
    except RuntimeError:
        raise InputError("cache: this user has no home folder; set KDZOO_CACHE to a folder that can be written") from None


def teacher_store() -> Store:
    """The store of trained teachers, shared by all benches."""
    return Store(cache_folder() / "teachers")


def _is_library(file: Path) -> bool:
    return bool({"site-packages", "dist-packages"} & set(file.parts)) or not file.suffix or file.is_relative_to(STANDARD_LIBRARY)


def is_teacher(folder: RunFolder) -> bool:
    """Whether a run is kept among the teachers, and counts for no bench."""
    return folder.path.parent.parent == teacher_store().folder


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_file(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: damaged ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: damaged (expected a JSON object)")
    return content
