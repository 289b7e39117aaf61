"""`kdzoo verify`: what is true of a bench is found to be true, and every planted wrong row is caught."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from edited import edit as edit_file

from kdzoo.cli.app import status_of
from kdzoo.runs.sealed_json import write_sealed_json
from kdzoo.runs.seals import read_tensors, write_tensors
from kdzoo.runs.store import RunFolder, Store, teacher_store
from kdzoo.suite.proof.agreement import BOUND, same_bits, within_spread
from kdzoo.suite.proof.consistency import faults_of_folder
from kdzoo.suite.proof.controls import compare_controls
from kdzoo.suite.proof.machines import why_not_same_bits
from kdzoo.suite.proof.reference import FEWEST_SEEDS, FOLDER, Spread, points_of, read_points, write_text
from kdzoo.suite.proof.sample import draw
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.verified_file import read_verifications
from kdzoo.tasks.classification import TOP1

RESULTS = Path(__file__).resolve().parent.parent.parent / "results"
BENCH = (
    "bench", "--data", "digits", "--pairs", "digits", "--recipe", "digits", "--limit", "600", "--temperatures", "4", "--alphas", "0.9",
    "--methods", "hinton", "--jobs", "1", "--threads", "1", "--allow-chance-teacher",
)  # fmt: skip


def kdzoo_here(*words: object) -> int:
    return status_of(list(map(str, words)), debug=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a bench of two seeds, `honest`, and the same by a shorter recipe, `short`; and a cache with their teacher."""
    folder = tmp_path_factory.mktemp("verify")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDZOO_CACHE", str(folder / "cache"))
        patch.setenv("KDZOO_LAUNCHER", "here")
        for name, epochs in (("honest", 8), ("short", 2)):
            assert kdzoo_here(*BENCH, "--name", name, "--results", folder, "--epochs", epochs, "--seeds", 2, "--keep", "predictions") == 0
    return folder


@pytest.fixture
def bench(trained, place, train_here):
    """A copy of the honest bench, with the cache that it was trained with."""
    shutil.copytree(trained / "cache", place / "cache")
    return Path(shutil.copytree(trained / "honest", place / "honest"))


def runs_of(folder: Path, method: str) -> list[RunFolder]:
    return [Store(folder).run(run_id) for run_id in Store(folder).ids() if run_id.startswith(f"{method}-")]


def edit(run: RunFolder, change) -> None:
    """Edit a result as somebody does who knows of its digest, and makes it new."""
    edit_file(run.path / "result.json", change)


def one_more_right(result) -> None:
    """Edit a result as an attacker would who knows that its counts are checked."""
    for part in (result["last"]["test"], result["best"]["test"]):
        wrong = next(at for at, errors in enumerate(part["errors_per_class"]) if errors)
        part["errors_per_class"][wrong] -= 1
        part["accuracy_per_class"][wrong] = 1 - part["errors_per_class"][wrong] / part["images_per_class"][wrong]
        part["balanced"] = sum(part["accuracy_per_class"]) / len(part["accuracy_per_class"])
        part["top1"] = 1 - sum(part["errors_per_class"]) / part["n"]


def test_an_honest_bench_agrees_to_the_bit_and_its_seed_draws_the_same_runs_again(bench, kdzoo):
    said = kdzoo("verify", bench, "--sample", 4, "--seed", 7, "--train-teacher")
    assert said.status == 0
    assert said.out.count("agrees: to the last bit") == 4
    assert "seed 7" in said.out
    (verification,) = read_verifications(bench)
    assert {run.id for run in verification.runs} == set(Store(bench).ids())
    assert (verification.verdict, verification.faults, verification.of) == ("agrees", {}, 4)
    assert not list((bench.parent / "cache" / "verify").glob("*"))  # what it trained is gone
    records = read_bench(bench).records
    assert [one.id for one in draw(records, 2, 3)] == [one.id for one in draw(tuple(reversed(records)), 2, 3)]
    assert {tuple(one.id for one in draw(records, 2, seed)) for seed in range(40)} >= {tuple(one.id for one in draw(records, 2, 3))}


