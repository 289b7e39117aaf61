"""The shipped studies of transfer sets, of ensembles and of specialists: every stage of each trained for real, on a few images."""

import csv
import io
import json
import re

import numpy as np
import pytest
import yaml

from kdzoo.errors import InputError
from kdzoo.suite.study.study import read_study, shipped_studies

KEPT = 200
"""training images of each archive"""


def write_archives(root, **classes: int) -> None:
    """Data sets of coloured noise in which a class is a hue, as `{root}/{name}/{train,test}.npz`."""
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        random = np.random.default_rng(len(name))
        hues = random.integers(40, 216, (count, 3))
        for part, size in (("train", KEPT), ("test", 100)):
            labels = np.arange(size) % count
            images = np.clip(hues[labels][:, None, None] + random.normal(0, 40, (size, 32, 32, 3)), 0, 255).astype(np.uint8)
            np.savez(root / name / f"{part}.npz", images=images, labels=labels, classes=np.array([f"class {i}" for i in range(count)]))


def shrunk(name: str, folder, **bench) -> str:
    """A shipped study with its stages, measures and claims as they are, each stage on few images for an epoch."""
    content = yaml.safe_load(shipped_studies()[name].read_text())
    for stage in content["stages"]:
        if "specialists" in stage:
            stage["specialists"] |= {"count": 3, "size": 8, "epochs": 1}
        if "bench" not in stage:
            continue
        stage["bench"] |= {
            "epochs": 1,
            "allow_chance_teacher": True,
            "set": {**stage["bench"].get("set", {}), "recipe.batch_size": 32},
            **bench,
        }
        if "limit" in stage["bench"]:
            stage["bench"]["limit"] = min(stage["bench"]["limit"], KEPT // 2)
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(file)


def rows_of(folder) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))


@pytest.mark.slow
@pytest.mark.usefixtures("train_here")
@pytest.mark.parametrize(("name", "seeds"), [("unlabelled", 3), ("transfer", 1)])
def test_a_study_of_transfer_comes_to_every_number_that_it_states(kdzoo, place, name, seeds):
    write_archives(place / "data", cifar10=10, cifar100=20)
    said = kdzoo("reproduce", shrunk(name, place), "--data-root", place / "data", "--seeds", seeds, "--jobs", 1)
    assert said.status == 0, said.err
    rows = rows_of(place / "results" / "papers" / name)
    assert len(rows) == len(read_study(shipped_studies()[name]).measures)
    assert [row["measure"] for row in rows if row["reached"] == "not measured"] == []
    assert {row["n"] for row in rows} <= {"1", str(seeds)}


@pytest.mark.slow
@pytest.mark.usefixtures("train_here")
def test_one_network_is_taught_by_those_that_the_average_is_of(kdzoo, place):
    """The study of the ensemble with two networks for ten, on handwritten digits."""
    content = yaml.safe_load(shipped_studies()["hinton-ensemble"].read_text())
    ten, _, one = content["stages"]
    small = {"data": "digits", "limit": 300, "recipe": "smoke", "epochs": 6, "allow_chance_teacher": True}
    ten["bench"] |= {**small, "pairs": ["digits_student/digits_student"], "seeds": 2}
    one["bench"] |= {**small, "student": "digits_student", "seeds": 2}
    one["teacher"]["seeds"] = [0, 1]
    (place / "two.yaml").write_text(yaml.safe_dump(content))
    said = kdzoo("reproduce", "two.yaml", "--jobs", 1)
    assert said.status == 0, said.err
    folder = place / "results" / "papers" / "two"
    average = json.loads((folder / "average" / "seed-0.json").read_text())["result"]
    (taught, _) = sorted((folder / "one" / "runs").glob("hinton-*"))
    assert json.loads((taught / "result.json").read_text())["teacher"]["test"]["top1"] == average["last"]["test"]["top1"]
    rows = {row["measure"]: row for row in rows_of(folder)}
    assert not [name for name, row in rows.items() if row["reached"] == "not measured"]
    gain, kept, share = (
        float(next(row["mean"] for name, row in rows.items() if name.startswith(start)))
        for start in ("ten networks, minus", "one network taught by the ten, minus", "of what ten are")
    )
    assert share == pytest.approx(100 * kept / gain)


