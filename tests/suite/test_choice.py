"""How often seeds choose a setting, against resamples that are drawn."""

import numpy as np
import pytest
from test_leaderboard import objective, write

from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.choice import choice_shares
from kdzoo.suite.report.selection import candidates

VALS = {(2.0, 0.5): (0.80, 0.84, 0.82), (2.0, 0.9): (0.81, 0.80, 0.88), (4.0, 0.5): (0.70, 0.71, 0.72), (4.0, 0.9): (0.83, 0.81, 0.82)}


def shares_of(folder) -> dict:
    """The shares by temperature and alpha."""
    options = candidates(record for record in read_bench(folder).records if record.method == "hinton")
    shares = choice_shares(options)
    terms = {option.records[0].setting_key: option.records[0].run.objective.terms[0] for option in options}
    return {(term.hyperparameters["temperature"], term.coefficient): shares.get(key) for key, term in terms.items()}


def write_swept(folder, vals, seeds):
    for (temperature, alpha), values in vals.items():
        for seed in range(seeds):
            write(folder, objective("hinton", temperature, alpha), seed, val=values[seed], test=0.5)
    return folder


def drawn(vals, seeds):
    """The same by drawing seeds again and again: of equal means the setting nearest the declared one (T=4, alpha 0.9) is chosen."""
    draws = np.random.default_rng(5).integers(0, seeds, (60_000, seeds))
    means = np.array([np.array(values)[draws].mean(1) for values in vals.values()]).round(10)
    distance = np.array([abs(np.log(t / 4)) + abs(np.log(a / 0.9)) + abs((1 - a) - 0.1) for t, a in vals])
    best = np.lexsort([np.broadcast_to(distance[:, None], means.shape), -means], axis=0)[0]
    return dict(zip(vals, np.bincount(best, minlength=len(vals)) / len(draws), strict=True))


def test_every_resample_of_three_seeds_is_counted(tmp_path):
    shares = shares_of(write_swept(tmp_path / "b", VALS, 3))
    assert sum(shares.values()) == pytest.approx(1)
    assert shares == pytest.approx(drawn(VALS, 3), abs=0.01)
    assert all(share * 27 == pytest.approx(round(share * 27)) for share in shares.values())  # of 3^3 resamples


def test_of_nine_seeds_resamples_are_drawn_and_come_to_the_same_twice(tmp_path):
    values = np.random.default_rng(1).uniform(0.8, 0.82, (4, 9)).round(4)
    vals = dict(zip(VALS, map(tuple, values.tolist()), strict=True))
    shares = shares_of(write_swept(tmp_path / "b", vals, 9))
    assert shares == pytest.approx(drawn(vals, 9), abs=0.04)
    assert shares == shares_of(tmp_path / "b")


def test_one_seed_does_not_say_how_often_a_setting_is_chosen(tmp_path):
    assert set(shares_of(write_swept(tmp_path / "b", VALS, 1)).values()) == {None}


def test_a_setting_with_a_failed_seed_is_no_candidate(tmp_path):
    for seed in range(2):
        write(tmp_path / "b", objective("hinton", 1.0), seed, val=0.8, test=0.8)
    write(tmp_path / "b", objective("hinton", 2.0), 0, val=0.9, test=0.9)
    write(tmp_path / "b", objective("hinton", 2.0), 1, val=None, test=0, fail="ValueError: no")
    assert shares_of(tmp_path / "b") == {(1.0, 0.9): 1, (2.0, 0.9): None}


def test_nothing_is_chosen_where_nothing_was_held_out(tmp_path):
    for temperature in (1.0, 2.0):
        write(tmp_path / "b", objective("hinton", temperature), 0, val=None, test=0.8)
        write(tmp_path / "b", objective("hinton", temperature), 1, val=None, test=0.8)
    assert set(shares_of(tmp_path / "b").values()) == {None}
