"""Advice before training: the rule by hand, the facts by other programs, and the command as a user would run it."""

import importlib.util
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import entropy

from kdzoo.cli.app import status_of
from kdzoo.errors import InputError
from kdzoo.runs.store import teacher_store
from kdzoo.suite.advice.advise import as_in_default_bench
from kdzoo.suite.advice.facts import mean_entropy, teacher_facts
from kdzoo.suite.advice.rule import MOST, dose_to_try, expected_gain, recommend
from kdzoo.suite.advice.trials import COLLAPSED_GAIN, FILE, Trial, as_csv, phase_of, read_trials, trials_of
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.report.bench import read_bench

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "results"


def trial(
    method: str, gain: float, data: str = "digits", dose: float | None = None, *, collapsed: bool = False, temperature=None, low=None
) -> Trial:
    return Trial("bench", data, "a/b", method, gain, gain - 0.5 if low is None else low, 90.0, 3, collapsed, temperature, dose)


def test_a_method_is_believed_by_half_when_it_was_tried_once_and_more_the_oftener_it_was_tried():
    assert expected_gain([trial("at", 1.0)]) == 0.5
    assert expected_gain([trial("at", 1.0), trial("at", 2.0), trial("at", 0.0)]) == 0.75
    assert expected_gain([]) == 0


def test_a_collapse_counts_as_worse_by_no_more_than_its_limit():
    assert expected_gain([trial("at", -60.0, collapsed=True)]) == COLLAPSED_GAIN / 2
    assert expected_gain([trial("at", -1.0, collapsed=True)]) == -0.5
    assert expected_gain([trial("at", -60.0)]) == -30


def test_a_method_stands_before_plain_kd_only_where_it_was_shown_to_be_better_on_two_data_sets():
    trials = [
        trial("hinton", 0.0), trial("once", 9.0), trial("once", 9.0), trial("both", 1.0), trial("both", 1.0, "cifar"),
        trial("mixed", 5.0), trial("mixed", -1.0, "cifar"), trial("worse", -1.0), trial("absent", 9.0),
        trial("chance", 1.0), trial("chance", 0.5, "cifar", low=-0.1),
    ]  # fmt: skip
    order = [choice.method for choice in recommend(trials, ["hinton", "once", "both", "mixed", "worse", "untried", "chance"], {})]
    assert order == ["both", "hinton", "once", "mixed", "chance"]


def test_so_many_methods_are_recommended_beside_plain_kd_and_no_more():
    names = [f"m{number}" for number in range(9)]
    found = recommend([trial(name, 1.0 + at) for at, name in enumerate(names)], [*names, "hinton"], {})
    assert [choice.method for choice in found] == ["hinton", *reversed(names[-MOST:])]


def test_the_dose_to_try_is_the_geometric_mean_of_those_that_were_good_elsewhere():
    """exp(mean(log)) of 0.1 and 1 is 0.316, to two digits 0.32."""
    good = [trial("at", 1.0, dose=0.1), trial("at", 1.0, dose=1.0)]
    assert dose_to_try(good, 20.0) == 0.32
    assert dose_to_try(good, None) == 0.32
    assert dose_to_try(good, 0.5) is None, "the published weight has about that dose here"
    assert dose_to_try([trial("at", 1.0)], 20.0) is None


def test_a_collapsed_trial_says_nothing_about_the_setting_where_a_healthy_one_does():
    trials = [
        trial("at", 1.0, dose=0.1, temperature=2.0),
        *(trial("at", -9.0, dose=90.0, temperature=8.0, collapsed=True) for _ in range(3)),
    ]
    (choice,) = [choice for choice in recommend([*trials, trial("at", 30.0)], ["at"], {}) if choice.method == "at"]
    assert choice.dose == 0.1


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_entropy_is_scipys_of_the_softened_probabilities(temperature):
    scores = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 5
    softened = np.exp(scores.double().numpy() / temperature)
    expected = entropy(softened, axis=1).mean()
    assert mean_entropy(scores.log_softmax(1), temperature) == pytest.approx(expected)


