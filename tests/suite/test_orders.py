"""Whether the order of methods carries over: Spearman's correlation by hand, its interval by the published formula, and what is told."""

import csv
import math

import numpy as np
import pytest
import test_leaderboard
import yaml
from test_leaderboard import objective, write

from kdzoo.errors import InputError
from kdzoo.runs.spec import ObjectiveSpec, TermSpec
from kdzoo.suite.plan.race import Race
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.orders import mean_correlation, method_gains, orders_words, outcomes_of, rank_correlation
from kdzoo.suite.report.score import final_blocks
from kdzoo.suite.study.evidence import write_evidence
from kdzoo.suite.study.race_text import race_words
from kdzoo.suite.study.study_files import read_study

METHODS = ("at", "sp", "dkd", "vid", "rkd")
BENCH = {"data": "digits", "pairs": ["digits"], "recipe": "smoke", "methods": ["hinton", *METHODS], "refit": False}
GAINS = {
    "one": dict(zip(METHODS, (0.05, 0.04, 0.03, 0.00, -0.05), strict=True)),
    "two": dict(zip(METHODS, (0.04, 0.05, 0.00, 0.03, -0.04), strict=True)),  # two neighbours exchanged, twice
    "three": dict(zip(METHODS, (-0.05, 0.00, 0.03, 0.04, 0.05), strict=True)),  # turned round
}
BY_HAND = 1 - 6 * (1 + 1 + 1 + 1) / (5 * (25 - 1))


def of_method(method: str) -> ObjectiveSpec:
    if method in ("none", "hinton"):
        return objective(method)
    return ObjectiveSpec(task=1.0, terms=(TermSpec(method=method, version="1", hyperparameters={}, coefficient=1.0),))


def make(folder, gains, *, collapsed=(), spread=0.001) -> None:
    """Three seeds of the controls and of every method, whose mean gains over plain KD are these."""
    for seed in range(3):
        for at, (method, gain) in enumerate({"none": -0.05, "hinton": 0.0, **gains}.items()):
            noise = spread * ((seed + at) % 3 - 1)
            val = 0.1 if method in collapsed else 0.8
            write(folder, of_method(method), seed, val=val, test=0.8 + gain + noise)


@pytest.fixture
def tables(tmp_path, monkeypatch):
    card = {"scale": 1.0, "published": {"task": 1.0, "term": 1.0}, "declared": {}}
    monkeypatch.setattr(test_leaderboard, "CARDS", {**test_leaderboard.CARDS, **dict.fromkeys(METHODS, card)})
    for name, gains in GAINS.items():
        make(tmp_path / name, gains)
    return tmp_path


def blocks_in(folder, names=tuple(GAINS)):
    return [block for name in names for block in final_blocks(read_bench(folder / name))]


def test_a_correlation_is_spearmans_and_its_interval_bonett_and_wrights():
    found = rank_correlation(GAINS["one"], GAINS["two"])
    half = 1.959964 * math.sqrt((1 + BY_HAND**2 / 2) / (5 - 3))
    assert found.value == pytest.approx(BY_HAND)
    assert (found.low, found.high) == pytest.approx([math.tanh(math.atanh(BY_HAND) + sign * half) for sign in (-1, 1)], abs=1e-6)
    assert (rank_correlation(GAINS["one"], GAINS["three"]).value, found.methods) == (pytest.approx(-1), 5)


def test_only_methods_of_both_tables_count_and_fewer_than_four_say_nothing():
    fewer = {method: GAINS["two"][method] for method in METHODS[:3]}
    found = rank_correlation(GAINS["one"], fewer)
    assert (found.methods, found.words) == (3, "")
    assert rank_correlation(GAINS["one"], {**GAINS["two"], "pkt": 1.0}).methods == 5


def test_the_interval_of_a_perfect_correlation_is_not_made_up():
    found = rank_correlation(GAINS["one"], GAINS["one"])
    assert (found.value, found.words) == (pytest.approx(1), "+1.00")


def test_the_mean_correlation_of_unrelated_tables_has_zero_in_its_interval_and_of_like_ones_has_not(tables, monkeypatch):
    names = [f"method{number}" for number in range(40)]
    draws = np.random.default_rng(1).normal(size=(3, len(names)))
    like = draws[0] + 0.3 * draws
    for values, holds_zero in ((draws, True), (like, False)):
        gains = iter([dict(zip(names, row, strict=True)) for row in values])
        monkeypatch.setattr("kdzoo.suite.report.orders.method_gains", lambda block, gains=gains: next(gains))
        mean, low, high = mean_correlation([None] * 3)
        ranks = np.argsort(np.argsort(values, axis=1), axis=1)
        assert mean == pytest.approx(np.corrcoef(ranks)[np.triu_indices(3, 1)].mean())
        assert low < mean < high
        assert (low < 0 < high) is holds_zero


