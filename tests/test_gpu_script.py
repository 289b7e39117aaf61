"""benchmarks/gpu.py: it runs where there is no GPU, its checks can fail, and what it has measured survives a part that breaks."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import gpu
import gpu_accuracy
import gpu_checks
import gpu_floors
import gpu_study
import speed_kdzoo
from gpu_filled import FILLINGS, Filling, Way, epochs_that_ask, fastest
from gpu_report import markdown
from gpu_targets import BATCH, BESIDE, TARGETS, found_targets
from speed_setup import Setup
from warm_python import run_warm

from kdzoo.runs.store import RunFolder
from kdzoo.training.run_data import load_dataset

SCRIPT = Path(gpu.__file__)
ROOT = SCRIPT.resolve().parent.parent


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
    assert {"student", "teacher", "kdzoo", "kdzoo_sweep", "kdzoo_cold", "kdzoo_warm", "plain_kernels"} == sides.keys()
    half, single = content["filled"]
    assert [cell["precision"] for cell in (half, single)] == ["bfloat16", "float32"]
    assert half["sides"].keys() == {"student", "teacher", "kdzoo_warm of 1", "kdzoo_stacked of 3"}
    assert half["left_out"].keys() == {"kdzoo_graphs of 1", "kdzoo_stacked_graphs of 3"}  # for want of a GPU
    assert single["sides"].keys() == {"student", "teacher", "kdzoo_warm of 1"}
    assert half["channels_last"] is True  # on a CPU they always are
    (epochs,) = content["epochs"]
    assert {name: way["runs"] for name, way in epochs["ways"].items()} == {"kdzoo_warm of 1": 1, "kdzoo_stacked of 3": 3}
    for way in epochs["ways"].values():
        whole = epochs["epochs_that_ask"] * way["cold_epoch_seconds"] + (240 - epochs["epochs_that_ask"]) * way["warm_epoch_seconds"]
        assert way["seconds_for_240_epochs"] == pytest.approx(whole / way["runs"])
    (accuracy,) = content["accuracy"]
    assert accuracy["time_to_accuracy"]["asked"] == 70.66
    assert accuracy["time_to_accuracy"]["test"]["epoch"] == 1
    assert [teacher["epochs"] for teacher in accuracy["teachers"]] == [1]
    assert {row["verdict"] for row in content["targets"]} == {"not measured"}  # these are other networks
    (jobs,) = content["jobs"]
    assert jobs["left_out"] == {}
    assert jobs["of"].keys() == {"1 process", "a stack of students"}
    assert jobs["best"] in jobs["of"]
    for side in sides.values():
        assert side["images_per_second"] == pytest.approx(side["runs"] * 16 / side["step_seconds"])
        assert side["seconds_for_240_epochs"] == pytest.approx(240 * 50_000 / 16 * side["step_seconds"] / side["runs"])
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


def ways_of(*seconds: tuple[str, int, float]) -> dict:
    return {name: {"runs": runs, "seconds_for_240_epochs": value} for name, runs, value in seconds}


def cell_of(pair: str, batch: int, ways: dict) -> dict:
    return {"pair": pair, "batch": batch, "precision": "bfloat16", "ways": ways, "left_out": {}}


def accuracy_cell(top1: float, *, reached: bool, epochs: int = 60) -> dict:
    test = {"epoch": epochs, "seconds": 21.5, "top1": top1, "reached": reached}
    return {"pair": "resnet56/resnet20", "epochs": epochs, "time_to_accuracy": {"asked": 70.66, "val": None, "test": test}}


def test_targets_are_reached_missed_or_not_measured() -> None:
    cells = [
        cell_of("resnet56/resnet20", 128, ways_of(("graphs", 1, 88.5), ("eager", 1, 200.0), ("stack of 27", 27, 30.0))),
        cell_of("resnet56/resnet20", 64, ways_of(("stack of 27", 27, 41.0))),
        cell_of("resnet32x4/resnet8x4", 64, ways_of(("graphs of 27", 27, 50.0))),
    ]
    cells[0]["ways"] |= ways_of(("larger stack", 64, 11.0), ("stack of 9", 9, 24.9))
    rows = {
        (row["target"], row["batch"]): row for row in found_targets({"epochs": cells, "accuracy": [accuracy_cell(69.4, reached=False)]})
    }
    sweep, alone, second = (target.name for target in TARGETS)
    assert {key: (row["found"], row["side"], row["verdict"]) for key, row in rows.items()} == {
        (sweep, 128): (24.9, "stack of 9 in bfloat16", "reached"),  # a stack of 64 is no part of a sweep of 27
        (sweep, 64): (41.0, "stack of 27 in bfloat16", "no target"),
        (alone, 128): (88.5, "graphs in bfloat16", "missed by 13.5 s"),
        (alone, 64): (None, None, "not measured"),
        (second, 128): (None, None, "not measured"),
        (second, 64): (50.0, "graphs of 27 in bfloat16", "no target"),
        ("the published accuracy of plain KD of resnet20 under resnet56 within 60 epochs", 128): (
            21.5,
            "69.40 % on the test images after epoch 60",
            "missed by 1.26 points",
        ),
    }
    assert [row["asked"] for row in rows.values()] == [25.0, None, 75.0, None, 45.0, None, 70.66]
    text = markdown(
        {"environment": {"device": "x", "torch": "x", "git": "x"}, "targets": list(rows.values()), "failed": {}, "not_reached": []}
    )
    assert "| 128 | 75 s | 88.5 s | graphs in bfloat16 | missed by 13.5 s |" in text


def test_the_accuracy_is_reached_or_was_not_measured_by_another_run() -> None:
    assert found_targets({"accuracy": [accuracy_cell(70.7, reached=True)]})[-1]["verdict"] == "reached"
    assert found_targets({"accuracy": [accuracy_cell(70.7, reached=True, epochs=1)]})[-1]["verdict"] == "not measured"


def run_folder(folder: Path, val: list[float | None], *, test: float | None) -> RunFolder:
    """A run of some epochs of 10 seconds each, done where it has a test accuracy."""
    folder.mkdir()
    lines = [
        {"run": folder.name, "epoch": i, "step": i, "seconds": 10.0 * i, "val": None if top1 is None else {"top1": top1}}
        for i, top1 in enumerate(val, 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if test is not None:
        result = json.loads(next(iter(sorted((ROOT / "results/digits/runs").glob("at-*/result.json")))).read_text())
        result |= {"id": folder.name, "seconds": 10.5 * len(val)}
        result["last"]["epoch"], result["last"]["test"]["top1"] = len(val), test
        (folder / "result.json").write_text(json.dumps(result))
    return RunFolder(folder)


def test_seconds_until_an_accuracy_are_those_of_the_first_epoch_and_of_the_whole_run(tmp_path: Path) -> None:
    reached = gpu_accuracy.time_to_accuracy(run_folder(tmp_path / "a", [0.5, 0.7066, 0.69], test=0.7066), 70.66)
    assert reached["val"] == {"epoch": 2, "seconds": 20.0, "top1": pytest.approx(70.66)}
    assert reached["test"] == {"epoch": 3, "seconds": 31.5, "top1": pytest.approx(70.66), "reached": True}
    missed = gpu_accuracy.time_to_accuracy(run_folder(tmp_path / "b", [None, None], test=0.7), 70.66)
    assert missed["val"] is None
    assert missed["test"]["reached"] is False
    assert gpu_accuracy.time_to_accuracy(run_folder(tmp_path / "c", [0.8], test=None), 70.66)["test"] is None


def test_the_accuracy_that_is_asked_for_is_the_published_one() -> None:
    lines = (ROOT / "kdzoo/configs/published/crd.csv").read_text().splitlines()
    (row,) = [line.split(",") for line in lines if line.startswith("resnet56/resnet20,cifar100,hinton,")]
    assert gpu_accuracy.published_accuracy() == float(row[4])


def test_the_fastest_way_of_a_run_alone_and_of_a_sweep_is_trained_for_whole_epochs() -> None:
    filling = Filling("a/b", 128, "bfloat16", (1, 27), (64,), (8,), 1)
    seconds = {
        "kdzoo_warm of 1": 9,
        "kdzoo_graphs of 1": 3,
        "kdzoo_graphs of 27": 2,
        "kdzoo_stacked of 64": 1,
        "kdzoo_stacked_graphs of 8": 4,
    }
    cell = {"sides": {name: {"seconds_for_240_epochs": value} for name, value in {"student": 0, **seconds}.items()}}
    assert fastest(filling, cell) == [Way(1, graphs=True), Way(27, graphs=True)]
    assert [str(way) for way in fastest(filling, None)] == ["kdzoo_graphs of 1", "kdzoo_stacked_graphs of 27"]


def test_a_teacher_with_few_views_is_asked_for_about_half_of_240_epochs(data: Path, tmp_path: Path) -> None:
    setup = Setup("resnet14", "resnet8", 16, load_dataset("cifar100", str(data), None), torch.device("cpu"), 1, None, "float32", tmp_path)
    drawn = torch.randint(162, (2000, 240), generator=torch.Generator().manual_seed(0))
    distinct = sum(len(row.unique()) for row in drawn) / len(drawn)
    assert epochs_that_ask(setup) == pytest.approx(distinct, rel=0.01)
    assert pytest.approx(epochs_that_ask(setup), abs=0.05) == gpu_floors.TEACHER_EPOCHS


def test_what_matters_most_is_measured_first_and_fits_into_the_minutes(tmp_path: Path) -> None:
    settings = gpu.settings_of(gpu.options(["--data", str(tmp_path), "--device", "cuda"]))
    images = load_dataset("digits", None, None)
    setups = [
        Setup(teacher, student, batch, images, torch.device("cuda"), 1, None, "float32", tmp_path)
        for batch in settings.batches
        for teacher, _, student in (pair.partition("/") for pair in settings.pairs)
    ]
    parts = list(gpu.parts(settings, setups, tmp_path, {}, lambda: 0.0))
    names = [part.name for part in parts]
    needed = [f"graphs and stacks of {filling.name}" for filling in FILLINGS]
    needed += [f"whole epochs of {filling.name}" for filling in FILLINGS if filling.epochs_seconds]
    needed += ["the published accuracy in 60 epochs", "processes with graphs", "profile of resnet56/resnet20 at 128"]
    last = max(names.index(name) for name in needed)
    assert sum(part.seconds for part in parts[: last + 1]) <= 60 * gpu.MINUTES - gpu.ASIDE_SECONDS
    assert {(filling.pair, filling.batch) for filling in FILLINGS if filling.epochs_seconds} >= {
        *((target.pair, BATCH) for target in TARGETS),
        (TARGETS[0].pair, BESIDE),
    }
    assert [name for name in names if "1024" in name] == names[names.index("resnet56/resnet20 at 1024") :][:2]


def test_the_page_has_the_floors_that_are_computed() -> None:
    page = (ROOT / "docs" / "scale.md").read_text()
    assert "\n".join(gpu_floors.table()) in page, "run python benchmarks/gpu_floors.py"


def test_the_kernels_of_the_floors_are_the_operators_of_a_step(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The student's part of a step with a live teacher, and a second kernel for the backward of each of its 21 convolutions."""
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    setup = Setup("resnet56", "resnet20", 8, load_dataset("cifar100", str(data), None), torch.device("cpu"), 1, None, "bfloat16", tmp_path)
    teacher, live = (gpu_floors.operators(side) for side in (speed_kdzoo.teacher(setup), speed_kdzoo.live(setup, 1)))
    declared = gpu_floors.KERNELS[setup.pair]
    assert teacher == pytest.approx(declared.teacher, abs=5)
    assert live - teacher + 21 == pytest.approx(declared.student, abs=5)
