"""The statistics of a table against published data, scipy, and the limits in which they are older tests."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from kdzoo.suite.report.error_model import (
    WELCH,
    Contrast,
    Prior,
    fit_prior,
    holm,
    independent_model,
    model_of,
    paired_model,
    sample_sd,
    trigamma_inverse,
)
from kdzoo.suite.report.intervals import beside_single, mcnemar_p, paired_difference, ratio_interval, wilson
from kdzoo.suite.report.rules import common_seeds, is_collapsed, lead_is_clear

POOLED = Prior(np.array(math.inf), np.array(math.nan))

SLEEP = np.array([[0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0], [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]])
"""Student 1908, hours of sleep gained by ten patients with two drugs"""

BLOOD = [[7.40, 8.50, 7.20, 8.24, 9.84, 8.32], [9.76, 8.80, 7.68, 9.36], [12.80, 9.68, 12.16, 9.20, 10.55]]
"""Dunnett 1955, blood counts of a control group and of animals under two drugs"""


def moments(samples, prior=None):
    values = [np.array(v) for v in samples]
    means, variances = np.array([v.mean() for v in values]), np.array([v.var(ddof=1) for v in values])
    return independent_model(means, variances, np.array([len(v) for v in values]), prior=prior)


def t_of(contrast: Contrast, row: int) -> float:
    return float(contrast.mean[row] / contrast.error[row])


def drawn(seed: int, rows: int, seeds: int, spread: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(rows, seeds)) * np.exp(spread * random.normal(size=(rows, 1))) + random.normal(size=seeds)


# --- published values


def test_two_rows_with_shared_seeds_are_students_paired_test_on_his_sleep_data():
    against = paired_model(SLEEP).against(1)
    assert t_of(against, 0) == pytest.approx(-4.0621, abs=5e-5)
    assert against.freedom[0] == 9
    assert against.p()[0] == pytest.approx(0.002833, abs=5e-7)
    low, high = against.interval()
    assert (low[0], high[0]) == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)


def test_two_rows_by_themselves_are_welchs_test_on_the_sleep_data():
    against = moments(SLEEP, WELCH).against(1)
    assert t_of(against, 0) == pytest.approx(-1.8608, abs=5e-5)
    assert against.freedom[0] == pytest.approx(17.776, abs=5e-4)
    assert against.p()[0] == pytest.approx(0.07939, abs=5e-6)


def test_few_rows_are_pooled_as_dunnett_pooled_his_blood_counts():
    """His standard error comes from a pooled variance with 12 degrees of freedom; his drug B is told from the control."""
    model = moments(BLOOD)
    assert math.isinf(model.prior.freedom)
    assert model.prior.variance == pytest.approx(np.sum([(len(g) - 1) * np.var(g, ddof=1) for g in BLOOD]) / 12)
    assert model.prior.variance == pytest.approx(1.3805, abs=5e-4)
    against = model.against(0)
    assert list(against.freedom[1:]) == [12, 12]
    # His means are 8.25, 8.90 and 10.88, his s is 1.175.
    expected = [0.65 / (1.175 * math.sqrt(1 / 6 + 1 / 4)), 2.63 / (1.175 * math.sqrt(1 / 6 + 1 / 5))]
    assert [t_of(against, row) for row in (1, 2)] == pytest.approx(expected, rel=1e-3)
    # Dunnett's p-values for two methods, as scipy's documentation has them, lie between the single ones and those times two.
    for p, single, doubled in zip([0.620, 0.0059], against.p()[1:], against.p(2)[1:], strict=True):
        assert single < p < doubled + 1e-3
    low, high = against.interval(2)
    assert low[1] < 0 < high[1]
    assert low[2] > 0


# --- scipy


@given(st.integers(0, 10_000), st.integers(2, 8))
def test_two_rows_with_shared_seeds_are_scipys_paired_test(seed, seeds):
    values = drawn(seed, 2, seeds)
    against, expected = paired_model(values).against(0), scipy.stats.ttest_rel(values[1], values[0])
    interval = expected.confidence_interval(0.95)
    low, high = against.interval()
    assert (against.p()[1], low[1], high[1]) == pytest.approx((expected.pvalue, interval.low, interval.high), rel=1e-9)


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(2, 6))
def test_the_two_limits_of_the_prior_are_scipys_pooled_and_welchs_tests(seed, n, m):
    random = np.random.default_rng(seed)
    a, b = random.normal(size=n), random.normal(1, 3, size=m)
    for prior, equal in ((None, True), (WELCH, False)):
        against, expected = moments([a, b], prior).against(0), scipy.stats.ttest_ind(b, a, equal_var=equal)
        interval = expected.confidence_interval(0.95)
        low, high = against.interval()
        assert (against.p()[1], low[1], high[1]) == pytest.approx((expected.pvalue, interval.low, interval.high), rel=1e-9)


def test_an_infinite_prior_pools_and_a_prior_of_zero_leaves_every_row_its_own_variance():
    variances, own = np.array([1.0, 4.0, 9.0]), np.array([2.0, 2.0, 2.0])
    assert list(Prior(np.array(math.inf), np.array(5.0)).moderate(variances, own)) == [5, 5, 5]
    assert list(WELCH.moderate(variances, own)) == [1, 4, 9]
    assert list(Prior(np.array(2.0), np.array(5.0)).moderate(variances, own)) == [3, 4.5, 7]


# --- moderated variances


@given(st.floats(1e-4, 1e6))
def test_the_inverse_of_trigamma_is_its_inverse(y):
    assert scipy.special.polygamma(1, trigamma_inverse(np.array(y))) == pytest.approx(y, rel=1e-8)


@pytest.mark.parametrize(("d0", "s0"), [(4.0, 0.25), (10.0, 4.0)])
def test_the_prior_that_variances_were_drawn_from_is_found_again(d0, s0):
    """Smyth's model: 1 / sigma^2 ~ chi^2_d0 / (d0 s0^2), s^2 | sigma^2 ~ sigma^2 chi^2_f / f."""
    random = np.random.default_rng(1)
    true = d0 * s0 / random.chisquare(d0, 100_000)
    f = np.where(np.arange(100_000) % 2, 4.0, 9.0)
    prior = fit_prior(true * random.chisquare(f) / f, f)
    assert prior.freedom == pytest.approx(d0, rel=0.05)
    assert prior.variance == pytest.approx(s0, rel=0.02)


