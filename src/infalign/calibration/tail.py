"""Ranks within a prompt's samples, and generalized Pareto tails beyond them.

Above a high threshold every smooth law has approximately a generalized Pareto tail, S(y) = (1 +
ξy/σ)^(−1/ξ): Pickands, Annals of Statistics 3 (1975). All prompts share the shape ξ, estimated by
maximum likelihood. A prompt's log σ has a normal prior, learned from all prompts, and quantiles are
averages over its posterior. The lower tail is the upper tail of the negative reward.
"""

from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from scipy.special import betainc, betaincinv

from .counting import Counting, FittedCounting
from .hierarchy import LEARNED_FROM
from .interface import AbstractCalibrator, AbstractFitted, Belief, sorted_rewards, tied_share
from .pooled import lessons, spread

__all__ = ["FittedTails", "Tail", "TailExtrapolation", "excesses"]

TAIL = 0.25
"""Share of a prompt's samples from which the tail is estimated; at least one sample."""

SHAPES = np.linspace(-0.75, 1.0, 15)
"""Candidates for ξ: below −1 the likelihood is unbounded, above 1 the law has no mean."""

SPAN, STEP = 5.0, 0.05
"""Half-width and step of the grid of log scales, around their median."""

ROUNDS = 30
"""Rounds of expectation maximization for mean and variance of the log scales."""

LEAST_VARIANCE = STEP**2
"""Smallest variance of the log scales: one step of the grid."""

START_VARIANCE = 0.25
"""Variance of the log scales before the first round."""

WIDER = 4.0
"""Factor on the variance where a prompt is out of reach of the prior."""

LEAST = 0.05
"""Smallest scale at the highest sample, relative to the scale at the threshold. With it, quantiles
rise continuously beyond the highest sample, even where a bounded tail should have ended."""

SCALES, RANKS = 7, 8
"""Equally likely parts of the law of a prompt's scale, and of the true quantiles of its samples."""


@dataclass(frozen=True)
class TailExtrapolation(AbstractCalibrator):
    """Ranks between a prompt's own samples, a generalized Pareto tail beyond them.

    When: prompts differ too much in shape for `Pooled`, but rewards are continuous, K is below
    about 64, and the policy often beats all K samples. Beyond all K samples the training reward
    keeps growing, from an expected quantile of K/(K + 1) to 1, while that of plain ranks is flat.
    Quantiles increase continuously with the reward, and are uniform for held-out reference samples.
    Within a prompt's samples they are no more precise than plain ranks.

    Falls back to plain ranks for all prompts if more than 2 % of pairs tie or fewer than 8 prompts
    have two samples and no ties, and for single prompts with ties.
    """

    def fit(self, rewards, features=None):
        rewards = sorted_rewards(rewards)
        use = lessons(rewards)
        if not use.any():
            return Counting().fit(rewards)
        lower, upper = (
            Tail.learned(excesses(r), spread(rewards))
            for r in (_mirrored(rewards[use]), rewards[use])
        )
        return FittedTails(Counting().fit(rewards), tied_share(rewards) > 0, lower, upper)


def excesses(rewards: np.ndarray) -> np.ndarray:
    """Excesses of each prompt's highest samples over the next lower one, (prompts, n), nan where a
    prompt has fewer.

    - `rewards`: increasing, nan last, at least two per prompt.
    """
    counts = np.isfinite(rewards).sum(1)
    n = np.minimum(np.ceil(TAIL * counts).astype(int), counts - 1)
    over = np.full((len(rewards), n.max()), np.nan)
    for row, (count, own) in enumerate(zip(counts, n, strict=True)):
        over[row, :own] = rewards[row, count - own : count] - rewards[row, count - own - 1]
    return over


@dataclass(frozen=True)
class Tail:
    """The tail model of all prompts: their shared shape, and the distribution of their scales."""

    shape: float
    """ξ: exponential at 0, heavy above, bounded below."""

    location: float
    """Mean of the log scales above the thresholds."""

    variance: float
    """Variance of the log scales."""

    @classmethod
    def learned(cls, over: np.ndarray, unit: float) -> "Tail":
        """Maximum likelihood: expectation maximization for each of `SHAPES`.

        - `over`: excesses of each prompt, (prompts, n), nan where it has fewer.
        - `unit`: typical spread of a prompt; no scale is below a billionth of it.
        """
        over = over[np.linspace(0, len(over) - 1, min(len(over), LEARNED_FROM)).astype(int)]
        middle = np.log(max(float(np.nanmedian(over)), 1e-9 * unit))
        grid = middle + np.arange(-SPAN, SPAN + STEP / 2, STEP)
        tried = [_priors(_log_likelihoods(over, shape, grid), grid) for shape in SHAPES]
        best = int(np.argmax([evidence for evidence, _, _ in tried]))
        return cls(float(SHAPES[best]), *tried[best][1:])

    def beyond(self, own: np.ndarray, rewards: np.ndarray) -> np.ndarray:
        """Chance that a sample above the prompt's highest one also lies above each of `rewards`,
        for each part of the posterior of the scale; (SCALES, m), 1 for rewards below the highest.

        - `own`: the prompt's samples, increasing, shape (K,).
        """
        over = excesses(own[None])[0] if own.size > 1 else np.empty(0)
        grid = self.location + np.sqrt(self.variance) * np.linspace(-4, 4, 41)
        logs = -((grid - self.location) ** 2) / (2 * self.variance)
        seen = logs + _log_likelihoods(over[None], self.shape, grid)[0]
        # Under a bounded tail there may be no scale that explains the samples; only the prior is
        # then left.
        possible = np.isfinite(seen)
        if possible.any():
            grid, logs = grid[possible], seen[possible]
        weights = np.exp(logs - logs.max())
        middles = (np.arange(SCALES) + 0.5) / SCALES
        scales = np.exp(np.interp(middles, np.cumsum(weights) / weights.sum(), grid))
        # Above a higher threshold the tail has the same shape, and its scale grows by ξ per unit.
        higher = np.maximum(scales + self.shape * over.max(initial=0.0), LEAST * scales)
        z = np.maximum(rewards - own[-1], 0) / higher[:, None]
        if self.shape == 0:
            return np.exp(-z)
        return np.maximum(1 + self.shape * z, 0) ** (-1 / self.shape)


