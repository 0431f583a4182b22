"""The interface of calibrators, which give quantiles after they are fitted to the reference rewards
of many prompts."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from infalign._look import Shown
from infalign.core import AbstractTransform, finite_rewards

__all__ = [
    "AbstractCalibrator",
    "AbstractFitted",
    "Belief",
    "Beliefs",
    "sorted_rewards",
    "tied_share",
]

Needs = Literal["rewards", "features", "policy samples"]
"""The input of a calibrator: reference rewards alone, or also features of each prompt, or also
samples of a policy."""


@dataclass(frozen=True)
class Belief(Shown):
    """A posterior of the quantiles of m rewards: a mixture of uniform distributions on
    intervals."""

    low: np.ndarray
    """Lower ends, shape (parts, m), in [0, 1]."""

    high: np.ndarray
    """Upper ends; a part whose ends are equal is a point."""

    weights: np.ndarray
    """Probability of each part, shape (parts,); the probabilities sum to 1."""

    @property
    def mean(self) -> np.ndarray:
        """Expected quantiles, shape (m,)."""
        return self.weights @ (self.low + self.high) / 2

    def shaped(self, transform: AbstractTransform) -> np.ndarray:
        """Expected Φ, shape (m,)."""
        return self.weights @ transform.average(self.low, self.high)


@dataclass(frozen=True, eq=False)
class Beliefs(Shown):
    """Posteriors of the quantiles of rewards of several prompts; results have their shape."""

    shape: tuple[int, ...]

    parts: Sequence[tuple[np.ndarray, Belief]]
    """For each prompt, a mask of its entries along the first axis, and the belief about those
    entries."""

    @property
    def mean(self) -> np.ndarray:
        """Expected quantiles."""
        return self._joined(lambda belief: belief.mean)

    def shaped(self, transform: AbstractTransform) -> np.ndarray:
        """Expected Φ."""
        return self._joined(lambda belief: belief.shaped(transform))

    def _joined(self, read: Callable[[Belief], np.ndarray]) -> np.ndarray:
        joined = np.empty(self.shape)
        for own, belief in self.parts:
            joined[own] = read(belief).reshape(-1, *self.shape[1:])
        return joined


@dataclass(frozen=True)
class AbstractFitted(ABC):
    """A fitted calibrator: the quantile of any reward on any prompt that it was fitted to."""

    @property
    def needs(self) -> Needs:
        """The input of `on`."""
        return "rewards"

    @property
    @abstractmethod
    def prompts(self) -> int:
        """Number of prompts; their rows are 0 to `prompts` − 1."""

    @abstractmethod
    def on(self, rewards, features=None) -> "AbstractFitted":
        """The same learned parameters, applied to the reference rewards of one or more other
        prompts.

        Arguments and errors as in `AbstractCalibrator.fit`.
        """

    def _belief(self, row: int, rewards: np.ndarray) -> Belief:
        """The posterior of the quantiles of one prompt's rewards, shape (m,)."""
        low, high = self._intervals(row, rewards)
        return Belief(low[None], high[None], np.ones(1))

    def _intervals(self, row: int, rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the quantile interval of each reward of one prompt, for calibrators whose belief
        is that interval. A subclass implements this method or `_belief`."""
        raise NotImplementedError

    def quantiles(self, rows, rewards) -> np.ndarray:
        """Expected quantile of each reward under its prompt's reference, in [0, 1]. Quantiles of
        held-out reference samples are uniform.

        - `rows`: the prompt of each entry of `rewards`, shape (m,), given as its row in `fit`.
        - `rewards`: finite, shape (m,), or (m, …) for several rewards of one prompt.

        Raises ValueError for unknown rows and rewards that are not finite.
        """
        return self.beliefs(rows, rewards).mean

    def shaped(self, rows, rewards, transform: AbstractTransform) -> np.ndarray:
        """Training reward: Φ averaged over the posterior of each reward's quantile.

        The average covers the quantiles that a reward shares with tied reference rewards, and the
        uncertainty that few samples leave. Φ of the expected quantile would be too low where Φ is
        convex, and would reward lucky responses. Arguments and errors as in `quantiles`;
        `transform` must be finite at the ends of [0, 1].
        """
        return self.beliefs(rows, rewards).shaped(transform)

    def beliefs(self, rows, rewards) -> Beliefs:
        """The posterior of each reward's quantile; arguments and errors as in `quantiles`."""
        rows, values = self._checked(rows, rewards)
        entries = [(row, rows == row) for row in np.unique(rows)]
        parts = [(own, self._belief(int(row), values[own].ravel())) for row, own in entries]
        return Beliefs(values.shape, parts)

    def _checked(self, rows, rewards):
        rows, values = np.asarray(rows), np.asarray(rewards, float)
        if rows.ndim != 1 or values.shape[:1] != rows.shape or rows.dtype.kind not in "iu":
            raise ValueError(
                f"`rows` must be whole numbers, one per entry of `rewards`; got shape {rows.shape} "
                f"of type {rows.dtype} for rewards of shape {values.shape}."
            )
        outside = (rows < 0) | (rows >= self.prompts)
        if outside.any():
            raise ValueError(
                f"`rows` must lie from 0 to {self.prompts - 1}; got {rows[outside][0]} "
                f"({outside.sum()} of {rows.size}). Fit the calibrator on the prompts you train on."
            )
        if not np.isfinite(values).all():
            bad = values[~np.isfinite(values)]
            raise ValueError(
                f"`rewards` must be finite; got {bad[0]:g} ({bad.size} of {values.size} entries). "
                "Score those responses again."
            )
        return rows, values


@dataclass(frozen=True)
class AbstractCalibrator(ABC):
    """A method to estimate quantiles from reference rewards."""

    @property
    def needs(self) -> Needs:
        """The input of `fit`; `StoreCalibration` supplies it or rejects the calibrator."""
        return "rewards"

    @abstractmethod
    def fit(self, rewards, features=None) -> AbstractFitted:
        """Learn from reference rewards.

        - `rewards`: rewards of reference samples, shape (prompts, K), any scale; nan where a prompt
          has fewer samples.
        - `features`: numbers that describe each prompt, shape (prompts, d), for calibrators that
          read them.

        Raises ValueError for other shapes or values, and for prompts without samples if the
        calibrator needs samples.
        """


def sorted_rewards(rewards, *, at_least: int = 1) -> np.ndarray:
    """Checked reference rewards, (prompts, K), increasing, nan last."""
    rewards = np.sort(finite_rewards("rewards", rewards, missing=True), axis=1)
    counts = np.isfinite(rewards).sum(1)
    short = np.flatnonzero(counts < at_least)
    if short.size:
        raise ValueError(
            f"`rewards` must hold at least {at_least} reward of every prompt; prompt {short[0]} "
            f"has {counts[short[0]]} ({short.size} of {len(rewards)} prompts are short). Draw "
            "some, or use QuantileRegression with features."
        )
    return rewards


def tied_share(rewards: np.ndarray) -> np.ndarray:
    """Share of tied pairs among each prompt's samples, shape (prompts,); 0 for a single sample.

    - `rewards`: increasing, nan last.
    """
    counts = np.isfinite(rewards).sum(1)
    shares = np.zeros(len(rewards))
    for row in np.flatnonzero((np.diff(rewards, axis=1) == 0).any(1)):
        _, same = np.unique(rewards[row, : counts[row]], return_counts=True)
        shares[row] = np.sum(same * (same - 1)) / (counts[row] * (counts[row] - 1))
    return shares