def test_as_json_it_prints_the_verification_alone(bench, kdzoo):
    said = kdzoo("verify", bench, "--sample", 0, "--run", runs_of(bench, "none")[0].id, "--json")
    told = json.loads(said.out)
    assert (said.status, told["verdict"], told["bench"]) == (0, "agrees", "honest")
    assert [run["by"] for run in told["runs"]] == ["bits"]


def test_a_result_edited_by_hand_contradicts_itself_without_any_training(bench, kdzoo):
    edit(runs_of(bench, "hinton")[0], lambda result: result["last"]["test"].update(top1=0.999))
    said = kdzoo("verify", bench, "--sample", 0)
    assert said.status == 1
    assert "last.test.top1: 0.999, but its errors per class come to" in said.out


def test_a_result_edited_by_hand_under_its_old_digest_or_without_one_is_told_and_stands_in_no_table(bench, kdzoo):
    """However well its numbers fit each other: it is a change of the file that is told."""
    run = runs_of(bench, "hinton")[0]
    file = run.path / "result.json"
    written = json.loads(file.read_text())
    one_more_right(written)
    for content in (written, {key: value for key, value in written.items() if key != "digest"}):
        for indent in (1, None):
            file.write_text(json.dumps(content, indent=indent) + "\n")
            said = kdzoo("verify", bench, "--sample", 0)
            assert said.status == 1
            assert (
                f"{run.id}: disagrees with itself: result.json: damaged (its content has changed since it was written: its digest differs)"
                in said.out
            )
    read = read_bench(bench)
    (note,) = [note for note in read.notes if note.startswith(f"{file}: damaged (its content has changed")]
    assert note.endswith("a bench that plans it trains it again and keeps the file")
    (record,) = [record for record in read.records if record.id == run.id]
    assert (record.state, record.result) == ("damaged", None)


def test_a_result_edited_so_that_it_fits_contradicts_its_predictions_or_is_caught_when_it_is_trained_again(bench, kdzoo):
    run = runs_of(bench, "hinton")[0]
    edit(run, one_more_right)
    assert any("its predictions come to" in fault for fault in faults_of_folder(run))
    run.predictions.unlink()
    assert faults_of_folder(run) == []
    whole = run.metrics.read_text()
    run.metrics.write_text(f"3\n{whole}")
    assert faults_of_folder(run)[0].startswith("metrics.jsonl: damaged: 0 lines readable; what follows is torn, changed since")
    run.metrics.write_text(re.sub('"loss":[0-9.]+', '"loss":0.125', whole))
    assert faults_of_folder(run)[0].startswith("metrics.jsonl: damaged: 0 lines readable")
    run.metrics.write_text(whole)
    said = kdzoo("verify", bench, "--sample", 0, "--run", run.id)
    assert said.status == 1
    assert f"{run.id}: disagrees: last.test." in said.out
    assert "here the same bits were expected" in said.out


def test_a_control_from_another_recipe_is_caught_by_its_steps_and_by_the_reference(trained, bench, kdzoo):
    points = points_of(read_bench(bench).records)
    for own, other in zip(runs_of(bench, "none"), runs_of(trained / "short", "none"), strict=True):
        write_sealed_json(own.path / "result.json", other.result() | {"id": own.id})
    said = kdzoo("verify", bench, "--sample", 0)
    assert said.status == 1
    assert "train.steps:" in said.out
    for own in runs_of(bench, "none"):  # the attacker mends what contradicts itself
        edit(own, lambda result: (result["last"].update(epoch=8), result["train"].update(steps=4 * result["train"]["steps"])))
        own.metrics.unlink()
        own.predictions.unlink()
        assert faults_of_folder(own) == []
    verdicts = {one.what.split(",")[0]: one.verdict for one in compare_controls(read_bench(bench).records, points)}
    assert verdicts["student alone"] == "disagrees"
    caught = kdzoo("verify", bench, "--sample", 0, "--run", runs_of(bench, "none")[0].id)
    assert caught.status == 1


