"""Plain RLHF on the raw reward, on the quantile axis: the baseline of every transform.

KL-regularised RL on the raw reward tilts each prompt's reference samples by e^{r/β}, with one β
for all prompts: a transform too, each prompt's own quantile function. With K rewards of a prompt
the tilted policy has one density per cell ((k − 1)/K, k/K] of the quantile axis.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.special import log_softmax

from infalign import _check
from infalign.errors import ArgumentError, DataError, SolveError

from ._inputs import finite_rewards
from ._procedures import AbstractProcedure, RankProcedure

FINE = 64
"""Panels of the quantile axis, at least, where the opponent's law is no polynomial."""

WEAKEST = 1e-12
"""β, in standard deviations of the reward, below which only each prompt's best sample is left."""


def log_weights(rewards: np.ndarray, beta: float) -> np.ndarray:
    """log of e^{r/β} / mean_k e^{r_k/β} for each of a prompt's samples, along the last axis."""
    return log_softmax(rewards / beta, axis=-1) + np.log(rewards.shape[-1])


@dataclass(frozen=True)
class RawRewards:
    """The raw reward as a candidate for `compare`: what plain RLHF on it would achieve.

    - `rewards`: rewards of reference samples, shape (prompts, K), any scale; nan where a prompt has
      fewer samples. One row will do for a reward that is distributed alike on all prompts.

    A prompt's ties are broken at random. Needs K well above e^KL: with few samples the best of them
    stand for a tail that was not seen.

    >>> from infalign import BestOfN, compare
    >>> normal = np.random.default_rng(0).normal(size=(20, 2000))
    >>> raw = compare(BestOfN(8), [RawRewards(normal)], kl=0.5)[1]
    >>> raw.transform, round(raw.win_rate, 2)         # the probit transform wins .879
    ('raw', 0.88)
    """

    rewards: np.ndarray = field(repr=False, compare=False)

    source: str = ""
    """Where the rewards are from, for tables."""

    def __post_init__(self):
        rewards = np.sort(finite_rewards("rewards", self.rewards, missing=True), axis=1)
        few = np.flatnonzero(np.isfinite(rewards).sum(1) < 2)
        if few.size:
            raise ValueError(
                f"`rewards` must hold at least 2 rewards of every prompt; prompt {few[0]} has "
                f"fewer ({few.size} of {len(rewards)} prompts). Draw more, or leave it out."
            )
        if (np.nanmin(rewards, axis=1) == np.nanmax(rewards, axis=1)).all():
            raise DataError(
                f"The reward is constant on all {len(rewards)} prompts: it says nothing about "
                "responses, so no policy can be trained on it."
            )
        object.__setattr__(self, "rewards", rewards)

    @property
    def spec(self) -> str:
        """`raw`, with the source where there is one."""
        return f"raw:{self.source}" if self.source else "raw"

    @cached_property
    def middle(self) -> np.ndarray:
        """Each prompt's rewards less their mean, all in one list."""
        centered = self.rewards - np.nanmean(self.rewards, axis=1, keepdims=True)
        return centered[np.isfinite(centered)]

    @cached_property
    def by_samples(self) -> list[np.ndarray]:
        """The rewards, (prompts, K), of the prompts that share a number of samples K."""
        counts = np.isfinite(self.rewards).sum(1)
        return [self.rewards[counts == k, :k] for k in np.unique(counts)]  # nan sorts last

    @cached_property
    def most_kl(self) -> float:
        """Nats that the samples can express: those of always giving each prompt's best one."""
        parts = [np.log(r.shape[1] / (r == r[:, -1:]).sum(1)).sum() for r in self.by_samples]
        return float(sum(parts) / len(self.rewards))

    def tilted(self, beta: float) -> "RawPolicy":
        """The policy that KL-regularised RL on the raw reward gives.

        - `beta`: KL strength, in units of the reward per nat.

        Raises SolveError where so small a β leaves only the best sample of each prompt.
        """
        if _check.positive("beta", beta) < WEAKEST * np.std(self.middle):
            samples = min(r.shape[1] for r in self.by_samples)
            raise SolveError(
                f"{samples} reference samples per prompt express {self.most_kl:.3g} nats at most, "
                "less than the KL asked for. Calibrate with more samples, or ask for a smaller KL."
            )
        return RawPolicy(self, beta)


@dataclass(frozen=True)
class RawPolicy:
    """Reference samples of each prompt weighted by e^{r/β}."""

    raw: RawRewards
    beta: float

    @cached_property
    def kl(self) -> float:
        """KL(policy ‖ reference) in nats, averaged over prompts."""
        total = 0.0
        for rewards in self.raw.by_samples:
            logs = log_weights(rewards, self.beta)
            total += float(np.mean(np.exp(logs) * logs, axis=1).sum())
        return total / len(self.raw.rewards)

    def win_rate(
        self, procedure: AbstractProcedure, against: AbstractProcedure | None = None
    ) -> float:
        """Chance to beat the reference, averaged over prompts: 1 − ∫ H(F) dG, F linear in cells.

        - `procedure`: must keep by rank; the raw policy has no density to read calibrated rewards
          from.
        - `against`: the opponent's procedure, any; `procedure` unless given.
        """
        if not isinstance(procedure, RankProcedure):
            raise ArgumentError(
                "procedure",
                f"must keep by rank to be played by a policy trained on raw rewards; "
                f"got {procedure!r}. Compare it with transforms such as Probit(), which raw "
                "rewards are when they are normally distributed.",
            )
        against = against or procedure
        total = 0.0
        for rewards in self.raw.by_samples:
            panels = _Panels(rewards.shape[1], procedure, against)
            size = max(1, 2_000_000 // panels.weights.size)
            for some in np.array_split(rewards, -(-len(rewards) // size)):
                kept = procedure.cdf(panels.cdf(np.exp(log_weights(some, self.beta))))
                total += float(np.sum(1 - kept.reshape(len(some), -1) @ panels.weights.ravel()))
        return total / len(self.raw.rewards)


class _Panels:
    """Gauss-Legendre panels within the K cells, cut where the opponent's density jumps."""

    def __init__(self, samples: int, procedure: RankProcedure, against: AbstractProcedure):
        # Enough for the polynomial H(F) g of a whole panel.
        nodes, weights = np.polynomial.legendre.leggauss(max(8, procedure.draws, against.draws))
        cells = np.arange(samples + 1) / samples
        fine = [] if isinstance(against, RankProcedure) else np.arange(FINE) / FINE
        edges = np.unique(np.concatenate([cells, fine, against.breaks]))
        width = np.diff(edges)[:, None]
        u = edges[:-1, None] + width * (1 + nodes) / 2
        self.weights = width / 2 * weights * against.density(u)
        self._cell = np.minimum((u * samples).astype(int), samples - 1)
        self._inside = u * samples - self._cell
        self._samples = samples

    def cdf(self, density: np.ndarray) -> np.ndarray:
        """F at all nodes, from one density per cell: (prompts, K) to (prompts, panels, nodes)."""
        share = density / self._samples
        before = np.cumsum(share, axis=1) - share
        return np.clip(before[:, self._cell] + self._inside * share[:, self._cell], 0, 1)
