"""Quantiles from what prompts share: the shape of the reward, with each prompt's own place.

The hierarchy gives each prompt a law of the reward, known up to a posterior of its location and
scale. The prompt's own samples then bend it, as in a Dirichlet process (Ferguson, Annals of
Statistics 1, 1973): the shared law counts like `concentration` samples. How many is for held-out
samples to say: many where prompts share a shape, few where they do not.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from infalign import _check
from infalign.core import ranks

from .counting import Counting, FittedCounting
from .hierarchy import LEARNED_FROM, MIDDLES, Hierarchy, Posterior, learn
from .interface import AbstractCalibrator, AbstractFitted, Belief, sorted_rewards, tied_share

ATOMS = 0.02
"""Share of pairs of a prompt's samples that tie, on average, above which a reward is one of
atoms, of which location and scale say nothing."""

FEWEST = 8
"""Prompts with two samples or more below which nothing is pooled."""

CONCENTRATIONS = (*(2.0 ** np.arange(-2, 11)).tolist(), np.inf)
"""Tried for the concentration."""

EXTREME = 0.85
"""Ranks among a prompt's own samples, as a share, from which on they are its upper tail."""

HELD_OUT_STEP = 7
"""Ranks from one held-out sample of a prompt to the next, around the circle."""

HELD_OUT = 6
"""Samples of a prompt that are held out in turn, at most, to find the concentration."""


@dataclass(frozen=True)
class Pooled(AbstractCalibrator):
    """One shape of the reward for all prompts; location and scale of each shrunk to the others'.

    When: prompts share the reward's shape roughly, K is below some 64, and there are dozens of
    prompts or more. Quantiles are those of the posterior predictive law: held-out reference
    samples have uniform ones. The training reward is Φ averaged over the posterior.

    Falls back to counting for the whole reward if more than 2 % of pairs tie or fewer than 8
    prompts have two samples, and for single prompts with ties. Changes with an increasing map of
    the rewards, unless that is linear.
    """

    concentration: float | None = None
    """Samples that the shared law counts for, beside a prompt's own; None finds it from held-out
    samples; infinity takes the shape for exactly shared."""

    def __post_init__(self):
        check_concentration(self.concentration)

    def fit(self, rewards, features=None):
        rewards = sorted_rewards(rewards)
        return fit_hierarchy(rewards, self.concentration)


def check_concentration(value) -> None:
    """None or a number above 0, infinity included."""
    if value is not None and value != np.inf:
        _check.positive("concentration", value)


def fit_hierarchy(rewards: np.ndarray, concentration: float | None) -> AbstractFitted:
    """The hierarchy fitted to increasing rewards, nan last; counting where it does not apply."""
    ties, several = tied_share(rewards), np.isfinite(rewards).sum(1) >= 2
    if several.sum() < FEWEST or ties[several].mean() > ATOMS:
        return Counting().fit(rewards)
    center, unit = float(np.nanmedian(rewards)), spread(rewards)
    own = _own(rewards, center, unit)
    found = learn(own["standard"])
    if concentration is None:
        concentration = _concentration(found, own["standard"])
    return FittedPooled(
        **own, found=found, center=center, unit=unit, concentration=float(concentration)
    )


def _own(rewards: np.ndarray, center: float, unit: float) -> dict:
    """What belongs to single prompts: their rewards, counted and in units, and which have ties."""
    atoms = tied_share(rewards) > 0
    standard = np.where(atoms[:, None], np.nan, (rewards - center) / unit)
    counting = FittedCounting(rewards, np.isfinite(rewards).sum(1))
    return {"counting": counting, "atoms": atoms, "standard": standard}


def gaps(rewards: np.ndarray) -> np.ndarray:
    """Distances of pairs of samples of each prompt, of at most 16 ranks: (prompts, pairs), nan
    where a prompt has fewer.

    - `rewards`: increasing, nan last.
    """
    few = rewards[:, np.linspace(0, rewards.shape[1] - 1, min(rewards.shape[1], 16)).astype(int)]
    i, j = np.triu_indices(few.shape[1], 1)
    return few[:, j] - few[:, i]


def spread(rewards: np.ndarray) -> float:
    """Typical distance of two samples of a prompt, as a standard deviation of a normal law."""
    apart = gaps(rewards)
    return float(np.nanmedian(apart[apart > 0])) / 0.9539


