"""The location-scale hierarchy: r = m_p + s_p Z, with one law of Z for all prompts.

The priors of m_p and log s_p are normal, and the law of Z is arbitrary. All three are estimated
from all prompts by expectation maximization. A prompt's m and s are never replaced by point
estimates: quantiles are averages over a posterior on a grid, so the quantiles of held-out reference
samples are uniform. Source: Morris, Parametric empirical Bayes inference, JASA 78 (1983), here
semiparametric, with smoothed EM as in Silverman et al., JRSS B 52 (1990).

Rewards are centered on the median of all rewards, in units of the typical spread within a prompt.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.special import erf

from infalign._look import Shown

__all__ = ["Hierarchy", "Normal", "Posterior", "Shape", "learn"]

STEPS = 12
"""Rounds of expectation maximization; further rounds move quantiles by less than 0.001."""

AHEAD = 4.0
"""Over-relaxation of the variance of the scales: while the direction stays the same, a round moves
the log variance this many times as far. If all scales are equal, a plain round removes only one
percent of the remaining variance."""

LOCATIONS, SCALES = 21, 11
"""Nodes of each prompt's posterior."""

REACH = 3.5
"""Half-width of the grid, in posterior standard deviations."""

BIN = 0.04
"""Width of the bins of the law of Z, on the axis asinh Z."""

FARTHEST = 12.0
"""End of the bins on that axis: |Z| up to 80,000 spreads."""

LEARNED_FROM = 512
"""Maximum number of prompts, evenly spaced, from which prior and shape are learned; more prompts
change little."""

STRANGE = 1e-3
"""Weight of a kernel of width 1 in the smoothed shape. It makes an outlier improbable rather than
impossible, so that it does not shift its whole prompt."""

START_VARIANCE = 0.1
"""Prior variance of the log scales before the first round."""

LEAST_VARIANCE = 1e-8
"""Added to prior variances, so that the prior stays proper if prompts agree exactly."""

LEAST_SD = 1e-4
"""Added to posterior standard deviations, so that the grid never collapses."""

LEAST_MASS = 1e-290
"""Smallest smoothed mass of a bin; its logarithm is finite."""

MEDIAN_SAMPLES = 3
"""The first grid is centered on the median of K samples, whose variance is taken to be 3/K units.
For a normal distribution it is 1.6/K; the wider grid does not confine the first posterior."""

HELD = 2_000_000
"""Numbers held in memory at once."""


@dataclass(frozen=True)
class Shape:
    """The law of Z: masses of bins of t = asinh Z, an axis that suits heavy and light tails
    alike."""

    mass: np.ndarray = field(repr=False)

    bandwidth: float
    """Width of the smoothing kernel on the axis t."""

    @classmethod
    def of(cls, mass: np.ndarray, samples: float) -> "Shape":
        """The shape with this mass in each bin, estimated from `samples` samples.

        The bandwidth follows Silverman's rule, 0.9 IQR/1.34 n^(−1/5), where IQR is the
        interquartile range.
        """
        mass = mass / mass.sum()
        low, high = np.interp([0.25, 0.75], np.cumsum(mass), EDGES[1:])
        return cls(mass, 0.9 * max(high - low, BIN) / 1.34 * samples**-0.2)

    @cached_property
    def log_density(self) -> np.ndarray:
        """Log density of Z at the middles of the bins, smoothed."""
        offsets = np.arange(-(MIDDLES.size - 1), MIDDLES.size) * BIN
        kernel = (1 - STRANGE) * _kernel(offsets, self.bandwidth) + STRANGE * _kernel(offsets, 1.0)
        smooth = np.convolve(self.mass, kernel, mode="valid")
        # Z = sinh t: the density of Z is that of t divided by dZ/dt = cosh t.
        return np.log(np.maximum(smooth, LEAST_MASS) / BIN) - np.log(np.cosh(MIDDLES))

    def cdf(self, t: np.ndarray) -> np.ndarray:
        """P(asinh Z ≤ t), elementwise."""
        return np.interp(t, EDGES, self._below)

    @cached_property
    def _below(self) -> np.ndarray:
        return np.minimum(np.concatenate([[0], np.cumsum(self.mass)]), 1)


EDGES = np.linspace(-FARTHEST, FARTHEST, round(2 * FARTHEST / BIN) + 1)
MIDDLES = (EDGES[1:] + EDGES[:-1]) / 2


def _kernel(offsets: np.ndarray, width: float) -> np.ndarray:
    """Mass of a normal kernel in the bins around the offsets."""
    ends = erf((offsets[:, None] + [-BIN / 2, BIN / 2]) / (width * np.sqrt(2)))
    mass = ends[:, 1] - ends[:, 0]
    return mass / mass.sum()


@dataclass(frozen=True)
class Posterior(Shown):
    """Posterior of each prompt's location and log scale: weights on a grid."""

    location: np.ndarray
    """Shape (prompts, LOCATIONS)."""

    log_scale: np.ndarray
    """Shape (prompts, SCALES)."""

    weights: np.ndarray
    """Shape (prompts, LOCATIONS, SCALES); each prompt's sum to 1."""

    def moments(self) -> tuple[np.ndarray, ...]:
        """Per prompt, the mean and variance of the location and of the log scale."""
        return *_moments(self.location, self.weights.sum(2)), *_moments(
            self.log_scale, self.weights.sum(1)
        )