@pytest.mark.slow
def test_a_teacher_exchanged_is_caught_where_its_training_is_recorded(bench, kdzoo, place):
    """Other weights under the teacher's name, sealed as its own, and the students trained by them."""
    (teacher_id,) = {record.about["teacher_id"] for record in read_bench(bench).records if record.run.teacher}
    teacher = teacher_store().run(teacher_id)
    shutil.copytree(teacher.path, bench / "teachers" / teacher_id, ignore=shutil.ignore_patterns("student.safetensors", ".lock"))
    tensors, metadata = read_tensors(teacher.student)
    owner = {key: value for key, value in metadata.items() if key != "digest"}
    other = {name: value * 1.01 if value.dtype == torch.float32 else value for name, value in tensors.items()}
    write_tensors(teacher.student, other, owner)
    for run in runs_of(bench, "hinton"):
        shutil.rmtree(run.path)
    assert kdzoo(*BENCH, "--name", "honest", "--results", place, "--epochs", 8, "--seeds", 2).status == 0
    assert len({record.result["teacher"]["weights_digest"] for record in read_bench(bench).records if record.run.teacher}) == 1
    one = runs_of(bench, "hinton")[0].id
    assert kdzoo("verify", bench, "--sample", 0, "--run", one).status == 0  # his weights are still at hand
    said = kdzoo("verify", bench, "--sample", 0, "--run", one, "--train-teacher")
    assert said.status == 1
    assert "trained again, came to other weights" in said.out
    shutil.rmtree(teacher.path)
    assert kdzoo("verify", bench, "--sample", 0, "--run", one).status == 1
    shutil.rmtree(bench / "teachers")
    said = kdzoo("verify", bench, "--sample", 0, "--run", one)
    assert said.status == 2  # with how many threads it was trained is not known: nothing is claimed
    assert "how many it had is not recorded" in said.out


def test_where_bits_may_differ_the_spread_of_five_seeds_decides_and_without_it_nothing_is_claimed(bench, kdzoo):
    run = runs_of(bench, "none")[0]
    edit(run, lambda result: result["environment"].update(cpu_capability="AVX2"))
    said = kdzoo("verify", bench, "--sample", 0, "--run", run.id)
    assert said.status == 2
    assert "another CPU capability, and no spread of five seeds or more is known" in said.out
    recorded = run.result()
    known = {"test": Spread(0.5, 0.01, 5, "reference"), "val": None}
    near, far = ({"last": {"test": {"top1": recorded["last"]["test"]["top1"] + d}}} for d in (0.9 * BOUND * 0.01, 1.1 * BOUND * 0.01))
    assert within_spread(recorded, near, known, TOP1, "another CPU capability").verdict == "agrees"
    assert within_spread(recorded, far, known, TOP1, "another CPU capability").verdict == "disagrees"


def test_a_run_of_another_engine_or_version_is_not_comparable_and_nothing_is_trained(bench, kdzoo):
    store, run = Store(bench), runs_of(bench, "hinton")[0]
    result, (plan, about) = run.result(), run.read_plan()
    for newer in runs_of(bench, "hinton"):
        shutil.rmtree(newer.path)
    older = plan.model_copy(update={"engine": 3})
    place = store.run(older.id)
    place.plan(older, about)
    write_sealed_json(place.path / "result.json", result | {"id": older.id})
    said = kdzoo("verify", bench, "--sample", 0, "--run", older.id)
    assert said.status == 2
    assert "it is of engine 3, this kdzoo trains by engine 4" in said.out