def test_variances_that_differ_by_no_more_than_chance_are_pooled():
    random = np.random.default_rng(2)
    variances = random.chisquare(40, 30) / 40
    prior = fit_prior(np.full(6, 2.0), np.full(6, 4.0))
    assert math.isinf(prior.freedom)
    assert prior.variance == pytest.approx(2)
    spread = np.log(variances).var(ddof=1) - scipy.special.polygamma(1, 20.0)
    assert math.isinf(fit_prior(variances, np.full(30, 40.0)).freedom) == (spread <= 0)


def test_four_rows_are_pooled_however_far_apart_and_the_fifth_makes_them_a_sample():
    variances = np.array([1e-4, 1e-2, 1.0, 1e2, 1e4])
    assert math.isinf(fit_prior(variances[:4], np.full(4, 2.0)).freedom)
    assert fit_prior(variances, np.full(5, 2.0)).freedom < 1


@given(st.integers(0, 10_000), st.integers(5, 12))
def test_a_moderated_variance_lies_between_a_rows_own_and_the_common_one(seed, rows):
    values = drawn(seed, rows, 3, spread=1.5)
    variances, own = values.var(-1, ddof=1), np.full(rows, 2.0)
    prior = fit_prior(variances, own)
    moderated = prior.moderate(variances, own)
    low, high = np.minimum(variances, prior.variance), np.maximum(variances, prior.variance)
    assert np.all((low * (1 - 1e-9) <= moderated) & (moderated <= high * (1 + 1e-9)))


def test_a_row_of_one_seed_has_the_common_variance_and_no_say_in_it():
    several, own = np.array([1.0, 30.0, 2.0, 50.0, 3.0]), np.full(5, 2.0)
    alone = np.append(several, math.nan), np.append(own, 0.0)
    with_it, without = fit_prior(*alone), fit_prior(several, own)
    assert (with_it.freedom, with_it.variance) == (without.freedom, without.variance)
    assert with_it.moderate(*alone)[-1] == with_it.variance


# --- one model for all of a table


@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(2, 5), st.booleans(), st.floats(0, 2), st.floats(0, 3))
def test_an_interval_leaves_out_zero_exactly_where_its_p_is_below_five_per_cent(seed, rows, seeds, paired, spread, shift):
    values = drawn(seed, rows, seeds, spread) + shift * np.arange(rows)[:, None]
    model = paired_model(values) if paired else moments(values)
    against = model.against(0)
    for family in (1, rows - 1, 50):
        low, high = against.interval(family)
        p = against.p(family)
        assume(np.all(np.abs(p - 0.05) > 1e-9))
        assert np.array_equal((low > 0) | (high < 0), p < 0.05)


