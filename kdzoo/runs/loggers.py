"""Where a run's numbers go: JSON lines always, W&B where it was asked for. A failing W&B never loses a result."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib.util
import json
import math
import netrc
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from kdzoo.errors import InputError, did_you_mean
from kdzoo.files import read_file, read_text
from kdzoo.runs.store import write_bytes

Record = Mapping[str, Any]


class Sink(Protocol):
    """Takes what one run says: a record an epoch, then its result or its failure; closed without either it was stopped."""

    def epoch(self, record: Record) -> None: ...

    def finish(self, result: Record) -> None: ...

    def fail(self, text: str) -> None: ...

    def close(self) -> None: ...


class Tee:
    """Hands everything to several sinks, in order; all are closed, whatever one of them says."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)

    def epoch(self, record: Record) -> None:
        for sink in self._sinks:
            sink.epoch(record)

    def finish(self, result: Record) -> None:
        for sink in self._sinks:
            sink.finish(result)

    def fail(self, text: str) -> None:
        for sink in self._sinks:
            sink.fail(text)

    def close(self) -> None:
        with ExitStack() as stack:
            for sink in reversed(self._sinks):
                stack.callback(sink.close)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a run's epochs, none where there is no file; left out is all from a line on that is torn or no record."""
    records = []
    for line in _content(path).split(b"\n"):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            break
        records.append(record)
    return records


def _content(path: Path) -> bytes:
    """The bytes of a plain file; none where there is none."""
    try:
        return read_file(path)
    except OSError:
        return b""


class JsonLines:
    """metrics.jsonl, cut back at the start to the records at or before a step: where the checkpoint was taken.

    Raises StoreError where the file cannot be written anew, and OSError where a line cannot be written whole (a full disk).
    """

    def __init__(self, path: Path, keep_through_step: int) -> None:
        kept = [record for record in read_lines(path) if record["step"] <= keep_through_step]
        write_bytes(path, b"".join(map(_line, kept)))
        self._file = path.open("ab", buffering=0)

    def epoch(self, record: Record) -> None:
        line = _line(record)
        while line:  # a nearly full disk takes a part of a line, and says no to the rest
            line = line[self._file.write(line) :]

    def finish(self, result: Record) -> None: ...

    def fail(self, text: str) -> None: ...

    def close(self) -> None:
        self._file.close()


def _line(record: Record) -> bytes:
    return (json.dumps(_finite(record), separators=(",", ":"), allow_nan=False) + "\n").encode()


