"""Placements: where the rewards of a batch rank among the reference rewards of their prompts.

A placement is looked up once (`StoreCalibration.place`). Quantiles, expected training rewards and
chances to win are all read from it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from infalign._look import Shown
from infalign.core import AbstractTransform, RankProcedure, Smoothing, Tabulated, ends

from .interface import Beliefs

__all__ = ["AbstractPlacement", "BeliefPlacement", "RankPlacement"]

NODES = (1 - np.cos(np.pi * np.linspace(0, 1, 4001))) / 2
"""Quantiles at which an opponent's law is tabulated; denser toward both ends."""


@dataclass(frozen=True, eq=False)
class AbstractPlacement(ABC):
    """Placed rewards; every result has the shape of the rewards."""

    @property
    @abstractmethod
    def quantile(self) -> np.ndarray:
        """Expected quantile of each reward under its prompt's reference, in [0, 1]."""

    @property
    @abstractmethod
    def outside(self) -> np.ndarray:
        """Whether each reward lies below or above all reference rewards of its prompt."""

    @property
    def unsmoothed(self) -> "AbstractPlacement":
        """The same placement with plain mid-ranks, for logs that are compared between runs."""
        return self

    @abstractmethod
    def expected(self, transform: AbstractTransform) -> np.ndarray:
        """Expected Φ of each reward's quantile."""

    @abstractmethod
    def win_chance(self, opponent: RankProcedure) -> np.ndarray:
        """Chance to beat the reference decoded by `opponent`; a tie counts as half a win."""


@dataclass(frozen=True, eq=False)
class RankPlacement(Shown, AbstractPlacement):
    """Ranks among each prompt's own reference rewards."""

    below: np.ndarray
    """Reference rewards below each reward, shape (n, …)."""

    up_to: np.ndarray
    """Reference rewards below or equal to it."""

    counts: np.ndarray
    """Reference rewards of its prompt, shape (n, 1, …)."""

    smoothing: Smoothing = "none"

    @property
    def quantile(self):
        low, high = self._interval()
        return (low + high) / 2

    @property
    def outside(self):
        return (self.up_to == 0) | (self.below == self.counts)

    @property
    def unsmoothed(self):
        return replace(self, smoothing="none")

    def expected(self, transform):
        return transform.average(*self._interval())

    def win_chance(self, opponent):
        """Unbiased: the share of all subsets of the prompt's reference rewards that lose. It needs
        at least as many reference rewards as `opponent` draws."""
        counts = np.broadcast_to(self.counts, self.below.shape)
        chances = np.empty(self.below.shape)
        for k in np.unique(self.counts):
            own, law = counts == k, opponent.subset_cdf(int(k))
            chances[own] = (law[self.below[own]] + law[self.up_to[own]]) / 2
        return chances

    def _interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the quantile interval that each reward shares with tied reference rewards."""
        return ends(self.below, self.up_to, self.counts, self.smoothing)


@dataclass(frozen=True, eq=False)
class BeliefPlacement(Shown, AbstractPlacement):
    """A calibrator's beliefs about each quantile, and the range of the reference rewards."""

    beliefs: Beliefs
    rewards: np.ndarray
    lowest: np.ndarray
    """Lowest reference reward of each reward's prompt, shape (n, 1, …)."""

    highest: np.ndarray

    @property
    def quantile(self):
        return self.beliefs.mean

    @property
    def outside(self):
        return (self.rewards < self.lowest) | (self.rewards > self.highest)

    def expected(self, transform):
        return self.beliefs.shaped(transform)

    def win_chance(self, opponent):
        return self.expected(_tabulated(opponent))


@lru_cache(maxsize=16)
def _tabulated(opponent: RankProcedure) -> Tabulated:
    """The opponent's law as a transform: its average over a belief is the chance to win."""
    return Tabulated(tuple(NODES.tolist()), tuple(opponent.cdf(NODES).tolist()))