def test_each_method_is_counted_where_it_is_told_apart_from_tuned_kd(tables):
    blocks = blocks_in(tables)
    outcomes = {(one.method, one.table): one.word for one in outcomes_of(blocks, list(GAINS))}
    assert outcomes == {
        (method, table): "better" if gain > 0.01 else "worse" if gain < -0.01 else "not told apart"
        for table, gains in GAINS.items()
        for method, gain in gains.items()
    }
    told = orders_words(blocks, outcomes_of(blocks, list(GAINS)))
    assert told.endswith("Shown to be better than tuned KD, of 3 tables: 'at' in 2, 'sp' in 2, 'dkd' in 2, 'vid' in 2, 'rkd' in 1.")


def test_a_collapsed_method_stands_in_the_order_with_the_lowest_gain_and_is_counted_apart(tables):
    make(tables / "fallen", GAINS["one"], collapsed=("at",))
    (block,) = blocks_in(tables, ["fallen"])
    assert method_gains(block)["at"] == pytest.approx(min(-0.05, GAINS["one"]["rkd"]))
    assert [one.word for one in outcomes_of([block], ["fallen"]) if one.method == "at"] == ["collapsed"]


def study_of(folder, **changes):
    content = {
        "title": "Orders", "claim": "They are alike.", "source": "https://example.org", "tries": [], "seeds": 3,
        "stages": [{"name": name, "bench": BENCH} for name in GAINS], "order": list(GAINS),
    }  # fmt: skip
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({**content, **changes}))
    return file


def test_a_study_sets_its_stages_beside_each_other(tables):
    write_evidence(read_study(study_of(tables)), "mine.yaml", tables)
    rows = list(csv.DictReader((tables / "order.csv").open()))
    assert [(row["one"], row["other"]) for row in rows] == [("one", "two"), ("one", "three"), ("two", "three")]
    assert float(rows[0]["correlation"]) == pytest.approx(BY_HAND)
    assert float(rows[2]["correlation"]) == pytest.approx(-BY_HAND)
    gains = {(row["stage"], row["method"]): row for row in csv.DictReader((tables / "gains.csv").open())}
    assert float(gains["two", "sp"]["vs_kd"]) == pytest.approx(0.05, abs=0.001)
    page = (tables / "README.md").read_text()
    assert "## Does the order of methods carry over?" in page
    assert "| at | 2 of 3 | 1 of 3 | " in page


def test_a_study_says_which_stages_have_no_table_yet(tables):
    stages = [{"name": name, "bench": BENCH} for name in (*GAINS, "four")]
    write_evidence(read_study(study_of(tables, stages=stages, order=["one", "four"])), "mine.yaml", tables)
    page = (tables / "README.md").read_text()
    assert "Missing: four." in page
    assert "carries" not in page


@pytest.mark.parametrize(
    ("order", "fault"),
    [
        (["one", "tow"], "order: stage that trains: unknown 'tow'; did you mean 'two'?"),
        (["one", "one"], "order: 'one' stands there twice"),
        (["one"], "order: expected two stages or more"),
        (["one", "pairs"], "order: stage pairs has 2 pairs; expected one"),
    ],
)
def test_what_is_wrong_with_an_order_is_told_before_anything_is_trained(tmp_path, order, fault):
    pairs = {"name": "pairs", "bench": {**BENCH, "data": "cifar10", "pairs": ["resnet20/resnet8", "resnet56/resnet20"]}}
    stages = [*({"name": name, "bench": BENCH} for name in GAINS), pairs]
    with pytest.raises(InputError) as refused:
        read_study(study_of(tmp_path, stages=stages, order=order))
    assert any(fault in problem for problem in refused.value.problems), refused.value.problems


def test_a_race_of_the_controls_alone_says_so_and_one_of_nothing_is_refused():
    told = race_words(Race(stage="table", best=0, seeds=3, control_seeds=10))
    assert told == "of stage table, the student alone and plain KD go to 10 seeds in all"
    with pytest.raises(ValueError, match="expected best or widest to be at least 1, or control_seeds"):
        Race(stage="table", best=0, seeds=3)


def test_the_score_of_several_benches_shows_gains_and_orders(tables, capsys):
    from kdzoo.cli.app import status_of

    assert status_of(["score", *(str(tables / name) for name in GAINS)], debug=False) == 0
    out = capsys.readouterr().out
    assert "The same order?" in out
    assert "mean rank correlation of" in out
