"""W&B's service: runs opened in it, and a process that ends without waiting for it."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import re
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

from kdzoo.runs.wandb_settings import WandbSettings

PATIENCE_SECONDS = 30.0
"""how long W&B may take to open a run, and again to finish it"""


class Service:
    """What this process knows of W&B's service, which all its runs share: whether it answers, and how to end without it.

    At exit W&B waits without a bound for its service, which may hang, or be uploading to a server that is gone. `wandb.teardown`
    unregisters W&B's own exit hook before it waits; it runs on a daemon thread here, so that it cannot block the exit.
    """

    def __init__(self) -> None:
        self.silent = threading.Event()
        """it did not answer in time; nobody waits for it again"""
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._tear_down, daemon=True)
        self._thread.start()  # now, since a process that is ending starts no thread any more

    def first_at_exit(self) -> None:
        """Register this exit hook again, so that it runs before all that are registered by now, W&B's among them."""
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
def service() -> Service:
    """The one of this process."""
    return Service()


def open_run(settings: WandbSettings, bench: str, run_id: str, config: dict[str, Any]) -> Any:
    """The W&B run, without console capture and without what W&B would gather about code and machine."""
    import wandb

    if settings.directory is not None:
        Path(settings.directory).mkdir(parents=True, exist_ok=True)  # W&B itself would go elsewhere without a word
    if settings.mode == "online":
        wandb.setup(wandb.Settings(silent=True))  # given to `init` alone, W&B still prints a greeting, and asks a terminal for a key
    wanted_settings: dict[str, Any] = {
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
    supported = {key: value for key, value in wanted_settings.items() if key in wandb.Settings.model_fields}
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
        settings=wandb.Settings(**supported),
    )


def plain_id(text: str) -> str:
    """Text in the letters that W&B takes in an id."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", text)


def wandb_id(bench: str, run_id: str) -> str:
    """An id of bench and run in the letters that W&B takes, at most 128; where that changes it, a digest keeps it apart."""
    text = f"{bench}-{run_id}"
    plain = plain_id(text)
    if plain == text and len(text) <= 128:
        return text
    return f"{plain[:115]}-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"
