"""Quantiles from what prompts share: the shape of the reward, with each prompt's own place.

The hierarchy gives each prompt a law of the reward, known up to a posterior of its location and
scale. The prompt's own samples then bend it, as in a Dirichlet process (Ferguson, Annals of
Statistics 1, 1973): the shared law counts like `concentration` samples. How many is for held-out
samples to say: many where prompts share a shape, few where they do not.
"""

from dataclasses import dataclass, field

import numpy as np

from infalign import _check

from .counting import FittedCounting
from .hierarchy import FARTHEST, LEARNED_FROM, MIDDLES, Hierarchy, Posterior, learn
from .interface import AbstractCalibrator, AbstractFitted, sorted_rewards, tied_share

ATOMS = 0.02
"""Share of pairs of a prompt's samples that tie, on average, above which a reward is one of
atoms, of which location and scale say nothing."""

FEWEST = 8
"""Prompts with two samples or more below which nothing is pooled."""

CONCENTRATIONS = (*(2.0 ** np.arange(-2, 11)).tolist(), np.inf)
"""Tried for the concentration."""

MOST = 4
"""Samples of its own for each of which the shared law counts, at most. Where all prompts share it
more would not be wrong, but at K = 4 win rates fall: what is not known of the location is not in
the interval of a quantile that is thought to be exact."""

EXTREME = 0.85
"""Ranks among a prompt's own samples, as a share, from which on they are its upper tail."""

HELD_OUT_STEP = 7
"""Ranks from one held-out sample of a prompt to the next, around the circle."""

HELD_OUT = 6
"""Samples of a prompt that are held out in turn, at most, to find the concentration."""

TABLE = np.concatenate(
    [-np.linspace(FARTHEST, 3, 20)[:-1], np.linspace(-3, 3, 121), np.linspace(3, FARTHEST, 20)[1:]]
)
"""Points, on the axis asinh Z, at which what is known of a prompt is tabulated."""


@dataclass(frozen=True)
class Pooled(AbstractCalibrator):
    """One shape of the reward for all prompts; location and scale of each shrunk to the others'.

    When: prompts share the reward's shape roughly, K is below some 64, and there are dozens of
    prompts or more. Quantiles are those of the posterior predictive law: held-out reference
    samples have uniform ones. Intervals are wide where the true quantile is not known: their mean
    and standard deviation are its posterior ones.

    Falls back to counting for the whole reward if more than 2 % of pairs tie or fewer than 8
    prompts have two samples, and for single prompts with ties. Changes with an increasing map of
    the rewards, unless that is linear.
    """

    concentration: float | None = None
    """Samples that the shared law counts for, beside a prompt's own; None finds it from held-out
    samples, at most 4 K; infinity takes the shape for exactly shared."""

    def __post_init__(self):
        check_concentration(self.concentration)

    def fit(self, rewards, features=None):
        rewards = sorted_rewards(rewards)
        return fit_hierarchy(rewards, np.ones((len(rewards), 1)), self.concentration)


def check_concentration(value) -> None:
    """None or a number above 0, infinity included."""
    if value is not None and value != np.inf:
        _check.positive("concentration", value)


def fit_hierarchy(
    rewards: np.ndarray, design: np.ndarray, concentration: float | None
) -> AbstractFitted:
    """The hierarchy fitted to increasing rewards, nan last; counting where it does not apply.

    - `design`: a constant and the features, (prompts, 1 + d).
    """
    counts = np.isfinite(rewards).sum(1)
    counting = FittedCounting(rewards, counts)
    ties = tied_share(rewards)
    several = counts >= 2
    if several.sum() < FEWEST or ties[several].mean() > ATOMS:
        return counting
    unit, center = spread(rewards), np.nanmedian(rewards)
    standard = np.where(ties[:, None] > 0, np.nan, (rewards - center) / unit)
    found = learn(standard, design)
    near, _ = found.posterior(standard, design, None)
    near, _ = found.posterior(standard, design, near)
    if concentration is None:
        concentration = _concentration(found, near, standard)
    m, _, s, _ = near.moments()
    return FittedPooled(
        counting,
        ties > 0,
        center + unit * m,
        unit * np.exp(s),
        _tables(found, near, m, np.exp(s)),
        float(concentration),
    )


def spread(rewards: np.ndarray) -> float:
    """Typical distance of two samples of a prompt, as a standard deviation of a normal law."""
    few = rewards[:, np.linspace(0, rewards.shape[1] - 1, min(rewards.shape[1], 16)).astype(int)]
    i, j = np.triu_indices(few.shape[1], 1)
    gaps = np.abs(few[:, i] - few[:, j])
    return float(np.nanmedian(gaps[gaps > 0])) / 0.9539


def _standardized(near: Posterior, rows, rewards):
    """asinh Z of rewards (rows, m) for each location and scale: (rows, locations, scales, m)."""
    location = near.location[rows][:, :, None, None]
    scale = np.exp(-near.log_scale[rows])[:, None, :, None]
    return np.arcsinh((rewards[:, None, None, :] - location) * scale)


