"""Majority vote over answers (self-consistency), exact for any number of draws and labels.

The label counts of n draws are multinomial: independent Poisson counts, given that they sum to n.
So the chance that label l wins with c votes is a coefficient of a product over labels,

    P(l wins with c) ∝ [zⁿ] p_c(l) z^c ∏_{k≠l} (Σ_{i<c} p_i(k) z^i + t p_c(k) z^c), averaged over t,

where p_i(k) is the Poisson weight of i votes for k, and t, uniform on [0, 1], is the priority of l:
another label with equally many votes has a lower priority with chance t, so ties break uniformly.
The average over t is by Gauss-Legendre quadrature, exact for these polynomials; the coefficient is
a mean over roots of unity.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.polynomial import legendre
from scipy.special import gammaln, pdtrc, xlogy

from infalign import _check
from infalign._look import Shown
from infalign.core._shapes import ArrayLike, Float, Int
from infalign.errors import ArgumentError

from .maps import AbstractMap, Rows

__all__ = ["MajorityVote", "winning", "winning_and_slope"]

_gauss = lru_cache(maxsize=256)(legendre.leggauss)

CHUNK = 2**20
"""Complex numbers held in memory for one product over labels."""

LABEL_STARTS = 8
"""Number of likeliest labels from which an ascent starts, since each label may win at some
maximum."""


@dataclass(frozen=True, eq=False)
class MajorityVote(Shown, AbstractMap):
    """Draw `n` responses and select one with the most frequent label.

    Ties between labels break uniformly at random. The selected response is a random one of the
    draws with the winning label, so within a label its law is the policy's own. Source: Wang
    et al., Self-consistency improves chain of thought reasoning, arXiv:2203.11171.

    Two of three draws decide between two labels, so the chance to win is 3 s² − 2 s³, here at s =
    0.6:

    >>> vote = MajorityVote(["yes", "no"], 3)
    >>> vote.selected(np.array([0.6, 0.4])).round(9).tolist()
    [0.648, 0.352]
    """

    labels: ArrayLike
    """The answer of each outcome, (outcomes,) or (prompts, outcomes); compared by equality."""

    n: int
    """Responses drawn; 1 and 2 are plain sampling."""

    def __post_init__(self) -> None:
        _check.count("n", self.n)

    @property
    def concave(self) -> bool:
        return self.n <= 2  # linear

    def selected(self, policy: Rows) -> Rows:
        label = self._label(policy)
        weight = winning(_by_label(label, policy), self.n)
        return policy * _at_outcomes(label, weight, policy)

    def gradient(self, policy: Rows, utility: Rows) -> Rows:
        # ⟨T(π), utility⟩ = Σ_l weight_l Σ_{y in l} π(y) utility(y).
        label = self._label(policy)
        gains = _by_label(label, policy * utility)
        weight, slope = winning_and_slope(_by_label(label, policy), self.n, gains)
        direct = _at_outcomes(label, weight, policy) * utility
        return direct + _at_outcomes(label, slope, policy)

    def starts(self, reference: Rows) -> list[np.ndarray]:
        label = self._label(reference)
        share = _by_label(label, reference)
        order = np.argsort(-share, axis=1)
        starts = []
        for place in range(min(LABEL_STARTS, share.shape[1])):
            chosen = np.arange(share.shape[1]) == order[:, place, None]
            # Half of the mass moves to one label; no mass moves if a prompt has fewer labels.
            more = np.divide(chosen, share, out=np.ones_like(share), where=share > 0)
            empty = (chosen & (share == 0)).any(1, keepdims=True)
            boost = (1 + np.where(empty, 1, more)) / 2
            starts.append(reference * _at_outcomes(label, boost, reference))
        return starts

    @cached_property
    def _numbers(self) -> np.ndarray:
        """The labels as numbers from 0, prompt by prompt."""
        rows = np.atleast_2d(self.labels)
        return np.array([np.unique(row, return_inverse=True)[1] for row in rows])

    def _label(self, policy: np.ndarray) -> Int[np.ndarray, "prompts outcomes"]:
        """The number of each outcome's label."""
        shape = np.shape(self.labels)
        if shape not in (policy.shape, policy.shape[-1:]):
            raise ArgumentError(
                "labels",
                f"must have one label per outcome, shape {policy.shape}; got shape {shape}.",
            )
        return np.broadcast_to(self._numbers, np.atleast_2d(policy).shape)


def _by_label(label: np.ndarray, mass: np.ndarray) -> Float[np.ndarray, "prompts labels"]:
    """The mass on each label."""
    prompts, width = len(label), label.max() + 1
    cell = label + width * np.arange(prompts)[:, None]
    total = np.bincount(cell.ravel(), np.ravel(mass), minlength=prompts * width)
    return total.reshape(prompts, width)


def _at_outcomes(label: np.ndarray, values: np.ndarray, policy: np.ndarray) -> np.ndarray:
    """The value of each outcome's label, in the policy's shape."""
    return np.take_along_axis(values, label, axis=1).reshape(policy.shape)


Shares = Float[np.ndarray, "prompts labels"]


def winning(share: Shares, n: int) -> Shares:
    """Chance to win per unit of share: P(l wins with n draws) / s_l.

    - `share`: s, the probability of each label.

    Exact to rounding; all terms are bounded by 1. The cost grows like n² labels · log n.
    """
    weights = [[term.weight() for term in _terms(part, n)] for part in _parts(share, n)]
    return np.concatenate([np.sum(part, axis=0) for part in weights])


