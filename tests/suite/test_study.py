"""Studies: their files refused with every fault, numbers judged by tolerances, stages that build on earlier ones, resumed."""

import csv
import io
import json
import os

import pandas as pd
import pytest
import yaml
from test_leaderboard import objective, write

from kdzoo.errors import InputError
from kdzoo.runs.costs import RunCost
from kdzoo.runs.cpu import cpu_model
from kdzoo.runs.spec import NetworkSpec, ObjectiveSpec
from kdzoo.suite.plan.starts import Start, keep_start
from kdzoo.suite.study.evidence import write_evidence
from kdzoo.suite.study.hours import hours
from kdzoo.suite.study.progress import read_progress, study_folder
from kdzoo.suite.study.reproduce import check_stages, request_study
from kdzoo.suite.study.speed import this_machine
from kdzoo.suite.study.stages import stage_config
from kdzoo.suite.study.study import Study
from kdzoo.suite.study.study_files import read_study, shipped_studies, study_file

BENCH = {"data": "digits", "pairs": ["digits"], "recipe": "smoke", "methods": ["hinton"]}


def study_of(folder, **changes):
    """A study's file: one stage, one number."""
    content = {
        "title": "A study", "claim": "It does.", "source": "https://example.org", "tries": [], "seeds": 3,
        "stages": [{"name": "main", "bench": BENCH}],
        "measures": [{"name": "KD", "of": {"method": "hinton"}, "paper": 85.0, "tolerance": 3.0}],
    }  # fmt: skip
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({**content, **changes}))
    return file


def rows_of(folder) -> dict[str, dict[str, str]]:
    return {row["measure"]: row for row in csv.DictReader(io.StringIO((folder / "results.csv").read_text()))}


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_every_shipped_study_is_whole_and_has_an_estimate(name):
    found = read_study(study_file(name))
    assert found.measured() or found.order
    assert hours(found) is not None or name == "transfer-imagenet"  # whose teacher is timm's


def test_crd240_has_a_number_for_every_cell_of_the_published_table():
    found = read_study(study_file("crd240"))
    numbers = {measure.name: measure for measure in found.measured()}
    assert len(numbers) == 7 * 14 - 1 + 6 * 13
    cell = numbers["cifar_vgg13/vgg8: CRD"]
    assert (cell.paper, cell.of.method, cell.of.pair) == (73.94, "crd", "cifar_vgg13/vgg8")


def without_time(name: str) -> Study:
    """A shipped study whose file does not state how long it takes, so that this is estimated."""
    return read_study(study_file(name)).model_copy(update={"time": None})


def test_the_estimate_counts_the_passes_of_every_run():
    """cnn64 has 6,654,464 multiply-accumulates an image and cnn128 24,843,264: three passes in training, one in teaching."""
    total = 50_000 * 10 * (10 * 3 * 6_654_464 + 5 * 24_843_264 + 3 * 24_843_264)
    assert hours(without_time("tutorial-cnn")) == (pytest.approx(total / 150e9 / 3600), "two CPU cores")


def cost_of(student: str, teacher: str | None, **changes) -> str:
    """The key of a kind of run in the record of what runs cost."""
    kind = {"student": [student, "standard", None], "teacher": teacher and [teacher, "standard", None], "shape": [3, 32, 32]}
    return json.dumps({"machine": cpu_model(), "threads": 1, "recipe": {"precision": "float32"}, **kind, **changes})


def test_the_estimate_takes_the_speed_at_which_networks_of_the_nearest_size_were_trained_on_this_machine():
    taught, alone, teacher = 3 * 6_654_464 + 24_843_264, 3 * 6_654_464, 3 * 24_843_264
    costs = {
        cost_of("cnn64", "cnn128"): RunCost(1.0, 0.002, 0.0005),
        cost_of("cnn64", None): RunCost(1.0, 0.001, 0.0005),
        cost_of("cnn128", None): RunCost(1.0, 0.004, 0.0005),
        cost_of("cnn64", None, machine="another"): RunCost(1.0, 1.0, 0.0005),
        cost_of("cnn64", None, recipe={"precision": "bfloat16"}): RunCost(1.0, 1.0, 0.0005),
        cost_of("resnet18", None): RunCost(1.0, 1.0, 0.0005),
    }
    machine = this_machine(costs)
    cores = len(os.sched_getaffinity(0))
    assert [machine.seconds(macs) for macs in (taught, alone, teacher)] == [pytest.approx(one / cores) for one in (0.002, 0.001, 0.004)]
    seconds = 50_000 * 10 * (5 * 0.002 + 5 * 0.001 + 0.004) / cores
    assert hours(without_time("tutorial-cnn"), machine) == (
        pytest.approx(seconds / 3600),
        f"this machine's {cores} CPU cores",
    )
    assert this_machine({}).name == "two CPU cores"


def test_the_estimate_counts_a_teacher_of_several_stages_and_pairs_once_with_its_own_epochs(tmp_path):
    """A layer of n inputs and m units has n m multiply-accumulates."""
    teacher, students = 784 * 20 + 20 * 10, (784 * 5 + 5 * 10, 784 * 7 + 7 * 10)
    bench = {"data": "mnist", "pairs": ["mlp_20/mlp_5", "mlp_20/mlp_7"], "recipe": "smoke", "epochs": 2, "val_fraction": 0}
    bench |= {"methods": ["hinton"], "set": {"teacher_recipe.epochs": 9}}
    stages = [{"name": "main", "bench": bench}, {"name": "next", "bench": {**bench, "transfer_classes": -3}}]
    passes = 9 * 3 * teacher + 2 * sum(2 * (6 * 3 * student + 3 * teacher) for student in students)
    assert hours(read_study(study_of(tmp_path, stages=stages))) == (pytest.approx(60_000 * passes / 150e9 / 3600), "two CPU cores")


