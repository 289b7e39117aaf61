"""CRD against KD on resnet56 and resnet20 by the published recipe, for as many seconds as are left; a later call goes on from it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

from gpu_accuracy import published_accuracy, record_of, time_to_accuracy

from kdzoo.runs.store import RunFolder, Store

PAIR, RECIPE, METHODS = "resnet56/resnet20", "crd240", "hinton,crd"
"""what is published"""
END_SECONDS = 20
"""what a bench is given to write its checkpoints and end"""
LEAST_SECONDS = 40
"""under so many seconds nothing is begun"""
PARTS = ("results", "cache/teachers")
"""what a later call goes on from"""


def unpack(archive: Path | None, work: Path) -> None:
    """Lay what an earlier call wrote where this one goes on."""
    if archive is not None and archive.is_file():
        shutil.unpack_archive(archive, work, "gztar")


def pack(work: Path, archive: Path) -> None:
    """Write results, checkpoints and teachers into one file, whole or not at all."""
    part = archive.with_suffix(".part")
    with tarfile.open(part, "w:gz") as packed:
        for name in PARTS:
            if (work / name).exists():
                packed.add(work / name, arcname=name)
    os.replace(part, archive)


def command(device: str, data: str, pair: str, epochs: int | None, launcher: str) -> list[str]:
    """The bench, one seed a row."""
    words = ["--data", data, "--pairs", pair, "--methods", METHODS, "--recipe", RECIPE, "--seeds", "1", "--no-refit", "--name", "crd240"]
    # a teacher of one epoch only shows that the bench runs, and may be at chance
    words += ["--temperatures", "4"] + ([] if epochs is None else ["--epochs", str(epochs), "--allow-chance-teacher"])
    words += ["--device", device, "--launcher", launcher, "--jobs", "1", "--checkpoint-seconds", "15"]
    return [sys.executable, "-m", "kdzoo", "bench", *words]


def study(
    device: str, data: str, seconds: float, work: Path, *, pair: str = PAIR, epochs: int | None = None, launcher: str = "local"
) -> dict[str, Any]:
    """Train until the bench is done or the seconds are up; what every run has come to."""
    environment = {**os.environ, "KDZOO_CACHE": str(work / "cache")}
    began = time.monotonic()
    log = work / "study.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command(device, data, pair, epochs, launcher), "--results", str(work / "results")],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        try:
            status: int | None = process.wait(max(seconds - END_SECONDS, 1))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            status = None
    return {
        "pair": pair,
        "recipe": RECIPE,
        "status": status,
        "seconds": time.monotonic() - began,
        "runs": [run_record(folder) for folder in sorted(work.glob("cache/teachers/runs/*")) + sorted(work.glob("results/crd240/runs/*"))],
        "last_lines": log.read_text(errors="replace").splitlines()[-5:],
    }


def run_record(folder: Path) -> dict[str, Any]:
    """A run: its epochs so far, its accuracy on the test images where it is done, and when it reached the published one."""
    return {
        **record_of(Store(folder.parent.parent), folder.name),
        "time_to_accuracy": time_to_accuracy(RunFolder(folder), published_accuracy()),
    }
