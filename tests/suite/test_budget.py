"""A search within a budget: its rungs and choices by hand, and a real one on the digits, disturbed and undisturbed."""

import json
import shutil

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as some
from safetensors.numpy import load_file
from test_leaderboard import objective, write

from kdzoo.cli.dry_run import plan_lines
from kdzoo.errors import InputError
from kdzoo.runs.events import Note, RunDone, RunPaused, TrainingBegun
from kdzoo.runs.store import PAUSED, RunFolder, Store
from kdzoo.suite.plan.budget import Rung, cost, rungs, search_rungs
from kdzoo.suite.plan.jobs import Job, Outcome
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.searches import searches
from kdzoo.suite.plan.starts import Start, keep_start
from kdzoo.suite.plan.sweep import plan as make_plan
from kdzoo.suite.proof.merge import merge
from kdzoo.suite.proof.submit import submit
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.promotion import promoted_settings
from kdzoo.suite.report.protocol import protocol_of
from kdzoo.suite.report.runs_table import runs_frame
from kdzoo.suite.report.table_files import write_tables
from kdzoo.suite.report.verdict import verdicts
from kdzoo.suite.run.bench import run
from kdzoo.suite.run.estimate import estimate
from kdzoo.suite.run.halving import search
from kdzoo.suite.run.launchers.here import Here
from kdzoo.suite.run.prepare import prepare
from kdzoo.suite.run.search_left import left_of
from kdzoo.suite.run.train_plan import train_plan
from kdzoo.suite.study.race_table import _missing

OPTIONS = {
    "data": "digits", "pairs": "digits", "recipe": "digits", "limit": 300, "epochs": 9, "methods": "hinton", "temperatures": "1,2,4",
    "alphas": "0.5,0.9", "seeds": 1, "threads": 1, "jobs": 1, "allow_chance_teacher": True,
}  # fmt: skip
RUNGS = [Rung(1, 7), Rung(3, 3), Rung(9, 3)]
"""of the seven settings of these options within four whole runs: 7 + 3 * 2 + 3 * 6 = 31 of 36 epochs"""


def test_rungs_by_hand():
    assert rungs(7, 1, 9, 4, 3) == tuple(RUNGS)
    assert rungs(171, 1, 15, 57, 3) == (Rung(2, 171), Rung(5, 57), Rung(15, 34))  # 342 + 171 of 855, and 342 more for 34 times 10
    assert rungs(9, 3, 20, 18, 3) == (Rung(7, 9), Rung(20, 4))  # 3 * (63 + 3 * 13) = 306 of 360; one more setting costs 39
    assert rungs(4, 1, 10, 4, 3) == (Rung(10, 4),)


def test_a_budget_that_is_too_small_says_what_is_enough():
    with pytest.raises(InputError, match=r"budget: 7 settings on 1 seed cost at least 4 whole runs, got 3"):
        rungs(7, 1, 9, 3, 3)
    assert rungs(7, 1, 9, 4, 3)


@given(some.integers(1, 300), some.integers(1, 5), some.integers(1, 240), some.integers(1, 400), some.integers(1, 3))
def test_a_search_ends_in_whole_runs_and_never_costs_more_than_its_budget(settings, seeds, epochs, budget, least):
    try:
        schedule = rungs(settings, seeds, epochs, budget, least)
    except InputError:
        assert budget < settings * seeds  # all of them to the end is always a search
        return
    assert cost(schedule) * seeds <= budget * epochs
    assert schedule[0].settings == settings
    assert schedule[-1].epoch == epochs
    assert [rung.epoch for rung in schedule] == sorted({rung.epoch for rung in schedule})
    assert [rung.settings for rung in schedule] == sorted((rung.settings for rung in schedule), reverse=True)
    assert schedule[-1].settings >= min(settings, least)


def settings_by_hand(folder, values: dict[tuple[str, float], list[tuple[float, float]]]) -> dict[str, list[RunFolder]]:
    """Runs of methods at temperatures that were trained for two epochs; (top-1, NLL) on validation after the first, one a seed."""
    found = {}
    for (method, temperature), seeds in values.items():
        folders = []
        for seed, (top1, nll) in enumerate(seeds):
            made = write(folder, objective(method, temperature), seed, val=0.1, test=0.1)
            place = Store(folder).run(made.id)
            (place.path / "result.json").unlink()
            lines = [
                {"epoch": 1, "step": 5, "val": {"top1": top1, "nll": nll}},
                {"epoch": 2, "step": 10, "val": {"top1": 1 - top1, "nll": nll}},
            ]
            place.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
            folders.append(place)
        found[f"{method} {temperature:g}"] = folders
    return found


