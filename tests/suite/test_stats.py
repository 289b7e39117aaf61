"""Statistics against scipy's own, and against simulation."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from kdzoo.suite.stats import (
    _all_within,
    detectable,
    difference,
    dunnett_p,
    mcnemar_p,
    mean_interval,
    pooled_sd,
    sample_sd,
    welch,
    welch_p,
    wilson,
)

VALUES = st.lists(st.floats(0, 1).map(lambda x: round(x, 6)), min_size=3, max_size=8)


def seeded(values) -> dict[int, float]:
    return dict(enumerate(values))


@given(VALUES, st.integers(0, 10_000))
def test_differences_of_equal_seeds_are_paired_as_in_scipy(values, seed):
    other = list(np.array(values) + np.random.default_rng(seed).normal(0, 0.1, len(values)))
    found = difference(seeded(other), seeded(values))
    interval = scipy.stats.ttest_rel(other, values).confidence_interval(0.95)
    assert found.kind == "paired"
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9, abs=1e-12)


@given(st.integers(0, 10_000))
def test_differences_of_other_seeds_are_welchs_as_in_scipy(seed):
    random = np.random.default_rng(seed)
    a, b = random.normal(0.9, 0.02, 4), random.normal(0.88, 0.05, 6)
    found = difference({i + 10: v for i, v in enumerate(a)}, seeded(b))
    expected = scipy.stats.ttest_ind(a, b, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found.kind == "welch"
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    error, freedom = welch(sample_sd(a), 4, sample_sd(b), 6)
    assert welch_p(a.mean() - b.mean(), error, freedom) == pytest.approx(expected.pvalue, rel=1e-9)


@pytest.mark.parametrize("sizes", [(3, 3), (3, 3, 3, 3, 3), (2, 5, 3), (10, 10, 10)])
def test_dunnett_agrees_with_scipys_sampled_integral(sizes):
    random = np.random.default_rng(sum(sizes))
    samples = [random.normal(shift, 1, n) for shift, n in zip(np.linspace(0, 3, len(sizes)), sizes, strict=True)]
    control = random.normal(0, 1, 4)
    expected = scipy.stats.dunnett(*samples, control=control, rng=np.random.default_rng(0)).pvalue
    assert dunnett_p(samples, control) == pytest.approx(expected, abs=2e-3)


def test_dunnett_with_one_method_is_the_t_test():
    a, control = [0.91, 0.93, 0.95], [0.90, 0.91, 0.92]
    assert dunnett_p([a], control)[0] == pytest.approx(scipy.stats.ttest_ind(a, control).pvalue, abs=1e-5)


def test_dunnett_says_nothing_where_nothing_varies():
    assert math.isnan(dunnett_p([[0.9]], [0.9, 0.8])[0])
    assert math.isnan(dunnett_p([[0.9, 0.9]], [0.8, 0.8])[0])


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_detectable_difference_is_found_in_eight_of_ten_simulated_benches(n):
    random = np.random.default_rng(n)
    gap = detectable(1.0, n)
    a, b = random.normal(gap, 1, (4000, n)), random.normal(0, 1, (4000, n))
    found = (scipy.stats.ttest_ind(a, b, axis=1).pvalue < 0.05).mean()
    assert found == pytest.approx(0.8, abs=0.03)


def test_one_seed_detects_nothing_and_has_no_spread():
    assert math.isnan(detectable(0.1, 1))
    assert math.isnan(sample_sd([0.9]))
    assert math.isnan(difference({0: 0.9}, {0: 0.8}).low)
    assert math.isnan(pooled_sd([[0.9], [0.8]]))


def test_pooled_sd_is_the_root_of_the_mean_variance():
    assert pooled_sd([[1, 3], [2, 6]]) == pytest.approx(math.sqrt((2 + 8) / 2))


def test_mcnemar_counts_only_images_on_which_the_two_models_differ():
    first, second = np.array([1, 1, 1, 1, 0, 0], bool), np.array([0, 0, 0, 1, 0, 1], bool)
    assert mcnemar_p(first, second) == pytest.approx(scipy.stats.binomtest(3, 4).pvalue)
    assert mcnemar_p(first, first) == 1.0


@given(st.integers(1, 500), st.floats(0, 1))
def test_wilsons_interval_is_scipys(n, share):
    right = round(share * n)
    interval = scipy.stats.binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right, n) == pytest.approx((interval.low, interval.high), abs=1e-9)


@pytest.mark.parametrize(
    ("methods", "freedom", "critical"),
    [(1, 5, 2.57), (2, 5, 3.03), (5, 5, 3.62), (2, 10, 2.57), (3, 10, 2.76), (5, 10, 2.99), (2, 20, 2.38), (4, 20, 2.65)],
)
def test_dunnett_gives_five_per_cent_at_the_critical_values_of_his_table(methods, freedom, critical):
    """Dunnett 1964, table II (two-sided, 5 %), equal group sizes; its values have two decimals."""
    shared = np.full(methods, math.sqrt(0.5))
    assert 1 - _all_within(critical + 0.006, shared, freedom) < 0.05 < 1 - _all_within(critical - 0.006, shared, freedom)


@given(st.integers(0, 10_000))
def test_dunnett_never_says_more_than_one_test_and_never_less_than_bonferroni(seed):
    random = np.random.default_rng(seed)
    samples, control = list(random.normal(0, 1, (4, 3))), random.normal(0, 1, 3)
    groups = [*samples, control]
    spread = math.sqrt(np.mean([np.var(g, ddof=1) for g in groups]) * 2 / 3)
    single = [2 * scipy.stats.t.sf(abs(s.mean() - control.mean()) / spread, 10) for s in samples]
    for adjusted, alone in zip(dunnett_p(samples, control), single, strict=True):
        assert alone - 1e-6 <= adjusted <= min(1, 4 * alone) + 1e-6


@given(VALUES.filter(lambda values: len(set(values)) > 1))
def test_the_interval_of_a_mean_is_scipys(values):
    n = len(values)
    expected = scipy.stats.t.interval(0.95, n - 1, loc=np.mean(values), scale=np.std(values, ddof=1) / math.sqrt(n))
    assert mean_interval(values) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(st.permutations(range(5)), st.integers(0, 10_000))
def test_a_difference_does_not_depend_on_the_order_of_seeds_and_turns_round_with_its_sides(order, seed):
    a, b = np.random.default_rng(seed).normal(0.9, 0.01, (2, 5))
    there, back = difference(seeded(a), seeded(b)), difference({s: b[s] for s in order}, seeded(a))
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low), abs=1e-15)
    assert there.low <= there.mean <= there.high
