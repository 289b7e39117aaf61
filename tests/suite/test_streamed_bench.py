"""A folder that is decoded while training ends as one that is kept in memory, however it is disturbed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from processes import members_of_group, started
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from warm_python import OtherHashPopen, WarmPopen

pytestmark = pytest.mark.slow

CONFIG = {
    "name": "b",
    "data": "folder:photos",
    "pairs": ["digits"],
    "recipe": "digits",
    "methods": ["hinton", "crd", "mlld"],
    "seeds": [0],
    "epochs": 6,
    "val_fraction": 0.2,
    "jobs": 1,
    "threads": 1,
    "checkpoint_seconds": 0.05,
    "set": {"teacher_recipe.epochs": 8, "recipe.augment.crop": "resized", "recipe.augment.size": 16, "recipe.augment.flip": True},
}


def start(folder: Path, *more: str, popen: type[subprocess.Popen[Any]] = WarmPopen) -> subprocess.Popen[str]:
    """The bench as a user starts it, in a process group of its own, with a cache of its own."""
    (folder / "bench.yaml").write_text(yaml.safe_dump(CONFIG))
    command = [sys.executable, "-m", "kdzoo", "bench", "-c", "bench.yaml", "--results", "results", *more]
    environment = {**os.environ, "KDZOO_CACHE": str(folder / "cache"), "WANDB_MODE": "disabled"}
    return started(command, folder=folder, environment=environment, popen=popen)


def ended(process: subprocess.Popen[str], status: int) -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == status, said
    return said


def write_photos(folder: Path) -> Path:
    """Handwritten digits as PNG and JPEG files of 20x24 pixels, a sub-folder a class."""
    bunch = load_digits(n_class=4)
    for label in range(4):
        (folder / "photos" / str(label)).mkdir(parents=True)
        for number, image in enumerate(bunch.images[bunch.target == label][:120]):
            grey = Image.fromarray(np.round(image * 255 / 16).astype(np.uint8)).resize((20, 24))
            grey.save(folder / "photos" / str(label) / f"{number}.{'png' if number % 3 else 'jpg'}")
    return folder


def runs(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted((folder / "results/b/runs").iterdir())}


def lines_written(folder: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in folder.glob("**/metrics.jsonl"))


def under_way(folder: Path, lines: int, *more: str) -> subprocess.Popen[str]:
    """A bench that has written so many lines of epochs, or ended, or taken two minutes."""
    process = start(folder, *more)
    deadline = time.monotonic() + 120
    while lines_written(folder) < lines and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return process


@pytest.fixture(scope="module")
def resident(tmp_path_factory) -> Path:
    folder = write_photos(tmp_path_factory.mktemp("resident"))
    ended(start(folder, popen=OtherHashPopen), 0)
    return folder


def assert_same(folder: Path, resident: Path) -> None:
    """Same runs, same weights bit for bit, the same numbers in every result and of every epoch."""
    assert list(runs(folder)) == list(runs(resident))
    for name, run in runs(folder).items():
        mine, theirs = load_file(run / "student.safetensors"), load_file(runs(resident)[name] / "student.safetensors")
        assert mine.keys() == theirs.keys()
        assert all(mine[key].equal(theirs[key]) for key in mine), f"{name} ended with other weights"
        results = [json.loads((place / "result.json").read_text()) for place in (run, runs(resident)[name])]
        for part in ("last", "best", "train", "teacher", "student"):
            assert results[0][part] == results[1][part]
        assert epochs(run) == epochs(runs(resident)[name])
        assert [line["epoch"] for line in epochs(run)] == list(range(1, CONFIG["epochs"] + 1))


def epochs(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "digest")} for line in lines]


def test_a_streamed_bench_ends_with_the_weights_and_numbers_of_a_resident_one(tmp_path, resident):
    write_photos(tmp_path)
    ended(start(tmp_path, "--image-cache", "0"), 0)
    assert_same(tmp_path, resident)
    ended(start(tmp_path, "--image-cache", "1GiB"), 0)  # finds its runs: where pixels lie is not part of a run
    assert len(runs(tmp_path)) == len(runs(resident))


def test_killed_and_interrupted_streaming_leaves_no_process_and_goes_on_to_the_same_end(tmp_path, resident):
    write_photos(tmp_path)
    for after, sign in ((4, signal.SIGKILL), (12, signal.SIGINT), (20, signal.SIGINT)):
        process = under_way(tmp_path, after, "--image-cache", "0")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == (130 if sign == signal.SIGINT else -sign), said
        assert "Traceback" not in said
        assert members_of_group(process.pid) == []
    ended(start(tmp_path, "--image-cache", "0"), 0)
    assert_same(tmp_path, resident)


def test_a_file_that_is_gone_in_the_middle_is_named_and_once_it_is_back_training_goes_on(tmp_path, resident):
    write_photos(tmp_path)
    process = under_way(tmp_path, 12, "--image-cache", "0")
    (tmp_path / "photos" / "2").rename(tmp_path / "away")
    said = ended(process, 2)
    assert "photos/2/" in said
    assert "cannot be read any more" in said
    assert "Traceback" not in said
    assert not any((run / "error.txt").exists() for run in runs(tmp_path).values())
    assert members_of_group(process.pid) == []
    (tmp_path / "away").rename(tmp_path / "photos" / "2")
    ended(start(tmp_path, "--image-cache", "0"), 0)
    assert_same(tmp_path, resident)