def test_the_faults_of_a_study_are_told_all_at_once_with_the_nearest_names(tmp_path):
    stages = [
        {"name": "main", "bench": {**BENCH, "temperature": [2], "results": "here"}},
        {"name": "next", "teacher": {"stage": "mian"}, "bench": {**BENCH, "seeds": 0}},
    ]
    measures = [
        {"name": "a", "of": {"method": "hintn", "stage": "main"}, "between": [0, None]},
        {"name": "b", "of": {"method": "none", "stage": "nxt", "metric": "topp1"}, "between": [0, None]},
    ]
    with pytest.raises(InputError) as refused:
        read_study(study_of(tmp_path, stages=stages, measures=measures))
    told = "\n".join(refused.value.problems)
    for fault in (
        "study mine: stages.main.bench.temperature: unknown; did you mean 'temperatures'?",
        "study mine: stages.main.bench.results: not a key of a study",
        "study mine: stages.next: earlier stage: unknown 'mian'; did you mean 'main'?",
        "study mine: stages.next.bench.seeds: expected a number of seeds >= 1",
        "study mine: measures, 'b': stage: unknown 'nxt'; did you mean 'next'?",
        "study mine: measures, 'b': metric: unknown 'topp1'; did you mean 'top1'?",
    ):
        assert fault in told
    with pytest.raises(InputError, match=r"study mine: titel: unknown; did you mean 'title'\?"):
        read_study(study_of(tmp_path, titel="x"))
    with pytest.raises(InputError, match="method: unknown 'hintn'; did you mean 'hinton'"):
        read_study(study_of(tmp_path, measures=measures[:1]))


@pytest.mark.parametrize(
    ("judged", "fault"),
    [
        ({"paper": 85.0}, "paper and tolerance: expected both or neither"),
        ({}, "expected paper with tolerance, or between"),
        ({"paper": 85.0, "tolerance": 1.0, "between": [0, 1]}, "expected paper with tolerance, or between"),
        ({"between": [None, None]}, "between: expected a lowest or a highest number"),
        ({"between": [5, 1]}, r"measures\.0: between: expected the lower number first, got 5 and 1"),
    ],
)
def test_a_number_without_bounds_on_both_sides_is_refused(tmp_path, judged, fault):
    with pytest.raises(InputError, match=fault):
        read_study(study_of(tmp_path, measures=[{"name": "KD", "of": {"method": "hinton"}, **judged}]))


@pytest.fixture
def trained(tmp_path):
    """Three seeds of plain KD at 84, 85 and 86 % of 1,000 images, and of the student alone at 80, 82 and 81 %."""
    for seed, (kd, alone) in enumerate([(0.84, 0.80), (0.85, 0.82), (0.86, 0.81)]):
        write(tmp_path / "s" / "main", objective("hinton"), seed, val=None, test=kd, data={"val_fraction": 0.0})
        write(tmp_path / "s" / "main", objective("none"), seed, val=None, test=alone, data={"val_fraction": 0.0})
    return tmp_path


def test_a_number_is_reached_where_its_interval_lies_within_the_tolerance(trained):
    of = {"method": "hinton"}
    measures = [
        {"name": "within", "of": of, "paper": 85.0, "tolerance": 3.0},
        {"name": "by the mean", "of": of, "paper": 84.0, "tolerance": 1.5},
        {"name": "too high", "of": of, "paper": 80.0, "tolerance": 1.0, "reason": "an easier setting"},
        {"name": "too low", "of": of, "paper": 90.0, "tolerance": 1.0},
        {"name": "errors", "of": {**of, "metric": "errors"}, "paper": 150, "tolerance": 5},
        {"name": "gain", "of": of, "minus": {"method": "none"}, "between": [0, None]},
        {"name": "share", "of": of, "minus": {"method": "none"}, "over": {"of": {"method": "teacher"}, "minus": {"method": "none"}},
         "between": [20, 40]},
        {"name": "nowhere", "of": {**of, "setting": {"temperature": 20}}, "between": [0, None]},
    ]  # fmt: skip
    write_evidence(read_study(study_of(trained, measures=measures)), "mine", trained / "s")
    rows = rows_of(trained / "s")
    assert {name: row["reached"] for name, row in rows.items()} == {
        "within": "yes", "by the mean": "yes, by the mean alone", "too high": "no: above", "too low": "no: below",
        "errors": "yes, by the mean alone", "gain": "yes", "share": "yes, by the mean alone", "nowhere": "not measured",
    }  # fmt: skip
    half = 4.302653 / 3**0.5  # Student's t with two degrees of freedom; sd is 1
    assert [float(rows["within"][key]) for key in ("mean", "sd", "low", "high")] == pytest.approx([85, 1, 85 - half, 85 + half])
    assert [float(rows["errors"][key]) for key in ("mean", "sd", "n")] == [150, 10, 3]
    half = 4.302653 * 1 / 3**0.5  # the gains are 4, 3 and 5 points: paired by seed
    assert [float(rows["gain"][key]) for key in ("mean", "low", "high")] == pytest.approx([4, 4 - half, 4 + half])
    assert float(rows["share"]["mean"]) == pytest.approx(100 * 4 / 15)  # of the means: the teacher has 96 %, 16, 14 and 15 points more
    assert rows["share"]["sd"] == ""
    assert rows["nowhere"]["reason"] == "hinton: no finished run"
    page = (trained / "s" / "README.md").read_text()
    assert "| too high | 80 ± 1 | 3 | 85.00 ± 1.00 | [82.52, 87.48] | no: above | an easier setting |" in page
    assert "| errors | 150 ± 5 | 3 | 150.0 ± 10.0 | [125.2, 174.8] | yes, by the mean alone |  |" in page
    assert "`kdzoo reproduce mine`. Reached, of 8 numbers: yes (2); yes, by the mean alone (3); no: above (1); no: below (1)" in page