def test_a_failure_is_forgotten_once_the_run_is_done_or_paused():
    before = Outcome(failed={"a": "no", "b": "no", "c": "no"})
    after = before.joined(Outcome(done={"a"}, paused={"b"}, failed={"d": "no"}))
    assert (after.done, after.paused, after.failed) == ({"a"}, {"b"}, {"c": "no", "d": "no"})


def test_what_goes_on_is_best_on_validation_after_that_epoch_and_the_controls_always_do(tmp_path):
    settings = settings_by_hand(tmp_path, {
        ("none", 4.0): [(0.1, 1.0), (0.1, 1.0)],
        ("hinton", 4.0): [(0.5, 0.9), (0.7, 0.9)],
        ("hinton", 2.0): [(0.9, 1.1), (0.3, 0.6)],
        ("hinton", 1.0): [(0.8, 0.9), (0.6, 0.9)],
        ("at", 4.0): [(0.8, 0.9), (0.9, 0.9)],
    })  # fmt: skip
    assert promoted_settings(settings, 1, 3, ("none", "hinton")) == ["at 4", "hinton 1", "none 4"]
    assert promoted_settings(settings, 1, 4, ("none", "hinton")) == ["at 4", "hinton 1", "hinton 2", "none 4"]  # of equal top-1 by NLL
    assert promoted_settings(settings, 2, 2, ()) == ["none 4", "hinton 2"]
    settings["at 4"][1].fail("Traceback ...\nRuntimeError: no\n")
    assert promoted_settings(settings, 1, 3, ("none", "hinton")) == ["hinton 1", "hinton 2", "none 4"]
    assert promoted_settings(settings, 3, 3, ("none", "hinton")) == []


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"val_fraction": 0.0}, "expected --val-fraction above 0"),
        ({"oracle": True}, "never looks at the test images"),
        ({"control_seeds": 2}, "compared over the same seeds"),
        ({"budget": 7}, "all 7 runs cost no more than that"),
        ({"budget": 1}, "cost at least 4 whole runs, got 1"),
        ({"teacher": "digits_teacher", "student": "digits_deit"}, "expected one pair"),
    ],
)
def test_what_a_budget_cannot_be_combined_with_is_refused_before_any_work(place, options, fault):
    with pytest.raises(InputError, match=fault):
        prepare(bench_config({"budget": 4, **OPTIONS, **options}, None))
    assert not (place / "results").exists()


def test_each_of_several_searches_has_the_budget():
    assert [one.budget for one in searches(bench_config({"budget": 4, "searches": 2, **OPTIONS}, None))] == [4, 4]


def test_a_job_takes_its_last_epoch_along(place):
    made = prepare(bench_config({"budget": 4, **OPTIONS}, None))
    options = made.options.model_copy(update={"until": 3})
    job = Job("a", "students", "results/b", ("x",), options)
    assert Job.from_json(job.to_json()) == job


def test_a_pause_lasts_until_training_goes_on_or_the_run_ends(tmp_path):
    folder = RunFolder(tmp_path / "hinton-0123456789ab")
    folder.path.mkdir()
    assert (folder.state(), folder.paused_after(), folder.is_over(1)) == ("new", None, False)
    folder.pause(3, 9)
    assert (folder.state(), folder.paused_after()) == ("paused", 3)
    assert [folder.is_over(until) for until in (2, 3, 4, None)] == [True, True, False, False]
    (folder.path / PAUSED).write_text("{")
    assert folder.state() == "new"
    folder.pause(3, 9)
    folder.go_on()
    assert folder.state() == "new"
    folder.pause(3, 9)
    folder.fail("no\n")
    assert folder.state() == "failed"


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    """One folder with a whole grid, a search that nothing disturbed, and a search that was stopped in its second rung and went on."""
    folder = tmp_path_factory.mktemp("budget")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDZOO_CACHE", str(folder / "cache"))
        usual = {**OPTIONS, "results": str(folder), "refit": False}
        run(prepare(bench_config({**usual, "name": "whole"}, None)), Here(), lambda _: None, retry_failed=False)
        config = bench_config({**usual, "name": "search", "budget": 4, "refit": True}, None)
        events = []
        outcome = run(prepare(config), Here(), events.append, retry_failed=False)
        stopped = bench_config({**usual, "name": "stopped", "budget": 4}, None)
        asked = []

        def stop() -> bool:
            begun = [event for event in seen if isinstance(event, TrainingBegun) and event.role == "student"]
            asked.extend([None] * (len(begun) > 1))
            return len(asked) > 2

        seen = []
        before = search(prepare(stopped), Here(), seen.append, retry_failed=False, stop=stop)
        middle = read_bench(folder / "stopped")
        after = search(prepare(stopped), Here(), lambda _: None, retry_failed=False)
        yield {"folder": folder, "events": events, "outcome": outcome, "before": before, "middle": middle, "after": after}