def test_a_teacher_that_is_never_wrong_and_always_sure_has_no_entropy_and_no_calibration_error():
    sure = torch.eye(3).log()
    facts = teacher_facts("t", sure, torch.arange(3), "validation")
    assert (facts.accuracy, facts.calibration, facts.confidence, facts.entropy[1.0]) == (1.0, 0.0, 1.0, 0.0)
    assert facts.most == pytest.approx(math.log(3))


def test_trials_are_the_gains_of_a_committed_table_at_the_settings_that_validation_chose():
    found = {one.method: one for one in trials_of(read_bench(RESULTS / "digits"))}
    assert (found["hinton"].gain, found["hinton"].gain_low) == (0, None)
    assert found["at"].gain_low < found["at"].gain
    assert "none" not in found
    assert found["at"].seeds == 3
    assert found["at"].gain == pytest.approx(100 * (accuracy_of_chosen("at") - accuracy_of_chosen("hinton")), abs=1e-3)


def accuracy_of_chosen(method: str) -> float:
    """The mean test accuracy of the setting of a method in results/digits whose mean on validation is the highest, from the files."""
    by_setting: dict[str, list[dict]] = {}
    for file in (RESULTS / "digits/runs").glob(f"{method}-*/run.json"):
        objective = json.dumps(json.loads(file.read_text())["run"]["objective"], sort_keys=True)
        by_setting.setdefault(objective, []).append(json.loads((file.parent / "result.json").read_text())["last"])
    best = max(by_setting.values(), key=lambda runs: np.mean([one["val"]["top1"] for one in runs]))
    return float(np.mean([one["test"]["top1"] for one in best]))


def test_a_method_among_whose_settings_no_validation_image_chose_is_no_trial():
    """Five temperatures of plain KD with all images in training: the best of them on the test images is nobody's choice."""
    assert trials_of(read_bench(RESULTS / "papers" / "hinton-temperature" / "widths")) == []
    of_one_setting = trials_of(read_bench(RESULTS / "papers" / "bfloat16-16" / "float32"))
    assert {(one.method, one.validation) for one in of_one_setting} == {("at", None), ("crd", None), ("hinton", None)}


def test_a_method_whose_seeds_all_failed_counts_as_collapsed_and_not_as_good_as_plain_kd():
    (failed,) = [one for one in trials_of(read_bench(RESULTS / "zoo_digits")) if one.method == "semckd"]
    assert failed.collapsed
    assert failed.seeds == 0
    assert failed.gain == COLLAPSED_GAIN


def test_a_refit_that_is_still_being_trained_does_not_stand_for_the_table():
    rows = [("sweep", "at"), ("sweep", "rkd"), ("refit", "at")]
    assert phase_of(pd.DataFrame(rows, columns=["phase", "method"])) == "sweep"
    assert phase_of(pd.DataFrame([*rows, ("refit", "rkd")], columns=["phase", "method"])) == "refit"


def test_trials_that_are_written_are_read_back(tmp_path):
    trials = [trial("at", -1.5, dose=0.1), trial("hinton", 0.0, temperature=4.0), trial("nst", -9.0, collapsed=True)]
    (tmp_path / "trials.csv").write_text(as_csv(trials))
    assert read_trials(tmp_path / "trials.csv") == trials
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"other.csv: expected a table of trials with the columns bench, data, pair, method, gain"):
        read_trials(tmp_path / "other.csv")


@pytest.mark.release
def test_the_trials_that_ship_and_the_page_are_those_of_the_committed_benches():
    spec = importlib.util.spec_from_file_location("advice", ROOT / "benchmarks" / "advice.py")
    script = importlib.util.module_from_spec(spec)
    sys.modules["advice"] = script  # where its dataclasses look for their module
    spec.loader.exec_module(script)
    trials = script.trials_of_benches(RESULTS)
    assert FILE.read_text() == as_csv(trials)
    assert script.PAGE.read_text() == script.page(script.regrets(trials), trials)


