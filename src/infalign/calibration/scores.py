"""Any calibrator on normal scores, which do not depend on the scale of the reward.

One increasing function maps all rewards, so that the rewards of all prompts together are standard
normal, like van der Waerden's scores (1952). On that axis prompts can differ in location and scale
even if the reward has bounds: the probabilities of a reward model crowd at 0 and 1, and its logits
have a ceiling.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtr, ndtri

from infalign.errors import ArgumentError

from .interface import AbstractCalibrator, AbstractFitted, sorted_rewards

__all__ = ["FittedScores", "NormalScores", "Scale"]

KNOTS = 33
"""Knots of the map, evenly spaced on the normal axis; it is linear between and beyond them."""


@dataclass(frozen=True)
class NormalScores(AbstractCalibrator):
    """A calibrator applied to normal scores of the rewards, from their ranks among all prompts.

    When: the reward has bounds, or its spread depends on its level, so that easy and hard prompts
    have differently shaped rewards. Around `Pooled` it is called `pooled-ranks`. An increasing map
    of the rewards does not change its quantiles, except for interpolation between samples. If the
    rewards of all prompts share one shape, the map distorts it, and the calibrator alone wins a few
    tenths of a point more.
    """

    calibrator: AbstractCalibrator

    def __post_init__(self):
        if self.calibrator.needs == "policy samples":
            raise ArgumentError(
                "calibrator",
                "must read reference rewards, which are mapped to normal scores; got "
                f"{type(self.calibrator).__name__}, whose policy samples are not. Use it alone.",
            )

    @property
    def needs(self):
        return self.calibrator.needs

    def fit(self, rewards, features=None):
        scale = Scale.of(sorted_rewards(rewards, at_least=0))
        return FittedScores(self.calibrator.fit(scale(rewards), features), scale)


@dataclass(frozen=True)
class Scale:
    """An increasing map from rewards to normal scores, by its knots."""

    rewards: np.ndarray = field(repr=False)
    """Increasing."""

    scores: np.ndarray = field(repr=False)
    """Increasing; a single knot if all rewards tie."""

    @classmethod
    def of(cls, rewards: np.ndarray) -> "Scale":
        """The scale of the rewards of many prompts, an array of any shape; nan marks a missing
        reward."""
        known = rewards[np.isfinite(rewards)]
        end = ndtri(known.size / (known.size + 1))
        scores = np.linspace(-end, end, KNOTS)
        # The outermost knots are the extreme rewards themselves.
        shares = np.clip((ndtr(scores) * (known.size + 1) - 1) / max(known.size - 1, 1), 0, 1)
        knots = np.quantile(known, shares)
        new = np.append(True, np.diff(knots) > 0)
        return cls(knots[new], scores[new])

    def __call__(self, rewards) -> np.ndarray:
        """Normal scores, elementwise; nan stays."""
        rewards, x, z = np.asarray(rewards, float), self.rewards, self.scores
        if x.size == 1:
            return rewards - x + z
        slopes = np.diff(z) / np.diff(x)
        inside = np.interp(rewards, x, z)
        below = np.minimum(rewards - x[0], 0) * slopes[0]
        return inside + below + np.maximum(rewards - x[-1], 0) * slopes[-1]


@dataclass(frozen=True)
class FittedScores(AbstractFitted):
    """A calibrator fitted to normal scores, and the map to them."""

    learned: AbstractFitted
    scale: Scale

    @property
    def needs(self):
        return self.learned.needs

    @property
    def prompts(self):
        return self.learned.prompts

    def on(self, rewards, features=None):
        rewards = sorted_rewards(rewards, at_least=0)
        return FittedScores(self.learned.on(self.scale(rewards), features), self.scale)

    def _belief(self, row, rewards):
        return self.learned._belief(row, self.scale(rewards))
