"""The shipped studies of transfer sets, of ensembles and of specialists: every stage of each trained for real, on a few images."""

import csv
import io
import json

import numpy as np
import pytest
import yaml

from kdzoo.suite.study import read_study, shipped_studies

KEPT = 320
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
        stage["bench"] |= {"epochs": 1, "set": {**stage["bench"].get("set", {}), "recipe.batch_size": 32}, **bench}
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
