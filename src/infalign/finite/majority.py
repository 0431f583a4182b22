"""Majority vote over answers (self-consistency), exact for any number of draws and labels.

Of n draws the label counts are multinomial, that is, independent Poisson counts given that they
sum to n. So the chance that label l wins with c votes is a coefficient of a product over labels,

    P(l wins with c) ∝ [zⁿ] p_c(l) z^c ∏_{k≠l} (Σ_{i<c} p_i(k) z^i + t p_c(k) z^c), averaged over t,

where p_i(k) is the Poisson weight of i votes for k, and t, uniform on [0, 1], is the priority of l:
a label with as many votes has a lower priority with chance t, so ties break uniformly. The average
is Gauss-Legendre's, exact for these polynomials; the coefficient is a mean over roots of unity.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.polynomial import legendre
from scipy.special import gammaln, pdtrc, xlogy

from infalign import _check

from .maps import AbstractMap

_gauss = lru_cache(maxsize=256)(legendre.leggauss)

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
    >>> vote.kept(np.array([0.6, 0.4])).round(9).tolist()
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

    def kept(self, policy):
        def row(policy, labels):
            weight, _ = winning(np.bincount(labels, policy), self.n)
            return policy * weight[labels]

        return self._by_prompt(row, policy)

    def gradient(self, policy, utility):
        def row(policy, labels, utility):
            # ⟨T(π), utility⟩ = Σ_l weight_l Σ_{y in l} π(y) utility(y).
            worth = np.bincount(labels, policy * utility)
            weight, slope = winning(np.bincount(labels, policy), self.n, worth)
            return weight[labels] * utility + slope[labels]

        return self._by_prompt(row, policy, utility)

    def starts(self, reference):
        def towards(place):
            def row(reference, labels):
                share = np.bincount(labels, reference)
                chosen = np.argsort(-share)[min(place, len(share) - 1)]
                if share[chosen] == 0:
                    return reference
                return (reference + reference * (labels == chosen) / share[chosen]) / 2

            return row

        most = min(LABEL_STARTS, max(len(np.unique(row)) for row in np.atleast_2d(self.labels)))
        return [self._by_prompt(towards(place), reference) for place in range(most)]

    def _by_prompt(self, function, policy, *more):
        """`function` of each prompt's policy, label numbers and whatever else."""
        labels = np.asarray(self.labels)
        if labels.shape not in (policy.shape, policy.shape[-1:]):
            raise ValueError(
                f"`labels` must have one label per outcome, shape {policy.shape}; "
                f"got shape {labels.shape}."
            )
        rows = (np.atleast_2d(a) for a in (policy, np.broadcast_to(labels, policy.shape), *more))
        done = [
            function(policy, np.unique(labels, return_inverse=True)[1], *rest)
            for policy, labels, *rest in zip(*rows, strict=True)
        ]
        return np.reshape(done, policy.shape)


def winning(share: np.ndarray, n: int, worth: np.ndarray | None = None):
    """Chance to win per unit of share, P(l wins of n draws) / s_l, and its derivative.

    - `share`: s, the probability of each label.
    - `worth`: weights m; the second result is then ∂/∂s_k Σ_l m_l P(l wins) / s_l, else None.

    Exact to rounding; all terms are bounded by 1. The cost is about n² labels · log n.
    """
    votes = np.arange(n + 1)[:, None]
    pmf = np.exp(xlogy(votes, n * share) - n * share - gammaln(votes + 1))  # (votes, labels)
    z = np.exp(2j * np.pi * np.arange(points := _points(n)) / points)[:, None]
    drawn = np.exp(n * np.log(n) - n - gammaln(n + 1))  # the Poisson chance of n in all
    coefficient = z**-n / points / drawn  # what finds that of zⁿ, given that n were drawn
    weight, slope = np.zeros_like(share), np.zeros_like(share)
    fewer = np.zeros((points, len(share)), complex)  # Σ_{i<c} p_i z^i
    much_fewer = np.zeros_like(fewer)  # Σ_{i<c-1} p_i z^i
    for c in range(1, n + 1):
        much_fewer, fewer = fewer, fewer + pmf[c - 1] * z ** (c - 1)
        # p_c / s and the derivatives in s of polynomials, with the factor e^{-ns} held fixed.
        wins = n / c * pmf[c - 1] * z**c
        d_wins = n * n / c * pmf[c - 2] * z**c if c > 1 else np.zeros_like(wins)
        ties, d_ties = pmf[c] * z**c, n * pmf[c - 1] * z**c
        d_fewer = n * z * much_fewer
        rivals = min(len(share), n // c)
        nodes, weights = _gauss((rivals + 1) // 2)
        t, average = (1 + nodes[:, None, None]) / 2, weights[:, None, None] / 2 * coefficient
        factor = fewer + t * ties  # (nodes, points, labels)
        if worth is None:
            weight += (average * wins * _leave_one_out(factor)).real.sum((0, 1))
            continue
        others, d_others = _leave_one_out_and_change(factor, worth * wins)
        weight += (average * wins * others).real.sum((0, 1))
        change = worth * d_wins * others + (d_fewer + t * d_ties) * d_others
        slope += (average * change).real.sum((0, 1))
    return weight, None if worth is None else slope


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