def test_a_share_of_what_is_not_clearly_a_gain_is_no_number(tmp_path):
    """The teacher has 96 %; the student alone has more in one bench, and anything around it in the other."""
    for stage, alone in (("main", (0.97, 0.98, 0.99)), ("other", (0.90, 0.96, 0.99))):
        for seed, top1 in enumerate(alone):
            write(tmp_path / "s" / stage, objective("none"), seed, val=None, test=top1, data={"val_fraction": 0.0})
            write(tmp_path / "s" / stage, objective("hinton"), seed, val=None, test=0.85, data={"val_fraction": 0.0})
    stages = [{"name": name, "bench": BENCH} for name in ("main", "other")]
    measures = []
    for stage in ("main", "other"):
        kd, alone, teacher = ({"stage": stage, "method": name} for name in ("hinton", "none", "teacher"))
        measures.append({"name": stage, "of": kd, "minus": alone, "over": {"of": teacher, "minus": alone}, "between": [80, None]})
    write_evidence(read_study(study_of(tmp_path, stages=stages, measures=measures)), "mine", tmp_path / "s")
    for row in rows_of(tmp_path / "s").values():
        assert row["reached"] == "not measured"
        assert "the difference that it is a share of is not clearly a gain" in row["reason"]


def test_a_single_training_enters_with_the_spread_of_those_that_it_stands_beside(trained):
    """The distance of one run from a mean of n has an error of sd sqrt(1 + 1/n)."""
    lead = {"name": "lead", "of": {"method": "teacher"}, "minus": {"method": "hinton"}, "between": [0, None]}
    write_evidence(read_study(study_of(trained, measures=[lead])), "mine", trained / "s")
    row, half = rows_of(trained / "s")["lead"], 4.302653 * (1 + 1 / 3) ** 0.5  # Student's t, two degrees of freedom; sd is 1
    assert [float(row[key]) for key in ("mean", "low", "high")] == pytest.approx([11, 11 - half, 11 + half])


def test_what_is_left_of_a_method_of_which_a_run_failed_is_no_verdict(trained):
    diverged = "FloatingPointError: the loss became NaN or infinite at step 7"
    write(trained / "s" / "main", objective("hinton"), 3, val=None, test=0.0, fail=diverged, data={"val_fraction": 0.0})
    write_evidence(read_study(study_of(trained, seeds=4)), "mine", trained / "s")
    row = rows_of(trained / "s")["KD"]
    assert (row["n"], row["planned"], row["reached"]) == ("3", "4", "open: runs failed")
    assert row["reason"].startswith("1 run failed")


def test_before_its_refit_a_sweep_is_not_measured_in_its_place(tmp_path):
    write(tmp_path / "s" / "main", objective("hinton"), 0, val=0.8, test=0.85)
    stages = [{"name": "main", "bench": {**BENCH, "seeds": 1, "refit": True, "val_fraction": 0.2}}]
    write_evidence(read_study(study_of(tmp_path, stages=stages)), "mine", tmp_path / "s")
    row = rows_of(tmp_path / "s")["KD"]
    assert (row["reached"], row["reason"]) == ("not measured", "hinton: the refit of its stage has not begun")


def test_two_settings_that_a_bench_cannot_hold_at_once_are_refused(tmp_path):
    """A sum's hyper-parameter is an axis of the whole bench, so that plain KD would be trained at the temperature of at+hinton."""
    both = ObjectiveSpec(task=1.0, terms=(objective("at").terms[0], objective("hinton", 4.0).terms[0]))
    write(tmp_path / "main", objective("hinton", 1.0), 0, val=0.8, test=0.9)
    write(tmp_path / "main", both, 0, val=0.8, test=0.9)
    stages = [
        {"name": "main", "bench": {**BENCH, "methods": ["at+hinton"], "seeds": 1}},
        {"name": "next", "settings": [{"stage": "main", "method": name} for name in ("hinton", "at+hinton")], "bench": BENCH},
    ]
    found = read_study(study_of(tmp_path, stages=stages))
    with pytest.raises(InputError, match=r"at\+hinton has hinton\.temperature = 4, another method that is taken over 1;"):
        stage_config(found, found.stages[1], tmp_path, None, {})


def test_only_the_runs_of_the_last_plan_are_measured(trained):
    """Another number of epochs leaves the old runs in the folder, and an earlier start may have had more seeds."""
    place = trained / "s" / "main"
    longer = {"val": None, "data": {"val_fraction": 0.0}, "recipe": {"epochs": 9}}
    for seed in range(2):
        write(place, objective("hinton"), seed, test=0.90, **longer)
    planned = [write(place, objective("hinton"), seed, test=0.90, **longer).id for seed in range(2)]
    study = read_study(study_of(trained, seeds=2))
    write_evidence(study, "mine", trained / "s")
    assert rows_of(trained / "s")["KD"]["reason"] == "hinton: 2 settings or pairs match; name pair or setting"
    keep_start(place, Start.of("", study.config(study.stages[0]), planned))
    write_evidence(study, "mine", trained / "s")
    row = rows_of(trained / "s")["KD"]
    assert (row["n"], row["planned"], row["mean"]) == ("2", "2", "90")


