"""Steps of a study: biases, ensembles and training accuracy, against the kept predictions of the very runs; resumed."""

import csv
import json

import numpy as np
import pytest
import torch
import yaml

import kdzoo as package
from kdzoo.errors import InputError
from kdzoo.runs.spec import ObjectiveSpec
from kdzoo.suite.study.stages import as_request
from kdzoo.suite.study.steps.perform import _act
from kdzoo.suite.study.steps.step import Step, Work
from kdzoo.suite.study.study_files import read_study, study_file
from kdzoo.suite.study.which import Runs

DIGITS = {"data": "digits", "recipe": "smoke", "epochs": 3}
WITHOUT_THREES = {
    **DIGITS,
    "pairs": ["digits"],
    "transfer_classes": -3,
    "alphas": [1.0],
    "temperatures": [4],
    "val_fraction": 0.2,
    "seeds": 2,
}
HINTON = {"stage": "main", "method": "hinton"}
STAGES = [
    {"name": "main", "bench": WITHOUT_THREES},
    {"name": "teacher_labels", "calibrate": {"of": HINTON, "classes": [3], "labels": "teacher"}},
    {"name": "held_out", "calibrate": {"of": HINTON, "classes": [3], "labels": "validation"}},
    {"name": "together", "average": {"of": HINTON}},
    {"name": "fit", "evaluate": {"of": {**HINTON, "method": "none", "seeds": [1]}}},
    {
        "name": "taught",
        "teacher": {**HINTON, "seeds": [0, 1]},
        "bench": {**DIGITS, "student": "digits_student", "seeds": 1, "val_fraction": 0.2},
    },
]
ANY = {"between": [0, None]}
MEASURES = [
    {"name": "before", "of": {"stage": "held_out", "metric": "before.test.top1"}, **ANY},
    {"name": "after", "of": {"stage": "held_out", "metric": "errors"}, **ANY},
    {"name": "threes", "of": {"stage": "held_out", "metric": "recall.3"}, **ANY},
    {"name": "missed threes", "of": {"stage": "main", "method": "hinton", "metric": "errors.3"}, **ANY},
    {"name": "ensemble", "of": {"stage": "together"}, **ANY},
    {"name": "below the ensemble", "of": {"stage": "together"}, "minus": HINTON, "between": [None, 100]},
    {"name": "teacher", "of": {"stage": "taught", "method": "teacher"}, **ANY},
    {"name": "training", "of": {"stage": "fit", "metric": "training.top1"}, **ANY},
]


def study(folder, stages=STAGES, measures=MEASURES, **more):
    file = folder / "mine.yaml"
    content = {"title": "Steps", "claim": "They are done.", "source": "https://example.org", "tries": [], "seeds": 2}
    file.write_text(yaml.safe_dump({**content, "stages": stages, "measures": measures, **more}))
    return file


def result(folder, stage: str, seed: int) -> dict:
    return json.loads((folder / stage / f"seed-{seed}.json").read_text())["result"]


