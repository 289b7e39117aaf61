"""benchmarks/gpu.py: it runs where there is no GPU, its checks can fail, and what it has measured survives a part that breaks."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import gpu
import gpu_checks
import gpu_study
from gpu_report import markdown
from speed_setup import Setup
from warm_python import run_warm

from kdzoo.training.run_data import load_dataset

SCRIPT = Path(gpu.__file__)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with 128 random images for training and 100 for testing, packed as CIFAR-100 is."""
    random = np.random.default_rng(0)
    (tmp_path / "data/cifar100").mkdir(parents=True)
    for part, count in (("train", 128), ("test", 100)):
        images = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        np.savez(tmp_path / f"data/cifar100/{part}.npz", images=images, labels=np.arange(count) % 100)
    return tmp_path / "data"


@pytest.mark.slow
def test_the_script_runs_on_a_cpu_and_writes_every_section(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--device", "cpu", "--quick", "--minutes", "20", "--data", str(data), "--out", str(out)]
    done = run_warm([sys.executable, str(SCRIPT), *words], timeout=1400)
    content = json.loads((out / "gpu.json").read_text())
    assert not content["failed"], content["failed"]
    # images on the device is the one check that a CPU without a device of its own cannot fail
    assert done.returncode == 0, done.stdout + done.stderr
    assert {check["check"] for check in content["correct"] if check["holds"]} == {check["check"] for check in content["correct"]}
    assert len(content["correct"]) == 7
    sides = content["speed"][0]["sides"]
    assert {"student", "teacher", "kdzoo", "kdzoo_sweep", "kdzoo_cold", "kdzoo_warm", "kdzoo_stacked of 4", "plain_kernels"} <= sides.keys()
    precisions = [cell["name"].rpartition(" ")[2] for cell in content["filled"]]
    assert precisions == ["float32", "bfloat16"]
    for cell in content["filled"]:
        assert {"student", "kdzoo_warm of 1", "kdzoo_stacked of 4"} == cell["sides"].keys()
        assert cell["left_out"].keys() == {"kdzoo_graphs of 1", "kdzoo_stacked_graphs of 4"}  # for want of a GPU
    (jobs,) = content["jobs"]
    assert jobs["left_out"] == {}
    assert jobs["of"].keys() == {"1 process", "2 processes", "a stack of students"}
    assert jobs["best"] in jobs["of"]
    for side in sides.values():
        assert side["images_per_second"] == pytest.approx(side["runs"] * 16 / side["step_seconds"])
    assert content["bounds"][0]["of"]["kdzoo"]["operators"] > 100
    assert {run["epochs"] for run in content["study"]["runs"]} == {1}
    assert all(run["test_top1"] is not None for run in content["study"]["runs"])
    assert "| kdzoo_warm |" in (out / "gpu.md").read_text()

    work = tmp_path / "again"
    work.mkdir()
    gpu_study.unpack(out / "crd240.tar.gz", work)
    assert [gpu_study.run_record(folder) for folder in sorted(work.glob("results/crd240/runs/*"))] == content["study"]["runs"][1:]


def test_a_part_that_breaks_is_named_and_the_rest_is_measured(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    load_dataset.cache_clear()

    def broken() -> dict:
        raise RuntimeError("this part breaks")

    settings = gpu.settings_of(gpu.options(["--device", "cpu", "--quick", "--data", str(data), "--minutes", "0.5"]))
    parts = [gpu.Part("correct", "first", 1, broken), gpu.Part("correct", "second", 1, lambda: gpu_checks.check("second", 0.0, 1.0, True))]
    monkeypatch.setattr(gpu, "parts", lambda *_: parts)
    kept = []
    content = gpu.measure(settings, data, tmp_path, lambda found: kept.append(json.dumps(found)))
    load_dataset.cache_clear()
    assert "this part breaks" in content["failed"]["first"]
    assert [found["name"] for found in content["correct"]] == ["second"]
    assert content["not_reached"] == ["CRD against KD"]
    assert "Failed: first: RuntimeError: this part breaks" in markdown(content)


def test_losses_that_differ_are_seen(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    load_dataset.cache_clear()
    setup = Setup("resnet14", "resnet8", 16, load_dataset("cifar100", str(data), None), torch.device("cpu"), 1, False, "float32", tmp_path)
    one = gpu_checks.losses_of(gpu_checks.cohort_for(setup, 1, "off", limit=gpu_checks.few(setup)))
    other = gpu_checks.losses_of(gpu_checks.cohort_for(setup, 1, "off", limit=gpu_checks.few(setup), teacher=1))
    load_dataset.cache_clear()
    assert gpu_checks.relative(one, one) == 0
    assert gpu_checks.relative(one, other) > gpu_checks.LOSS_TOLERANCE


def test_an_archive_without_the_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=r"has no cifar100/train\.npz and no cifar100/test\.npz"):
        gpu.data_folder(tmp_path / "empty", tmp_path)
