"""The shipped studies of transfer sets, of ensembles and of specialists: every stage of each trained for real, on a few images."""

import csv
import io

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
    for stage in (stage for stage in content["stages"] if "bench" in stage):
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
