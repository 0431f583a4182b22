"""The location-scale hierarchy: r = m_p + s_p Z, with one law of Z for all prompts.

A prompt's location m_p is normal around a mean, log s_p around another, and the law of Z is any:
all three are estimated from all prompts by expectation maximization. Nothing is plugged in: a
prompt's own m and s stay a posterior on a grid, and its quantiles are averaged over it, so that
held-out reference samples have uniform quantiles. Source: Morris, Parametric empirical Bayes
inference, JASA 78 (1983), made semiparametric; smoothed EM as in Silverman et al., JRSS B 52
(1990).

All is done in units of the typical spread within a prompt, around the middle of all rewards.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.special import erf

STEPS = 12
"""Rounds of expectation maximization; further ones move quantiles by less than a thousandth."""

AHEAD = 4.0
"""How many rounds' way the variance of the scales goes at once while it keeps its direction: where
all scales are one, each round takes away a hundredth of what is left of it."""

LOCATIONS, SCALES = 21, 11
"""Grid of each prompt's posterior."""

REACH = 3.5
"""Posterior standard deviations that the grid reaches to either side."""

BIN = 0.04
"""Width of the bins in which the law of Z is held, on the axis asinh Z."""

FARTHEST = 12.0
"""|asinh Z| that is told apart: Z up to 80,000 spreads."""

LEARNED_FROM = 512
"""Prompts, evenly spaced, from which prior and shape are learned; more would not change them."""

STRANGE = 1e-3
"""Weight of a wide kernel in the smoothed shape: an outlier is improbable, not impossible, and does
not drag a whole prompt along."""


@dataclass(frozen=True)
class Shape:
    """The law of Z: masses of bins of t = asinh Z, which hold heavy tails as well as light."""

    mass: np.ndarray = field(repr=False)

    bandwidth: float
    """Of the smoothed density, on the axis t."""

    @classmethod
    def of(cls, mass: np.ndarray, samples: float) -> "Shape":
        """From the mass in each bin, estimated from so many samples."""
        mass = mass / mass.sum()
        low, high = np.interp([0.25, 0.75], np.cumsum(mass), EDGES[1:])
        return cls(mass, 0.9 * max(high - low, BIN) / 1.34 * samples**-0.2)

    @cached_property
    def log_density(self) -> np.ndarray:
        """Log density of Z at the middles of the bins, smoothed."""
        offsets = np.arange(-(MIDDLES.size - 1), MIDDLES.size) * BIN
        kernel = (1 - STRANGE) * _kernel(offsets, self.bandwidth) + STRANGE * _kernel(offsets, 1.0)
        smooth = np.convolve(self.mass, kernel, mode="valid")
        return np.log(np.maximum(smooth, 1e-290) / BIN) - np.log(np.cosh(MIDDLES))

    def cdf(self, t: np.ndarray) -> np.ndarray:
        """P(asinh Z ≤ t), elementwise."""
        return np.interp(t, EDGES, self._below)

    @cached_property
    def _below(self) -> np.ndarray:
        return np.minimum(np.concatenate([[0], np.cumsum(self.mass)]), 1)


EDGES = np.linspace(-FARTHEST, FARTHEST, round(2 * FARTHEST / BIN) + 1)
MIDDLES = (EDGES[1:] + EDGES[:-1]) / 2


def _kernel(offsets, width):
    """Mass of a normal kernel in bins around offsets."""
    ends = erf((offsets[:, None] + [-BIN / 2, BIN / 2]) / (width * np.sqrt(2)))
    mass = ends[:, 1] - ends[:, 0]
    return mass / mass.sum()


@dataclass(frozen=True)
class Posterior:
    """What is known of each prompt's location and log scale: weights on a grid."""

    location: np.ndarray
    """Shape (prompts, LOCATIONS)."""

    log_scale: np.ndarray
    """Shape (prompts, SCALES)."""

    weights: np.ndarray
    """Shape (prompts, LOCATIONS, SCALES); each prompt's sum to 1."""

    def moments(self) -> tuple[np.ndarray, ...]:
        """Mean and variance of the location, mean and variance of the log scale, per prompt."""
        found = []
        for grid, weights in (
            (self.location, self.weights.sum(2)),
            (self.log_scale, self.weights.sum(1)),
        ):
            mean = (weights * grid).sum(1)
            found += [mean, (weights * (grid - mean[:, None]) ** 2).sum(1)]
        return tuple(found)


