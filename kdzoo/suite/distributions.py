"""The normal, chi and Student distributions as the tables need them.

scipy has them too, but a table answers within a second and importing scipy.special takes a quarter of that.
"""

from __future__ import annotations

import math

import numpy as np

ROUNDING = 1e-16
NEGLIGIBLE = 34.0  # exp(-34) is below the rounding of a double

_erf = np.vectorize(math.erf, otypes=[float])


def normal_cdf(x: np.ndarray) -> np.ndarray:
    """P(Z <= x) of a standard normal Z, element by element."""
    return 0.5 * (1 + np.asarray(_erf(x / math.sqrt(2))))


def t_tail(t: float, freedom: float) -> float:
    """P(T > t) of Student's T for t >= 0: I_x(freedom / 2, 1/2) / 2 at x = freedom / (freedom + t^2)."""
    return 0.5 * _beta_share(freedom / 2, 0.5, freedom / (freedom + t * t), t * t / (freedom + t * t))


def t_quantile(share: float, freedom: float) -> float:
    """The t with P(T <= t) = share, by bisection on its tail."""
    if share < 0.5:
        return -t_quantile(1 - share, freedom)
    low, high = 0.0, 1.0
    while t_tail(high, freedom) > 1 - share:
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if t_tail(middle, freedom) > 1 - share else (low, middle)
    return high


def spread_nodes(freedom: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes s and weights of a mean over S = sqrt(chi^2 / freedom), a pooled deviation over the true one; freedom >= 2.

    The trapezoid rule in u = log s, where the density C exp(freedom (u - e^{2u} / 2)) is analytic and vanishes fast on
    both sides. Its logarithm falls from its peak at u = 0 by at least freedom u^2 to the right, and to the left by
    freedom (|u| - 1/2), and by freedom u^2 / 3 as far as u = -1: at the ends it is negligible.
    """
    below = math.sqrt(3 * NEGLIGIBLE / freedom) if freedom >= 3 * NEGLIGIBLE else NEGLIGIBLE / freedom + 0.5
    u = np.linspace(-below, math.sqrt(NEGLIGIBLE / freedom), 129)
    density = np.exp(freedom * (u + 0.5 - np.exp(2 * u) / 2))
    return np.exp(u), density / density.sum()


def normal_nodes() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of a mean over a standard normal: the trapezoid rule, which is exact to rounding for it."""
    z = np.linspace(-8, 8, 65)
    return z, np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])


def _beta_share(a: float, b: float, x: float, rest: float) -> float:
    """The regularised incomplete beta function I_x(a, b), given `rest` = 1 - x without cancellation.

    By its continued fraction (Abramowitz and Stegun 26.5.8), which converges fast below the mean and serves the other
    side through I_x(a, b) = 1 - I_{1-x}(b, a).
    """
    if x == 0 or rest == 0:
        return float(rest == 0)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_share(b, a, rest, x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    return math.exp(log_front) / (a * _beta_fraction(a, b, x))


def _beta_fraction(a: float, b: float, x: float) -> float:
    """1 + d_1 / (1 + d_2 / (1 + ...)), from the front (Lentz)."""
    value = upper = 1.0
    lower = 0.0
    for term in range(1, 10_000):
        m, odd = divmod(term, 2)
        top = -(a + m) * (a + b + m) if odd else m * (b - m)
        d = top * x / ((a + term - 1) * (a + term))
        lower = 1 / (1 + d * lower)
        upper = 1 + d / upper
        value *= upper * lower
        if abs(upper * lower - 1) < ROUNDING * 4:
            return value
    raise ArithmeticError(f"the incomplete beta function of a={a}, b={b}, x={x} did not converge")