def _chances(found: Hierarchy, near: Posterior, row: int, rewards: np.ndarray):
    """For each location and scale, one after the other, of a prompt: the chance that a sample lies
    below each of `rewards`, and their log density; both of shape (nodes, m)."""
    scale = np.exp(-near.log_scale[row])[None, :, None]
    t = np.arcsinh((rewards - near.location[row][:, None, None]) * scale)
    logs = np.interp(t, MIDDLES, found.shape.log_density) - near.log_scale[row][:, None]
    nodes = (-1, rewards.size)
    return found.shape.cdf(t).reshape(nodes), logs.reshape(nodes)


def _concentration(found: Hierarchy, rewards: np.ndarray) -> float:
    """The concentration whose predictions of held-out samples have the least squared error in
    either tail of each prompt; the smaller of both.

    One sample of a prompt at a time is taken out of its posterior (prior and shape, which come from
    all prompts, stay), and its chance to lie below each of the others is predicted. The tails are
    those of the prompt, not of the shared law: where shapes differ, that is where it shows.
    """
    several = np.flatnonzero(np.isfinite(rewards).sum(1) >= 2)
    several = several[np.linspace(0, several.size - 1, min(several.size, LEARNED_FROM)).astype(int)]
    near = found.known(rewards[several])
    errors, c = np.zeros((2, len(CONCENTRATIONS))), np.array(CONCENTRATIONS)[:, None]
    for p, row in enumerate(rewards[several]):
        own = row[np.isfinite(row)]
        u, logs = _chances(found, near, p, own)
        weights = near.weights[p].ravel()
        rank = np.arange(1, own.size) / own.size
        upper = rank >= min(EXTREME, rank[-1])
        # Every rank is held out as often, whatever K.
        for k in (np.arange(min(own.size, HELD_OUT)) * HELD_OUT_STEP + p) % own.size:
            without = weights * np.exp(logs[:, k].min() - logs[:, k])
            shared = np.delete(without @ u / without.sum(), k)
            hit = np.delete(own[k] <= own, k)
            told = shared + (rank - shared) * own.size / (c + own.size)
            error = (told - hit) ** 2 / (rank * (1 - rank))
            errors += error[:, upper].mean(1), error[:, upper[::-1]].mean(1)
    return float(min(CONCENTRATIONS[i] for i in errors.argmin(1)))


@dataclass(frozen=True)
class FittedPooled(AbstractFitted):
    """Prior and shape; a prompt's posterior is made when it is asked for."""

    counting: FittedCounting = field(repr=False)

    atoms: np.ndarray = field(repr=False)
    """Prompts with ties, which are counted."""

    found: Hierarchy = field(repr=False)

    standard: np.ndarray = field(repr=False)
    """Reference rewards in units of `unit` around `center`, increasing, nan last and for atoms."""

    center: float
    unit: float

    concentration: float
    """Samples that the shared law counts for."""

    @property
    def prompts(self):
        return len(self.standard)

    def on(self, rewards, features=None):
        return self.at(sorted_rewards(rewards))

    def at(self, rewards: np.ndarray) -> "FittedPooled":
        """What was learned, applied to increasing rewards of other prompts, nan last, or none."""
        return replace(self, **_own(rewards, self.center, self.unit))

    def _belief(self, row, rewards):
        if self.atoms[row]:
            return self.counting._belief(row, rewards)
        near = self.found.known(self.standard[row : row + 1])
        u, _ = _chances(self.found, near, 0, (rewards - self.center) / self.unit)
        weights, c = near.weights[0].ravel(), self.concentration
        if c == np.inf:
            return Belief(u, u, weights)
        # Given the shared law's quantile v the prompt's own is Beta(c v + rank, c (1 − v) + K −
        # rank): here by an interval of the same mean and standard deviation.
        k = self.counting.counts[row]
        low, high = ((c * u + n) / (c + k) for n in ranks(self.counting.rewards[row, :k], rewards))
        spread = [np.sqrt(3 * np.maximum(m * (1 - m), 0) / (c + k + 1)) for m in (low, high)]
        return Belief(np.clip(low - spread[0], 0, 1), np.clip(high + spread[1], 0, 1), weights)
