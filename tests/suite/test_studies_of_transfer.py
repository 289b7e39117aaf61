"""The shipped studies of transfer sets, of ensembles and of specialists: every stage of each trained for real, on a few images."""

import csv
import hashlib
import io
import json
import re

import numpy as np
import pytest
import yaml
from scipy.io import wavfile

from kdzoo.errors import InputError
from kdzoo.suite.study.reproduce import check_benches
from kdzoo.suite.study.study_files import read_study, shipped_studies
from kdzoo.training.run_data import load_dataset
from kdzoo.training.specialise import train_specialist

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
@pytest.mark.parametrize(("name", "seeds"), [("unlabelled", 1), ("transfer", 1)])
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
    ten["bench"] |= {**small, "pairs": ["digits_student/digits_student"], "seeds": [0, 1]}
    one["bench"] |= {**small, "student": "digits_student"}
    one["teacher"]["seeds"] = [0, 1]
    (place / "two.yaml").write_text(yaml.safe_dump(content))
    said = kdzoo("reproduce", "two.yaml", "--jobs", 1, "--seeds", 2)
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


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_every_study_can_be_looked_at_with_one_seed(name):
    """A stage that names its seeds keeps them: an ensemble of ten is one of ten."""
    found = read_study(shipped_studies()[name])
    check_benches(found, 1, {})
    named = {stage.name: stage.bench.get("seeds") for stage in found.benches}
    for stage in found.benches:
        listed = named[stage.name] if isinstance(named[stage.name], list) else [0]
        assert found.config(stage, 1).seeds == tuple(listed)
    if name == "hinton-ensemble":
        assert len(named["ten"]) == 10


def test_an_ensemble_of_ten_is_planned_with_one_seed_of_what_it_teaches(kdzoo, place):
    recordings = place / "data" / "fsdd" / "recordings"
    recordings.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(-999, 999, 4000).astype(np.int16)
    for speaker in ("george", "jackson", "lucas", "nicolas", "theo", "yweweler"):
        for digit in range(10):
            wavfile.write(recordings / f"{digit}_{speaker}_0.wav", 8000, noise)
    said = kdzoo("reproduce", "hinton-ensemble", "--seeds", 1, "--dry-run", "--data-root", place / "data")
    assert said.status == 0, said.err
    assert "seeds 0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in " ".join(said.out.split())


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


def test_specialists_that_the_data_and_the_recipe_do_not_allow_are_refused_before_training(tmp_path):
    content = yaml.safe_load(shipped_studies()["hinton-specialists"].read_text())
    content["stages"][0]["bench"]["set"] = {"recipe.clip": 1.0, "recipe.mixup": 0.2, "recipe.precision": "bfloat16"}
    content["stages"][1]["specialists"] |= {"count": 101, "size": 100}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError) as refused:
        read_study(tmp_path / "wrong.yaml")
    start = "study wrong: stages.specialists.specialists."
    assert [problem.removeprefix(start) for problem in refused.value.problems] == [
        "count: expected 1 to 100, one for each class at most, got 101",
        "size: expected 2 to 99 of the 100 classes, got 100",
        "of: recipe.clip: not used in the training of specialists; expected null, got 1",
        "of: recipe.precision: not used in the training of specialists; expected float32, got bfloat16",
        "of: recipe.mixup: not used in the training of specialists; expected null, got 0.2",
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("train_here")
def test_specialists_are_trained_combined_and_distilled_into_one_network(kdzoo, place, monkeypatch):
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
    # another network than the result's is made again, where the data lie now, and as it was
    file, network = (folder / "specialists" / f"seed-0.{kind}" for kind in ("json", "safetensors"))
    written = network.read_bytes()
    assert json.loads(file.read_text())["network_sha256"] == hashlib.sha256(written).hexdigest()
    network.write_bytes(written[:-100])
    load_dataset.cache_clear()
    (place / "data").rename(place / "moved")
    moved = (*words[:3], place / "moved", *words[4:])
    asked = []

    def interrupted(generalist, images, classes, recipe, seed):
        asked.append(classes)
        if len(asked) == 3:
            raise InputError("interrupted")
        return train_specialist(generalist, images, classes, recipe, seed)

    with monkeypatch.context() as patched:
        patched.setattr("kdzoo.training.specialise.train_specialist", interrupted)
        told = kdzoo(*moved)
        assert told.status == 1
        assert "not the file that was written with seed-0.json" in " ".join((told.out + told.err).split())
        kept = folder / "specialists" / "seed-0.parts" / "specialist-1.safetensors"
        kept.write_bytes(kept.read_bytes()[:-1] + bytes([kept.read_bytes()[-1] ^ 1]))
        resumed = kdzoo(*moved)
        assert resumed.status == 0, resumed.err
        assert "the specialist is trained again" in " ".join(resumed.out.split())
    sets = [tuple(own) for own in result["classes"]]
    assert asked == [*sets, sets[0], sets[2]], "the second was kept, the first is damaged, the third was lost"
    assert network.read_bytes() == written
    assert not kept.parent.exists()