def predictions(folder, method: str, part: str) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Log-probabilities and targets that the runs of a method kept, by seed."""
    found = {}
    for path in (folder / "main" / "runs").glob(f"{method}-*/predictions.npz"):
        kept, seed = np.load(path), json.loads((path.parent / "run.json").read_text())["run"]["seed"]
        found[seed] = (kept[part].astype(np.float64), kept[f"{part}_targets"])
    return found


def errors(log_probs: np.ndarray, targets: np.ndarray) -> int:
    return int((log_probs.argmax(1) != targets).sum())


@pytest.mark.slow
@pytest.mark.usefixtures("train_here")
def test_steps_are_done_with_the_runs_of_earlier_stages_and_told_beside_them(kdzoo, place, capsys):
    file = study(place)
    first = kdzoo("reproduce", file, "--jobs", "1")
    assert first.status == 0, first.err
    folder = place / "results" / "papers" / "mine"
    test, val = predictions(folder, "hinton", "test"), predictions(folder, "hinton", "val")
    assert sorted(test) == [0, 1]
    three = np.arange(10) == 3
    for seed, (log_probs, targets) in test.items():
        found = result(folder, "held_out", seed)
        bias = found["biases"]["3"]
        assert round((1 - found["last"]["test"]["top1"]) * len(targets)) == errors(log_probs + bias * three, targets)
        assert found["before"]["test"]["top1"] == pytest.approx(1 - errors(log_probs, targets) / len(targets))
        tried = [errors(val[seed][0] + one * three, val[seed][1]) for one in np.arange(-20, 20, 0.1)]
        assert errors(val[seed][0] + bias * three, val[seed][1]) <= min(tried), "no bias makes fewer errors on the held-out images"
        labelled = result(folder, "teacher_labels", seed)["chosen_on"]
        assert labelled["after"]["n"] == 1437 - 287, "all training images that are not held out, threes among them"
        assert labelled["before"]["images_per_class"][3] > 0
        assert labelled["after"]["top1"] >= labelled["before"]["top1"]
    mean = np.mean([np.exp(log_probs) for log_probs, _ in test.values()], axis=0)
    together = 1 - errors(mean, test[0][1]) / len(mean)
    assert result(folder, "together", 0)["last"]["test"]["top1"] == pytest.approx(together)
    with (folder / "results.csv").open(newline="") as file_of_rows:
        rows = {row["measure"]: row for row in csv.DictReader(file_of_rows)}
    assert float(rows["ensemble"]["mean"]) == pytest.approx(100 * together)
    assert float(rows["teacher"]["mean"]) == pytest.approx(100 * together), "the row of a teacher of several networks is their average"
    assert (rows["below the ensemble"]["n"], rows["below the ensemble"]["planned"]) == ("2", "2"), "one ensemble stands beside every seed"
    fit = result(folder, "fit", 1)["training"]
    assert fit["images_per_class"][3] == 0
    trained = [json.loads(path.read_text()) for path in (folder / "main" / "runs").glob("none-*/result.json")]
    assert {fit["n"]} == {one["train"]["samples"] for one in trained}
    page = (folder / "README.md").read_text()
    assert "`held_out/`: the bias of class 3 in hinton of stage main, chosen on held-out training images with their labels" in page
    again = kdzoo("reproduce", file, "--jobs", "1")
    assert again.status == 0
    assert again.out.count("nothing is left to do") == len(STAGES)
    assert (folder / "README.md").read_text() == page
    kept = (folder / "held_out" / "seed-0.json").read_bytes()
    assert {key: json.loads(kept)["environment"][key] for key in ("device", "threads")} == {"device": "cpu", "threads": 1}
    (folder / "held_out" / "seed-0.json").write_text("{")
    capsys.readouterr()
    frame = package.reproduce(file, execution=package.Execution(jobs=1))
    assert (folder / "held_out" / "seed-0.json").read_bytes() == kept
    assert "the old file is kept as seed-0.json.damaged" in capsys.readouterr().out
    assert frame.attrs == {"folder": "results/papers/mine", "surfaces": {}, "failed": {}, "problems": []}
    assert {row.measure: f"{row.mean:g}" for row in frame.itertuples()} == {name: f"{float(row['mean']):g}" for name, row in rows.items()}
    (folder / "together" / "seed-0.json").unlink()
    next((folder / "main" / "runs").glob("hinton-*/student.safetensors")).unlink()
    lost = kdzoo("reproduce", file, "--jobs", "1")
    assert lost.status == 1
    assert "kdzoo: stage together, seed 0: weights: " in lost.err
    assert (
        "| ensemble | at least 0 | 0 of 1 |  |  | not measured | stage together has not been done |" in (folder / "README.md").read_text()
    )


class Threads(Step):
    """A step whose result is the number of threads that it has."""

    def act(self, work):
        return {"threads": torch.get_num_threads()}


def test_a_step_acts_with_the_threads_that_it_was_given(tmp_path):
    before = torch.get_num_threads()
    for threads in (1, 2):
        work = Work(0, (), tmp_path, "cpu", print, threads)
        assert _act(Threads(of=Runs(stage="main")), work) == {"threads": threads}
        assert torch.get_num_threads() == before


def test_the_faults_of_steps_are_told_before_any_training(tmp_path):
    bench = {**DIGITS, "pairs": ["digits"], "val_fraction": 0, "keep": ["predictions"], "seeds": 3}
    stages = [
        {"name": "main", "bench": bench},
        {"name": "a", "calibrate": {"of": HINTON, "classes": [3, 10], "labels": "validation"}},
        {"name": "b", "average": {"of": {"stage": "a"}}},
        {"name": "c", "average": {"of": {"stage": "main", "seeds": [0, 5]}, "size": 2}},
        {"name": "d", "average": {"of": {"stage": "main"}, "size": 2}},
    ]
    measures = [{"name": "x", "of": {"stage": "a", "method": "hinton"}, **ANY}, {"name": "y", "of": {"stage": "main"}, **ANY}]
    with pytest.raises(InputError) as refused:
        read_study(study(tmp_path, stages, measures))
    assert [problem.removeprefix("study mine: ") for problem in refused.value.problems] == [
        "stages.a: stage main keeps no students, which a step reads; add student to its keep",
        "stages.b: stage a is a step (calibrate) and has no runs; expected a stage that trains",
        "stages.c: stage main keeps no students, which a step reads; add student to its keep",
        "stages.d: stage main keeps no students, which a step reads; add student to its keep",
        "stages.a.calibrate.labels: stage main holds out no validation images (val_fraction is 0); expected teacher",
        "stages.a.calibrate.classes: expected numbers from 0 to 9, got 10",
        "stages.c: stage main does not train seed 5; its seeds: 0, 1, 2",
        "stages.d.average.size: 3 seeds do not make ensembles of 2",
        "measures, 'x': stage a is a step (calibrate), whose numbers have no method",
        "measures, 'y': method: missing",
    ]
    with pytest.raises(InputError) as refused:
        read_study(study(tmp_path, [{"name": "a", "bench": bench, "calibrate": {"of": HINTON, "clases": [3], "labels": "test"}}]))
    told = "\n".join(refused.value.problems)
    assert "stages.0.calibrate.classes: missing" in told
    assert "stages.0.calibrate.labels: expected 'teacher' or 'validation', got 'test'" in told


@pytest.mark.parametrize("method", ["fitnet_two_stage", "ft", "ab", "ab+hinton", "fsp"])
def test_a_setting_of_a_method_of_two_stages_is_taken_over_as_it_is(method):
    """What a bench makes of the words for a setting is the objective that the setting came from."""
    from kdzoo.suite.plan.config import BenchConfig
    from kdzoo.suite.plan.objectives import objective_at
    from kdzoo.suite.plan.requests import parse_request
    from kdzoo.suite.plan.settings import settings

    request = parse_request(method)
    chosen = {"fitnet_two_stage": {"stage": 1}, "ft": {"rate": 0.3}, "ab": {"margin": 2.0}}.get(method.partition("+")[0], {})
    grid = {f"{method.partition('+')[0]}.{key}": (value,) for key, value in chosen.items()}
    (point,) = settings(request, BenchConfig(grid=grid, weights=(0.3,)))
    wanted = objective_at(request, point, "deep", 16)
    assert isinstance(wanted, ObjectiveSpec)
    assert wanted.first is not None
    text, axes = as_request(wanted)
    again = parse_request(text)
    (point,) = settings(again, BenchConfig(grid={key: tuple(values) for key, values in axes.items()}))
    assert objective_at(again, point, "deep", 16) == wanted


def small(name: str, folder):
    """A shipped study on a few digits instead of its own data, an epoch of one seed."""
    content = yaml.safe_load(study_file(name).read_text())
    for stage in content["stages"]:
        if (bench := stage.get("bench")) is not None:
            bench |= {"data": "digits", "limit": 300 if "limit" not in bench else 100, "epochs": 1, "allow_chance_teacher": True}
            bench["set"] = {**bench.get("set", {}), "teacher_recipe.epochs": 1} if "teacher" not in stage else {}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.mark.slow
@pytest.mark.usefixtures("train_here")
@pytest.mark.parametrize("name", ["hinton-mnist", "hinton-temperature", "hinton-few-labels"])
def test_every_number_and_surface_of_a_study_of_hintons_is_measured(kdzoo, place, name):
    """Of the shipped file with its stages, steps, measures and surfaces, on other data: none is left out for a wrong name."""
    done = kdzoo("reproduce", small(name, place), "--seeds", "1", "--jobs", "1")
    assert done.status == 0, done.err
    page = (place / "results" / "papers" / name / "README.md").read_text().lower()
    left_out = [line for line in page.splitlines() if "| not measured |" in line]
    assert [line for line in left_out if "is not clearly a gain" not in line] == []  # a share of what an epoch did not gain is no number
