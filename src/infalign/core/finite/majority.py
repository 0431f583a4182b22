"""Majority vote over answers (self-consistency), exact for any number of draws and labels.

Of n draws the label counts are multinomial, that is, independent Poisson counts given that they
sum to n. So the chance that label l wins with c votes is a coefficient of a product over labels,

    P(l wins with c) ∝ [zⁿ] p_c(l) z^c ∏_{k≠l} (Σ_{i<c} p_i(k) z^i + t p_c(k) z^c), averaged over t,

where p_i(k) is the Poisson weight of i votes for k, and t, uniform on [0, 1], is the priority of l:
a label with as many votes has a lower priority with chance t, so ties break uniformly. The average
is Gauss-Legendre's, exact for these polynomials; the coefficient is a mean over roots of unity.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.polynomial import legendre
from scipy.special import gammaln, pdtrc, xlogy

from infalign import _check

from .maps import AbstractMap

_gauss = lru_cache(maxsize=256)(legendre.leggauss)

CHUNK = 2**20
"""Complex numbers that are held for one product of labels."""

LABEL_STARTS = 8
"""Labels, the likeliest first, from each of which an ascent starts: every winner may be a hill."""


@dataclass(frozen=True, eq=False)
class MajorityVote(AbstractMap):
    """Draw `n` responses, find the most frequent label, keep a response that has it.

    Ties between labels break uniformly at random. The kept response is a random one of the drawn
    responses with the winning label, so within a label its law is the policy's own. Source: Wang
    et al., Self-consistency improves chain of thought reasoning, arXiv:2203.11171.

    Two of three draws decide between two labels, 3 s² − 2 s³ at s = 0.6:

    >>> vote = MajorityVote(["yes", "no"], 3)
    >>> vote.selected(np.array([0.6, 0.4])).round(9).tolist()
    [0.648, 0.352]
    """

    labels: np.ndarray
    """The answer of each outcome, (outcomes,) or (prompts, outcomes); compared by equality."""

    n: int
    """Responses drawn; 1 and 2 are plain sampling."""

    def __post_init__(self):
        _check.count("n", self.n)

    @property
    def concave(self):
        return self.n <= 2  # linear

    def selected(self, policy):
        label = self._label(policy)
        weight, _ = winning(_by_label(label, policy), self.n)
        return policy * _at_outcomes(label, weight, policy)

    def gradient(self, policy, utility):
        # ⟨T(π), utility⟩ = Σ_l weight_l Σ_{y in l} π(y) utility(y).
        label = self._label(policy)
        worth = _by_label(label, policy * utility)
        weight, slope = winning(_by_label(label, policy), self.n, worth)
        direct = _at_outcomes(label, weight, policy) * utility
        return direct + _at_outcomes(label, slope, policy)

    def starts(self, reference):
        label = self._label(reference)
        share = _by_label(label, reference)
        order = np.argsort(-share, axis=1)
        starts = []
        for place in range(min(LABEL_STARTS, share.shape[1])):
            chosen = np.arange(share.shape[1]) == order[:, place, None]
            # Half of the mass moves to one label; nowhere, where a prompt has fewer labels.
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

    def _label(self, policy) -> np.ndarray:
        """The label's number of each outcome, (prompts, outcomes)."""
        shape = np.shape(self.labels)
        if shape not in (policy.shape, policy.shape[-1:]):
            raise ValueError(
                f"`labels` must have one label per outcome, shape {policy.shape}; "
                f"got shape {shape}."
            )
        return np.broadcast_to(self._numbers, np.atleast_2d(policy).shape)


def _by_label(label, mass) -> np.ndarray:
    """The mass on each label, (prompts, labels)."""
    prompts, width = len(label), label.max() + 1
    cell = label + width * np.arange(prompts)[:, None]
    total = np.bincount(cell.ravel(), np.ravel(mass), minlength=prompts * width)
    return total.reshape(prompts, width)


def _at_outcomes(label, values, policy) -> np.ndarray:
    """The value of each outcome's label, in the policy's shape."""
    return np.take_along_axis(values, label, axis=1).reshape(policy.shape)