WRONG_TEACHERS = [
    ({"stage": "specialists", "method": "hinton"}, "stage specialists is a step (specialists), whose network has no method"),
    ({"stage": "specialists", "seeds": [0, 1]}, "stage specialists is a step (specialists): expected one seed, got 0, 1"),
    ({"stage": "specialists", "seeds": [3]}, "stage specialists is not done for seed 3; its seeds: 0"),
    ({"stage": "mean"}, "stage mean is a step (average) that makes no network; expected a stage that trains"),
]


@pytest.mark.parametrize(("teacher", "fault"), WRONG_TEACHERS)
def test_a_step_without_such_a_network_does_not_teach(tmp_path, teacher, fault):
    content = yaml.safe_load(shipped_studies()["hinton-specialists"].read_text())
    content["stages"].insert(1, {"name": "mean", "average": {"of": {"stage": "generalist"}}})
    next(stage for stage in content["stages"] if stage["name"] == "distilled")["teacher"] = teacher
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=re.escape(f"stages.distilled: {fault}")):
        read_study(tmp_path / "wrong.yaml")


def test_specialists_need_the_labels_of_all_classes(tmp_path):
    content = yaml.safe_load(shipped_studies()["hinton-specialists"].read_text())
    content["stages"][0]["bench"] |= {"label_fraction": 0.1, "transfer_classes": -3}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match="labels of all classes, and stage generalist has transfer_classes, label_fraction"):
        read_study(tmp_path / "wrong.yaml")


@pytest.mark.slow
@pytest.mark.usefixtures("train_here")
def test_specialists_are_trained_combined_and_distilled_into_one_network(kdzoo, place):
    write_archives(place / "data", cifar100=20)
    file = shrunk("hinton-specialists", place)
    words = ("reproduce", file, "--data-root", place / "data", "--jobs", 1)
    said = kdzoo(*words)
    assert said.status == 0, said.err
    folder = place / "results" / "papers" / "hinton-specialists"
    result = json.loads((folder / "specialists" / "seed-0.json").read_text())["result"]
    # the generalist is the student alone of the first stage, as its own result has it
    (alone,) = (folder / "generalist" / "runs").glob("none-*")
    measured = json.loads((alone / "result.json").read_text())["last"]["test"]
    assert result["generalist"]["test"]["errors_per_class"] == measured["errors_per_class"]
    # all of them together are the teacher that the next stage measured for itself
    (taught,) = (folder / "distilled" / "runs").glob("hinton-*")
    teacher = json.loads((taught / "result.json").read_text())["teacher"]
    assert teacher["name"] == "specialists_3x8_resnet8"
    assert teacher["test"]["top1"] == result["last"]["test"]["top1"]
    assert teacher["test"]["nll"] == pytest.approx(result["last"]["test"]["nll"], abs=1e-5)
    # images counted by how many specialists know their class, which is the sum over the sets
    counts = [sum(label in own for own in result["classes"]) for label in range(20)]
    assert {int(key): one["images"] for key, one in result["coverage"].items()} == {n: 5 * counts.count(n) for n in set(counts)}
    right = sum(one["images"] * one["together"]["top1"] for one in result["coverage"].values())
    assert right / 100 == pytest.approx(result["last"]["test"]["top1"])
    page = (folder / "README.md").read_text()
    assert "the teacher is the network of stage specialists" in page
    assert "3 specialists of 8 classes from the student alone of stage generalist, each trained for 1 epoch" in page
    again = kdzoo(*words)
    assert "nothing is left to do" in again.out + again.err
    assert kdzoo(*words, "--dry-run").status == 0