def _finite(value: Any) -> Any:
    """The same value with null for NaN and infinities, which JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return value


PATIENCE_SECONDS = 30.0
"""how long W&B may take to open a run, and again to finish it"""

_MODES: dict[str, Literal["online", "offline"] | None] = {
    "online": "online", "offline": "offline", "disabled": None,
    "run": "online", "dryrun": "offline", "": None,
}  # fmt: skip
"""what `--wandb` takes, then the older words that WANDB_MODE may hold too"""

_HOSTS = ("https://api.wandb.ai", "https://api.forge.coreweave.com")


@dataclass(frozen=True)
class WandbSettings:
    """How W&B is used: `online` or `offline`, and where its runs go. note: what a person should be told about it, once."""

    mode: Literal["online", "offline"]
    project: str = "kdzoo"
    entity: str | None = None
    directory: str | None = None
    note: str | None = None


def wandb_settings(requested: str | None, environ: Mapping[str, str]) -> WandbSettings | None:
    """The settings that an option and the environment ask for, the option first; None where nothing does.

    WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY, WANDB_DIR and WANDB_API_KEY are honoured; a key alone asks for nothing.
    Online without a key becomes offline with a note, since there is never a prompt.
    Raises InputError for an unknown mode, and where the option asks for W&B and it is not installed.
    """
    word, where = (requested, "wandb") if requested is not None else (environ.get("WANDB_MODE", ""), "WANDB_MODE")
    if word not in _MODES:
        raise InputError(f"{where}: expected online, offline or disabled, got {word!r}{did_you_mean(word, _MODES)}")
    mode, note = _MODES[word], None
    if mode is None:
        return None
    if requested is not None and importlib.util.find_spec("wandb") is None:
        raise InputError("wandb: asked for, but not installed; pip install 'kdzoo[wandb]'")
    if mode == "online" and not _has_key(environ):
        mode = "offline"
        note = "wandb: no API key (WANDB_API_KEY or ~/.netrc), so it writes offline; `wandb sync` sends that later"
    return WandbSettings(
        mode, environ.get("WANDB_PROJECT") or "kdzoo", environ.get("WANDB_ENTITY") or None, environ.get("WANDB_DIR") or None, note
    )


def _has_key(environ: Mapping[str, str]) -> bool:
    """Whether W&B will find a key without asking for one."""
    if environ.get("WANDB_API_KEY") or environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    hosts = [environ["WANDB_BASE_URL"]] if environ.get("WANDB_BASE_URL") else _HOSTS
    for file in [environ["NETRC"]] if environ.get("NETRC") else [home / ".netrc", home / "_netrc"]:
        try:
            known = netrc.netrc(str(file))
        except (OSError, netrc.NetrcParseError):
            continue
        return any(known.authenticators(urlsplit(host).netloc) for host in hosts)
    return False


class WandbSink:
    """One W&B run for a run, in its bench's group; after a resume the same id and no step twice.

    The last step that was sent stands in the file `cursor`. W&B is spoken to on a thread of its own, so that it can
    neither slow the training down nor hang it, and this process ends without it where it does not end (`_Service`).
    Whatever goes wrong is noted once, on the caller's thread and at `close` at the latest, and the sink is silent from
    then on.
    """

    def __init__(self, settings: WandbSettings, bench: str, run_id: str, config: Record, cursor: Path, note: Callable[[str], None]) -> None:
        self._note = note
        self._service = _service()
        self._cursor = cursor
        self._sent = -1
        self._trouble: str | None = None
        self._ended: float | None = None
        self._said: queue.SimpleQueue[Callable[[Any], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._speak, args=(settings, bench, run_id, dict(config)), daemon=True)
        if self._service.silent.is_set():
            self._trouble = "no answer to an earlier run"
        else:
            self._thread.start()

    def epoch(self, record: Record) -> None:
        step, numbers = record["step"], curves(record)

        def send(run: Any) -> None:
            if step <= self._sent:
                return
            self._sent = step
            write_bytes(
                self._cursor, str(step).encode()
            )  # first: of a step that is lost and one that is there twice, the first is the lesser evil
            run.log(numbers, step=step, commit=True)

        self._say(send)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Log a table under its name, once a step."""

        def send(run: Any) -> None:
            import wandb

            if step > self._sent:
                self._sent = step
                write_bytes(self._cursor, str(step).encode())
                run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])}, step=step, commit=True)

        self._say(send)

    def finish(self, result: Record) -> None:
        self._end(flattened(result), exit_code=0)

    def fail(self, text: str) -> None:
        self._end({"error": (text.strip().splitlines() or [""])[-1]}, exit_code=1)

    def close(self) -> None:
        """Wait, for a bounded time, until W&B has everything. A run that neither finished nor failed counts as stopped.

        The time counts from the end of the run, so that all runs of a cohort wait together; a service that has been
        waited for in vain is not waited for again.
        """
        last = self._end({}, exit_code=130) + 2 * PATIENCE_SECONDS
        if self._thread.ident is not None:  # it was started
            self._thread.join(0.0 if self._service.silent.is_set() else max(last - time.monotonic(), 0.0))
        if self._thread.is_alive():
            self._service.silent.set()
            self._trouble = f"no answer within {2 * PATIENCE_SECONDS:.0f} seconds"
        self._tell()

    def _end(self, summary: Record, exit_code: int) -> float:
        """Say how the run ended, the first time; when that was."""
        if self._ended is not None:
            return self._ended
        self._ended = time.monotonic()

        def end(run: Any) -> None:
            run.summary.update(dict(summary))
            run.finish(exit_code=exit_code)

        self._say(end)
        self._say(None)
        return self._ended

    def _say(self, act: Callable[[Any], None] | None) -> None:
        self._said.put(act)
        self._tell()

    def _tell(self) -> None:
        if self._trouble is not None:
            self._note(f"wandb: {self._trouble}; continuing without it")
            self._trouble, self._note = None, lambda _: None

    def _speak(self, settings: WandbSettings, bench: str, run_id: str, config: dict[str, Any]) -> None:
        """What the thread does: open the run, then say one thing after the other."""
        try:
            if self._cursor.exists():
                self._sent = int(read_text(self._cursor))
            run = self._open(settings, bench, run_id, config)
            while (act := self._said.get()) is not None:
                act(run)
        except BaseException as error:  # W&B is a copy: its failures are said, and cost no result
            lines = str(error).replace(wandb_id(bench, run_id), "a run").splitlines() or [""]
            self._trouble = f"{type(error).__name__}: {lines[0]}"

    def _open(self, settings: WandbSettings, bench: str, run_id: str, config: dict[str, Any]) -> Any:
        """The W&B run; raises what W&B raises, and where that took the whole patience it is not waited for again."""
        began = time.monotonic()
        try:
            return _opened(settings, bench, run_id, config)
        except Exception:
            if time.monotonic() - began >= PATIENCE_SECONDS:
                self._service.silent.set()
            raise
        finally:
            self._service.first_at_exit()


