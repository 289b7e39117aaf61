"""Distributions against scipy's."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from kdzoo.suite.distributions import normal_cdf, normal_nodes, spread_nodes, t_quantile, t_tail

FREEDOMS = st.one_of(st.integers(1, 200).map(float), st.floats(0.5, 1e4))


@given(st.floats(0, 1e3), FREEDOMS)
def test_students_tail_is_scipys(t, freedom):
    assert t_tail(t, freedom) == pytest.approx(scipy.special.stdtr(freedom, -t), rel=1e-9, abs=1e-300)


@given(st.floats(0.001, 0.999), FREEDOMS)
def test_students_quantile_is_scipys(share, freedom):
    assert t_quantile(share, freedom) == pytest.approx(scipy.special.stdtrit(freedom, share), rel=1e-9, abs=1e-11)


def test_the_normal_probability_is_scipys():
    x = np.linspace(-9, 9, 1001)
    np.testing.assert_allclose(normal_cdf(x), scipy.special.ndtr(x), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("freedom", [2, 3, 5, 40, 101, 102, 1000, 100_000])
def test_a_pooled_deviation_has_the_moments_of_chi(freedom):
    spread, weight = spread_nodes(freedom)
    law = scipy.stats.chi(freedom, scale=freedom**-0.5)
    assert weight.sum() == pytest.approx(1)
    assert weight @ spread == pytest.approx(law.mean(), rel=1e-10)
    assert weight @ spread**2 == pytest.approx(1, rel=1e-10)
    assert weight @ np.cos(spread) == pytest.approx(law.expect(np.cos), rel=1e-7)


def test_a_mean_over_the_normal_has_its_moments():
    z, weight = normal_nodes()
    assert [weight @ z**power for power in range(5)] == pytest.approx([1, 0, 1, 0, 3], abs=1e-11)