@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(2, 5))
def test_what_a_seed_does_to_all_rows_changes_nothing_but_their_means(seed, rows, seeds):
    values = drawn(seed, rows, seeds)
    shifts = np.random.default_rng(seed + 1).normal(size=seeds) * 10
    one, other = paired_model(values).against(0), paired_model(values + shifts).against(0)
    assert other.mean == pytest.approx(one.mean, abs=1e-9)
    assert other.error == pytest.approx(one.error, rel=1e-6)
    assert other.freedom == pytest.approx(one.freedom, rel=1e-6)


def test_taking_each_seeds_mean_off_leaves_a_row_its_variance_on_average():
    values = np.random.default_rng(3).normal(size=(20_000, 4, 3))
    model = paired_model(values)
    assert (model.squares * 3).mean() == pytest.approx(1, abs=0.02)
    assert model.pooled == 3 * 2


@given(st.integers(0, 10_000), st.integers(5, 9))
def test_no_comparison_has_more_degrees_of_freedom_than_all_rows_together(seed, rows):
    values = drawn(seed, rows, 3, spread=0.3)
    assert np.all(paired_model(values).against(0).freedom <= (rows - 1) * 2)
    assert np.all(moments(values).against(0).freedom <= rows * 2)


def test_tables_side_by_side_are_each_judged_as_by_itself():
    values = np.stack([drawn(seed, 7, 3, spread=seed / 3) for seed in range(8)])
    together = paired_model(values).against(2)
    for at, table in enumerate(values):
        alone = paired_model(table).against(2)
        for name in ("mean", "error", "freedom"):
            assert getattr(together, name)[at] == pytest.approx(getattr(alone, name), rel=1e-12, abs=1e-15)
    apart = independent_model(values.mean(-1), values.var(-1, ddof=1), np.full(7, 3)).against(2)
    assert apart.error[5] == pytest.approx(moments(values[5]).against(2).error, rel=1e-12)


@given(st.permutations(range(6)), st.integers(0, 10_000))
def test_a_difference_does_not_depend_on_the_order_of_rows_and_seeds(order, seed):
    values = drawn(seed, 6, 3, spread=1.0)
    rows = [dict(zip(range(3), v, strict=True)) for v in values]
    turned = [dict(sorted(rows[at].items(), reverse=True)) for at in order]
    one, other = model_of(rows, 0.01).against(0), model_of(turned, 0.01).against(order.index(0))
    assert other.p()[[order.index(at) for at in range(6)]] == pytest.approx(one.p(), rel=1e-9)


def test_a_difference_turns_round_with_its_sides():
    values = drawn(5, 6, 3, spread=1.0)
    there, back = paired_model(values).against(0), paired_model(values).against(4)
    low, high = there.interval()
    other_low, other_high = back.interval()
    assert (there.mean[4], low[4], high[4]) == pytest.approx((-back.mean[0], -other_high[0], -other_low[0]))


def test_rows_that_do_not_have_the_same_seeds_are_not_paired():
    rows = [{0: 0.90, 1: 0.92, 2: 0.91}, {0: 0.95, 1: 0.97, 2: 0.96}]
    assert model_of(rows, 0.01).paired
    other = [rows[0], {seed + 1: value for seed, value in rows[1].items()}]
    assert not model_of(other, 0.01).paired
    pooled = scipy.stats.ttest_ind(list(other[1].values()), list(other[0].values()))
    assert model_of(other, 0.01).against(0).p()[1] == pytest.approx(pooled.pvalue)


def test_rows_without_spread_enter_with_what_one_image_is_worth():
    """Values on a grid of 1 / N vary by 1 / (12 N^2) though they look the same."""
    rows = [dict.fromkeys(range(3), value) for value in (0.9, 0.91)]
    against = model_of(rows, 1 / 100).against(0)
    assert against.error[1] == pytest.approx(math.sqrt(2 * (1 / 12 / 100**2) / 3))
    assert 0 < against.p()[1] < 1
    mixed = [*rows, *({s: 0.8 + 0.01 * s * k for s in range(3)} for k in (1, 2, 3))]
    assert np.all(np.isfinite(model_of(mixed, 1 / 100).against(0).p()))