def test_two_seeds_with_the_same_numbers_are_a_copy(bench, kdzoo):
    one, other = runs_of(bench, "none")
    write_sealed_json(other.path / "result.json", one.result() | {"id": other.id})
    shutil.copy(one.metrics, other.metrics)
    other.predictions.unlink()
    said = kdzoo("verify", bench, "--sample", 0)
    assert said.status == 1
    assert "no two seeds agree so" in said.out


def test_reference_points_are_read_as_they_were_written_and_the_same_machine_has_to_meet_them_to_the_bit(bench, tmp_path):
    records = read_bench(bench).records
    points = points_of(records)
    (tmp_path / "points.json").write_text(write_text(points.values(), "kdzoo bench"))
    assert read_points(tmp_path / "points.json") == points
    assert {one.verdict for one in compare_controls(records, points)} == {"not comparable"}  # two seeds say nothing of the spread
    run = runs_of(bench, "none")[0]
    edit(run, one_more_right)
    assert [one.verdict for one in compare_controls(read_bench(bench).records, points) if one.what.startswith("student")] == ["disagrees"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"threads": 2}, "another number of threads"),
        ({"cpu_capability": "AVX2", "torch_build": "x"}, "another CPU capability and build of torch"),
        ({"cpu": "Xeon (family 6, model 143)"}, "another model of CPU"),
        ({"cpu": None}, "its model of CPU was not recorded"),
        ({"torch_build": None}, "its build of torch was not recorded"),
        ({"device": "NVIDIA H200"}, "only runs on a CPU repeat bit for bit"),
        ({"compile": True}, "it was compiled (--compile)"),
    ],
)
def test_machines_of_one_kind_come_to_the_same_bits(change, why):
    here = {
        "device": "cpu",
        "cpu": "Xeon (family 6, model 207)",
        "cpu_capability": "AVX512",
        "torch_build": "b",
        "threads": 1,
        "compile": False,
    }
    assert why_not_same_bits(here | change, here, {}) == why
    assert why_not_same_bits(here, here, {"stack_students": True}) is not None


def test_only_what_the_run_decides_is_compared():
    result = {"last": {"epoch": 1, "test": {"top1": 0.5, "nll": 1.0}}, "train": {"loss": 0.25}, "best": None, "seconds": 3.0}
    assert same_bits(result, result | {"seconds": 9.0}).verdict == "agrees"
    assert same_bits(result, result | {"train": {"loss": 0.25000000000000006}}).verdict == "disagrees"


@pytest.mark.parametrize("name", ["digits", "zoo_digits", "zoo"])
def test_no_committed_run_contradicts_its_own_files(name):
    store = Store(RESULTS / name)
    assert {run_id: faults for run_id in store.ids() if (faults := faults_of_folder(store.run(run_id)))} == {}


OF_STUDIES = {
    "cifar10": "tutorial-cnn/cnn",
    "cifar10_16": "hinton-few-labels/cifar-all",
    "cifar100_16": "bfloat16-16/float32",
    "mnist": "hinton-mnist/all",
    "spoken_digits": "hinton-ensemble/ten",
}
"""the reference points of each data set, and the stage that made them"""


@pytest.mark.parametrize("data", OF_STUDIES)
def test_the_reference_points_of_a_committed_study_are_those_that_its_runs_make(data):
    file, stage = FOLDER / f"{data}.json", OF_STUDIES[data]
    shipped = read_points(file)
    assert json.loads(file.read_text())["command"] == f"kdzoo reproduce {stage.partition('/')[0]}"
    made = points_of(read_bench(RESULTS / "papers" / stage).records)
    assert shipped == {key: point for key, point in made.items() if len(point.values["test"]) >= FEWEST_SEEDS}
    assert "none" in {point.method for point in shipped.values()}


def test_every_data_set_with_reference_points_says_where_they_are_from():
    assert {file.stem for file in FOLDER.glob("*.json")} == {*OF_STUDIES, "digits"}
