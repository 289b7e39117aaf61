"""The choice of a setting: on validation alone, among settings that can be compared."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_leaderboard import CARDS, metrics, objective, write

from kdzoo.runs.recipe import Recipe
from kdzoo.runs.spec import DataSpec, NetworkSpec, ObjectiveSpec, Run, TermSpec
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.records import Record
from kdzoo.suite.report.selection import candidates, choose, chosen_runs, distance_from_default


def record(temperature: float, seed: int, *, val: float | None, test: float = 0.5, nll: float = 0.3, state: str = "done") -> Record:
    run = Run(
        student=NetworkSpec(name="resnet8", classes=10),
        teacher=NetworkSpec(name="resnet20", classes=10, start="run:none-0123456789ab"),
        data=DataSpec(name="cifar10", fingerprint="f00d", classes=10),
        recipe=Recipe(epochs=5, batch_size=64, lr=0.1),
        objective=objective("hinton", temperature),
        seed=seed,
    )
    last = {"val": None if val is None else metrics(val, nll), "test": metrics(test, nll)}
    return Record(run.id, run, run.parts, {"methods": CARDS}, state, {"last": last} if state == "done" else None)


def temperature_of(records: list[Record]) -> float:
    (chosen,) = choose(candidates(records))
    return chosen.records[0].run.objective.terms[0].hyperparameters["temperature"]


def test_the_mean_over_seeds_decides_not_the_best_seed():
    records = [record(1.0, seed, val=val) for seed, val in enumerate((0.99, 0.70, 0.70))]
    records += [record(2.0, seed, val=0.80) for seed in range(3)]
    assert temperature_of(records) == 2.0


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.lists(st.floats(0, 1), min_size=4, max_size=4), st.integers(0, 1000))
def test_the_test_set_and_the_order_of_reading_choose_nothing(vals, tests, seed):
    settings = (1.0, 2.0, 4.0, 8.0)
    there = [record(t, 0, val=v, test=0.5) for t, v in zip(settings, vals, strict=True)]
    elsewhere = [record(t, 0, val=v, test=x) for t, v, x in zip(settings, vals, tests, strict=True)]
    random.Random(seed).shuffle(elsewhere)
    assert temperature_of(there) == temperature_of(elsewhere)
    assert vals[settings.index(temperature_of(there))] == pytest.approx(max(vals), abs=1e-9)


def test_one_lucky_seed_does_not_beat_three():
    records = [record(4.0, seed, val=0.85) for seed in range(3)] + [record(2.0, 0, val=0.99)]
    assert temperature_of(records) == 4.0


def test_a_setting_that_failed_once_is_no_candidate_however_many_seeds_it_has():
    records = [record(4.0, seed, val=0.80) for seed in range(3)]
    records += [record(1.0, seed, val=0.99) for seed in range(4)] + [record(1.0, 4, val=None, state="failed")]
    assert temperature_of(records) == 4.0


def test_where_no_setting_is_whole_those_with_the_most_seeds_stand_for_choice():
    records = [record(t, seed, val=v) for t, v in ((1.0, 0.7), (2.0, 0.8)) for seed in range(2)]
    records += [record(t, 2, val=None, state="failed") for t in (1.0, 2.0, 4.0)] + [record(4.0, 0, val=0.99)]
    assert temperature_of(records) == 2.0


def test_with_nothing_held_out_or_nothing_done_every_setting_stays():
    assert len(choose(candidates([record(t, 0, val=None) for t in (1.0, 2.0)]))) == 2
    assert len(choose(candidates([record(t, 0, val=None, state="new") for t in (1.0, 2.0)]))) == 2
    assert choose([]) == ()


def test_means_that_differ_in_their_last_bits_are_a_tie_that_the_declared_setting_wins():
    records = [record(4.0, seed, val=v) for seed, v in enumerate((0.1, 0.2, 0.3))]
    records += [record(8.0, seed, val=v) for seed, v in enumerate((0.3, 0.2, 0.1))]
    assert temperature_of(records) == 4.0


def test_distance_is_in_ratios_so_that_half_is_as_far_as_twice():
    half, twice, far = (distance_from_default(record(t, 0, val=0.5)) for t in (2.0, 8.0, 16.0))
    assert half == twice < far
    assert distance_from_default(record(4.0, 0, val=0.5)) == 0


def test_the_student_alone_is_one_setting_and_never_a_candidate_of_a_method(tmp_path):
    """alpha = 0 is `none`: another method in every table."""
    for seed in range(2):
        write(tmp_path, ObjectiveSpec(task=1.0), seed, val=0.99, test=0.9)
        write(tmp_path, objective("hinton"), seed, val=0.5, test=0.5)
    ids = chosen_runs(read_bench(tmp_path).records)
    assert sorted(run_id.partition("-")[0] for run_id in ids) == ["hinton", "none"]


def test_runs_are_chosen_pair_by_pair_and_a_run_of_two_pairs_once(tmp_path):
    other = {"teacher": NetworkSpec(name="resnet56", classes=10, start="run:none-ffffffffffff"), "about": {"pair": "resnet56/resnet8"}}
    write(tmp_path, ObjectiveSpec(task=1.0), 0, val=0.7, test=0.7)
    for temperature, here, there in ((2.0, 0.8, 0.9), (4.0, 0.9, 0.8)):
        write(tmp_path, objective("hinton", temperature), 0, val=here, test=0.5)
        write(tmp_path, objective("hinton", temperature), 0, val=there, test=0.5, **other)
    ids = chosen_runs(read_bench(tmp_path).records)
    assert len(ids) == len(set(ids)) == 3
    by_id = {r.id: r for r in read_bench(tmp_path).records}
    found = {(by_id[i].table_key.pair, term.hyperparameters["temperature"]) for i in ids for term in by_id[i].run.objective.terms}
    assert found == {("resnet20/resnet8", 4.0), ("resnet56/resnet8", 2.0)}


def test_hyperparameters_that_are_no_numbers_count_as_one_step():
    made = record(4.0, 0, val=0.5)
    text = TermSpec(method="hinton", version="1", hyperparameters={"temperature": 4.0, "mode": "b"}, coefficient=0.9)
    changed = made.run.model_copy(update={"objective": ObjectiveSpec(task=0.1, terms=(text,))})
    cards = {"hinton": {**CARDS["hinton"], "declared": {"temperature": 4.0, "mode": "a"}}}
    assert distance_from_default(Record(changed.id, changed, changed.parts, {"methods": cards}, "done")) == 1
