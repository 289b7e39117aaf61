"""A refit: the settings that validation chose, on all training images, with seeds that chose nothing."""

import pytest

from kdzoo.store import teacher_store
from kdzoo.suite.bench import prepare, run
from kdzoo.suite.config import bench_config
from kdzoo.suite.leaderboard import leaderboard_frame
from kdzoo.suite.records import read_bench


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
    }
    config = bench_config(
        {**options, "temperatures": [1, 4], "alphas": [0.5], "seeds": 2, "epochs": 4, "refit": True, "oracle": True}, None
    )
    outcome = run(prepare(config), None, lambda _: None, retry_failed=False)
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