def _tables(found: Hierarchy, near: Posterior, location, scale) -> np.ndarray:
    """At the points of `TABLE`: the predictive CDF, and mean and mean square of the quantile of a
    response that has this reward, itself one more observation. Shape (prompts, 3, points)."""
    tables = np.empty((len(location), 3, TABLE.size))
    density = found.shape.log_density()
    for p in range(len(location)):
        rows = slice(p, p + 1)
        t = _standardized(near, rows, location[rows, None] + scale[rows, None] * np.sinh(TABLE))[0]
        u, weights = found.shape.cdf(t), near.weights[p][:, :, None]
        logs = np.interp(t, MIDDLES, density) - near.log_scale[p][None, :, None]
        seen = weights * np.exp(logs - logs.max((0, 1)))
        seen = seen / seen.sum((0, 1))
        tables[p] = (weights * u).sum((0, 1)), (seen * u).sum((0, 1)), (seen * u**2).sum((0, 1))
    return np.clip(tables, 0, 1)


def _concentration(found: Hierarchy, near: Posterior, rewards: np.ndarray) -> float:
    """The concentration whose predictions of held-out samples have the least squared error in
    either tail of each prompt; the smaller of both.

    One sample of a prompt at a time is taken out of its posterior (prior and shape, which come from
    all prompts, stay), and its chance to lie below each of the others is predicted. The tails are
    those of the prompt, not of the shared law: where shapes differ, that is where it shows.
    """
    several = np.flatnonzero(np.isfinite(rewards).sum(1) >= 2)
    several = several[np.linspace(0, several.size - 1, min(several.size, LEARNED_FROM)).astype(int)]
    density, errors, most = found.shape.log_density(), np.zeros((2, len(CONCENTRATIONS))), 0.0
    c = np.array(CONCENTRATIONS)[:, None]
    for p in several:
        own = rewards[p, np.isfinite(rewards[p])]
        t = _standardized(near, slice(p, p + 1), own[None])[0]
        u = found.shape.cdf(t)
        logs = np.interp(t, MIDDLES, density) - near.log_scale[p][None, :, None]
        rank = np.arange(1, own.size) / own.size
        upper = rank >= min(EXTREME, rank[-1])
        most += MOST * own.size / several.size
        # Every rank is held out as often, whatever K.
        for k in (np.arange(min(own.size, HELD_OUT)) * HELD_OUT_STEP + p) % own.size:
            without = near.weights[p] * np.exp(logs[..., k].min() - logs[..., k])
            shared = np.delete(np.einsum("jl,jlk->k", without / without.sum(), u), k)
            hit = np.delete(own[k] <= own, k)
            told = shared + (rank - shared) * own.size / (c + own.size)
            error = (told - hit) ** 2 / (rank * (1 - rank))
            errors += error[:, upper].mean(1), error[:, upper[::-1]].mean(1)
    best = min(CONCENTRATIONS[i] for i in errors.argmin(1))
    return float(min(best, most))


@dataclass(frozen=True)
class FittedPooled(AbstractFitted):
    """What is known of every prompt, in tables."""

    counting: FittedCounting = field(repr=False)

    atoms: np.ndarray = field(repr=False)
    """Prompts with ties, which are counted."""

    location: np.ndarray = field(repr=False)
    """Posterior means, in units of the reward."""

    scale: np.ndarray = field(repr=False)

    table: np.ndarray = field(repr=False)
    """At the points of `TABLE`, (prompts, 3, points)."""

    concentration: float
    """Samples that the shared law counts for."""

    @property
    def prompts(self):
        return len(self.table)

    def _shared(self, row, rewards):
        t = np.arcsinh((rewards - self.location[row]) / self.scale[row])
        return [np.interp(t, TABLE, table) for table in self.table[row]]

    def _below(self, row, rewards):
        low, high = self.counting._intervals(row, rewards)
        return (low + high) / 2 * self.counting.counts[row]

    def _quantiles(self, row, rewards):
        if self.atoms[row]:
            return self.counting._quantiles(row, rewards)
        u, c = self._shared(row, rewards)[0], self.concentration
        if c == np.inf:
            return u
        return (c * u + self._below(row, rewards)) / (c + self.counting.counts[row])

    def _intervals(self, row, rewards):
        counts, c = self.counting.counts[row], self.concentration
        ends = np.array(self.counting._intervals(row, rewards)) * counts
        if self.atoms[row]:
            # Nothing is shared, but quantiles are as uncertain as elsewhere: were they not, these
            # prompts would get more than their part of the KL.
            c, mean, square = 0.0, 0.0, 0.0
        else:
            mean, square = self._shared(row, rewards)[1:]
            mean, square = np.stack([mean, mean]), np.stack([square, square])
        if c < np.inf:
            # Given the shared law's quantile v, the true one is Beta(a, n − a) with a = c v + rank
            # + 1 and n = c + K + 2; with c = 0 that is the law of the rank of a fresh sample.
            ends, n = ends + 1, c + counts + 2
            first = c * mean + ends
            second = c**2 * square + 2 * c * mean * ends + ends**2
            mean, square = first / n, (second + first) / (n * (n + 1))
        half = np.sqrt(3 * np.maximum(square - mean**2, 0))
        # One interval for both ends of the ties.
        low, high = (mean - half).min(0), (mean + half).max(0)
        return np.clip(low, 0, 1), np.clip(high, 0, 1)