def _moments(grid: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each row of a grid with weights that sum to 1."""
    mean = (weights * grid).sum(1)
    return mean, (weights * (grid - mean[:, None]) ** 2).sum(1)


@dataclass(frozen=True)
class Normal:
    """A normal prior."""

    mean: float
    variance: float

    @classmethod
    def of(cls, means: np.ndarray, variances: np.ndarray) -> "Normal":
        """The prior fitted to each prompt's posterior mean and variance. The variance of the means
        is computed from their leave-one-out errors."""
        n, mean = means.size, means.mean()
        errors = (means - mean) * n / max(n - 1, 1)
        return cls(float(mean), float(np.mean(errors**2) + np.mean(variances)) + LEAST_VARIANCE)


@dataclass(frozen=True)
class Hierarchy:
    """Prior and shape, learned from all prompts."""

    shape: Shape
    location: Normal
    log_scale: Normal

    def posterior(
        self, rewards: np.ndarray, near: Posterior | None
    ) -> tuple[Posterior, np.ndarray]:
        """Posterior of each prompt, and the resulting mass of asinh Z in each bin.

        - `near`: a posterior on which the grid is centered. None centers it on prior and median.
        """
        if near is None:
            location, location_sd, log_scale, log_scale_sd = self._start(rewards)
        else:
            location, var, log_scale, log_var = near.moments()
            location_sd, log_scale_sd = np.sqrt(var) + LEAST_SD, np.sqrt(log_var) + LEAST_SD
        m = location[:, None] + location_sd[:, None] * np.linspace(-REACH, REACH, LOCATIONS)
        s = log_scale[:, None] + log_scale_sd[:, None] * np.linspace(-REACH, REACH, SCALES)
        prior_m = -((m - self.location.mean) ** 2) / (2 * self.location.variance)
        prior_s = -((s - self.log_scale.mean) ** 2) / (2 * self.log_scale.variance)
        logs = prior_m[:, :, None] + prior_s[:, None, :]
        known = np.isfinite(rewards)
        density = self.shape.log_density
        mass, weights = np.zeros(MIDDLES.size), np.empty(logs.shape)
        size = max(1, HELD // (LOCATIONS * SCALES * max(rewards.shape[1], 1)))
        for start in range(0, len(rewards), size):
            part = slice(start, start + size)
            r = np.where(known[part], rewards[part], 0)[:, None, None, :]
            # Axes: prompts, locations, scales, samples.
            t = np.arcsinh((r - m[part, :, None, None]) * np.exp(-s[part, None, :, None]))
            each = np.interp(t, MIDDLES, density) - s[part, None, :, None]
            total = logs[part] + np.sum(each * known[part][:, None, None, :], axis=-1)
            w = np.exp(total - total.max((1, 2), keepdims=True))
            weights[part] = w = w / w.sum((1, 2), keepdims=True)
            # E-step for the shape: each sample's bin, weighted by the posterior of its node.
            at = np.clip(((t + FARTHEST) / BIN).astype(int), 0, MIDDLES.size - 1)
            share = np.broadcast_to(w[..., None] * known[part][:, None, None, :], at.shape)
            mass += np.bincount(at.ravel(), share.ravel(), minlength=MIDDLES.size)
        return Posterior(m, s, weights), mass

    def known(self, rewards: np.ndarray) -> Posterior:
        """Posterior of each prompt, on a grid around a first posterior."""
        near, _ = self.posterior(rewards, None)
        return self.posterior(rewards, near)[0]

    def _start(self, rewards: np.ndarray) -> tuple[np.ndarray, ...]:
        """Location and log scale of each prompt with their standard deviations, for a first grid.
        The location's posterior is normal given the median; that of the log scale comes from the
        prior and the variance that K samples leave."""
        counts = np.isfinite(rewards).sum(1)
        own = np.full(len(rewards), 0.0)
        some = counts > 0
        own[some] = np.nanmedian(rewards[some], axis=1) if some.any() else 0
        var = 1 / (1 / self.location.variance + counts / MEDIAN_SAMPLES)
        weighted = own * counts / MEDIAN_SAMPLES
        location = var * (self.location.mean / self.location.variance + weighted)
        log_var = 1 / (1 / self.log_scale.variance + counts / 2)
        return location, np.sqrt(var), np.full(len(rewards), self.log_scale.mean), np.sqrt(log_var)


def learn(rewards: np.ndarray) -> Hierarchy:
    """Prior and shape from the rewards of many prompts, in units of the spread within a prompt.

    - `rewards`: (prompts, K), nan where a prompt has fewer.
    """
    counts = np.isfinite(rewards).sum(1)
    use = np.flatnonzero(counts >= 2)
    use = use[np.linspace(0, use.size - 1, min(use.size, LEARNED_FROM)).astype(int)]
    rewards, counts = rewards[use], counts[use]
    middles = np.nanmedian(rewards, axis=1)
    # Residuals from the mean of K samples have (K − 1)/K of the variance.
    short = np.sqrt(counts / (counts - 1))[:, None]
    residuals = (rewards - np.nanmean(rewards, axis=1, keepdims=True)) * short
    t = np.arcsinh(residuals[np.isfinite(residuals)])
    mass, _ = np.histogram(np.clip(t, -FARTHEST, FARTHEST), EDGES)
    zero = np.zeros(len(use))
    hierarchy = Hierarchy(
        Shape.of(mass.astype(float), t.size),
        Normal.of(middles, zero),
        Normal.of(zero, zero + START_VARIANCE),
    )
    near: Posterior | None = None
    previous = 0.0
    for _ in range(STEPS):
        near, mass = hierarchy.posterior(rewards, near)
        m, m_var, s, s_var = near.moments()
        log_scale = Normal.of(s, s_var)
        change = float(np.log(log_scale.variance / hierarchy.log_scale.variance))
        if change * previous > 0:  # same direction: go further
            variance = hierarchy.log_scale.variance * np.exp(AHEAD * change)
            log_scale = Normal(log_scale.mean, float(variance))
        previous = change
        hierarchy = Hierarchy(Shape.of(mass, t.size), Normal.of(m, m_var), log_scale)
    return hierarchy
