"""A bench that several files compare theirs with."""

import subprocess
from pathlib import Path

import moments
import pytest
from shared_benches import bench


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bench that the launcher `local` has computed, with the teacher in its cache."""
    folder = tmp_path_factory.mktemp("undisturbed")
    process = bench(folder, popen=subprocess.Popen)  # with another hash seed than all others
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return folder


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bench of `moments` without any of them, with the teacher in its cache."""
    folder = tmp_path_factory.mktemp("calm")
    moments.ended(moments.bench(folder, popen=subprocess.Popen))  # with another hash seed than all others
    return folder