class _Service:
    """What this process knows of W&B's service, which all its runs share: whether it answers, and how to end without it.

    At exit W&B waits without a bound for its service, which may hang, or be uploading to a server that is gone. Its own
    hook for that is taken back by `teardown` before it waits; on a daemon thread it then holds nobody up.
    """

    def __init__(self) -> None:
        self.silent = threading.Event()
        """it gave no answer in time, and is waited for no more"""
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._tear_down, daemon=True)
        self._thread.start()  # now, since a process that is ending starts no thread any more

    def first_at_exit(self) -> None:
        """Be called at exit before every hook that is registered by now, W&B's among them."""
        atexit.unregister(self._leave)
        atexit.register(self._leave)

    def _tear_down(self) -> None:
        self._leaving.wait()
        with contextlib.suppress(BaseException):  # what went wrong with a run was noted when it was closed
            sys.modules["wandb"].teardown()

    def _leave(self) -> None:
        if getattr(sys.modules.get("wandb"), "run", None) is None:  # else a run of the user's own, who may wait for it
            self._leaving.set()
            self._thread.join(PATIENCE_SECONDS)


@cache
def _service() -> _Service:
    """The one of this process."""
    return _Service()


def _opened(settings: WandbSettings, bench: str, run_id: str, config: dict[str, Any]) -> Any:
    """The W&B run, without console capture and without what W&B would gather about code and machine."""
    import wandb

    if settings.directory is not None:
        Path(settings.directory).mkdir(parents=True, exist_ok=True)  # W&B itself would go elsewhere without a word
    if settings.mode == "online":
        wandb.setup(wandb.Settings(silent=True))  # said to `init` alone it still greets, and asks a terminal for a key
    wished: dict[str, Any] = {
        "console": "off",
        "silent": True,
        "init_timeout": PATIENCE_SECONDS,
        "finish_timeout": PATIENCE_SECONDS,
        "finish_timeout_raises": True,
        "disable_git": True,
        "disable_code": True,
        "x_disable_stats": True,
        "x_disable_meta": True,
        "x_disable_machine_info": True,
        "x_save_requirements": False,
        "x_transaction_log_flush_interval": 0.5,  # what a process that is killed can lose; W&B's own 15 seconds are many epochs
    }
    known = {key: value for key, value in wished.items() if key in wandb.Settings.model_fields}
    return wandb.init(
        project=settings.project,
        entity=settings.entity,
        dir=settings.directory,
        group=bench[:128],
        name=run_id,
        id=wandb_id(bench, run_id),
        config=config,
        mode=settings.mode,
        resume="allow",
        reinit="create_new",
        settings=wandb.Settings(**known),
    )


def offline_runs(settings: WandbSettings, bench: str) -> Path | None:
    """The pattern of the folders in which W&B keeps a bench's offline runs, for `wandb sync`; None where there are none."""
    folder = Path(settings.directory or ".") / "wandb"
    pattern = f"offline-run-*-{_plain_id(bench)}-*"
    return folder / pattern if settings.mode == "offline" and any(folder.glob(pattern)) else None


def _plain_id(text: str) -> str:
    """Text in the letters that W&B takes in an id."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", text)


def wandb_id(bench: str, run_id: str) -> str:
    """An id of bench and run in the letters that W&B takes, at most 128; where that changes it, a digest keeps it apart."""
    asked = f"{bench}-{run_id}"
    allowed = _plain_id(asked)
    if allowed == asked and len(asked) <= 128:
        return asked
    return f"{allowed[:115]}-{hashlib.blake2b(asked.encode(), digest_size=6).hexdigest()}"


def curves(record: Record) -> dict[str, float]:
    """An epoch's record as W&B's curves: epoch, lr, train/loss, train/parts/hinton, val/top1."""
    train = {"loss": record["loss"], "parts": record["parts"]}
    return flattened({"epoch": record["epoch"], "lr": record["lr"], "train": train, "val": record["val"]})


def flattened(value: Record, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with keys joined by slashes; what is None is left out."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            found |= flattened(item, f"{prefix}{key}/")
        elif item is not None:
            found[prefix + key] = item
    return found
