"""Plain RLHF on the raw reward, on the quantile axis: the baseline for every transform.

KL-regularized RL on the raw reward tilts each prompt's reference samples by e^{r/β}, with one β for
all prompts. This amounts to a transform too: each prompt's own quantile function. With K rewards of
a prompt, the tilted policy has one density per cell ((k − 1)/K, k/K] of the quantile axis.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.special import log_softmax

from infalign import _check
from infalign._look import Shown
from infalign.errors import DataError, SolveError

from ._inputs import finite_rewards
from ._interface import AbstractProcedure, RankProcedure, require_by_rank, require_procedure
from ._shapes import Float

FINE = 64
"""Minimum number of panels of the quantile axis where the opponent's law is not a polynomial."""

WEAKEST = 1e-12
"""β, in standard deviations of the reward, below which only each prompt's best sample is left."""

NODES = 8
"""Minimum number of nodes of a panel; exact for polynomials of degree 15."""

AT_ONCE = 2_000_000
"""Number of nodes, over prompts, whose CDFs are held in memory at once."""


def log_weights(
    rewards: Float[np.ndarray, "*prompts k"], beta: float
) -> Float[np.ndarray, "*prompts k"]:
    """log of e^{r/β} / mean_k e^{r_k/β} for each of a prompt's samples, along the last axis."""
    return log_softmax(rewards / beta, axis=-1) + np.log(rewards.shape[-1])


@dataclass(frozen=True)
class RawRewards(Shown):
    """The raw reward as a candidate for `compare`, to show the result of plain RLHF.

    - `rewards`: rewards of reference samples, shape (prompts, K), any scale; nan where a prompt has
      fewer samples. One row is enough for a reward with the same distribution on all prompts.

    A prompt's ties are broken at random. K must be well above e^KL: with few samples, the best ones
    replace a tail that was not observed.

    >>> from infalign import BestOfN, compare
    >>> normal = np.random.default_rng(0).normal(size=(20, 2000))
    >>> raw = compare(BestOfN(8), [RawRewards(normal)], kl=0.5)[1]
    >>> raw.transform, round(raw.win_rate, 2)         # the probit transform wins .879
    ('raw', 0.88)
    """

    rewards: Float[np.ndarray, "prompts k"] = field(repr=False, compare=False)

    source: str = ""
    """Source of the rewards, for tables."""

    def __post_init__(self) -> None:
        rewards = np.sort(finite_rewards("rewards", self.rewards, missing=True), axis=1)
        few = np.flatnonzero(np.isfinite(rewards).sum(1) < 2)
        if few.size:
            raise ValueError(
                f"`rewards` must hold at least 2 rewards of every prompt; prompt {few[0]} has "
                f"fewer ({few.size} of {len(rewards)} prompts). Draw more, or leave it out."
            )
        if (np.nanmin(rewards, axis=1) == np.nanmax(rewards, axis=1)).all():
            raise DataError(
                f"`rewards` are constant on each of the {len(rewards)} prompts: they do not rank "
                "responses, so no policy can be trained on them. Choose another reward."
            )
        object.__setattr__(self, "rewards", rewards)
        _check.text("source", self.source)

    @property
    def spec(self) -> str:
        """`raw`, with the source if given."""
        return f"raw:{self.source}" if self.source else "raw"

    @cached_property
    def middle(self) -> Float[np.ndarray, "_"]:
        """Each prompt's rewards minus their mean, in one list."""
        centered = self.rewards - np.nanmean(self.rewards, axis=1, keepdims=True)
        return centered[np.isfinite(centered)]

    @cached_property
    def by_samples(self) -> list[np.ndarray]:
        """The rewards, (prompts, K), for each group of prompts with the same number of samples
        K."""
        counts = np.isfinite(self.rewards).sum(1)
        return [self.rewards[counts == k, :k] for k in np.unique(counts)]  # nan sorts last

    @cached_property
    def most_kl(self) -> float:
        """Largest mean KL that the samples can express, reached by always giving the best
        sample."""
        parts = [np.log(r.shape[1] / (r == r[:, -1:]).sum(1)).sum() for r in self.by_samples]
        return float(sum(parts) / len(self.rewards))

    def tilted(self, beta: float) -> "RawPolicy":
        """The policy that KL-regularized RL on the raw reward gives.

        - `beta`: KL strength, in units of the reward per nat.

        Raises SolveError if β is so small that only the best sample of each prompt is left.
        """
        if _check.positive("beta", beta) < WEAKEST * np.std(self.middle):
            samples = min(r.shape[1] for r in self.by_samples)
            raise SolveError(
                f"{samples} reference samples per prompt express at most {self.most_kl:.3g} nats, "
                "less than the KL asked for. Calibrate with more samples, or ask for a smaller KL."
            )
        return RawPolicy(self, beta)


@dataclass(frozen=True)
class RawPolicy(Shown):
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

        - `procedure`: must select by rank, because the raw policy does not define calibrated
          rewards.
        - `against`: the opponent's procedure, of any kind. Default: `procedure`.
        """
        remedy = (
            "A policy trained on raw rewards has no calibrated reward to select by. Compare "
            "transforms such as Probit(), which equals raw rewards that are normally distributed."
        )
        by_rank = require_by_rank("procedure", procedure, remedy)
        against = by_rank if against is None else require_procedure("against", against)
        total = 0.0
        for rewards in self.raw.by_samples:
            panels = _Panels(rewards.shape[1], by_rank, against)
            size = max(1, AT_ONCE // panels.weights.size)
            for some in np.array_split(rewards, -(-len(rewards) // size)):
                losses = by_rank.cdf(panels.cdf(np.exp(log_weights(some, self.beta))))
                total += float(np.sum(1 - losses.reshape(len(some), -1) @ panels.weights.ravel()))
        return total / len(self.raw.rewards)


class _Panels:
    """Gauss-Legendre panels within the K cells, cut where the opponent's density jumps."""

    def __init__(self, samples: int, procedure: RankProcedure, against: AbstractProcedure) -> None:
        # F is linear in a panel, so H(F) g is a polynomial of degree n + n' − 1: exact with
        # max(n, n') nodes.
        nodes, weights = np.polynomial.legendre.leggauss(max(NODES, procedure.draws, against.draws))
        cells = np.arange(samples + 1) / samples
        fine = np.zeros(0) if isinstance(against, RankProcedure) else np.arange(FINE) / FINE
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
