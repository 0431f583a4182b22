"""Laws over samples of procedures that read the calibrated reward: soft best-of-n and rewind.

Averaged over all ways to draw n of m samples without replacement, each sample has a chance of being
selected. Given the calibrated reward C of every sample these chances are exact, so estimates made
with them are unbiased. If C is estimated by ranks among K reference samples, all samples of a
prompt share the errors of these K, and the estimate has a bias of order 1/K.
"""

import numpy as np
from scipy.special import gammaln

from infalign.core import AbstractProcedure, Rewind, SoftBestOfN
from infalign.errors import ArgumentError

__all__ = ["selected_by_quantile"]

CHUNK = 2**23
"""Numbers held in memory at once."""

STEP = 0.25
"""Step of the trapezoidal rule in log s: its error is e^(-π²/STEP), below rounding."""


def selected_by_quantile(quantiles: np.ndarray, procedure: AbstractProcedure) -> np.ndarray:
    """Selection chance of each sample, over all draws from its row; rows sum to 1.

    - `quantiles`: calibrated rewards C, shape (rows, m); m is at least the number that `procedure`
      draws.

    >>> selected_by_quantile(np.array([[0.1, 0.9, 0.2]]), Rewind(0.5, 2)).round(4).tolist()
    [[0.1667, 0.6667, 0.1667]]
    """
    match procedure:
        case Rewind():
            return _rewind(quantiles, procedure)
        case SoftBestOfN():
            return _soft_best(quantiles, procedure)
    raise ArgumentError(
        "procedure",
        f"must select by rank, or be SoftBestOfN or Rewind, to be estimated from "
        f"samples; got {procedure!r}. `infalign.design` has its win rate in theory.",
    )


def _rewind(quantiles: np.ndarray, procedure: Rewind) -> np.ndarray:
    # With l of m samples below the threshold, all n draws fail with chance C(l, n) / C(m, n), and
    # the last draw is then any of the l samples. Otherwise the first draw that passes is selected,
    # which is any of the m - l samples.
    m, n = quantiles.shape[1], procedure.max_tries
    fails = quantiles < procedure.threshold
    low = fails.sum(1, keepdims=True)
    tries = np.arange(n)
    all_fail = np.prod(np.maximum(low - tries, 0) / (m - tries), axis=1, keepdims=True)
    below = all_fail / np.maximum(low, 1)
    above = (1 - all_fail) / np.maximum(m - low, 1)
    return np.where(fails, below, above)


def _soft_best(quantiles: np.ndarray, procedure: SoftBestOfN) -> np.ndarray:
    # With x_j = e^(-s w_j), a subset S selects i with chance
    #     w_i / Σ_S w = w_i ∫ e^(-s w_i) ∏_(j in S, j ≠ i) x_j ds,
    # so the mean over subsets needs, at each s, the mean of ∏ x_j over all choices of n - 1 other
    # samples: an elementary symmetric polynomial divided by its number of terms. Dividing x_i out
    # of the polynomial of all samples is unstable; joining the polynomials of the samples before i
    # and after i only adds positive terms.
    m, n = quantiles.shape[1], procedure.n
    w = (quantiles - quantiles.max(1, keepdims=True)) / procedure.temperature
    s = np.exp(np.arange(-38.0, 5 - w.min(), STEP))
    w = np.exp(w)
    rows = max(1, CHUNK // (m * n * s.size))
    nodes = max(1, CHUNK // (m * n * rows))
    parts = [
        sum(_integral(w[i : i + rows], s[j : j + nodes], n) for j in range(0, s.size, nodes))
        for i in range(0, len(w), rows)
    ]
    return n / m * np.concatenate(parts)


def _integral(w: np.ndarray, s: np.ndarray, n: int) -> np.ndarray:
    """w_i ∫ e^(-s w_i) · mean over n - 1 of the others of ∏ e^(-s w_j) ds, shape of `w`."""
    x = np.exp(-w.T[..., None] * s)  # (m, rows, nodes)
    m = len(x)
    before = [_constant(x[0], n)]
    for t in range(1, m):
        before.append(_with_one_more(before[-1], x[t - 1], t))
    after, result = _constant(x[0], n), np.empty(x.shape[:2])
    for i in range(m - 1, -1, -1):
        ways = _shares(i, m - 1 - i, n - 1)
        others = np.einsum("krs,krs,k->rs", before[i], after[::-1], ways)
        result[i] = (x[i] * others) @ (STEP * s)
        after = _with_one_more(after, x[i], m - i)
    return w * result.T


def _constant(x: np.ndarray, n: int) -> np.ndarray:
    """Means of products of k of no numbers, k = 0 … n - 1: 1 for the empty product, then 0."""
    means = np.zeros((n, *x.shape))
    means[0] = 1
    return means


def _with_one_more(means: np.ndarray, x: np.ndarray, t: int) -> np.ndarray:
    """Means of products of k of t numbers from those of the first t - 1: k/t of them have `x`."""
    share = (np.arange(len(means)) / t)[:, None, None]
    # With more factors than numbers there is no product, and the mean is never used.
    grown = (1 - np.minimum(share, 1)) * means
    grown[1:] += np.minimum(share[1:], 1) * x * means[:-1]
    return grown


def _shares(p: int, q: int, n: int) -> np.ndarray:
    """Share of the ways to choose n of p + q items that take k of the p, for k = 0 … n."""
    k = np.arange(n + 1)
    possible = (k <= p) & (n - k <= q)
    k = k[possible]
    shares = np.zeros(n + 1)
    shares[possible] = np.exp(_log_choose(p, k) + _log_choose(q, n - k) - _log_choose(p + q, n))
    return shares


def _log_choose(m, n):
    return gammaln(m + 1.0) - gammaln(n + 1.0) - gammaln(m - n + 1.0)
