"""Independent searches and one score over tables, against numbers worked out by hand."""

import shutil

import numpy as np
import pytest
import scipy.stats
from test_leaderboard import objective, write

from kdzoo.errors import InputError
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.refit import fresh_seeds
from kdzoo.suite.plan.searches import searches
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.score import final_blocks, score_frame, scored_blocks
from kdzoo.suite.report.searches import read_searches, searches_frame, t_interval, write_searches


def seeds_of(config) -> set[int]:
    return {seed for method in ("none", "hinton", "at") for seed in (*config.seeds_for(method), *fresh_seeds(method, config))}


@pytest.mark.parametrize("options", [{}, {"seeds": "5,7"}, {"seeds": 2, "control_seeds": 4, "refit_seeds": 6}])
def test_no_two_searches_share_a_seed_and_each_is_a_bench_with_a_refit(options):
    planned = list(searches(bench_config({"name": "b", "searches": 3, "results": "r", **options}, None)))
    assert [(one.results, one.name, one.refit, one.searches) for one in planned] == [("r/b", f"search-{n}", True, None) for n in (1, 2, 3)]
    used = [seeds_of(one) for one in planned]
    assert not any(used[a] & used[b] for a in range(3) for b in range(a))
    assert len({len(seeds) for seeds in used}) == 1


def test_without_choosing_there_is_no_search():
    for options in ({"refit": False}, {"val_fraction": 0.0}):
        with pytest.raises(InputError, match="what is repeated is choosing and refitting"):
            next(searches(bench_config({"searches": 2, **options}, None)))


TESTS = {"none": [0.80, 0.81, 0.79], "hinton": [0.85, 0.86, 0.84], "at": [0.83, 0.87, 0.82]}


@pytest.fixture
def searched(tmp_path):
    """Three searches, of each method one refit of two seeds around its number."""
    for number in range(3):
        for method, values in TESTS.items():
            for seed in (0, 1):
                change = {"val_fraction": 0.0}
                test = values[number] + (0.01 if seed else -0.01)
                write(
                    tmp_path / "b" / f"search-{number + 1}",
                    objective(method),
                    seed,
                    val=None,
                    test=test,
                    about={"phase": "refit"},
                    data=change,
                )
    return tmp_path / "b"


def test_what_searches_came_to_is_their_mean_with_students_interval_over_searches(searched):
    frame = searches_frame(read_searches(searched)).set_index("method")
    gains = np.array(TESTS["at"]) - np.array(TESTS["hinton"])
    low, high = scipy.stats.t.interval(0.95, 2, gains.mean(), scipy.stats.sem(gains))
    row = frame.loc["at"]
    assert (row["searches"], row["settings"], row["collapsed"]) == (3, 1, 0)
    assert row[["test", "test_sd", "vs_kd", "vs_kd_sd", "vs_kd_low", "vs_kd_high"]].tolist() == pytest.approx(
        [0.84, np.std(TESTS["at"], ddof=1), gains.mean(), np.std(gains, ddof=1), low, high]
    )
    assert t_interval(np.array([0.5])) == (None, None)
    shown = write_searches(searched).set_index("method")
    assert shown.loc["hinton", "vs KD"] == ""
    assert "| at | 3 | 1 | 84.00 ± 2.65 |" in (searched / "searches.md").read_text()
    assert (searched / "searches.csv").read_text().count("\n") == 4


def test_a_score_is_the_mean_gain_over_the_tables_of_several_benches_with_ranks(tmp_path, kdzoo):
    data = [("one", 0.85, 0.87), ("two", 0.70, 0.71), ("three", 0.60, 0.63)]
    for name, kd, at in data:
        for seed, shift in enumerate((-0.01, 0.0, 0.01)):
            for method, value in (("none", kd - 0.05), ("hinton", kd), ("at", at)):
                write(tmp_path / name, objective(method), seed, val=value, test=value + shift, data={"fingerprint": name})
    benches = [read_bench(tmp_path / name) for name, *_ in data]
    frame = score_frame(scored_blocks(benches)).set_index("method")
    gains = np.array([at - kd for _, kd, at in data])
    low, high = scipy.stats.t.interval(0.95, 2, gains.mean(), scipy.stats.sem(gains))
    assert frame.loc["at", ["vs_kd", "vs_kd_error", "vs_kd_low", "vs_kd_high"]].tolist() == pytest.approx(
        [gains.mean(), scipy.stats.sem(gains), low, high]
    )
    assert frame.loc["at", ["tables", "rank", "rank_low", "rank_high"]].tolist() == [3, 1, 1, 1]
    said = kdzoo("score", *(tmp_path / name for name, *_ in data))
    assert said.status == 0
    assert "+2.00 [" in said.out
    assert "about these tables only" in said.out
    assert "expected two tables or more" in kdzoo("score", tmp_path / "one").err
    again = shutil.copytree(tmp_path / "one", tmp_path / "elsewhere" / "one")
    assert len(scored_blocks([benches[0], read_bench(again)])) == 2, "a bench of the same name in another folder is another bench"
    assert len(scored_blocks([*benches, benches[0]])) == 3, "the same bench is one"


@pytest.mark.parametrize("phases", [("sweep", "refit"), ("refit", "sweep")])
def test_a_score_is_made_of_the_refit_where_there_is_one(tmp_path, phases):
    for number, phase in enumerate(phases):
        for method, test in (("none", 0.8), ("hinton", 0.85), ("at", 0.87)):
            for seed in (0, 1):
                held_out = {"val_fraction": 0.0} if phase == "refit" else {}
                val = None if phase == "refit" else test
                write(tmp_path / "b", objective(method), 2 * number + seed, val=val, test=test, about={"phase": phase}, data=held_out)
    (block,) = final_blocks(read_bench(tmp_path / "b"))
    assert block.table_key.phase == "refit"


@pytest.mark.slow
def test_a_bench_of_searches_trains_each_with_its_own_seeds_and_one_teacher(place, kdzoo, train_here):
    options = (
        "--data", "digits", "--pairs", "digits", "--recipe", "digits", "--limit", 300, "--epochs", 2, "--methods", "hinton", "--seeds", 1,
        "--alphas", "0.5,0.9", "--temperatures", 4, "--jobs", 1, "--threads", 1, "--allow-chance-teacher", "--keep", "nothing",
    )  # fmt: skip
    said = kdzoo("bench", *options, "--name", "s", "--searches", 2)
    assert said.status == 0, said.err
    benches = read_searches(place / "results" / "s")
    seeds = [{record.run.seed for record in bench.records} for bench in benches]
    assert len(benches) == 2
    assert not seeds[0] & seeds[1]
    assert (
        len({record.about["teacher_id"] for bench in benches for record in bench.records if record.about["teacher_id"]}) == 2
    )  # sweep, refit
    assert set(searches_frame(benches)["method"]) == {"none", "hinton"}
    assert (place / "results" / "s" / "searches.md").exists()