@pytest.fixture(scope="module")
def between_cohorts(tmp_path_factory):
    """A search on two seeds, each a cohort of its own, that was stopped after the first cohort of its last rung; and its end."""
    folder = tmp_path_factory.mktemp("between")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDZOO_CACHE", str(folder / "cache"))
        config = bench_config({**OPTIONS, "results": str(folder), "refit": False, "name": "b", "seeds": 2, "budget": 8}, None)
        events = []

        def stop() -> bool:
            return any(isinstance(event, RunDone) and event.role == "student" for event in events)

        search(prepare(config), Here(), events.append, retry_failed=False, stop=stop)
        middle = read_bench(folder / "b")
        said = verdicts(middle)
        search(prepare(config), Here(), lambda _: None, retry_failed=False)
        yield folder / "b", middle, said


def test_between_two_cohorts_of_a_rung_promoted_runs_are_no_paused_ones(between_cohorts):
    folder, middle, said = between_cohorts
    states = {record.id: record.state for record in middle.records}
    after = {record.id: record.state for record in read_bench(folder).records}
    assert sorted(after.values()) == ["done"] * 6 + ["paused"] * 8
    assert "done" in states.values()
    assert {run_id for run_id, state in states.items() if state == "paused"} == {run_id for run_id in after if after[run_id] == "paused"}
    assert {states[run_id] for run_id in after if after[run_id] == "done"} == {"done", "started"}
    assert all("so far, with" in text for text in said)


def test_a_run_that_has_lost_its_line_is_trained_again_and_the_search_comes_to_the_same(between_cohorts, monkeypatch):
    folder, _, _ = between_cohorts
    monkeypatch.setenv("KDZOO_CACHE", str(folder.parent / "cache"))
    records = read_bench(folder).records
    before = {record.id: (record.state, record.paused) for record in records}
    lost = [next(record.id for record in records if record.state == state) for state in ("done", "paused")]
    lines, old = {}, {run_id: Store(folder).run(run_id).student for run_id in lost}
    trained = load_file(old[lost[0]])
    for run_id in lost:
        metrics = Store(folder).run(run_id).metrics
        lines[run_id] = metrics.read_text()
        metrics.write_text("{")
    config = bench_config({**OPTIONS, "results": str(folder.parent), "refit": False, "name": "b", "seeds": 2, "budget": 8}, None)
    events = []
    outcome = search(prepare(config), Here(), events.append, retry_failed=False)
    notes = [event.text for event in events if isinstance(event, Note) and "trained again from its start" in event.text]
    assert all(any(str(Store(folder).run(run_id).metrics) in note for note in notes) for run_id in lost)
    assert outcome.failed == {}
    assert {record.id: (record.state, record.paused) for record in read_bench(folder).records} == before
    assert same(load_file(old[lost[0]]), trained)
    for run_id in lost:
        texts = Store(folder).run(run_id).metrics.read_text(), lines[run_id]
        own, was = ([json.loads(line)["val"] for line in text.splitlines()] for text in texts)
        assert own == was


def sweep_of(folder) -> list:
    return [record for record in read_bench(folder).records if record.table_key.phase == "sweep"]


def weights(folder, run_id):
    return load_file(Store(folder).run(run_id).student)


def same(one, other) -> bool:
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def test_a_search_trains_rung_by_rung_and_pauses_the_rest(benches):
    records = sweep_of(benches["folder"] / "search")
    assert sorted(str(record.paused) for record in records) == ["1"] * 4 + ["None"] * 3
    assert {record.method for record in records if record.state == "done"} >= {"none", "hinton"}
    paused = [(event.epoch, event.epochs) for event in benches["events"] if isinstance(event, RunPaused)]
    assert paused == [(1, 9)] * 7 + [(3, 9)] * 3
    assert len(benches["outcome"].paused) == 4
    assert len([record for record in records if record.result]) == 3


def test_the_rungs_of_a_search_are_decided_by_validation_alone(benches):
    folder = benches["folder"]
    whole = {record.id: Store(folder / "whole").run(record.id).metrics for record in sweep_of(folder / "whole")}
    after = {run_id: next(json.loads(line)["val"] for line in path.read_text().splitlines()) for run_id, path in whole.items()}
    alone = next(run_id for run_id in after if run_id.startswith("none-"))
    ranked = sorted(after, key=lambda run_id: (-after[run_id]["top1"], after[run_id]["nll"]))
    expected = {alone, *[run_id for run_id in ranked if run_id != alone][:2]} if alone not in ranked[:3] else set(ranked[:3])
    assert {record.id for record in sweep_of(folder / "search") if record.state == "done"} == expected