@dataclass(frozen=True)
class Normal:
    """A normal prior."""

    mean: float
    variance: float

    @classmethod
    def of(cls, means: np.ndarray, variances: np.ndarray) -> "Normal":
        """From each prompt's posterior mean and variance; spread by leave-one-out errors."""
        n, mean = means.size, means.mean()
        errors = (means - mean) * n / max(n - 1, 1)
        return cls(float(mean), float(np.mean(errors**2) + np.mean(variances)) + 1e-8)


@dataclass(frozen=True)
class Hierarchy:
    """Prior and shape, learned from all prompts."""

    shape: Shape
    location: Normal
    log_scale: Normal

    def posterior(self, rewards: np.ndarray, near: "Posterior | None"):
        """Posterior of each prompt, on a grid around what `near` says (or where the prior and the
        median are, without), and the mass of asinh Z in each bin that it implies."""
        if near is None:
            location, location_sd, log_scale, log_scale_sd = self._start(rewards)
        else:
            location, var, log_scale, log_var = near.moments()
            location_sd, log_scale_sd = np.sqrt(var) + 1e-4, np.sqrt(log_var) + 1e-4
        m = location[:, None] + location_sd[:, None] * np.linspace(-REACH, REACH, LOCATIONS)
        s = log_scale[:, None] + log_scale_sd[:, None] * np.linspace(-REACH, REACH, SCALES)
        prior_m = -((m - self.location.mean) ** 2) / (2 * self.location.variance)
        prior_s = -((s - self.log_scale.mean) ** 2) / (2 * self.log_scale.variance)
        logs = prior_m[:, :, None] + prior_s[:, None, :]
        known = np.isfinite(rewards)
        density = self.shape.log_density
        mass, weights = np.zeros(MIDDLES.size), np.empty(logs.shape)
        size = max(1, 2_000_000 // (LOCATIONS * SCALES * max(rewards.shape[1], 1)))
        for start in range(0, len(rewards), size):
            part = slice(start, start + size)
            r = np.where(known[part], rewards[part], 0)[:, None, None, :]
            t = np.arcsinh((r - m[part, :, None, None]) * np.exp(-s[part, None, :, None]))
            each = np.interp(t, MIDDLES, density) - s[part, None, :, None]
            total = logs[part] + np.sum(each * known[part][:, None, None, :], axis=-1)
            w = np.exp(total - total.max((1, 2), keepdims=True))
            weights[part] = w = w / w.sum((1, 2), keepdims=True)
            at = np.clip(((t + FARTHEST) / BIN).astype(int), 0, MIDDLES.size - 1)
            share = np.broadcast_to(w[..., None] * known[part][:, None, None, :], at.shape)
            mass += np.bincount(at.ravel(), share.ravel(), minlength=MIDDLES.size)
        return Posterior(m, s, weights), mass

    def known(self, rewards: np.ndarray) -> Posterior:
        """Posterior of each prompt, on a grid that has been fitted to it."""
        near, _ = self.posterior(rewards, None)
        return self.posterior(rewards, near)[0]

    def _start(self, rewards):
        counts = np.isfinite(rewards).sum(1)
        own = np.full(len(rewards), 0.0)
        some = counts > 0
        own[some] = np.nanmedian(rewards[some], axis=1) if some.any() else 0
        # The median of K has about 1.6/K of the variance; twice that, so that the grid is no cage.
        var = 1 / (1 / self.location.variance + counts / 3)
        location = var * (self.location.mean / self.location.variance + own * counts / 3)
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
    # Residuals of the mean of K are short of variance by (K - 1)/K.
    rest = (rewards - np.nanmean(rewards, axis=1, keepdims=True)) * np.sqrt(counts / (counts - 1))[
        :, None
    ]
    t = np.arcsinh(rest[np.isfinite(rest)])
    mass, _ = np.histogram(np.clip(t, -FARTHEST, FARTHEST), EDGES)
    spare = np.zeros(len(use))
    found = Hierarchy(
        Shape.of(mass.astype(float), t.size),
        Normal.of(middles, spare),
        Normal.of(spare, spare + 0.1),
    )
    near, before = None, 0.0
    for _ in range(STEPS):
        near, mass = found.posterior(rewards, near)
        m, m_var, s, s_var = near.moments()
        log_scale = Normal.of(s, s_var)
        way = np.log(log_scale.variance / found.log_scale.variance)
        if way * before > 0:
            variance = found.log_scale.variance * np.exp(AHEAD * way)
            log_scale = Normal(log_scale.mean, float(variance))
        before = way
        found = Hierarchy(Shape.of(mass, t.size), Normal.of(m, m_var), log_scale)
    return found
