"""A run's numbers in W&B. A failing W&B never loses a result."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kdzoo.files import read_text
from kdzoo.runs.atomic import write_bytes
from kdzoo.runs.flatten import flatten
from kdzoo.runs.loggers import LogRecord
from kdzoo.runs.wandb_service import PATIENCE_SECONDS, open_run, plain_id, service, wandb_id
from kdzoo.runs.wandb_settings import WandbSettings


class WandbLogger:
    """One W&B run for a run, in its bench's group; after a resume the same id and no step twice.

    The last step that was sent stands in the file `cursor`. W&B is spoken to on a thread of its own, so that it can
    neither slow the training down nor hang it, and this process ends without it where it does not end (`Service`).
    Whatever goes wrong is noted once, on the caller's thread and at `close` at the latest, and the logger is silent from
    then on.
    """

    def __init__(
        self, settings: WandbSettings, bench: str, run_id: str, config: LogRecord, cursor: Path, note: Callable[[str], None]
    ) -> None:
        self._note = note
        self._service = service()
        self._cursor = cursor
        self._last_step = -1
        self._trouble: str | None = None
        self._end_time: float | None = None
        self._queue: queue.SimpleQueue[Callable[[Any], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send_all, args=(settings, bench, run_id, dict(config)), daemon=True)
        if self._service.silent.is_set():
            self._trouble = "no answer to an earlier run"
        else:
            self._thread.start()

    def epoch(self, record: LogRecord) -> None:
        step, numbers = record["step"], curves(record)

        def send(run: Any) -> None:
            if step <= self._last_step:
                return
            self._last_step = step
            write_bytes(self._cursor, str(step).encode())  # before it is sent: a step that is lost is better than one logged twice
            run.log(numbers, step=step, commit=True)

        self._enqueue(send)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Log a table under its name, once a step."""

        def send(run: Any) -> None:
            import wandb

            if step > self._last_step:
                self._last_step = step
                write_bytes(self._cursor, str(step).encode())
                run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])}, step=step, commit=True)

        self._enqueue(send)

    def finish(self, result: LogRecord) -> None:
        self._end(_logged_values(result), exit_code=0)

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
        self._report_trouble()

    def _end(self, summary: LogRecord, exit_code: int) -> float:
        """Queue how the run ended, the first time; returns when that was."""
        if self._end_time is not None:
            return self._end_time
        self._end_time = time.monotonic()

        def end(run: Any) -> None:
            run.summary.update(dict(summary))
            run.finish(exit_code=exit_code)

        self._enqueue(end)
        self._enqueue(None)
        return self._end_time

    def _enqueue(self, act: Callable[[Any], None] | None) -> None:
        self._queue.put(act)
        self._report_trouble()

    def _report_trouble(self) -> None:
        if self._trouble is not None:
            self._note(f"wandb: {self._trouble}; continuing without it")
            self._trouble, self._note = None, lambda _: None

    def _send_all(self, settings: WandbSettings, bench: str, run_id: str, config: dict[str, Any]) -> None:
        """What the thread does: open the run, then send what is queued, in order."""
        try:
            if self._cursor.exists():
                self._last_step = int(read_text(self._cursor))
            run = self._open(settings, bench, run_id, config)
            while (act := self._queue.get()) is not None:
                act(run)
        except BaseException as error:  # W&B has copies alone: its failures are noted, and cost no result
            lines = str(error).replace(wandb_id(bench, run_id), "a run").splitlines() or [""]
            self._trouble = f"{type(error).__name__}: {lines[0]}"

    def _open(self, settings: WandbSettings, bench: str, run_id: str, config: dict[str, Any]) -> Any:
        """The W&B run; raises what W&B raises, and where that took the whole patience it is not waited for again."""
        began = time.monotonic()
        try:
            return open_run(settings, bench, run_id, config)
        except Exception:
            if time.monotonic() - began >= PATIENCE_SECONDS:
                self._service.silent.set()
            raise
        finally:
            self._service.first_at_exit()


def offline_runs(settings: WandbSettings, bench: str) -> Path | None:
    """The pattern of the folders in which W&B keeps a bench's offline runs, for `wandb sync`; None where there are none."""
    folder = Path(settings.directory or ".") / "wandb"
    pattern = f"offline-run-*-{plain_id(bench)}-*"
    return folder / pattern if settings.mode == "offline" and any(folder.glob(pattern)) else None


def curves(record: LogRecord) -> dict[str, float]:
    """An epoch's record as W&B's curves: epoch, lr, train/loss, train/parts/hinton, val/top1."""
    train = {"loss": record["loss"], "parts": record["parts"]}
    return _logged_values({"epoch": record["epoch"], "lr": record["lr"], "train": train, "val": record["val"]})


def _logged_values(value: LogRecord) -> dict[str, Any]:
    """Nested mappings as one, with keys joined by slashes; what is None is left out."""
    return {key: item for key, item in flatten(value, "/").items() if item is not None}
