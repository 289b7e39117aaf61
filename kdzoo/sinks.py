"""Where a run's numbers go: JSON lines always, W&B where it was asked for. A failing W&B never loses a result."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kdzoo.errors import InputError

Record = Mapping[str, Any]
INIT_TIMEOUT_SECONDS = 30


class Sink(Protocol):
    """Takes what one run says: a record an epoch, then its result or its failure."""

    def epoch(self, record: Record) -> None: ...

    def finish(self, result: Record) -> None: ...

    def fail(self, text: str) -> None: ...

    def close(self) -> None: ...


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole records of a JSON-lines file; a torn last line is left out."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


class JsonLines:
    """metrics.jsonl, cut back at the start to what lies at or before a step: where a checkpoint was taken."""

    def __init__(self, path: Path, keep_through_step: int) -> None:
        kept = [record for record in read_lines(path) if record["step"] <= keep_through_step]
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text("".join(map(_line, kept)))
        os.replace(partial, path)
        self._file = path.open("a")

    def epoch(self, record: Record) -> None:
        self._file.write(_line(record))
        self._file.flush()

    def finish(self, result: Record) -> None: ...

    def fail(self, text: str) -> None: ...

    def close(self) -> None:
        self._file.close()


def _line(record: Record) -> str:
    return json.dumps(record, separators=(",", ":")) + "\n"


class Tee:
    """Hands everything to several sinks, in order."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks

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
        for sink in self._sinks:
            sink.close()


@dataclass(frozen=True)
class WandbSettings:
    """How W&B is used: `online` or `offline`, and where its runs go."""

    mode: str
    project: str = "kdzoo"
    entity: str | None = None
    directory: str | None = None
    note: str | None = None


def wandb_settings(requested: str | None, environ: Mapping[str, str]) -> WandbSettings | None:
    """The settings that an option and the environment ask for, the option first; None where nothing does.

    WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY and WANDB_DIR are honoured. Online without a key becomes offline with a
    note: there is never a prompt. Raises InputError where W&B is asked for and not installed.
    """
    mode = requested or environ.get("WANDB_MODE")
    if mode in (None, "", "disabled", "dryrun"):
        return None
    if mode not in ("online", "offline"):
        raise InputError(f"wandb: expected online, offline or disabled, got {mode!r}")
    if _missing():
        raise InputError("wandb: asked for, but not installed; pip install 'kdzoo[wandb]'")
    note = None
    if mode == "online" and not _has_key(environ):
        mode, note = "offline", "wandb: no API key (WANDB_API_KEY or ~/.netrc), so it writes offline; `wandb sync` sends that later"
    return WandbSettings(mode, environ.get("WANDB_PROJECT", "kdzoo"), environ.get("WANDB_ENTITY"), environ.get("WANDB_DIR"), note)


def _missing() -> bool:
    import importlib.util

    return importlib.util.find_spec("wandb") is None


def _has_key(environ: Mapping[str, str]) -> bool:
    netrc = Path(environ.get("NETRC", Path.home() / ".netrc"))
    return bool(environ.get("WANDB_API_KEY")) or (netrc.is_file() and "wandb" in netrc.read_text())


class WandbSink:
    """One W&B run for a run, in its bench's group; after a resume the same id and no step twice.

    The last step that was sent stands in a cursor file beside the metrics. Whatever goes wrong is noted once, and the
    sink is silent from then on.
    """

    def __init__(self, settings: WandbSettings, bench: str, run_id: str, config: Record, cursor: Path, note: Callable[[str], None]) -> None:
        self._note = note
        self._cursor = cursor
        self._sent = int(cursor.read_text()) if cursor.exists() else -1
        self._run: Any = None
        self._guarded(lambda: self._open(settings, bench, run_id, config))

    def _open(self, settings: WandbSettings, bench: str, run_id: str, config: Record) -> None:
        import wandb

        self._run = wandb.init(
            project=settings.project,
            entity=settings.entity,
            dir=settings.directory,
            group=bench,
            name=run_id,
            id=wandb_id(bench, run_id),
            config=dict(config),
            mode=settings.mode,  # type: ignore[arg-type]
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(
                console="off", silent=True, init_timeout=INIT_TIMEOUT_SECONDS, disable_git=True, save_code=False, x_disable_stats=True
            ),
        )

    def epoch(self, record: Record) -> None:
        if record["step"] <= self._sent:
            return

        def send() -> None:
            self._run.log(curves(record), step=record["step"])
            self._cursor.write_text(str(record["step"]))
            self._sent = record["step"]

        self._guarded(send)

    def finish(self, result: Record) -> None:
        self._guarded(lambda: self._run.summary.update(flattened(result)))

    def fail(self, text: str) -> None:
        self._guarded(lambda: self._run.summary.update({"error": text.strip().splitlines()[-1]}))
        self._guarded(lambda: self._run.finish(exit_code=1))
        self._run = None

    def close(self) -> None:
        self._guarded(lambda: self._run.finish())
        self._run = None

    def _guarded(self, act: Callable[[], None]) -> None:
        opening = self._run is None and not hasattr(self, "_opened")
        self._opened = True
        if self._run is None and not opening:
            return
        try:
            act()
        except Exception as error:  # W&B is a copy: its failures are said, and cost no result
            self._run = None
            self._note(f"wandb: {type(error).__name__}: {str(error).partition(chr(10))[0]}; going on without it")


def wandb_id(bench: str, run_id: str) -> str:
    """An id of bench and run in the letters that W&B takes."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", f"{bench}-{run_id}")[:128]


def curves(record: Record) -> dict[str, float]:
    """An epoch's record as W&B's curves: val/top1, train/loss, train/hinton, lr."""
    found = {"train/loss": record["loss"], "lr": record["lr"], "epoch": record["epoch"]}
    found |= {f"train/{name}": value for name, value in record["parts"].items()}
    found |= {f"val/{name}": value for name, value in (record["val"] or {}).items() if value is not None}
    return found


def flattened(value: Record, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with keys joined by dots."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            found |= flattened(item, f"{prefix}{key}.")
        elif item is not None:
            found[prefix + key] = item
    return found