def test_a_study_with_a_refit_is_not_continued_with_other_seeds(tmp_path):
    file = study_of(tmp_path, stages=[{"name": "main", "bench": {**BENCH, "refit": True, "val_fraction": 0.2}}])
    begun = request_study(str(file), tmp_path, 1, {})
    keep_start(begun.folder / "main", Start.of("", begun.bench(begun.study.stages[0]), []))
    request_study(str(file), tmp_path, 1, {})
    with pytest.raises(InputError, match=r"stage main in .* was begun with seeds 0 and would now have 0, 1, 2"):
        request_study(str(file), tmp_path, None, {})


def test_a_later_stage_may_train_methods_of_a_file(tmp_path):
    (tmp_path / "twice.py").write_text(
        "import kdzoo\n\n@kdzoo.register('twice_of_study')\ndef twice_of_study(student, teacher, batch):\n"
        "    return 2 * ((student.logits - teacher.logits.detach()) ** 2).mean()\n"
    )
    later = {**BENCH, "plugin": [str(tmp_path / "twice.py")], "methods": ["twice_of_study"]}
    file = study_of(tmp_path, stages=[{"name": "main", "bench": BENCH}, {"name": "next", "bench": later}])
    check_stages(request_study(str(file), tmp_path, None, {}))
    wrong = study_of(tmp_path, stages=[{"name": "main", "bench": BENCH}, {"name": "next", "bench": {**later, "methods": ["twce"]}}])
    with pytest.raises(InputError, match="unknown 'twce'"):
        check_stages(request_study(str(wrong), tmp_path, None, {}))


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        ({"metric": "recall.12"}, "metric recall.12: expected a class from 0 to 9"),
        ({"metric": "eror.3"}, "metric of a class: unknown 'eror'; did you mean 'errors'?"),
        ({"phase": "refti"}, "phase"),
        ({"phase": "refit"}, "phase: stage main trains no chosen settings again"),
    ],
)
def test_what_no_run_will_have_is_refused_before_training(tmp_path, cell, fault):
    with pytest.raises(InputError) as refused:
        read_study(study_of(tmp_path, measures=[{"name": "KD", "of": {"method": "hinton", **cell}, "between": [0, None]}]))
    assert fault in "\n".join(refused.value.problems)


def test_a_bound_that_is_met_is_not_passed(trained):
    """The mean of 84, 85 and 86 % comes to 85 but for floating point, and so does a gain of 4 points."""
    of = {"method": "hinton"}
    measures = [
        {"name": "highest", "of": of, "between": [None, 85]},
        {"name": "lowest", "of": of, "between": [85, None]},
        {"name": "gain", "of": of, "minus": {"method": "none"}, "between": [4, 4]},
        {"name": "paper", "of": of, "paper": 84.7, "tolerance": 0.3},
        {"name": "passed", "of": of, "between": [None, 84.999]},
    ]
    write_evidence(read_study(study_of(trained, measures=measures)), "mine", trained / "s")
    words = {name: row["reached"] for name, row in rows_of(trained / "s").items()}
    assert words.pop("passed") == "no: above"
    assert set(words.values()) == {"yes, by the mean alone"}


def test_differences_are_of_seeds_that_both_sides_have_and_only_a_teacher_stands_beside_every_seed(tmp_path):
    """Three seeds of KD; of the student alone one in the first stage, and another one in the second."""
    for seed, top1 in enumerate((0.84, 0.85, 0.86)):
        write(tmp_path / "s" / "main", objective("hinton"), seed, val=None, test=top1, data={"val_fraction": 0.0})
    write(tmp_path / "s" / "main", objective("none"), 1, val=None, test=0.80, data={"val_fraction": 0.0})
    write(tmp_path / "s" / "other", objective("none"), 7, val=None, test=0.80, data={"val_fraction": 0.0})
    stages = [
        {"name": "main", "bench": {**BENCH, "control_seeds": 3, "methods": ["hinton", "at"], "seeds": 2}},
        {"name": "other", "bench": {**BENCH, "seeds": [7]}},
    ]
    kd, teacher = {"method": "hinton"}, {"method": "teacher"}
    measures = [
        {"name": "one seed", "of": kd, "minus": {"method": "none"}, "between": [0, None]},
        {"name": "no seed", "of": kd, "minus": {"method": "none", "stage": "other"}, "between": [0, None]},
        {"name": "below the teacher", "of": teacher, "minus": kd, "between": [0, None]},
        {"name": "teacher", "of": teacher, "between": [0, None]},
        {"name": "AT", "of": {"method": "at"}, "minus": kd, "between": [0, None]},
    ]
    write_evidence(read_study(study_of(tmp_path, stages=stages, measures=measures)), "mine", tmp_path / "s")
    rows = {name: (row["n"], row["planned"], row["mean"], row["reason"]) for name, row in rows_of(tmp_path / "s").items()}
    assert rows == {
        "one seed": ("1", "3", "5", ""),
        "no seed": ("0", "0", "", "no seed is finished on both sides"),
        "below the teacher": ("3", "3", "11", ""),
        "teacher": ("1", "1", "96", ""),
        "AT": ("0", "2", "", "at: no finished run"),
    }


def test_a_refit_is_planned_with_its_own_number_of_seeds(tmp_path):
    stages = [{"name": "main", "bench": {**BENCH, "seeds": 2, "refit": True, "refit_seeds": 4, "val_fraction": 0.2}}]
    measures = [
        {"name": "refit", "of": {"method": "hinton"}, "between": [0, None]},
        {"name": "sweep", "of": {"method": "hinton", "phase": "sweep"}, "between": [0, None]},
    ]
    found = write_evidence(read_study(study_of(tmp_path, stages=stages, measures=measures)), "mine", tmp_path / "s")
    assert [one.planned for one in found.measured] == [4, 2]


