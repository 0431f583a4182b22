"""Pooled quantiles: prompts share the shape of the reward distribution, and differ in location and
scale.

The hierarchy gives each prompt a law of the reward, known up to a posterior of its location and
scale. The prompt's own samples then bend this law, as in a Dirichlet process (Ferguson, Annals of
Statistics 1, 1973), in which the shared law counts as much as `concentration` samples. Held-out
samples determine the concentration: it is high if prompts share a shape, and low if they do not.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from infalign import _check
from infalign.core import ranks

from .counting import Counting, FittedCounting
from .hierarchy import LEARNED_FROM, MIDDLES, Hierarchy, Posterior, learn
from .interface import AbstractCalibrator, AbstractFitted, Belief, sorted_rewards, tied_share

__all__ = [
    "FittedPooled",
    "OwnSamples",
    "Pooled",
    "check_concentration",
    "fit_hierarchy",
    "gaps",
    "lessons",
    "spread",
]

ATOMS = 0.02
"""Average share of tied pairs among a prompt's samples above which a reward counts as discrete,
since location and scale do not describe it."""

FEWEST = 8
"""Minimum number of prompts with at least two samples for pooling."""

CONCENTRATIONS = (*(2.0 ** np.arange(-2, 11)).tolist(), np.inf)
"""Candidates for the concentration."""

EXTREME = 0.85
"""The upper tail of a prompt begins at this rank among its own samples, as a share of them."""

HELD_OUT_STEP = 7
"""Offset in rank between successive held-out samples of a prompt, modulo K."""

HELD_OUT = 6
"""Maximum number of samples of a prompt that are held out in turn to choose the concentration."""

GAP_SAMPLES = 16
"""Maximum number of ranks of a prompt whose pairwise distances are taken."""

NORMAL_GAP = 0.9539
"""Median distance between two samples of a standard normal distribution: √2 Φ⁻¹(3/4)."""


@dataclass(frozen=True)
class Pooled(AbstractCalibrator):
    """One shape of the reward distribution for all prompts; each prompt's location and scale are
    shrunk toward the others'.

    When: prompts roughly share the reward's shape, K is below about 64, and there are dozens of
    prompts or more. Quantiles are taken under the posterior predictive distribution, so those of
    held-out reference samples are uniform. The training reward is Φ averaged over the posterior.

    Falls back to plain ranks for all prompts if more than 2 % of pairs tie or fewer than 8 prompts
    have two samples and no ties, and for single prompts with ties. The result is unchanged by
    linear maps of the rewards only.
    """

    concentration: float | None = None
    """Weight of the shared law, in samples of a prompt. Default: chosen on held-out samples.
    Infinity means that the shape is exactly shared."""

    def __post_init__(self):
        check_concentration(self.concentration)

    def fit(self, rewards, features=None):
        rewards = sorted_rewards(rewards)
        return fit_hierarchy(rewards, self.concentration)


def check_concentration(value) -> None:
    """Raise ArgumentError unless the value is None or a number above 0, infinity included."""
    if value is not None and value != np.inf:
        _check.positive("concentration", value)


def fit_hierarchy(rewards: np.ndarray, concentration: float | None) -> AbstractFitted:
    """The hierarchy fitted to increasing rewards, nan last; plain ranks if it does not apply."""
    if not lessons(rewards).any():
        return Counting().fit(rewards)
    center, unit = float(np.nanmedian(rewards)), spread(rewards)
    own = _own(rewards, center, unit)
    hierarchy = learn(own.standard)
    if concentration is None:
        concentration = _concentration(hierarchy, own.standard)
    return FittedPooled(own, hierarchy, center, unit, float(concentration))


def lessons(rewards: np.ndarray) -> np.ndarray:
    """Whether each prompt teaches a shared law: it has two samples and no ties. No prompt does if
    more than 2 % of pairs tie, or if fewer than 8 are left.

    - `rewards`: increasing, nan last.
    """
    ties, several = tied_share(rewards), np.isfinite(rewards).sum(1) >= 2
    use = several & (ties == 0)
    return use & bool(use.sum() >= FEWEST and ties[several].mean() <= ATOMS)


@dataclass(frozen=True)
class OwnSamples:
    """The samples of each prompt, as ranks and in the units of the hierarchy."""

    counting: FittedCounting = field(repr=False)

    atoms: np.ndarray = field(repr=False)
    """Whether a prompt has ties; its quantiles are then plain ranks."""

    standard: np.ndarray = field(repr=False)
    """Standardized rewards, increasing, nan last and for prompts with ties."""


def _own(rewards: np.ndarray, center: float, unit: float) -> OwnSamples:
    atoms = tied_share(rewards) > 0
    standard = np.where(atoms[:, None], np.nan, (rewards - center) / unit)
    return OwnSamples(FittedCounting(rewards, np.isfinite(rewards).sum(1)), atoms, standard)


def gaps(rewards: np.ndarray) -> np.ndarray:
    """Distances between all pairs of at most `GAP_SAMPLES` ranks of each prompt, (prompts, pairs),
    nan where a prompt has fewer samples.

    - `rewards`: increasing, nan last.
    """
    k = rewards.shape[1]
    few = rewards[:, np.linspace(0, k - 1, min(k, GAP_SAMPLES)).astype(int)]
    i, j = np.triu_indices(few.shape[1], 1)
    return few[:, j] - few[:, i]


def spread(rewards: np.ndarray) -> float:
    """Typical spread of a prompt: the standard deviation of the normal distribution with the same
    median distance between two samples."""
    apart = gaps(rewards)
    return float(np.nanmedian(apart[apart > 0])) / NORMAL_GAP


def _chances(
    hierarchy: Hierarchy, near: Posterior, row: int, rewards: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """At each node of a prompt's posterior, the chance that a sample lies below each of `rewards`,
    and the log density at each. Both have shape (nodes, m), with nodes = locations × scales."""
    scale = np.exp(-near.log_scale[row])[None, :, None]
    t = np.arcsinh((rewards - near.location[row][:, None, None]) * scale)
    logs = np.interp(t, MIDDLES, hierarchy.shape.log_density) - near.log_scale[row][:, None]
    nodes = (-1, rewards.size)
    return hierarchy.shape.cdf(t).reshape(nodes), logs.reshape(nodes)


def _concentration(hierarchy: Hierarchy, rewards: np.ndarray) -> float:
    """The smaller of two concentrations: the one that best predicts held-out samples in the
    prompts' lower tails, by squared error, and the one that does so in their upper tails.

    One sample at a time is removed from its prompt's posterior, and its chance to lie below each of
    the others is predicted. Prior and shape stay fixed, since they come from all prompts. The tails
    are the prompt's own, not those of the shared law, because shapes differ in their tails.
    """
    several = np.flatnonzero(np.isfinite(rewards).sum(1) >= 2)
    several = several[np.linspace(0, several.size - 1, min(several.size, LEARNED_FROM)).astype(int)]
    near = hierarchy.known(rewards[several])
    errors, c = np.zeros((2, len(CONCENTRATIONS))), np.array(CONCENTRATIONS)[:, None]
    for p, row in enumerate(rewards[several]):
        own = row[np.isfinite(row)]
        u, logs = _chances(hierarchy, near, p, own)
        weights = near.weights[p].ravel()
        rank = np.arange(1, own.size) / own.size
        upper = rank >= min(EXTREME, rank[-1])
        # Over all prompts, every rank is held out equally often, for any K.
        for k in (np.arange(min(own.size, HELD_OUT)) * HELD_OUT_STEP + p) % own.size:
            # Dividing by a sample's likelihood removes the sample from the posterior. The minimum
            # likelihood is factored out to avoid overflow.
            without = weights * np.exp(logs[:, k].min() - logs[:, k])
            shared = np.delete(without @ u / without.sum(), k)
            hit = np.delete(own[k] <= own, k)
            # The Dirichlet process shrinks the ranks toward the shared law with weight c.
            predicted = shared + (rank - shared) * own.size / (c + own.size)
            error = (predicted - hit) ** 2 / (rank * (1 - rank))
            errors += error[:, upper].mean(1), error[:, upper[::-1]].mean(1)
    return float(min(CONCENTRATIONS[i] for i in errors.argmin(1)))


@dataclass(frozen=True)
class FittedPooled(AbstractFitted):
    """Prior and shape; a prompt's posterior is computed together with its quantiles."""

    own: OwnSamples = field(repr=False)
    hierarchy: Hierarchy = field(repr=False)

    center: float
    unit: float
    """Rewards are standardized as (reward − center) / unit."""

    concentration: float
    """Weight of the shared law, in samples of a prompt."""

    @property
    def prompts(self):
        return len(self.own.atoms)

    def on(self, rewards, features=None):
        return self.at(sorted_rewards(rewards))

    def at(self, rewards: np.ndarray) -> "FittedPooled":
        """The learned parameters, applied to increasing rewards of other prompts, nan last. A
        prompt may have no rewards."""
        return replace(self, own=_own(rewards, self.center, self.unit))

    def _belief(self, row, rewards):
        if self.own.atoms[row]:
            return self.own.counting._belief(row, rewards)
        near = self.hierarchy.known(self.own.standard[row : row + 1])
        u, _ = _chances(self.hierarchy, near, 0, (rewards - self.center) / self.unit)
        weights, c = near.weights[0].ravel(), self.concentration
        if c == np.inf:
            return Belief(u, u, weights)
        # Given the shared law's quantile v, the prompt's own quantile is Beta(c v + rank, c (1 − v)
        # + K − rank). The interval mean ± √3 sd is that of the uniform law with the same mean and
        # standard deviation.
        k = self.own.counting.counts[row]
        below_up_to = ranks(self.own.counting.rewards[row, :k], rewards)
        low, high = ((c * u + rank) / (c + k) for rank in below_up_to)
        half = [np.sqrt(3 * np.maximum(m * (1 - m), 0) / (c + k + 1)) for m in (low, high)]
        return Belief(np.clip(low - half[0], 0, 1), np.clip(high + half[1], 0, 1), weights)
