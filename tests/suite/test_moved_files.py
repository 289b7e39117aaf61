"""Files that moved between two calls of a bench are found where the second call says that they lie."""

from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

from kdzoo.models.names import load_zoo
from kdzoo.runs.events import Event, TrainingBegun
from kdzoo.runs.store import RunFolder, Store
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.run.bench import refit_plan, run
from kdzoo.suite.run.launchers.here import Here
from kdzoo.suite.run.planned_files import write_plan
from kdzoo.suite.run.prepare import Prepared, prepare


def prepared(folder: Path, weights: Path) -> Prepared:
    """A bench whose teacher is a file."""
    options = {
        "name": "b",
        "results": str(folder),
        "data": "digits",
        "teacher": f"digits_teacher:{weights}",
        "student": "digits_student",
        "recipe": "digits",
        "methods": "hinton",
        "threads": 1,
        "epochs": 1,
        "limit": 300,
        "seeds": 1,
        "allow_chance_teacher": True,
    }
    return prepare(bench_config(options, None))


def move(file: Path, to: Path) -> Path:
    to.mkdir()
    return file.rename(to / file.name)


def test_a_failed_run_is_trained_again_with_a_teacher_that_moved_and_a_done_one_keeps_its_record(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    weights = tmp_path / "b.pth"
    load_zoo()
    torch.save(timm.create_model("digits_teacher", num_classes=10, in_chans=1).state_dict(), weights)
    planned = prepared(tmp_path, weights).plan
    write_plan(planned)
    (taught,) = (planned.store.run(one.run.id) for one in planned.students if one.run.teacher)
    taught.fail("Traceback ...\nRuntimeError: the machine was switched off\n")

    weights = move(weights, tmp_path / "second")
    outcome = run(prepared(tmp_path, weights), Here(), lambda _: None, retry_failed=True)
    assert outcome.failed == {}
    assert teacher_file(taught) == str(weights)

    earlier, weights = weights, move(weights, tmp_path / "third")
    begun: list[Event] = []
    again = prepared(tmp_path, weights)
    assert run(again, Here(), begun.append, retry_failed=False).done == outcome.done
    assert [event for event in begun if isinstance(event, TrainingBegun)] == []
    assert teacher_file(taught) == str(earlier)
    assert {one.about["paths"]["teacher"] for one in refit_plan(again).students if one.run.teacher} == {str(weights)}


def teacher_file(folder: RunFolder) -> str:
    return folder.read_plan()[1]["paths"]["teacher"]


def test_kdzoo_run_finds_images_and_unlabelled_images_that_moved(place, kdzoo):
    """A run that failed is trained again where its data lie now, and the record says where that is; other images are refused."""
    random = np.random.default_rng(0)
    for name in ("photos", "others"):
        for number in range(40):
            file = place / name / ("dark", "bright")[number % 2] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 128, (8, 8, 3)).astype(np.uint8) + 127 * (number % 2)).save(file)
    words = "--pairs resnet14/resnet8 --recipe digits --set recipe.augment.size=16 --epochs 1 --threads 1 --seeds 1 --methods hinton"
    words += " --allow-chance-teacher --no-refit"
    made = kdzoo("bench", "--data", "folder:photos", "--transfer-data", "folder:others", "--name", "b", *words.split())
    assert made.status == 0, made.err
    (taught,) = (run for run in map(Store(place / "results" / "b").run, Store(place / "results" / "b").ids()) if "hinton" in run.id)
    before = taught.test_metrics()
    taught.reset()
    (place / "photos").rename(place / "moved")
    (place / "others").rename(place / "moved others")

    assert "no such folder" in kdzoo("run", taught.path).err
    assert "has changed" in kdzoo("run", taught.path, "--data", "folder:moved", "--transfer-data", "folder:moved").err
    again = kdzoo("run", taught.path, "--data", "folder:moved", "--transfer-data", "folder:moved others")
    assert again.status == 0, again.err
    assert taught.test_metrics() == before
    paths = taught.read_plan()[1]["paths"]
    assert paths["data"] == f"folder:{place / 'moved'}"
    assert paths["transfer_data"] == f"folder:{place / 'moved others'}"