def test_a_run_that_goes_on_ends_at_the_weights_of_an_undisturbed_one_and_has_its_id(benches):
    folder = benches["folder"]
    assert {record.id for record in sweep_of(folder / "search")} == {record.id for record in sweep_of(folder / "whole")}
    for record in sweep_of(folder / "search"):
        if record.state == "done":
            assert same(weights(folder / "search", record.id), weights(folder / "whole", record.id))
            lines = [Store(folder / name).run(record.id).metrics.read_text().splitlines() for name in ("search", "whole")]
            own, undisturbed = ([(json.loads(line)["epoch"], json.loads(line)["val"]) for line in one] for one in lines)
            assert own == undisturbed


def test_a_paused_run_was_never_looked_at_on_the_test_images(benches):
    for record in sweep_of(benches["folder"] / "search"):
        place = Store(benches["folder"] / "search").run(record.id)
        if record.state == "paused":
            assert not (place.path / "result.json").exists()
            assert not place.predictions.exists()
            assert "test" not in place.metrics.read_text()


def test_a_search_that_was_stopped_goes_on_to_the_same(benches):
    folder = benches["folder"]
    assert benches["before"].done == set()
    assert {record.state for record in benches["middle"].records} == {"paused", "started"}
    states = [{record.id: (record.state, record.paused) for record in sweep_of(folder / name)} for name in ("search", "stopped")]
    assert states[0] == states[1]
    for record in sweep_of(folder / "stopped"):
        if record.state == "done":
            assert same(weights(folder / "search", record.id), weights(folder / "stopped", record.id))


def test_paused_runs_have_no_row_and_the_table_names_the_search(benches):
    folder = benches["folder"] / "search"
    tables = write_tables(folder)
    board = pd.read_csv(folder / "leaderboard.csv")
    sweep = board[(board["phase"] == "sweep") & (board["method"] != "teacher")]
    assert set(sweep["method"]) == {"none", "hinton"}
    assert set(sweep["planned"]) == {1}
    whole = 3 + 4 / 9
    assert set(board["search"].dropna()) == {f"successive halving, {whole:.1f} of 7 runs"}  # the refit's settings were chosen so too
    page = (folder / "leaderboard.md").read_text()
    assert "4 of 7 runs were paused (4 after epoch 1 of 9) and have no row; all cost as much as 3.4 whole runs." in page
    assert "so far" not in page
    runs = runs_frame(read_bench(folder))
    paused = runs[runs["state"] == "paused"]
    assert len(paused) == 4
    assert paused[["val_top1", "test_top1"]].isna().all(axis=None)
    assert tables.board is not None
    assert protocol_of(read_bench(benches["folder"] / "whole"))["search"] == {"every setting trained to the end"}
    assert "search" not in pd.read_csv(benches["folder"] / "whole" / "leaderboard.csv")


def test_a_dry_run_of_a_search_that_is_over_has_nothing_left(benches, monkeypatch):
    folder = benches["folder"]
    monkeypatch.setenv("KDZOO_CACHE", str(folder / "cache"))
    made = prepare(bench_config({**OPTIONS, "results": str(folder), "name": "search", "budget": 4, "refit": True}, None))
    lines = plan_lines(made, retry_failed=False)
    assert ("distinct runs", "7: 3 done, 4 paused, 0 left") in lines
    assert ("time", "nothing is left to do") in lines
    assert dict(lines)["refit"].endswith(": done")
    assert estimate(made) == 0


