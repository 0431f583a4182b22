"""Exact sampling variance of one prompt's win-rate estimate.

The estimate from m policy and k reference samples is 1 − Σ_j b_j Â(B_(j)). Â(u) is the chance that
the policy's selected response ranks at or below u, given how many of its m samples rank there; b_j
is the chance that the opponent selects the j-th lowest of its k samples, B_(j). On the quantile
axis the k samples are uniform, so the second moment is a double integral of E[Â(u) Â(v)] against
the joint densities of two uniform order statistics, plus a single integral for each sample paired
with itself. All integrands are polynomials in u, v, F(u) and F(v); the number of Gauss-Legendre
nodes is doubled until the result converges.
"""

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev, legendre
from scipy.special import gammaln, xlog1py, xlogy

from infalign import _check
from infalign.core import AbstractProcedure, TiltedPolicy, require_by_rank
from infalign.errors import SolveError

__all__ = ["bernstein", "binomial", "difference_variance", "win_rate_variance"]

NO_THEORY = "The noise of others is unknown: plan for the nearest one that selects by rank."
"""The remedy for a procedure that reads calibrated rewards."""

TOLERANCE = 1e-5
"""Relative change of a variance at which the quadrature stops."""

MOST_NODES = 1024


def win_rate_variance(
    policy: TiltedPolicy,
    procedure: AbstractProcedure,
    *,
    samples: int,
    reference_samples: int,
    against: AbstractProcedure | None = None,
) -> float:
    """Variance of `win_rate` for one prompt whose true policy is `policy`, with continuous rewards.

    - `samples`, `reference_samples`: m and k; each at least the number that its side draws.

    >>> from infalign import Identity, Sampling, TiltedPolicy
    >>> reference = TiltedPolicy(Identity(), beta=1e9)
    >>> round(win_rate_variance(reference, Sampling(), samples=4, reference_samples=2) * 96, 4)
    7.0

    which is Mann and Whitney's (m + k + 1)/(12 m k).
    """
    return _variance(_Setting.of(procedure, against, samples, reference_samples), policy, None)


def difference_variance(
    a: TiltedPolicy,
    b: TiltedPolicy,
    procedure: AbstractProcedure,
    *,
    samples: int,
    reference_samples: int,
    against: AbstractProcedure | None = None,
) -> float:
    """Variance of `win_rate_difference` for one prompt. Both policies have their own m samples and
    face the same k reference samples, whose noise partly cancels.
    """
    return _variance(_Setting.of(procedure, against, samples, reference_samples), a, b)


@dataclass(frozen=True)
class _Setting:
    """The numbers of samples of both sides, and the laws of the procedures over them."""

    draws: int
    """Number of responses that the policy's procedure draws."""

    law: np.ndarray
    """Chance that the policy's selected response is among its j lowest, j = 0 … m."""

    opponent: np.ndarray
    """Chance that the opponent selects its j-th lowest, j = 1 … k."""

    @classmethod
    def of(
        cls,
        procedure: AbstractProcedure,
        against: AbstractProcedure | None,
        samples: int,
        reference_samples: int,
    ) -> "_Setting":
        ours = require_by_rank("procedure", procedure, NO_THEORY)
        theirs = ours if against is None else require_by_rank("against", against, NO_THEORY)
        for size, wanted, side in (
            ("samples", samples, ours),
            ("reference_samples", reference_samples, theirs),
        ):
            _check.count(size, wanted)
            if wanted < side.draws:
                raise ValueError(
                    f"`{size}` must be at least the {side.draws} that `{side!r}` draws; got "
                    f"{wanted}. Plan more samples, or a smaller n."
                )
        return cls(
            ours.draws,
            ours.subset_cdf(samples),
            np.diff(theirs.subset_cdf(reference_samples)),
        )


def _variance(setting: _Setting, a: TiltedPolicy, b: TiltedPolicy | None) -> float:
    nodes, last = 32, np.nan
    while nodes <= MOST_NODES:
        variance = _by_quadrature(setting, a, b, nodes)
        if abs(variance - last) <= TOLERANCE * abs(variance):
            return variance
        nodes, last = 2 * nodes, variance
    raise SolveError(
        f"The sampling variance does not converge with {MOST_NODES} nodes: a policy of "
        f"{a.kl:.3g} nats is too steep for it. Ask for a smaller `kl`."
    )


