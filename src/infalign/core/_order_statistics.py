"""The k-th best of n draws, on the quantile axis and among finitely many samples.

Every procedure that selects by rank among a fixed number of draws is a mixture of these.
"""

import numpy as np
from scipy.special import betaln

from ._inputs import Quantiles, Values, quantile
from ._shapes import Float

LEAST_POWER = 1e-300
"""Powers below this one count as 0: NumPy takes a hundred times as long for one that
underflows."""

FEW = 16
"""Exponent up to which a quantile in double precision has no smaller power, except near 0."""


def power(base: Values, exponent: int) -> Values:
    """base^exponent, elementwise, for a base of at least 0."""
    if exponent <= FEW:
        return base**exponent
    least = LEAST_POWER ** (1 / exponent)
    return np.maximum(base, least) ** exponent * (base >= least)


def density(n: int, k: int, u: Quantiles) -> Values:
    """h(u), the density of the beta distribution with parameters n − k + 1 and k."""
    return _power(n, k, u, n - k, k - 1)


def slope(n: int, k: int, u: Quantiles) -> Values:
    """h′(u)."""
    low, high = n - k, k - 1
    return low * _power(n, k, u, low - 1, high) - high * _power(n, k, u, low, high - 1)


def slope_range(n: int, k: int, low: Quantiles, high: Quantiles) -> tuple[Values, Values]:
    """The least and the largest h′ between `low` and `high`, elementwise."""
    values = [slope(n, k, low), slope(n, k, high)]
    for turn in _turns(n - k, k - 1):
        values.append(slope(n, k, np.clip(turn, low, high)))  # an end again where it is outside
    return np.min(values, axis=0), np.max(values, axis=0)


def _turns(a: int, b: int) -> tuple[float, ...]:
    """Where h″ = 0 for h ∝ uᵃ(1 − u)ᵇ: the roots of (a + b)(a + b − 1) u² − 2a(a + b − 1) u +
    a(a − 1), if h has two factors; h′ of a single power is monotone."""
    if a == 0 or b == 0:
        return ()
    root = np.sqrt(a * b * (a + b - 1))
    return tuple((a * (a + b - 1) + sign * root) / ((a + b) * (a + b - 1)) for sign in (-1, 1))


def _power(n: int, k: int, u: Quantiles, low: int, high: int) -> Values:
    """u^low (1 − u)^high over the beta function of the law; powers below 0 have no weight."""
    u = quantile("u", u)
    scale = np.exp(-betaln(n - k + 1, k) / max(low + high, 1))
    # The huge scale is distributed over the factors, so that neither factor overflows or
    # underflows alone.
    return (
        power(u * scale, max(low, 0))
        * power((1 - u) * scale, max(high, 0))
        * (scale if low + high == 0 else 1.0)
    )


def law(n: int, k: int, m: int) -> Float[np.ndarray, "_"]:
    """Chance that the k-th best of a random n-subset of m samples is among the j lowest."""
    # Of m samples, the i-th lowest is selected from C(i - 1, n - k) C(m - i, k - 1) subsets. The
    # ratio of the counts at i + 1 and i falls with i, so the products start from the largest count.
    low = n - k
    i = np.arange(low + 1, m - k + 1)
    up, down = i * (m - i - k + 1.0), (i - low) * (m - i + 0.0)
    top = np.count_nonzero(up > down)
    rise = np.cumprod((down / up)[:top][::-1])[::-1]
    fall = np.cumprod((up / down)[top:])
    subsets = np.cumsum(np.concatenate([rise, [1.0], fall]))
    return np.concatenate([np.zeros(low + 1), subsets / subsets[-1], np.ones(k - 1)])
