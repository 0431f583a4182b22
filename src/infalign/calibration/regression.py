"""Quantiles from prompt features: predicted location and scale, and the hierarchy on the residuals.

Ridge regression predicts a prompt's median, and the log of the typical distance between two of its
samples. Rewards are standardized by these predictions and then pooled. A prompt of the training set
is predicted from the other prompts, so that its samples are not used twice.
"""

from dataclasses import dataclass, field

import numpy as np

from infalign._look import Shown

from .interface import AbstractCalibrator, AbstractFitted, sorted_rewards, tied_share
from .pooled import (
    ATOMS,
    FEWEST,
    FittedPooled,
    check_concentration,
    fit_hierarchy,
    gaps,
    lessons,
)
from .ridge import Ridge

__all__ = ["FittedRegression", "Predicted", "Predictor", "QuantileRegression"]


@dataclass(frozen=True)
class QuantileRegression(AbstractCalibrator):
    """`Pooled`, with location and scale predicted from features of the prompt.

    When: features separate easy prompts from hard ones (an embedding of the prompt, its length, the
    reward of one greedy response), and K is small. It is the only calibrator for prompts without
    samples (K = 0, a row of nan), whose quantiles follow from the features alone. Useless features
    cost little, since the penalty grows. Features shift a prompt's whole distribution. If prompts
    with higher rewards do not also have a longer upper tail, `Pooled` may win more.

    Falls back to plain ranks when `Pooled` does, and then needs a sample of every prompt. On a
    store, features are given by prompt id: `StoreCalibration.fit(store, QuantileRegression(),
    features=…)`.
    """

    concentration: float | None = None
    """As in `Pooled`."""

    def __post_init__(self):
        check_concentration(self.concentration)

    @property
    def needs(self):
        return "features"

    def fit(self, rewards, features=None):
        rewards = sorted_rewards(rewards, at_least=0)
        features = _checked(features, len(rewards))
        _pooled_if_unsampled(rewards)
        predictor, own = Predictor.learned(rewards, features)
        learned = fit_hierarchy(own.standard(rewards), self.concentration)
        return FittedRegression(learned, own, predictor)


@dataclass(frozen=True)
class Predicted:
    """Predicted location and scale of each prompt, shape (prompts,)."""

    location: np.ndarray = field(repr=False)
    scale: np.ndarray = field(repr=False)

    def standard(self, rewards: np.ndarray) -> np.ndarray:
        """Rewards of every prompt, (prompts, K), minus the prompt's location and divided by its
        scale."""
        return (rewards - self.location[:, None]) / self.scale[:, None]


@dataclass(frozen=True)
class Predictor:
    """Predicts location and scale from features."""

    center: np.ndarray = field(repr=False)
    """Mean of each feature."""

    spread: np.ndarray = field(repr=False)
    """Standard deviation of each feature, so that one penalty suits all; 1 for a constant
    feature."""

    location: Ridge
    log_scale: Ridge

    @classmethod
    def learned(cls, rewards: np.ndarray, features: np.ndarray) -> tuple["Predictor", Predicted]:
        """The predictor learned from increasing rewards, nan last; and the prediction of each
        prompt from the other prompts."""
        spread = features.std(0)
        center, spread = features.mean(0), np.where(spread > 0, spread, 1.0)
        features = (features - center) / spread
        ridges, predictions = [], []
        for y in _summaries(rewards):
            known = np.isfinite(y)
            if not known.any():  # single samples have no scale: all share one
                known, y = np.ones(len(y), bool), np.zeros(len(y))
            ridge, left_out = Ridge.learned(features[known], y[known])
            predicted = ridge(features)
            predicted[known] = left_out
            ridges.append(ridge)
            predictions.append(predicted)
        location, log_scale = predictions
        return cls(center, spread, *ridges), Predicted(location, np.exp(log_scale))

    def __call__(self, features: np.ndarray) -> Predicted:
        """Predictions for prompts outside the training set."""
        features = (features - self.center) / self.spread
        return Predicted(self.location(features), np.exp(self.log_scale(features)))


def _summaries(rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each prompt's median, and the log of the median distance between two samples; nan if
    unknown."""
    median, log_scale = np.full((2, len(rewards)), np.nan)
    some = np.isfinite(rewards).any(1)
    median[some] = np.nanmedian(rewards[some], axis=1)
    distances = gaps(rewards)
    distances[distances == 0] = np.nan  # ties
    some = np.isfinite(distances).any(1)
    log_scale[some] = np.log(np.nanmedian(distances[some], axis=1))
    return median, log_scale


@dataclass(frozen=True)
class FittedRegression(Shown, AbstractFitted):
    """A hierarchy fitted to standardized rewards, or plain ranks if it does not apply."""

    learned: AbstractFitted
    own: Predicted
    predictor: Predictor

    @property
    def needs(self):
        return "features"

    @property
    def prompts(self):
        return self.learned.prompts

    def on(self, rewards, features=None):
        rewards = sorted_rewards(rewards, at_least=0)
        own = self.predictor(_checked(features, len(rewards), len(self.predictor.center)))
        rewards = own.standard(rewards)
        at = self.learned.at if isinstance(self.learned, FittedPooled) else self.learned.on
        return FittedRegression(at(rewards), own, self.predictor)

    def _belief(self, row, rewards):
        return self.learned._belief(row, (rewards - self.own.location[row]) / self.own.scale[row])


def _checked(features, prompts: int, columns: int | None = None) -> np.ndarray:
    """Features as a finite array, (prompts, d)."""
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
    """If the hierarchy does not apply, raise ValueError for prompts without samples, which have no
    ranks to fall back to."""
    counts = np.isfinite(rewards).sum(1)
    none = np.flatnonzero(counts == 0)
    if none.size and not lessons(rewards).any():
        ties, several = tied_share(rewards), counts >= 2
        tied = ties[several].mean() if several.any() else 0.0
        raise ValueError(
            f"`rewards` must hold a reward of every prompt where nothing can be learned from "
            f"others: {(several & (ties == 0)).sum()} prompts have two samples and no ties "
            f"({FEWEST} are needed), and {100 * tied:.1f} % of all pairs tie ({100 * ATOMS:g} % "
            f"may); prompt {none[0]} has none ({none.size} of {len(rewards)} prompts). Draw "
            "samples of it."
        )
