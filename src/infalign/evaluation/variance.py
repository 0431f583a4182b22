"""Sampling variance of the win-rate estimate of one prompt, exactly.

The estimate from m policy and k reference samples is 1 − Σ_j b_j Â(B_(j)): Â(u) the chance that
what the policy keeps ranks at or below u, given how many of its m samples do, b_j the chance that
the opponent keeps the j-th lowest of its k, B_(j). On the quantile axis the k are uniform, so the
second moment is a double integral of E[Â(u) Â(v)] against the joint densities of two uniform order
statistics, and a single one for a sample paired with itself. All of it is polynomials in u, v, F(u)
and F(v); Gauss-Legendre nodes double until the result stays.
"""

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev, legendre
from scipy.special import gammaln, xlog1py, xlogy

from infalign import _check
from infalign.core import AbstractProcedure, RankProcedure, TiltedPolicy
from infalign.errors import SolveError

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
    """Variance of `win_rate` of one prompt whose truth is `policy`, for continuous rewards.

    - `samples`, `reference_samples`: m and k, at least what either side draws.

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
    """Variance of `win_rate_difference` of one prompt: both policies with m samples of their own
    face the same k reference samples, and part of the noise of those cancels.
    """
    return _variance(_Setting.of(procedure, against, samples, reference_samples), a, b)


@dataclass(frozen=True)
class _Setting:
    """One comparison: sizes and laws of what is kept of so many samples."""

    draws: int
    kept: np.ndarray
    """Chance that the policy's kept response is among its j lowest, j = 0 … m."""

    opponent: np.ndarray
    """Chance that the opponent keeps its j-th lowest, j = 1 … k."""

    @classmethod
    def of(cls, procedure, against, samples, reference_samples):
        against = against or procedure
        for name, size, wanted, side in (
            ("procedure", "samples", samples, procedure),
            ("against", "reference_samples", reference_samples, against),
        ):
            check_ranks(name, side)
            _check.count(size, wanted)
            if wanted < side.draws:
                raise ValueError(
                    f"`{size}` must be at least the {side.draws} that `{side!r}` draws; got "
                    f"{wanted}. Plan more samples, or a smaller n."
                )
        return cls(
            procedure.draws,
            procedure.subset_cdf(samples),
            np.diff(against.subset_cdf(reference_samples)),
        )


def check_ranks(name: str, procedure) -> None:
    """Raise ValueError for a procedure that reads quantiles."""
    if not isinstance(procedure, RankProcedure):
        raise ValueError(
            f"`{name}` must keep by rank; got {procedure!r}, which reads calibrated "
            "rewards: its noise is not known. Plan for the nearest procedure that keeps by rank."
        )


def _variance(setting: _Setting, a: TiltedPolicy, b: TiltedPolicy | None) -> float:
    nodes, last = 32, np.nan
    while nodes <= MOST_NODES:
        found = _by_quadrature(setting, a, b, nodes)
        if abs(found - last) <= TOLERANCE * abs(found):
            return found
        nodes, last = 2 * nodes, found
    raise SolveError(
        f"The sampling variance does not settle with {MOST_NODES} nodes: a policy of "
        f"{a.kl:.3g} nats is too steep for it. Ask for a smaller `kl`."
    )


def _by_quadrature(setting: _Setting, a, b, nodes: int) -> float:
    x, weights = legendre.leggauss(nodes)
    x, weights = (1 + x) / 2, weights / 2
    # Nodes crowd at both ends, where policies and laws are steep.
    t, weights = x**3 * (10 - 15 * x + 6 * x**2), weights * 30 * (x * (1 - x)) ** 2
    v, k = t, setting.opponent.size
    order = k * binomial(k - 1, v)  # densities of the k order statistics at v, (nodes, k)
    # Of the j-th lowest at v, those below are uniform on [0, v]: with u = v t, the density of a
    # kept one among them is (j - 1) E[b at 1 + Bin(j - 2, t)] in t.
    below = bernstein(setting.opponent, t)  # (k, nodes)
    pairs = (order[:, 1:] * setting.opponent[1:]) @ (np.arange(1, k)[:, None] * below[:-1])
    same = order @ setting.opponent**2
    # E[Â(u) Â(v)] of one policy; of two, of the difference of their Â, which are independent.
    policies = [_Policy(setting, p, v, t) for p in (a, b) if p is not None]
    joint = sum(p.joint for p in policies)
    both = sum(p.squared for p in policies)
    level = policies[0].mean
    if b is not None:
        (at_u, at_v), (u_2, v_2) = ((p.mean_below, p.mean) for p in policies)
        joint = joint - at_u * v_2[:, None] - u_2 * at_v[:, None]
        both, level = both - 2 * at_v * v_2, at_v - v_2
    mean = weights @ (level * (order @ setting.opponent))
    return float(2 * weights @ (joint * pairs) @ weights + weights @ (both * same) - mean**2)


class _Policy:
    """Moments of Â of one policy: E[Â(v)] and E[Â(v)²] at `v`, E[Â(v t)] and E[Â(v t) Â(v)] on the
    grid of `v` and `t`."""

    def __init__(self, setting: _Setting, policy: TiltedPolicy, v, t):
        kept, m = setting.kept, setting.kept.size - 1
        y = policy.cdf(v)
        x = policy.cdf(v[:, None] * t)
        counts = binomial(m, y)  # how many of m samples lie at or below v
        self.mean, self.squared = counts @ kept, counts @ kept**2
        # Of j at or below v a number Bin(j, s = x/y) is at or below v t. E[kept at Bin(j, s)] is a
        # polynomial in s whose degree is the number of draws: so many nodes tell all of it.
        degree = min(setting.draws, m)
        s = (1 + chebyshev.chebpts1(degree + 1)) / 2
        values = (counts * kept) @ bernstein(kept, s)
        to_series = np.linalg.inv(chebyshev.chebvander(2 * s - 1, degree))
        ratio = np.divide(x, y[:, None], out=np.zeros_like(x), where=y[:, None] > 0)
        basis = chebyshev.chebvander(2 * np.minimum(ratio, 1) - 1, degree)
        self.joint = np.einsum("vtr,vr->vt", basis, values @ to_series.T)
        s_mean = bernstein(kept, s)[-1] @ to_series.T
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
