"""Benches that several files compare theirs with."""

import os
import subprocess
from pathlib import Path

import moments
import pytest
from filelock import FileLock
from shared_benches import bench
from warm_python import OtherHashPopen


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bench that the launcher `local` has computed in new interpreters, with the teacher in its cache: once for all test processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "undisturbed"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            # with another hash seed than all others; in one worker, where theirs have two: how runs are divided changes no number
            process = bench(folder, "-j", "1", popen=subprocess.Popen)
            output, _ = process.communicate(timeout=900)
            assert process.returncode == 0, output
    return folder


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bench of `moments` without any of them, with the teacher in its cache."""
    folder = tmp_path_factory.mktemp("calm")
    moments.ended(moments.bench(folder, popen=OtherHashPopen))
    return folder
