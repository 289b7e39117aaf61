"""Methods over several pairs: few speak for themselves, many are a sample; who collapses enters at the lowest healthy gain."""

import io
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from rich.console import Console
from test_leaderboard import objective, write

from kdzoo.runs.spec import NetworkSpec
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.leaderboard import leaderboard_frame
from kdzoo.suite.report.over_pairs import over_pairs, pair_groups, wilcoxon_p
from kdzoo.suite.report.table_files import write_tables
from kdzoo.suite.report.terminal import leaderboard_view

ALONE, KD = 0.80, 0.85


def pair(number: int) -> dict:
    teacher = NetworkSpec(name=f"resnet{number}", classes=10, start=f"run:none-{number:012x}")
    return {"teacher": teacher, "about": {"pair": f"resnet{number}/resnet8"}}


def make(folder, gains, *, collapsed=(), failed=(), seeds=2) -> None:
    """KD and AT on as many pairs as there are gains of AT over KD; the student alone is one run for all."""
    for seed in range(seeds):
        noise = 0.001 * seed
        write(folder, objective("none"), seed, val=0.8, test=ALONE + noise)
        for number, gain in enumerate(gains):
            write(folder, objective("hinton"), seed, val=0.85, test=KD + noise, **pair(number))
            fail = "RuntimeError: x" if number in failed and seed == 0 else None
            val = 0.1 if number in collapsed else 0.85
            write(folder, objective("at"), seed, val=val, test=KD + gain - noise, fail=fail, **pair(number))


def table(folder) -> pd.DataFrame:
    ((_, group),) = pair_groups(read_bench(folder).blocks)
    return over_pairs(group).set_index("method")


def test_few_pairs_have_a_mean_with_its_standard_error_and_no_test(tmp_path):
    gains = [0.02, 0.01, 0.03]
    make(tmp_path, gains)
    found = table(tmp_path)
    at = np.array(gains) - 0.001  # the noise goes up for KD and down for AT: half a thousandth each on the mean of two
    assert found.loc["at", "vs_kd"] == pytest.approx(at.mean())
    assert found.loc["at", "vs_kd_error"] == pytest.approx(at.std(ddof=1) / math.sqrt(3))
    assert found.loc["none", "vs_kd"] == pytest.approx(ALONE - KD)
    assert list(found.index) == ["at", "none"]
    assert found[["p_vs_kd", "rank"]].isna().all(axis=None)
    write_tables(tmp_path)
    text = (tmp_path / "leaderboard.md").read_text()
    assert "## Over 3 pairs: cifar10, smoke (5 epochs), sweep" in text
    assert "about these pairs only" in text


@pytest.mark.parametrize("how", ["collapsed", "failed"])
def test_a_collapsed_or_failed_method_enters_at_the_lowest_healthy_gain_of_its_pair(tmp_path, how):
    make(tmp_path, [0.02, -0.60, 0.03], **{how: (1,)})
    found = table(tmp_path)
    assert found.loc["at", "collapsed"] == 1
    assert found.loc["at", "vs_kd"] == pytest.approx(np.mean([0.019, ALONE - KD, 0.029]))


def test_from_eleven_pairs_on_there_is_wilcoxons_test_with_holm_and_ranks_with_intervals(tmp_path):
    gains = [0.005 + 0.002 * number for number in range(11)]
    make(tmp_path, gains)
    found = table(tmp_path)
    assert found.loc["at", "p_vs_kd"] == pytest.approx(2 / 2**11)  # all eleven above 0: one of 2^11 signs, on both sides
    assert found.loc["at", "vs_kd_holm"] is True
    assert found.loc[["at", "hinton", "none"], "rank"].tolist() == [1, 2, 3]
    assert found.loc["at", ["rank_low", "rank_high"]].tolist() == [1, 1]
    assert pd.isna(found.loc["hinton", "p_vs_kd"])
    write_tables(tmp_path)
    assert "about these pairs only" not in (tmp_path / "leaderboard.md").read_text()


def test_ranks_are_means_over_pairs_with_bootstrap_intervals_that_hold_them(tmp_path):
    gains = [0.02 if number % 3 else -0.02 for number in range(12)]
    make(tmp_path, gains)
    found = table(tmp_path)
    assert found.loc["at", "rank"] == pytest.approx(np.mean([1 if gain > 0 else 2 for gain in gains]))
    # Of twelve pairs drawn again, as many have it on rank 2 as a binomial with chance 4 / 12 says.
    low, high = 1 + scipy.stats.binom.ppf([0.025, 0.975], 12, 4 / 12) / 12
    assert found.loc["at", ["rank_low", "rank_high"]].tolist() == pytest.approx([low, high])
    assert low < found.loc["at", "rank"] < high
    expected = scipy.stats.wilcoxon(np.array(gains).round(3) - 0.001, zero_method="pratt").pvalue
    assert found.loc["at", "p_vs_kd"] == pytest.approx(expected)


def test_gains_that_are_all_zero_are_no_difference_and_equal_ones_above_zero_are_one():
    assert wilcoxon_p(np.zeros(12)) == 1
    assert wilcoxon_p(np.ones(12)) == pytest.approx(2 / 2**12)  # one of 2^12 signs, on both sides


def test_one_pair_has_no_table_over_pairs(tmp_path):
    make(tmp_path, [0.01])
    assert pair_groups(read_bench(tmp_path).blocks) == []


def test_a_pair_where_kd_collapsed_has_no_gains(tmp_path):
    make(tmp_path, [0.01, 0.02, 0.03])
    write(tmp_path, objective("hinton"), 5, val=0, test=0, fail="ValueError: x", **pair(0))
    assert table(tmp_path).loc["at", "pairs"] == 2


def test_gains_are_over_the_seeds_that_a_pairs_methods_share(tmp_path):
    """A third seed of KD alone, and a lucky one, takes nothing from attention transfer."""
    make(tmp_path, [0.02, 0.01])
    before = table(tmp_path).loc["at", "vs_kd"]
    write(tmp_path, objective("hinton"), 2, val=0.85, test=0.99, **pair(0))
    assert table(tmp_path).loc["at", "vs_kd"] == pytest.approx(before)


def test_the_table_over_pairs_fits_the_terminal(tmp_path):
    make(tmp_path, [0.01 * (number - 3) for number in range(11)])
    read = read_bench(tmp_path)
    out = Console(file=io.StringIO(), width=80)
    out.print(leaderboard_view(read, leaderboard_frame(read), 80))
    text = out.file.getvalue()
    assert "mean rank" in text
    assert max(map(len, text.splitlines())) <= 80