def test_what_is_left_is_of_the_rung_that_a_search_stands_in(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    config = bench_config({**OPTIONS, "results": str(tmp_path), "name": "left", "budget": 4, "refit": False}, None)
    made = prepare(config)
    new = left_of(config, made.plan)
    assert (len(new.runs), new.share) == (7, pytest.approx(31 / 63))  # the epochs of the rungs, of seven whole runs
    events = []
    search(made, Here(), events.append, retry_failed=False, stop=lambda: sum(isinstance(one, RunPaused) for one in events) >= 7)
    middle = left_of(config, made.plan)
    assert (len(middle.runs), middle.share) == (3, pytest.approx(1.0))  # three settings go on, and all of them to the end
    search(made, Here(), events.append, retry_failed=False, stop=lambda: sum(isinstance(one, RunPaused) for one in events) >= 10)
    assert {one.run.id for one in left_of(config, made.plan).runs} == {one.run.id for one in middle.runs}


def test_a_budget_is_refused_before_any_work_and_not_when_weights_are_known(place):
    config = bench_config({**OPTIONS, "budget": 7}, None)
    assert search_rungs(config, make_plan(config).students) == (Rung(9, 7),)


def test_a_merged_search_is_still_one(benches, tmp_path):
    folder = benches["folder"] / "search"
    write_tables(folder)
    merge([folder], [], tmp_path / "merged", {})
    boards = [pd.read_csv(one / "leaderboard.csv")["search"].dropna().tolist() for one in (folder, tmp_path / "merged")]
    assert boards[0] == boards[1] != []
    bench = read_bench(tmp_path / "merged")
    assert protocol_of(bench)["search"] == {"successive halving, 3.4 of 7 runs"}


def test_a_search_cannot_be_submitted_and_what_to_do_is_told(benches, tmp_path):
    with pytest.raises(InputError) as refused:
        submit(benches["folder"] / "search", tmp_path / "out", author="A. Name", points={})
    assert "4 runs paused by a search within a budget" in str(refused.value)
    assert "the same `kdzoo bench` without --budget" in str(refused.value)
    assert "not over" not in str(refused.value)


def test_runs_that_a_search_has_left_are_not_missing_in_a_race(benches):
    assert _missing(read_bench(benches["folder"] / "search")) == []
    assert _missing(benches["middle"]) == [f"{sum(one.state == 'started' for one in benches['middle'].records)} of 7 runs of the settings"]


def test_a_search_is_of_no_edition(benches, tmp_path):
    shutil.copytree(benches["folder"] / "search", tmp_path / "s")
    ids = Store(tmp_path / "s").ids()
    keep_start(tmp_path / "s", Start.of("kdzoo bench", bench_config({"edition": "2026.12"}, None), ids))
    write_tables(tmp_path / "s")
    assert "Not of edition 2026.12: its settings were searched within a budget" in (tmp_path / "s" / "leaderboard.md").read_text()


def test_the_refit_of_a_search_has_fresh_seeds_and_its_whole_runs_methods(benches):
    refit = [record for record in read_bench(benches["folder"] / "search").records if record.table_key.phase == "refit"]
    assert {record.method for record in refit} == {"none", "hinton"}
    assert {record.run.seed for record in refit} == {1}
    assert {record.state for record in refit} == {"done"}


def test_status_counts_paused_runs_apart(benches, kdzoo):
    said = kdzoo("status", benches["folder"] / "search")
    assert "search: 4 paused, 5 done" in said.out
    assert "1/9" in said.out
    assert "to resume" not in said.out
    whole = json.loads(kdzoo("status", benches["folder"] / "search", "--json").out)
    assert whole["counts"]["paused"] == 4


def test_a_whole_grid_after_a_search_trains_the_paused_runs_on_to_the_same_weights(benches, monkeypatch):
    folder = benches["folder"]
    monkeypatch.setenv("KDZOO_CACHE", str(folder / "cache"))
    config = bench_config({**OPTIONS, "results": str(folder), "refit": False, "name": "stopped"}, None)
    events = []
    outcome = train_plan(prepare(config), Here(), events.append, retry_failed=False)
    assert len(outcome.done) == 7
    assert {event.step > 0 for event in events if isinstance(event, TrainingBegun)} == {True}
    for record in sweep_of(folder / "whole"):
        assert same(weights(folder / "stopped", record.id), weights(folder / "whole", record.id))
    write_tables(folder / "stopped")
    assert "search" not in pd.read_csv(folder / "stopped" / "leaderboard.csv")


def test_the_command_line_searches_within_a_budget(place, kdzoo, train_here):
    words = [word for key, value in OPTIONS.items() for word in (["--allow-chance-teacher"] if value is True else [f"--{key}", value])]
    told = kdzoo("bench", *words, "--budget", 4, "--no-refit", "--name", "s", "--dry-run")
    assert "7 settings to epoch 1, 3 to epoch 3, 3 to epoch 9: 3.4 of 4 whole runs" in told.out
    said = kdzoo("bench", *words, "--budget", 4, "--no-refit", "--name", "s")
    assert said.status == 0, said.err
    assert "budget: 3 settings up to epoch 9, whole runs" in said.out + said.err
    assert "paused after epoch 1 of 9" in said.out + said.err
    assert "nothing is left to do" in kdzoo("bench", *words, "--budget", 4, "--no-refit", "--name", "s").out