def winning_and_slope(share: Shares, n: int, gains: Shares) -> tuple[Shares, Shares]:
    """`winning`, and ∂/∂s_k Σ_l gains_l P(l wins) / s_l."""
    weights, slopes = [], []
    for part, gain in zip(_parts(share, n), _parts(gains, n), strict=True):
        terms = [term.weight_and_slope(gain[:, None, None]) for term in _terms(part, n)]
        weights.append(np.sum([weight for weight, _ in terms], axis=0))
        slopes.append(np.sum([slope for _, slope in terms], axis=0))
    return np.concatenate(weights), np.concatenate(slopes)


def _parts(rows: Shares, n: int) -> list[np.ndarray]:
    """The prompts, in parts that fit into memory."""
    most = (min(rows.shape[1], n) + 1) // 2
    size = max(1, CHUNK // (_points(n) * most * rows.shape[1]))
    return [rows[i : i + size] for i in range(0, len(rows), size)]


@dataclass(frozen=True)
class _Term:
    """The ways to win with c votes. All arrays are (prompts, nodes of t, roots of unity, labels).

    Derivatives are with respect to s, with the factor e^{-ns} of the polynomials held fixed.
    """

    average: np.ndarray
    """Weights of the mean over t times those of the roots of unity."""

    wins: np.ndarray
    """p_c z^c / s."""

    d_wins: np.ndarray
    factor: np.ndarray
    """Σ_{i<c} p_i z^i + t p_c z^c, the factor of a label that does not win."""

    d_factor: np.ndarray

    def weight(self) -> Shares:
        """Share of P(l wins) / s_l."""
        return (self.average * self.wins * _leave_one_out(self.factor)).real.sum((1, 2))

    def weight_and_slope(self, gain: np.ndarray) -> tuple[Shares, Shares]:
        """`weight`, and its part of ∂/∂s_k Σ_l gain_l P(l wins) / s_l."""
        others, d_others = _leave_one_out_and_change(self.factor, gain * self.wins)
        weight = (self.average * self.wins * others).real.sum((1, 2))
        change = gain * self.d_wins * others + self.d_factor * d_others
        return weight, (self.average * change).real.sum((1, 2))


def _terms(share: Shares, n: int) -> Iterator[_Term]:
    """The ways to win with 1, …, n votes."""
    points = _points(n)
    share = share[:, None, None]
    votes = np.arange(n + 1)[:, None, None, None, None]
    pmf = np.exp(xlogy(votes, n * share) - n * share - gammaln(votes + 1))
    z = np.exp(2j * np.pi * np.arange(points) / points)[:, None]
    drawn = np.exp(n * np.log(n) - n - gammaln(n + 1))  # the Poisson chance of n in all
    coefficient = z**-n / points / drawn  # weights that give [zⁿ], given that n were drawn
    fewer = 0 * share * z  # Σ_{i<c} p_i z^i
    much_fewer = fewer  # Σ_{i<c-1} p_i z^i
    for c in range(1, n + 1):
        much_fewer, fewer = fewer, fewer + pmf[c - 1] * z ** (c - 1)
        wins = n / c * pmf[c - 1] * z**c  # p_c / s = n p_{c-1} / c
        d_wins = n * n / c * pmf[c - 2] * z**c if c > 1 else np.zeros_like(wins)
        ties, d_ties = pmf[c] * z**c, n * pmf[c - 1] * z**c
        d_fewer = n * z * much_fewer
        rivals = min(share.shape[-1], n // c)
        nodes, weights = _gauss((rivals + 1) // 2)
        t, average = (1 + nodes[:, None, None]) / 2, weights[:, None, None] / 2 * coefficient
        yield _Term(average, wins, d_wins, fewer + t * ties, d_fewer + t * d_ties)


def _points(n: int) -> int:
    """Number of roots of unity whose mean gives the coefficient of zⁿ. The mean also includes the
    coefficients at n + points, n + 2 points, …, which are at most the tail of a Poisson law with
    mean n."""
    beyond = np.arange(n + 1, 4 * n + 60)
    return int(beyond[pdtrc(n + beyond - 1, n) < 1e-20][0])


def _around(factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The products of the factors before and after each l, along the last axis."""
    one = np.ones_like(factor[..., :1])
    before = np.concatenate([one, np.cumprod(factor[..., :-1], axis=-1)], axis=-1)
    after = np.concatenate([np.cumprod(factor[..., :0:-1], axis=-1)[..., ::-1], one], axis=-1)
    return before, after


def _leave_one_out(factor: np.ndarray) -> np.ndarray:
    """∏_{k≠l} A_k for each l, along the last axis; without division, since A_k may be 0."""
    before, after = _around(factor)
    return before * after


def _leave_one_out_and_change(
    factor: np.ndarray, change: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """∏_{k≠l} A_k and its derivative along A + ε `change`."""
    before, after = _around(factor)
    d_before, d_after = np.zeros_like(factor), np.zeros_like(factor)
    for k in range(factor.shape[-1] - 1):
        d_before[..., k + 1] = d_before[..., k] * factor[..., k] + before[..., k] * change[..., k]
        j = -1 - k
        d_after[..., j - 1] = d_after[..., j] * factor[..., j] + after[..., j] * change[..., j]
    return before * after, d_before * after + before * d_after
