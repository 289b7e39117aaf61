"""A refit: the settings that validation chose, on all training images, with seeds that chose nothing."""

import pytest

from kdzoo.runs.events import Event, TrainingBegun
from kdzoo.runs.store import teacher_store
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.leaderboard import leaderboard_frame
from kdzoo.suite.run.bench import run
from kdzoo.suite.run.launchers.here import Here
from kdzoo.suite.run.prepare import prepare


@pytest.mark.slow
def test_a_refit_trains_only_the_chosen_settings_anew_and_keeps_the_oracle_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    options = {
        "name": "b",
        "results": str(tmp_path),
        "data": "digits",
        "pairs": "digits",
        "recipe": "digits",
        "methods": "hinton",
        "threads": 1,
        "jobs": 1,
    }
    config = bench_config(
        {**options, "temperatures": [1, 4], "alphas": [0.5], "seeds": 2, "epochs": 4, "refit": True, "oracle": True}, None
    )
    outcome = run(prepare(config), Here(), lambda _: None, retry_failed=False)
    assert outcome.failed == {}

    bench = read_bench(tmp_path / "b")
    sweep, refit = ([r for r in bench.records if r.about["phase"] == phase] for phase in ("sweep", "refit"))
    board = leaderboard_frame(bench)
    chosen = board[(board["phase"] == "sweep") & (board["method"] == "hinton")].iloc[0]
    assert {r.run.seed for r in sweep} == {0, 1}
    assert {r.run.seed for r in refit} == {2, 3}
    assert {r.run.data.val_fraction for r in refit} == {0.0}
    assert {r.method for r in refit} == {"none", "hinton"}
    assert {r.run.objective.terms[0].hyperparameters["temperature"] for r in refit if r.run.objective.terms} == {chosen["temperature"]}
    again = board[(board["phase"] == "refit") & (board["method"] == "hinton")].iloc[0]
    assert again["settings_tried"] == chosen["settings_tried"] == 2

    assert all(r.result["train"]["samples"] == 1438 and r.result["last"]["val"] is None and r.result["best"] is None for r in refit)
    (teacher_id,) = {r.about["teacher_id"] for r in refit if r.run.teacher}
    assert teacher_store().run(teacher_id).read_plan()[0].data.val_fraction == 0.0
    assert all(r.result["oracle"]["test"]["top1"] >= r.result["last"]["test"]["top1"] for r in bench.records)
    assert (board.loc[board["rank"].notna(), "oracle_test_top1"] >= board.loc[board["rank"].notna(), "test_top1"]).all()


def bench(folder, **options) -> tuple[set[str], list[str]]:
    """A short bench in this process: the runs that it came to, and those that it trained."""
    usual = {"name": "b", "results": str(folder), "data": "digits", "pairs": "digits", "recipe": "digits", "methods": "hinton"}
    usual |= {"threads": 1, "jobs": 1, "epochs": 1, "limit": 300, "allow_chance_teacher": True}
    events: list[Event] = []
    outcome = run(prepare(bench_config({**usual, **options}, None)), Here(), events.append, retry_failed=False)
    assert outcome.failed == {}
    return outcome.done, [run_id for event in events if isinstance(event, TrainingBegun) for run_id in event.ids]


def test_a_refit_takes_up_only_what_its_own_bench_chose_and_no_seed_of_any_sweep_in_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    bench(tmp_path, split_seed=1, seeds=3)
    done, trained = bench(tmp_path, split_seed=0, seeds=1, refit=True)
    records = {record.id: record for record in read_bench(tmp_path / "b").records}
    again = [record for record in records.values() if record.about["phase"] == "refit"]
    assert sorted(record.method for record in again) == ["hinton", "none"]
    assert {record.run.data.split_seed for record in again} == {0}
    assert {record.run.seed for record in again} == {3}
    assert {records[run_id].run.data.split_seed for run_id in done} == {0}
    (teacher_id,) = {record.about["teacher_id"] for record in again if record.run.teacher}
    teacher = teacher_store().run(teacher_id).read_plan()[0]
    assert (teacher.data.val_fraction, teacher.data.split_seed) == (0.0, 0)
    assert {record.run.teacher.start for record in again if record.run.teacher} == {f"run:{teacher_id}"}
    (chosen,) = [records[run_id] for run_id in done if records[run_id].about["phase"] == "sweep" and records[run_id].run.teacher]
    assert {record.about.get("sweep_teacher") for record in again if record.run.teacher} == {chosen.run.teacher.start}
    assert len(trained) == 6  # two sweep runs, two of the refit, a teacher for each
    assert bench(tmp_path, split_seed=0, seeds=1, refit=True) == (done, [])