def test_one_seed_has_no_error():
    against = model_of([{0: 0.9}, {0: 0.8}], 1 / 100).against(0)
    assert against.mean[1] == pytest.approx(-0.1)
    assert all(math.isnan(x) for x in (against.error[1], against.p()[1], against.interval()[0][1], against.detectable[1]))
    assert math.isnan(sample_sd([0.9]))


def test_rows_that_are_equal_without_any_error_are_not_told_apart():
    against = Contrast(np.array([0.0, 0.0]), np.array([0.0, 1.0]), np.array([4.0, 4.0]))
    assert list(against.p()) == [1, 1]


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_detectable_difference_is_found_in_eight_of_ten_simulated_tables(n):
    random = np.random.default_rng(n)
    gap = independent_model(np.zeros(2), np.ones(2), np.full(2, n)).against(0).detectable[1]
    a, b = random.normal(gap, 1, (4000, n)), random.normal(0, 1, (4000, n))
    found = (scipy.stats.ttest_ind(a, b, axis=1).pvalue < 0.05).mean()
    assert found == pytest.approx(0.8, abs=0.03)


# --- families, collapse, single tests


def test_holm_goes_on_while_the_smallest_left_stands():
    assert list(holm(np.array([0.04, 0.01, 0.02]))) == [True, True, True]
    assert list(holm(np.array([0.03, 0.01, 0.03]))) == [False, True, False]
    assert list(holm(np.array([0.001, 0.9, 0.026, 0.024]))) == [True, False, False, False]
    assert list(holm(np.array([0.02, 0.001]))) == [True, True]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_marks_at_least_what_p_times_m_does_and_never_a_larger_p_alone(values):
    p = np.array(values)
    significant = holm(p)
    assert np.all(significant[p * len(p) < 0.05])
    assert np.all(p[significant] < 0.05)
    if significant.any() and not significant.all():
        assert p[significant].max() <= p[~significant].min()


def test_a_row_is_collapsed_below_both_three_points_and_five_sds():
    alone = np.array([0.89, 0.90, 0.91])  # sd of one point: five are 5 points
    assert not is_collapsed(np.array([0.851]), alone, 100_000)
    assert is_collapsed(np.array([0.849]), alone, 100_000)
    calm = np.array([0.90, 0.90, 0.90])
    assert not is_collapsed(np.array([0.871]), calm, 1_000_000)
    assert not is_collapsed(np.array([0.870]), calm, 1_000_000)
    assert is_collapsed(np.array([0.869]), calm, 1_000_000)
    # 300 images leave an accuracy of 0.9 open by 1.73 points, five times which is 8.66
    assert not is_collapsed(np.array([0.815]), calm, 300)
    assert is_collapsed(np.array([0.813]), calm, 300)
    assert is_collapsed(np.array([0.813]), calm[:1], 300)


def test_mcnemar_counts_only_images_on_which_the_two_models_differ():
    first, second = np.array([1, 1, 1, 1, 0, 0], bool), np.array([0, 0, 0, 1, 0, 1], bool)
    assert mcnemar_p(first, second) == pytest.approx(scipy.stats.binomtest(3, 4).pvalue)
    assert mcnemar_p(first, first) == 1.0


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemars_p_is_scipys_exact_binomial(a, b):
    assume(a + b > 0)
    first, second = np.repeat([True, False], [a, b]), np.repeat([False, True], [a, b])
    assert mcnemar_p(first, second) == pytest.approx(scipy.stats.binomtest(a, a + b).pvalue, rel=1e-9)


def test_a_paired_differences_interval_is_the_published_one():
    """Two worked examples of the method: in Fagerland et al. (2014), and in Altman et al., "Statistics with confidence"."""
    assert paired_difference(1, 1, 7, 12) == pytest.approx((-0.507, -0.026), abs=5e-4)
    assert paired_difference(14, 5, 0, 22) == pytest.approx((0.01, 0.23), abs=5e-3)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_a_paired_difference_lies_in_its_interval_which_turns_round_with_the_models(both, a, b, neither):
    assume(both + a + b + neither > 0)
    low, high = paired_difference(both, a, b, neither)
    assert -1 - 1e-9 <= low <= (a - b) / (both + a + b + neither) <= high <= 1 + 1e-9
    assert paired_difference(both, b, a, neither) == pytest.approx((-high, -low), abs=1e-12)