def test_a_teacher_that_is_not_trained_is_told_with_the_command_that_trains_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert status_of(["train", "digits_teacher", "--limit", "300", "--epochs", "1"], debug=False) == 0
    (kept,) = teacher_store().ids()
    assert (
        status_of(["advise", "--teacher", "digits_teacher", "--student", "digits_student", "--limit", "300", "--epochs", "2"], debug=False)
        == 0
    )
    told = capsys.readouterr().out
    assert "not trained yet" in told
    assert "kdzoo train digits_teacher --limit 300 --epochs 2" in told
    assert re.search(rf"name one that was trained otherwise: --teacher {kept} \(1 epoch, test top-1 \d+\.\d %\)", told)
    assert re.search(r"\d methods cannot be trained with this pair: deit_hard, deit_soft", told)


def test_the_default_pair_means_the_teacher_of_the_default_bench_unless_a_recipe_is_asked_for():
    pair = {"teacher": "digits_teacher", "student": "digits_student"}

    def teachers(options):
        return plan(bench_config(options, None)).teachers.keys()

    assert teachers(as_in_default_bench(pair)) == teachers({}) != teachers(pair)
    assert as_in_default_bench({**pair, "epochs": 3}) == {**pair, "epochs": 3}
    assert as_in_default_bench({**pair, "student": "resnet8"}) == {**pair, "student": "resnet8"}


def test_networks_that_are_missing_are_named(capsys):
    assert status_of(["advise", "--data", "digits"], debug=False) == 2
    told = capsys.readouterr().err
    assert "teacher: expected a network's name" in told
    assert "student: expected a network's name" in told


@pytest.mark.slow
def test_advice_measures_the_teacher_and_doses_and_its_command_can_be_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    few = ["--limit", "300", "--epochs", "2"]
    pair = ["--teacher", "digits_teacher", "--student", "digits_student"]
    assert status_of(["train", "digits_teacher", *few, "--set", "teacher_recipe.epochs=8"], debug=False) == 0
    capsys.readouterr()
    asked = ["advise", *pair, *few, "--set", "teacher_recipe.epochs=8", "--json"]
    assert status_of(asked, debug=False) == 0
    advice = json.loads(capsys.readouterr().out)
    facts = advice["teacher"]
    assert facts["part"] == "validation"
    assert 0.5 < facts["accuracy"] <= 1
    assert facts["entropy"]["1.0"] < facts["entropy"]["2.0"] < facts["entropy"]["8.0"] < facts["most"] == pytest.approx(math.log(10))
    assert set(advice["without_dose"]) & set(advice["doses"]) == set()
    assert len(advice["doses"]) > 50
    assert "at" in advice["too_large"], "its weight of 1000 was published for larger maps"
    bench = ["bench", *pair, *few, "--set", "teacher_recipe.epochs=8", "--methods", "at", "--doses", "1", "--seeds", "1", "--name", "one"]
    assert status_of([*bench, "--results", str(tmp_path / "results"), "--launcher", "here"], debug=False) == 0
    (run,) = (tmp_path / "results/one/runs").glob("at-*/run.json")
    (term,) = json.loads(run.read_text())["run"]["objective"]["terms"]
    assert advice["doses"]["at"] == pytest.approx(1000 / term["coefficient"], rel=0.06), "of a weight of dose 1, in two digits"
    capsys.readouterr()
    methods = [choice["method"] for choice in advice["choices"]]
    assert "hinton" in methods

    assert status_of(asked[:-1], debug=False) == 0
    told = capsys.readouterr()
    assert "doses: measuring" not in told.out + told.err, "what was measured is kept"
    command = re.search(r"^next +kdzoo (.*)$", told.out, re.M).group(1).replace("'", "").split()
    assert status_of([*command, "--dry-run"], debug=False) == 0
    planned = capsys.readouterr().out
    assert all(method in planned for method in methods)
