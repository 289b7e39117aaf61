"""The error model of few seeds, as pure functions. docs/statistics.md states it in plain words.

The intervals and p-values of one table come from one `ErrorModel`. Its arrays end in an axis of rows; axes in front of
that, if any, are tables side by side, which is how benchmarks/error_rates.py judges these very functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, polygamma, stdtr, stdtrit

LEVEL = 0.95


POWER = 0.8


ROWS_TO_FIT = 5
"""the number of rows from which the spread of their variances is estimated; fewer are pooled"""


ROUNDING = 1e-6
"""a variance below this share of what one image makes of it is zero but for floating point"""


@dataclass(frozen=True)
class Prior:
    """What is known of a row's variance before its own seeds are looked at: `variance`, worth `freedom` degrees of freedom.

    Infinite freedom is one pooled variance for all rows, zero is each row's own (Welch).
    """

    freedom: np.ndarray
    variance: np.ndarray

    def moderate(self, variances: np.ndarray, freedom: np.ndarray) -> np.ndarray:
        """Every row's variance (..., rows) drawn towards the prior's: the mean of both, weighted by degrees of freedom."""
        own, prior, common = freedom, self.freedom[..., None], self.variance[..., None]
        with np.errstate(invalid="ignore"):
            return np.where(np.isinf(prior), common, (prior * common + own * np.where(own > 0, variances, 0)) / (prior + own))


WELCH = Prior(np.array(0.0), np.array(1.0))


def fit_prior(variances: np.ndarray, freedom: np.ndarray) -> Prior:
    """Fit the prior to a table's own variances (..., rows), all above zero (Smyth 2004, section 6.2).

    Were all true variances equal, log v would vary by trigamma(f / 2) alone, f its degrees of freedom. Variance beyond
    that is the spread of the true ones: trigamma(d0 / 2) equals it, and the mean of log v, freed of its bias
    digamma(f / 2) - log(f / 2) and of the prior's own, is log s0^2. Where there is none beyond, d0 is infinite and s0^2
    the pooled variance; so it is for fewer than ROWS_TO_FIT rows with a variance. Those of a single seed say nothing.
    """
    known = freedom > 0
    v, f = variances[..., known], freedom[known]
    with np.errstate(invalid="ignore", divide="ignore"):
        pooled = (f * v).sum(-1) / f.sum()  # NaN where no row was trained twice
    if known.sum() < ROWS_TO_FIT:
        return Prior(np.full(pooled.shape, np.inf), pooled)
    logs = np.log(v) - digamma(f / 2) + np.log(f / 2)
    excess = logs.var(-1, ddof=1) - polygamma(1, f / 2).mean()
    d0 = np.where(excess > 0, 2 * trigamma_inverse(np.where(excess > 0, excess, 1.0)), np.inf)
    finite = np.where(np.isinf(d0), 1.0, d0)
    s0 = np.exp(logs.mean(-1) + digamma(finite / 2) - np.log(finite / 2))
    return Prior(d0, np.where(np.isinf(d0), pooled, s0))


def trigamma_inverse(y: np.ndarray) -> np.ndarray:
    """The x > 0 with trigamma(x) = y > 0, by Newton's method on 1 / trigamma, which is convex and nearly straight.

    It starts at 1/2 + 1/y, from where it converges monotonically.
    """
    y = np.asarray(y, dtype=float)
    x = 0.5 + 1 / y
    for _ in range(50):
        value = polygamma(1, x)
        step = value * (1 - value / y) / polygamma(2, x)
        x = x + step
        if np.all(np.abs(step) <= 1e-10 * x):
            break
    return x


@dataclass(frozen=True)
class Contrast:
    """Differences of means to one control, each with its standard error and degrees of freedom. NaN: no error is known."""

    mean: np.ndarray
    error: np.ndarray
    freedom: np.ndarray

    def p(self, family: int = 1) -> np.ndarray:
        """Two-sided p-values, times the number of rows that are looked at together."""
        with np.errstate(invalid="ignore", divide="ignore"):
            t = np.where(self.mean == 0, 0.0, np.abs(self.mean / self.error)) + 0 * self.error
        return np.asarray(np.minimum(1.0, family * 2 * stdtr(self.freedom, -t)))

    def interval(self, family: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """95 % intervals, or for a family those of level 1 - 0.05 / family, which all hold at once in 95 of 100 tables.

        They leave out 0 exactly where p of the same family is below 0.05.
        """
        half = stdtrit(self.freedom, 1 - (1 - LEVEL) / (2 * family)) * self.error
        return self.mean - half, self.mean + half

    @property
    def detectable(self) -> np.ndarray:
        """The smallest true difference that a single interval would tell from 0 in 8 of 10 tables.

        (t_{0.975} + t_{0.8}) standard errors: the usual approximation to the noncentral t.
        """
        return np.asarray((stdtrit(self.freedom, (1 + LEVEL) / 2) + stdtrit(self.freedom, POWER)) * self.error)


@dataclass(frozen=True)
class ErrorModel:
    """The errors of all rows of a table: what every interval and every p-value of it is made from.

    squares: squared standard errors of the means, from moderated variances. freedom: of those variances, the prior's
    and a row's own. pooled: what all rows together have, which no comparison may exceed. paired: whether each seed's
    mean over the rows was taken off.
    """

    means: np.ndarray
    squares: np.ndarray
    freedom: np.ndarray
    pooled: float
    prior: Prior
    paired: bool

    def against(self, control: int) -> Contrast:
        """All rows' differences to the row at `control`, with degrees of freedom after Welch and Satterthwaite."""
        base, base_freedom = self.squares[..., control, None], self.freedom[..., control, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = self.squares**2 / self.freedom + base**2 / base_freedom
            freedom = np.where(spread > 0, (self.squares + base) ** 2 / spread, np.inf)
        error = np.sqrt(self.squares + base)
        return Contrast(self.means - self.means[..., control, None], error, np.minimum(freedom, self.pooled))


def paired_model(values: np.ndarray, resolution: float = 0.0) -> ErrorModel:
    """The errors of values (..., rows, seeds) where all rows have the same seeds.

    A seed gives all rows the same initialisation and batches, and what that does to all of them is no error of their
    differences: each seed's mean over the I rows is taken off. What is left has lost a share 1/I of its variance, given
    back by I / (I - 1), and I - 1 of I degrees of freedom a seed. Two rows come to the paired t-test.
    """
    rows, seeds = values.shape[-2:]
    rest = values - values.mean(-2, keepdims=True)
    variances = without_zero(rest.var(-1, ddof=1) * rows / (rows - 1), resolution)
    return _model(values.mean(-1), variances, np.full(rows, float(seeds)), (rows - 1) * (seeds - 1), None, paired=True)


def independent_model(
    means: np.ndarray, variances: np.ndarray, counts: np.ndarray, resolution: float = 0.0, prior: Prior | None = None
) -> ErrorModel:
    """The errors of rows known by mean, sample variance (anything where there is one seed) and number of seeds.

    The prior is fitted to the rows unless given; WELCH leaves every row its own variance.
    """
    counts = np.asarray(counts, dtype=float)
    return _model(means, without_zero(variances, resolution), counts, float((counts - 1).sum()), prior, paired=False)


def model_of(samples: Sequence[Mapping[int, float]], resolution: float) -> ErrorModel:
    """The errors of rows given by seed: paired where all have the same seeds, two at least, and there are two rows."""
    seeds = sorted(samples[0])
    if len(samples) > 1 and len(seeds) > 1 and all(sample.keys() == samples[0].keys() for sample in samples):
        return paired_model(np.array([[sample[seed] for seed in seeds] for sample in samples]), resolution)
    values = [np.array(list(sample.values())) for sample in samples]
    variances = np.array([sample_sd(v) ** 2 for v in values])
    return independent_model(np.array([v.mean() for v in values]), variances, np.array([len(v) for v in values]), resolution)


def without_zero(variances: np.ndarray, resolution: float) -> np.ndarray:
    """Variances with every zero replaced by that of rounding to multiples of `resolution` (one test image), resolution^2 / 12."""
    least = resolution**2 / 12
    return np.where(variances > ROUNDING * least, variances, least)


def _model(means: np.ndarray, variances: np.ndarray, counts: np.ndarray, pooled: float, prior: Prior | None, *, paired: bool) -> ErrorModel:
    own = counts - 1
    prior = fit_prior(variances, own) if prior is None else prior
    moderated = prior.moderate(variances, own)
    return ErrorModel(means, moderated / counts, prior.freedom[..., None] + own, pooled, prior, paired)


def holm(p: np.ndarray) -> np.ndarray:
    """Which p-values of a family (..., rows) remain significant after Holm's step-down correction at 5 %."""
    order = np.argsort(p, axis=-1)
    rows = p.shape[-1]
    stand = np.take_along_axis(p, order, -1) * np.arange(rows, 0, -1) < 1 - LEVEL
    stand = np.logical_and.accumulate(stand, axis=-1)  # the first that does not stand ends it
    return np.take_along_axis(stand, np.argsort(order, axis=-1), -1)


def sample_sd(values: Sequence[float] | np.ndarray) -> float:
    """The sample standard deviation (ddof 1); NaN for one value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