def test_a_paired_differences_interval_holds_the_true_difference_in_95_of_100_samples():
    """Of 100 images 10 % are named right by the first model alone, 1 % by the second alone."""
    samples = np.random.default_rng(0).multinomial(100, [0.7, 0.1, 0.01, 0.19], size=4000)
    bounds = np.array([paired_difference(*map(int, counts)) for counts in samples])
    assert np.mean((bounds[:, 0] <= 0.09) & (bounds[:, 1] >= 0.09)) >= 0.93


def test_the_interval_of_two_models_that_are_right_on_the_same_images_is_around_zero():
    low, high = paired_difference(30, 0, 0, 20)
    assert low == pytest.approx(-high)
    assert 0 < high < 0.1


@given(st.integers(1, 500), st.floats(0, 1))
def test_wilsons_interval_is_scipys(n, share):
    right = round(share * n)
    interval = scipy.stats.binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right, n) == pytest.approx((interval.low, interval.high), abs=1e-9)


@pytest.mark.parametrize(
    ("samples", "common"),
    [
        ([], set()),
        ([{0, 1, 2}, {0, 1, 2}], {0, 1, 2}),
        ([{0, 1, 2, 3}, {0, 1}, {0, 1}], {0, 1}),  # more seeds of a control
        ([{0, 1}, {0, 1}, {0}], {0, 1}),  # one seed among rows of two
        ([{0, 1, 2}, {0, 1, 2}, {3, 4, 5}], {0, 1, 2}),
        ([{0, 1, 2}, {0, 1, 2}, {0, 1}, {0}], {0, 1}),  # most rows before most seeds
        ([{0}, {0}], {0}),
        ([{0}, {1}], set()),
    ],
)
def test_ranks_are_made_on_the_seeds_that_most_rows_share(samples, common):
    assert common_seeds(samples) == common


@pytest.mark.parametrize("seed", range(5))
def test_the_ends_of_a_ratios_interval_are_those_that_a_t_test_just_does_not_refuse(seed):
    """Fieller: a ratio R lies within where the mean of y - R x is not told apart from 0."""
    random = np.random.default_rng(seed)
    wholes = 10 + random.normal(size=6)
    parts = 4 + 0.3 * (wholes - 10) + random.normal(size=6)
    for end, sign in zip(ratio_interval(list(parts), list(wholes)), (1, -1), strict=True):
        apart = parts - end * wholes
        t = apart.mean() / (apart.std(ddof=1) / math.sqrt(6))
        assert t == pytest.approx(sign * scipy.stats.t.ppf(0.975, 5))


def test_a_ratio_to_what_may_be_zero_is_anything():
    assert ratio_interval([1.0, 2.0, 3.0], [-1.0, 1.0, 0.5]) == (-math.inf, math.inf)
    assert all(math.isnan(end) for end in ratio_interval([1.0], [2.0]))


def test_beside_a_single_training_the_error_is_that_of_one_run_from_a_mean_of_n():
    half = scipy.stats.t.ppf(0.975, 3) * 2.0
    assert beside_single((5 - half * math.sqrt(1 / 4), 5 + half * math.sqrt(1 / 4)), 4) == pytest.approx(
        (5 - half * math.sqrt(1 + 1 / 4), 5 + half * math.sqrt(1 + 1 / 4))
    )


@pytest.mark.parametrize(
    ("teacher", "alone", "images", "clear"),
    [
        (0.90, [0.50, 0.52], 10_000, True),  # 12.71 * 0.0141 * sqrt(3 / 2) = 0.220 of 0.39
        (0.70, [0.50, 0.52], 10_000, False),
        (0.70, [0.50, 0.52], None, False),
        (0.90, [0.50, 0.52], None, True),
        (0.30, [0.50, 0.51, 0.52], 10_000, False),  # below the student
        (0.30, [0.50, 0.51, 0.52], None, False),
        (0.60, [0.50, 0.50, 0.50], 193, True),  # 1.96 * sqrt((0.25 + 0.24) / n) is 0.0988 at 193 images, 0.1003 at 187
        (0.60, [0.50, 0.50, 0.50], 187, False),
        (0.90, [0.50], 10_000, False),  # nothing is known of how far seeds are apart
    ],
)
def test_a_teachers_lead_is_clear_beyond_the_error_of_its_one_training_and_of_the_images(teacher, alone, images, clear):
    assert lead_is_clear(teacher, alone, images) is clear