def test_the_table_is_the_same_byte_for_byte_from_the_same_runs(trained):
    study = read_study(study_of(trained))
    write_evidence(study, "mine", trained / "s")
    before = {name: (trained / "s" / name).read_bytes() for name in ("README.md", "results.csv")}
    write_evidence(study, "mine", trained / "s")
    assert before == {name: (trained / "s" / name).read_bytes() for name in before}


def test_missing_seeds_and_settings_that_cannot_be_told_apart_are_said(trained):
    write(trained / "s" / "main", objective("hinton", temperature=2.0), 0, val=None, test=0.9, data={"val_fraction": 0.0})
    measures = [
        {"name": "both", "of": {"method": "hinton"}, "between": [0, None]},
        {"name": "one", "of": {"method": "hinton", "setting": {"temperature": 2}}, "between": [0, None]},
    ]
    wrong = {"name": "wrong", "of": {"method": "hinton", "setting": {"temprature": 2}}, "between": [0, None]}
    with pytest.raises(InputError, match=r"measures, 'wrong': setting: key: unknown 'temprature'; did you mean 'temperature'"):
        read_study(study_of(trained, measures=[wrong]))
    write_evidence(read_study(study_of(trained, measures=measures, seeds=5)), "mine", trained / "s")
    rows = rows_of(trained / "s")
    assert rows["both"]["reason"] == "hinton: 2 settings or pairs match; name pair or setting"
    assert (rows["one"]["n"], rows["one"]["planned"], rows["one"]["mean"], rows["one"]["reached"]) == (
        "1", "5", "90", "yes, by the mean alone",
    )  # fmt: skip
    assert "| one | at least 0 | 1 of 5 | 90.00 |" in (trained / "s" / "README.md").read_text()


def test_a_stage_takes_the_run_and_the_setting_that_an_earlier_one_chose(tmp_path):
    """Of two temperatures the one with the higher validation accuracy."""
    runs = {}
    for temperature, val in ((2.0, 0.7), (4.0, 0.8)):
        runs[temperature] = write(tmp_path / "main", objective("hinton", temperature, alpha=0.3), 0, val=val, test=0.9)
    stages = [
        {"name": "main", "bench": {**BENCH, "seeds": 2}},
        {
            "name": "next", "settings": [{"stage": "main", "method": "hinton"}], "teacher": {"stage": "main", "method": "hinton"},
            "bench": {"student": "digits_student", "data": "digits", "recipe": "smoke", "methods": ["at"]},
        },
    ]  # fmt: skip
    found = read_study(study_of(tmp_path, stages=stages))
    config = stage_config(found, found.stages[1], tmp_path, None, {})
    assert config.teacher == runs[4.0].id
    assert config.methods == ("at", "0.7*ce+0.3*hinton")
    assert config.grid == {"hinton.temperature": (4.0,)}
    other = study_of(tmp_path, stages=[stages[0], {**stages[1], "teacher": {"stage": "main", "method": "hinton", "seeds": [0, 1]}}])
    found = read_study(other)
    with pytest.raises(InputError, match="stage next: stage main has no finished run of hinton with seed 1; finished seeds: 0"):
        stage_config(found, found.stages[1], tmp_path, None, {})


def test_a_method_at_the_setting_of_an_earlier_stage_is_measured_there_not_at_the_published_one(tmp_path):
    """Plain KD is a control of every bench, so it stands twice in the second stage: at T = 4, alpha = 0.9 and as the first one chose."""
    place = tmp_path / "s"
    write(place / "main", objective("hinton", 2.0, alpha=0.3), 0, val=0.8, test=0.9)
    write(place / "main", objective("hinton", 4.0, alpha=0.9), 0, val=0.7, test=0.9)
    for seed in range(2):
        write(place / "next", objective("hinton", 2.0, alpha=0.3), seed, val=None, test=0.85, data={"val_fraction": 0.0})
        write(place / "next", objective("hinton", 4.0, alpha=0.9), seed, val=None, test=0.80, data={"val_fraction": 0.0})
    stages = [
        {"name": "main", "bench": {**BENCH, "seeds": 1}},
        {"name": "next", "settings": [{"stage": "main", "method": "hinton"}], "bench": {**BENCH, "seeds": 2}},
        {"name": "last", "settings": [{"stage": "next", "method": "hinton"}], "bench": BENCH},
    ]
    kd = {"stage": "next", "method": "hinton"}
    measures = [
        {"name": "taken over", "of": kd, "between": [0, None]},
        {"name": "published", "of": {**kd, "setting": {"alpha": 0.9}}, "between": [0, None]},
    ]
    study = read_study(study_of(tmp_path, stages=stages, measures=measures))
    write_evidence(study, "mine", place)
    assert {name: (row["n"], row["mean"]) for name, row in rows_of(place).items()} == {"taken over": ("2", "85"), "published": ("2", "80")}
    config = stage_config(study, study.stages[2], place, None, {})
    assert config.methods == ("hinton", "0.7*ce+0.3*hinton")
    assert config.grid == {"hinton.temperature": (2.0,)}