def _by_quadrature(setting: _Setting, a: TiltedPolicy, b: TiltedPolicy | None, nodes: int) -> float:
    x, weights = legendre.leggauss(nodes)
    x, weights = (1 + x) / 2, weights / 2
    # Nodes are denser at both ends, where policies and laws are steep.
    t, weights = x**3 * (10 - 15 * x + 6 * x**2), weights * 30 * (x * (1 - x)) ** 2
    v, k = t, setting.opponent.size
    order = k * binomial(k - 1, v)  # densities of the k order statistics at v, (nodes, k)
    # Given the j-th lowest at v, the j - 1 below it are uniform on [0, v]. With u = v t, the
    # density in t of the opponent's selected one among them is (j - 1) E[b at 1 + Bin(j - 2, t)].
    below = bernstein(setting.opponent, t)  # (k, nodes)
    pairs = (order[:, 1:] * setting.opponent[1:]) @ (np.arange(1, k)[:, None] * below[:-1])
    same = order @ setting.opponent**2
    # E[Â(u) Â(v)] of one policy; of two policies, E of the product of the differences of their Â.
    one = _Policy(setting, a, v, t)
    joint, both, level = one.joint, one.squared, one.mean
    if b is not None:  # independent of a: cross terms are products of means
        two = _Policy(setting, b, v, t)
        joint = joint + two.joint
        joint = joint - one.mean_below * two.mean[:, None] - two.mean_below * one.mean[:, None]
        both = both + two.squared - 2 * one.mean * two.mean
        level = one.mean - two.mean
    mean = weights @ (level * (order @ setting.opponent))
    return float(2 * weights @ (joint * pairs) @ weights + weights @ (both * same) - mean**2)


class _Policy:
    """Moments of Â of one policy: E[Â(v)] and E[Â(v)²] at `v`, E[Â(v t)] and E[Â(v t) Â(v)] on the
    grid of `v` and `t`."""

    def __init__(self, setting: _Setting, policy: TiltedPolicy, v: np.ndarray, t: np.ndarray):
        law, m = setting.law, setting.law.size - 1
        y = policy.cdf(v)
        x = policy.cdf(v[:, None] * t)
        counts = binomial(m, y)  # how many of the m samples lie at or below v
        self.mean, self.squared = counts @ law, counts @ law**2
        # Of j samples at or below v, Bin(j, s) are at or below v t, s = x/y. E[law at Bin(j, s)] is
        # a polynomial in s of degree `draws`, so degree + 1 nodes determine it.
        degree = min(setting.draws, m)
        s = (1 + chebyshev.chebpts1(degree + 1)) / 2
        values = (counts * law) @ bernstein(law, s)
        to_series = np.linalg.inv(chebyshev.chebvander(2 * s - 1, degree))
        ratio = np.divide(x, y[:, None], out=np.zeros_like(x), where=y[:, None] > 0)
        basis = chebyshev.chebvander(2 * np.minimum(ratio, 1) - 1, degree)
        self.joint = np.einsum("vtr,vr->vt", basis, values @ to_series.T)
        s_mean = bernstein(law, s)[-1] @ to_series.T
        self.mean_below = chebyshev.chebval(2 * x - 1, s_mean)


def bernstein(values: np.ndarray, t: np.ndarray) -> np.ndarray:
    """E[values at Bin(j, t)] for j = 0 … len(values) − 1, by de Casteljau: shape (len, len(t))."""
    level = np.repeat(np.asarray(values, float)[:, None], t.size, axis=1)
    rows = [level[0]]
    while len(level) > 1:
        level = (1 - t) * level[:-1] + t * level[1:]
        rows.append(level[0])
    return np.array(rows)


def binomial(m: int, p: np.ndarray) -> np.ndarray:
    """P(Bin(m, p) = j) for j = 0 … m, shape (len(p), m + 1)."""
    j, p = np.arange(m + 1), p[:, None]
    choose = gammaln(m + 1) - gammaln(j + 1) - gammaln(m - j + 1)
    return np.exp(choose + xlogy(j, p) + xlog1py(m - j, -p))