def winning(share: np.ndarray, n: int, worth: np.ndarray | None = None):
    """Chance to win per unit of share, P(l wins of n draws) / s_l, and its derivative.

    - `share`: s, the probability of each label, (prompts, labels).
    - `worth`: weights m; the second result is then ∂/∂s_k Σ_l m_l P(l wins) / s_l, else None.

    Exact to rounding; all terms are bounded by 1. The cost is about n² labels · log n.
    """
    points, most = _points(n), (min(share.shape[1], n) + 1) // 2
    rows = max(1, CHUNK // (points * most * share.shape[1]))
    parts = [
        _winning(share[i : i + rows], n, points, None if worth is None else worth[i : i + rows])
        for i in range(0, len(share), rows)
    ]
    weight = np.concatenate([weight for weight, _ in parts])
    return weight, None if worth is None else np.concatenate([slope for _, slope in parts])


def _winning(share, n, points, worth):
    share = share[:, None, None]  # all arrays: (prompts, nodes, points, labels)
    votes = np.arange(n + 1)[:, None, None, None, None]
    pmf = np.exp(xlogy(votes, n * share) - n * share - gammaln(votes + 1))
    z = np.exp(2j * np.pi * np.arange(points) / points)[:, None]
    drawn = np.exp(n * np.log(n) - n - gammaln(n + 1))  # the Poisson chance of n in all
    coefficient = z**-n / points / drawn  # what finds that of zⁿ, given that n were drawn
    weight, slope = np.zeros_like(share[:, 0, 0]), np.zeros_like(share[:, 0, 0])
    fewer = 0 * share * z  # Σ_{i<c} p_i z^i
    much_fewer = fewer  # Σ_{i<c-1} p_i z^i
    for c in range(1, n + 1):
        much_fewer, fewer = fewer, fewer + pmf[c - 1] * z ** (c - 1)
        # p_c / s and the derivatives in s of polynomials, with the factor e^{-ns} held fixed.
        wins = n / c * pmf[c - 1] * z**c
        d_wins = n * n / c * pmf[c - 2] * z**c if c > 1 else np.zeros_like(wins)
        ties, d_ties = pmf[c] * z**c, n * pmf[c - 1] * z**c
        d_fewer = n * z * much_fewer
        rivals = min(share.shape[-1], n // c)
        nodes, weights = _gauss((rivals + 1) // 2)
        t, average = (1 + nodes[:, None, None]) / 2, weights[:, None, None] / 2 * coefficient
        factor = fewer + t * ties
        if worth is None:
            weight += (average * wins * _leave_one_out(factor)).real.sum((1, 2))
            continue
        gain = worth[:, None, None]
        others, d_others = _leave_one_out_and_change(factor, gain * wins)
        weight += (average * wins * others).real.sum((1, 2))
        change = gain * d_wins * others + (d_fewer + t * d_ties) * d_others
        slope += (average * change).real.sum((1, 2))
    return weight, slope


def _points(n: int) -> int:
    """Roots of unity that find the coefficient of zⁿ: what they add to it is the weight at
    n + points, n + 2 points, …, no more than the tail of a Poisson law of mean n."""
    beyond = np.arange(n + 1, 4 * n + 60)
    return int(beyond[pdtrc(n + beyond - 1, n) < 1e-20][0])


def _around(factor):
    """For each l, last axis: the product of the factors before it, and of those after it."""
    one = np.ones_like(factor[..., :1])
    before = np.concatenate([one, np.cumprod(factor[..., :-1], axis=-1)], axis=-1)
    after = np.concatenate([np.cumprod(factor[..., :0:-1], axis=-1)[..., ::-1], one], axis=-1)
    return before, after


def _leave_one_out(factor):
    """∏_{k≠l} A_k for each l, last axis; no division, since some A_k may be 0."""
    before, after = _around(factor)
    return before * after


def _leave_one_out_and_change(factor, change):
    """∏_{k≠l} A_k and its derivative along A + ε `change`."""
    before, after = _around(factor)
    d_before, d_after = np.zeros_like(factor), np.zeros_like(factor)
    for k in range(factor.shape[-1] - 1):
        d_before[..., k + 1] = d_before[..., k] * factor[..., k] + before[..., k] * change[..., k]
        j = -1 - k
        d_after[..., j - 1] = d_after[..., j] * factor[..., j] + after[..., j] * change[..., j]
    return before * after, d_before * after + before * d_after