def test_seeds_on_the_command_line_are_those_of_every_stage_that_does_not_list_its_own(tmp_path):
    stages = [
        {"name": "main", "bench": BENCH},
        {"name": "next", "bench": {**BENCH, "seeds": 2, "refit_seeds": 3}},
        {"name": "ensemble", "bench": {**BENCH, "seeds": [7, 8], "refit_seeds": 3}},
    ]
    found = read_study(study_of(tmp_path, stages=stages))
    assert [found.config(stage).seeds for stage in found.stages] == [(0, 1, 2), (0, 1), (7, 8)]
    few = [found.config(stage, 1) for stage in found.stages]
    assert [(config.seeds, config.refit_seeds) for config in few] == [((0,), None), ((0,), 1), ((7, 8), 3)]


def test_the_studies_are_listed_with_their_hours_at_80_columns(kdzoo, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    told = kdzoo("reproduce")
    assert told.status == 0
    assert max(map(len, told.out.splitlines())) <= 80
    (line,) = [line.split() for line in told.out.splitlines() if line.startswith("tutorial-cnn")]
    assert line[:3] == ["tutorial-cnn", "Two", "small"]
    assert line[line.index("no") :][:2] == ["no", "1.1*"]
    titles = {row["study"]: row["title"] for row in json.loads(kdzoo("reproduce", "--json").out)}
    assert "…" not in told.out, "a title continues on the next line"
    assert all(word in told.out for title in titles.values() for word in title.split())
    assert "did you mean 'tutorial-cnn'?" in kdzoo("reproduce", "tutorial-cn").err


def test_the_list_of_studies_says_how_much_of_each_is_measured(kdzoo, place):
    study = read_study(study_file("hinton-mnist"))
    folder = study_folder(place / "results", "hinton-mnist")

    def told() -> str:
        return read_progress(study, folder).words(30, 11)

    def listed() -> str:
        return next(row["measured"] for row in json.loads(kdzoo("reproduce", "--json").out) if row["study"] == "hinton-mnist")

    assert told() == listed() == "no"
    for stage in study.benches:
        for number in range(10):
            run = folder / stage.name / "runs" / f"none-{number}"
            run.mkdir(parents=True)
            (run / "run.json").write_text("{}")
    assert told() == "no", "they are planned alone"
    files = [run / "result.json" for run in folder.glob("*/runs/*")]
    for file in files[:-1]:
        file.write_text("{}")
    assert told() == "part: 29 of 30 runs"
    files[-1].write_text("{}")
    assert told() == "part: 0 of 11 numbers", "its table is not written yet"
    rows = [{"measure": one.name, "n": 5, "planned": 5, "mean": 3.5, "reached": "no: above"} for one in study.measured()]
    rows[2] |= {"reached": "yes"}
    rows[3] |= {"reached": "yes, by the mean alone"}
    pd.DataFrame([*rows, {"measure": "a row of a race", "mean": 2.0, "reached": "yes"}]).to_csv(folder / "results.csv", index=False)
    assert told() == "2 of 11 reached"
    files[0].unlink()
    assert told() == "2 of 11 reached", "runs are counted where numbers are missing: how many a race trains is known as an upper bound"
    files[0].write_text("{}")
    rows[0] |= {"n": 4}
    rows[1] |= {"n": 0, "mean": None}
    pd.DataFrame(rows).to_csv(folder / "results.csv", index=False)
    assert told() == listed() == "part: 9 of 11 numbers"


def test_what_a_stage_takes_from_earlier_ones_is_something_they_train(tmp_path):
    stages = [
        {"name": "main", "bench": {**BENCH, "methods": ["at", "hinton+sp", "fitnet_two_stage"], "seeds": 2, "control_seeds": 4}},
        {"name": "next", "settings": [{"stage": "main", "method": "att"}, {"stage": "main", "method": "hinton+sp"},
         {"stage": "main", "method": "fitnet_two_stage"}], "bench": BENCH},
        {"name": "last", "teacher": {"stage": "main", "seeds": [3]}, "settings": [{"stage": "main", "method": "at", "seeds": [1, 2, 5]}],
         "bench": {"student": "digits_student", "data": "digits", "recipe": "smoke"}},
    ]  # fmt: skip
    with pytest.raises(InputError) as refused:
        read_study(study_of(tmp_path, stages=stages))
    first, second = refused.value.problems
    assert first.startswith("study mine: stages.next: method of stage main: unknown 'att'; did you mean 'at'?")
    assert second == "study mine: stages.last: stage main does not train seeds 2, 5; its seeds: 0, 1"


def test_a_pair_and_a_setting_that_an_earlier_stage_does_not_train_are_told_before_it_is_trained(tmp_path):
    which = {"stage": "main", "method": "hinton", "pair": "a/b", "setting": {"temperatur": 2}}
    stages = [
        {"name": "main", "bench": BENCH},
        {"name": "next", "bench": BENCH, "settings": [which]},
        {"name": "alone", "bench": BENCH, "settings": [{"stage": "main", "setting": {"alpha": 1}}]},
    ]
    measures = [{"name": "KD", "of": {"method": "hinton", "pair": "digits_teachr/digits_student"}, "between": [0, None]}]
    with pytest.raises(InputError) as refused:
        read_study(study_of(tmp_path, stages=stages, measures=measures))
    assert refused.value.problems == (
        "study mine: stages.next: pair of stage main: unknown 'a/b'; known: digits_teacher/digits_student",
        "study mine: stages.next: setting: key: unknown 'temperatur'; did you mean 'temperature'? "
        "Known: alpha, coefficient, dose, hinton.dose, hinton.temperature, task, temperature, weight",
        "study mine: stages.alone: setting: the student alone has none",
        "study mine: measures, 'KD': pair of stage main: unknown 'digits_teachr/digits_student'; "
        "did you mean 'digits_teacher/digits_student'? Known: digits_teacher/digits_student",
    )
    named = [{**measures[0], "of": {"method": "hinton", "pair": "digits_teacher/digits_student"}}]
    assert read_study(study_of(tmp_path, measures=named)).measures[0].of.pair == "digits_teacher/digits_student"


def test_an_unknown_key_is_compared_with_those_of_its_own_place(tmp_path):
    stages = [
        {"name": "main", "bench": BENCH},
        {"name": "moved", "calibrate": {"of": {"stage": "main"}, "labels": "teacher", "class": [3]}},
        {"name": "more", "race": {"stage": "main", "best": 0, "seeds": 3, "control_seeds": 4, "seed": 1, "zzz": 1}},
    ]
    with pytest.raises(InputError) as refused:
        read_study(study_of(tmp_path, stages=stages))
    told = dict(problem.removeprefix("study mine: ").split(": ", 1) for problem in refused.value.problems)
    assert told["stages.1.calibrate.class"].startswith("unknown; did you mean 'classes'?")
    assert told["stages.2.race.seed"].startswith("unknown; did you mean 'seeds'")
    assert told["stages.2.race.zzz"] == "unknown; known: stage, best, widest, against, seeds, control_seeds"


def test_an_ensemble_of_one_seed_twice_and_a_race_without_keys_are_refused(tmp_path):
    stages = [
        {"name": "main", "bench": BENCH},
        {"name": "next", "bench": BENCH, "teacher": {"stage": "main", "seeds": [0, 1, 0]}},
        {"name": "last", "race": None},
        {"name": "many", "race": {"stage": "main", "best": 0, "seeds": 3, "control_seeds": 10**30}},
    ]
    with pytest.raises(InputError) as refused:
        read_study(study_of(tmp_path, stages=stages))
    assert refused.value.problems == (
        "study mine: stages.1.teacher.seeds: expected each seed once, got 0 twice or more",
        "study mine: stages.2: race: nothing stands below it; its keys may not be indented",
        f"study mine: stages.3.race.control_seeds: expected a number <= 100000, got {10**30}",
    )


def test_reproduce_refuses_options_that_do_not_apply_and_seeds_that_a_later_stage_would_miss(kdzoo, place):
    stages = [
        {"name": "main", "bench": BENCH},
        {
            "name": "next",
            "teacher": {"stage": "main", "seeds": [0, 1]},
            "bench": {"student": "digits_student", "data": "digits", "recipe": "smoke"},
        },
    ]
    file = study_of(place, stages=stages)
    for options, fault in [
        (["--jobs", "0"], "kdzoo: jobs: expected a number > 0, got 0"),
        (["--json"], "format: only the list of studies has other formats"),
        (["--seeds", "1"], "stages.next: stage main does not train seed 1; its seeds: 0"),
    ]:
        refused = kdzoo("reproduce", file, "--dry-run", *options)
        assert (refused.status, fault in refused.err) == (2, True), refused.err
    planned = kdzoo("reproduce", file, "--dry-run")
    assert "digits_student taught by an ensemble of 2 seeds of the student alone of stage main" in " ".join(planned.out.split())
    assert "[[NAME]]" not in kdzoo("reproduce", "--help").out


@pytest.fixture
def surface(tmp_path):
    """Errors of 1,000 images by T and width, three seeds a cell: T = 4 is best for 30 units, T = 4 and 8 are alike for 300."""
    accuracies = {
        ("mlp_30_30", 1.0): (0.80, 0.81, 0.79), ("mlp_30_30", 4.0): (0.90, 0.91, 0.89), ("mlp_30_30", 8.0): (0.85, 0.86, 0.84),
        ("mlp_300_300", 1.0): (0.94, 0.95, 0.93), ("mlp_300_300", 4.0): (0.970, 0.975, 0.965), ("mlp_300_300", 8.0): (0.972, 0.970, 0.968),
    }  # fmt: skip
    for (student, temperature), values in accuracies.items():
        for seed, top1 in enumerate(values):
            write(
                tmp_path / "s" / "main",
                objective("hinton", temperature),
                seed,
                val=None,
                test=top1,
                student=NetworkSpec(name=student, classes=10),
                data={"val_fraction": 0.0},
            )
    return tmp_path


SURFACE = {"name": "T by width", "method": "hinton", "rows": "temperature", "columns": "student", "metric": "errors", "best": "columns"}


def test_a_surface_has_the_mean_and_interval_of_every_cell_and_marks_what_is_not_told_apart_from_the_best(surface):
    write_evidence(read_study(study_of(surface, measures=[], surfaces=[SURFACE])), "mine", surface / "s")
    rows = {(float(row["row"]), row["column"]): row for row in csv.DictReader((surface / "s" / "surfaces.csv").open(newline=""))}
    assert len(rows) == 6
    half = 4.302653 * 10 / 3**0.5  # Student's t with two degrees of freedom; the standard deviation is 10 errors
    assert [float(rows[1.0, "mlp_30_30"][key]) for key in ("mean", "sd", "low", "high")] == pytest.approx([200, 10, 200 - half, 200 + half])
    standings = {key: row["standing"] for key, row in rows.items()}
    assert standings == {
        (1.0, "mlp_30_30"): "", (4.0, "mlp_30_30"): "best", (8.0, "mlp_30_30"): "",
        (1.0, "mlp_300_300"): "", (4.0, "mlp_300_300"): "best", (8.0, "mlp_300_300"): "not told apart from the best",
    }  # fmt: skip
    page = (surface / "s" / "README.md").read_text()
    assert "| temperature / student | mlp_30_30 | mlp_300_300 |" in page, "numbers within names are in their order"
    assert "| 4 | **100.0 ± 24.8** | **30.0 ± 12.4** |" in page
    assert "| 8 | 150.0 ± 24.8 | **30.0 ± 5.0** |" in page
    before = [(surface / "s" / name).read_bytes() for name in ("README.md", "surfaces.csv")]
    write_evidence(read_study(study_of(surface, measures=[], surfaces=[SURFACE])), "mine", surface / "s")
    assert before == [(surface / "s" / name).read_bytes() for name in ("README.md", "surfaces.csv")]


def test_one_seed_marks_no_cell_and_a_cell_of_several_settings_is_told(surface):
    one = {**SURFACE, "name": "by alpha", "rows": "alpha"}
    study = read_study(study_of(surface, measures=[], surfaces=[one]))
    write_evidence(study, "mine", surface / "s")
    page = (surface / "s" / "README.md").read_text()
    assert "Not measured: 3 settings or pairs have alpha 0.9 and student mlp_30_30; name the one that is meant in setting" in page
    write(surface / "s" / "single", objective("hinton", 2.0), 0, val=None, test=0.9, data={"val_fraction": 0.0})
    stages = [{"name": "single", "bench": BENCH}]
    study = read_study(study_of(surface, stages=stages, measures=[], surfaces=[{**SURFACE, "metric": "top1"}]))
    write_evidence(study, "mine", surface / "s")
    assert "| 2 | 90.00 (n = 1) |" in (surface / "s" / "README.md").read_text()


def test_a_surface_of_a_stage_that_has_not_begun_is_told_and_stops_nothing(surface):
    stages = [{"name": "main", "bench": BENCH}, {"name": "later", "bench": BENCH}]
    later = {**SURFACE, "name": "of a later stage", "stage": "later", "best": "table"}
    write_evidence(read_study(study_of(surface, stages=stages, measures=[], surfaces=[SURFACE, later])), "mine", surface / "s")
    page = (surface / "s" / "README.md").read_text()
    assert "## of a later stage\n\nNot measured: hinton: no finished run.\n" in page
    assert len(list(csv.DictReader((surface / "s" / "surfaces.csv").open(newline="")))) == 6


def test_the_faults_of_a_surface_are_told_with_the_nearest_names(tmp_path):
    surfaces = [
        {**SURFACE, "rows": "temprature", "metric": "eror_rate"},
        {**SURFACE, "columns": "hinton.temperature", "stage": "mian"},
        {**SURFACE, "name": "third", "method": "hintn"},
        {**SURFACE, "name": "fourth", "setting": {"alfa": 0.5}, "phase": "refit"},
    ]
    with pytest.raises(InputError) as refused:
        read_study(study_of(tmp_path, surfaces=surfaces))
    told = "\n".join(refused.value.problems)
    for fault in (
        "surfaces: 'T by width' stands there twice",
        "surfaces, 'T by width': metric: unknown 'eror_rate'; did you mean 'error_rate'?",
        "surfaces, 'T by width': axis: unknown 'temprature'; did you mean 'temperature'?",
        "surfaces, 'T by width': stage that trains: unknown 'mian'; did you mean 'main'?",
        "surfaces, 'third': method: unknown 'hintn'; did you mean 'hinton'?",
        "surfaces, 'fourth': setting: key: unknown 'alfa'; did you mean 'alpha'?",
        "surfaces, 'fourth': phase: stage main trains no chosen settings again",
    ):
        assert fault in told


def test_the_page_names_the_command_with_the_file_that_was_given(trained):
    write_evidence(read_study(study_of(trained)), "my studies/mine.yaml", trained / "s")
    assert "`kdzoo reproduce 'my studies/mine.yaml'`." in (trained / "s" / "README.md").read_text()


@pytest.mark.slow
def test_a_study_is_trained_in_stages_told_beside_the_paper_and_resumed(kdzoo, place):
    """Tuned on held-out images, trained again with two seeds on all of them; the second start trains nothing."""
    bench = {"data": "digits", "pairs": ["digits"], "recipe": "smoke", "epochs": 2}
    stages = [
        {"name": "tuning", "bench": {**bench, "temperatures": [2, 4], "alphas": [0.9], "seeds": 1, "val_fraction": 0.2}},
        {"name": "whole", "settings": [{"stage": "tuning", "method": "hinton"}], "bench": {**bench, "val_fraction": 0}},
    ]
    measures = [
        {"name": "teacher", "of": {"stage": "whole", "method": "teacher"}, "paper": 95, "tolerance": 5},
        {"name": "KD", "of": {"stage": "whole", "method": "hinton"}, "between": [5, 100]},
    ]
    file = study_of(place, stages=stages, measures=measures, seeds=2)
    planned = kdzoo("reproduce", file, "--dry-run")
    assert "known once tuning is trained" in planned.out
    assert not (place / "results").exists()
    first = kdzoo("reproduce", file, "--jobs", "1")
    assert first.status == 0, first.err
    folder = place / "results" / "papers" / "mine"
    rows = rows_of(folder)
    assert rows["teacher"]["reached"] == "yes, by the mean alone"
    assert (rows["KD"]["n"], rows["KD"]["planned"]) == ("2", "2")
    runs = sorted(path.parent.name for path in folder.glob("*/runs/*/result.json"))
    assert len([name for name in runs if name.startswith("hinton")]) == 2 + 2
    before = (folder / "README.md").read_bytes()
    again = kdzoo("reproduce", file, "--jobs", "1")
    assert again.status == 0
    assert again.out.count("nothing is left to do") == 2
    assert (folder / "README.md").read_bytes() == before