def _log_likelihoods(over: np.ndarray, shape: float, grid: np.ndarray) -> np.ndarray:
    """Log likelihood of each prompt's excesses at each log scale, (prompts, grid)."""
    z = over[:, None, :] * np.exp(-grid)[:, None]
    if shape == 0:
        logs = -z
    else:
        inside = 1 + shape * z
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(inside <= 0, -np.inf, -(1 + 1 / shape) * np.log(inside))
    return np.nansum(logs - np.where(np.isnan(z), 0, grid[:, None]), axis=2)


def _priors(logs: np.ndarray, grid: np.ndarray) -> tuple[float, float, float]:
    """Log evidence, mean and variance of the normal prior of log scales with the highest
    evidence."""
    tops = logs.max(axis=1, keepdims=True)
    if not np.isfinite(tops).all():
        return -np.inf, 0.0, 0.0
    likelihoods = np.exp(logs - tops)
    peaks = grid[logs.argmax(axis=1)]
    mean, variance = float(np.median(peaks)), START_VARIANCE
    for _ in range(ROUNDS):
        prior = np.exp(-((grid - mean) ** 2) / (2 * variance))
        prior /= prior.sum()
        chances = likelihoods @ prior
        if not chances.all():  # this prior cannot explain a prompt: widen it
            variance *= WIDER
            continue
        weights = likelihoods * prior / chances[:, None]
        mean = float(np.mean(weights @ grid))
        variance = max(float(np.mean(weights @ (grid - mean) ** 2)), LEAST_VARIANCE)
    return float(np.sum(np.log(np.maximum(chances, 1e-300)) + tops[:, 0])), mean, variance


@dataclass(frozen=True)
class FittedTails(AbstractFitted):
    """Samples of every prompt, and both tails."""

    counting: FittedCounting = field(repr=False)

    atoms: np.ndarray = field(repr=False)
    """Whether a prompt has ties; its quantiles are then plain ranks."""

    lower: Tail
    """Tail of the negative reward."""

    upper: Tail

    @property
    def prompts(self):
        return self.counting.prompts

    def on(self, rewards, features=None):
        rewards = sorted_rewards(rewards)
        return replace(self, counting=Counting().fit(rewards), atoms=tied_share(rewards) > 0)

    def _belief(self, row, rewards):
        if self.atoms[row]:
            return self.counting._belief(row, rewards)
        k = int(self.counting.counts[row])
        own = self.counting.rewards[row, :k]
        ranks = _rank_quantiles(k)
        within = np.stack([np.interp(rewards, own, quantiles) for quantiles in ranks])[:, None]
        below = ranks[:, :1, None] * self.lower.beyond(-own[::-1], -rewards)
        above = 1 - (1 - ranks[:, -1:, None]) * self.upper.beyond(own, rewards)
        # Combine every part of the ranks with every part of the scales: (RANKS, SCALES, m).
        u = np.where(rewards < own[0], below, np.where(rewards > own[-1], above, within))
        u = u.reshape(-1, rewards.size)
        return Belief(u, u, np.full(len(u), 1 / len(u)))


def _mirrored(rewards: np.ndarray) -> np.ndarray:
    """The negative rewards, increasing, nan last."""
    return np.sort(-rewards, axis=1)


@cache
def _rank_quantiles(count: int) -> np.ndarray:
    """True quantiles of `count` samples, lowest first, in equally likely parts: (RANKS, count).

    The true quantile of sample j has the law Beta(j, count + 1 − j). Each part is the mean over one
    slice of that law, the same slice for all j, so parts increase with j and average to j/(count +
    1). The mean over a slice is a difference of incomplete beta functions of j + 1.
    """
    j = np.arange(1, count + 1)
    cuts = betaincinv(j, count + 1 - j, np.linspace(0, 1, RANKS + 1)[:, None])
    return np.diff(betainc(j + 1, count + 1 - j, cuts), axis=0) * RANKS * j / (count + 1)
