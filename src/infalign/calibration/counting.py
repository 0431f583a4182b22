"""The plain rank among a prompt's own reference samples."""

from dataclasses import dataclass, field

import numpy as np

from infalign.core import Smoothing, interval

from .interface import AbstractCalibrator, AbstractFitted, sorted_rewards

__all__ = ["Counting", "FittedCounting"]


@dataclass(frozen=True)
class Counting(AbstractCalibrator):
    """Mid-rank among the prompt's own samples, as in `infalign.quantiles`: the default.

    When: always safe, and exact as K grows. It suits rewards with ties (pass or fail, levels),
    prompts that have nothing in common, and K above a hundred. With few samples its standard error
    is up to 1/√(4K), and rewards above the best sample cannot be distinguished.

    >>> Counting().fit([[1.0, 2.0, 3.0, 4.0]]).quantiles([0], [2.0]).tolist()
    [0.375]
    """

    smoothing: Smoothing = "none"
    """`none`, or `add-half`: (rank + ½)/(K + 1), for unbounded transforms."""

    def __post_init__(self):
        interval(np.zeros(1), np.zeros(1), self.smoothing)  # rejects unknown values

    def fit(self, rewards, features=None):
        rewards = sorted_rewards(rewards)
        return FittedCounting(rewards, np.isfinite(rewards).sum(1), self.smoothing)


@dataclass(frozen=True)
class FittedCounting(AbstractFitted):
    """Sorted reference rewards of every prompt."""

    rewards: np.ndarray = field(repr=False)
    counts: np.ndarray = field(repr=False)
    smoothing: Smoothing = "none"

    @property
    def prompts(self):
        return len(self.rewards)

    def on(self, rewards, features=None):
        return Counting(self.smoothing).fit(rewards, features)

    def _intervals(self, row, rewards):
        return interval(self.rewards[row, : self.counts[row]], rewards, self.smoothing)
