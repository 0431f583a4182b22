"""Quantiles from prompt features: the hierarchy whose priors are linear in what describes a prompt.

Location and log scale of a prompt are normal around a ridge regression on its features, with the
penalty that leave-one-out errors choose. Its own samples, if it has any, update that prior.
"""

from dataclasses import dataclass, field

import numpy as np

from .interface import AbstractCalibrator, AbstractFitted, sorted_rewards, tied_share
from .pooled import ATOMS, FEWEST, FittedPooled, check_concentration, fit_hierarchy


@dataclass(frozen=True)
class QuantileRegression(AbstractCalibrator):
    """As `Pooled`, with location and scale predicted from features of the prompt.

    When: there are features that tell easy prompts from hard ones (an embedding of the prompt, its
    length, the reward of one greedy response), and K is small; the only one that works for prompts
    that were never sampled (K = 0, a row of nan), whose quantiles are what the features predict.
    Useless features cost little, as the penalty grows.

    Falls back to counting where `Pooled` does, and then needs a sample of every prompt.
    """

    concentration: float | None = None
    """As of `Pooled`."""

    def __post_init__(self):
        check_concentration(self.concentration)

    def fit(self, rewards, features=None):
        rewards = sorted_rewards(rewards, at_least=0)
        features = _checked(features, len(rewards))
        units = Units.of(features)
        _pooled_if_unsampled(rewards)
        return FittedRegression(
            fit_hierarchy(rewards, units.design(features), self.concentration), units
        )


@dataclass(frozen=True)
class Units:
    """Middle and spread of each feature, so that one penalty suits all."""

    center: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> "Units":
        """Mean and standard deviation; a feature that does not vary is left where it is."""
        spread = features.std(0)
        return cls(features.mean(0), np.where(spread > 0, spread, 1.0))

    def design(self, features: np.ndarray) -> np.ndarray:
        """A constant and the standardized features, (prompts, 1 + d)."""
        return np.hstack([np.ones((len(features), 1)), (features - self.center) / self.spread])


@dataclass(frozen=True)
class FittedRegression(AbstractFitted):
    """A fitted hierarchy, or counting where it does not apply, and the units of the features."""

    learned: AbstractFitted
    units: Units = field(repr=False)

    @property
    def prompts(self):
        return self.learned.prompts

    def on(self, rewards, features=None):
        rewards = sorted_rewards(rewards, at_least=0)
        features = _checked(features, len(rewards), len(self.units.center))
        if isinstance(self.learned, FittedPooled):
            learned = self.learned.at(rewards, self.units.design(features))
        else:
            learned = self.learned.on(rewards)
        return FittedRegression(learned, self.units)

    def _belief(self, row, rewards):
        return self.learned._belief(row, rewards)


def _checked(features, prompts: int, columns: int | None = None) -> np.ndarray:
    """Features as an array, (prompts, d): one clear error for what is none."""
    if features is None:
        raise ValueError(
            "`features` must describe each prompt for QuantileRegression; got none. Give numbers "
            "of shape (prompts, d), or use Pooled."
        )
    features = np.asarray(features, float)
    width = "d" if columns is None else columns
    wide = features.ndim == 2 and columns in (None, features.shape[1])
    if not wide or len(features) != prompts or not features.size:
        raise ValueError(
            f"`features` must have shape ({prompts}, {width}), one row per prompt; got "
            f"{features.shape}. Describe each prompt by the same numbers."
        )
    bad = ~np.isfinite(features)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"`features` must be finite; got {features[row, column]:g} at prompt {row}, column "
            f"{column} ({bad.sum()} of {bad.size} entries). Fill them in, or leave the column out."
        )
    return features


def _pooled_if_unsampled(rewards: np.ndarray) -> None:
    """Prompts without a sample need the hierarchy: counting says nothing of them."""
    counts = np.isfinite(rewards).sum(1)
    none, several = np.flatnonzero(counts == 0), counts >= 2
    ties = tied_share(rewards)[several].mean() if several.any() else 0.0
    if none.size and (several.sum() < FEWEST or ties > ATOMS):
        raise ValueError(
            f"`rewards` must hold a reward of every prompt where nothing can be learned from "
            f"others: {several.sum()} prompts have two samples ({FEWEST} are needed), and "
            f"{100 * ties:.1f} % of their pairs tie ({100 * ATOMS:g} % may); prompt {none[0]} has "
            f"none ({none.size} of {len(rewards)} prompts). Draw samples of it."
        )
