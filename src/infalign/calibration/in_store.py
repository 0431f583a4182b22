"""A calibrator on the prompts of a store: it is fitted once and applied to the prompts of each
batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from infalign import _check
from infalign.core import AbstractTransform, Smoothing
from infalign.errors import ArgumentError
from infalign.stores import CalibrationStore
from infalign.stores.ragged import rectangle

from .choice import evenly
from .counting import Counting, FittedCounting
from .hierarchy import LEARNED_FROM
from .interface import AbstractCalibrator, AbstractFitted
from .placement import AbstractPlacement, BeliefPlacement, RankPlacement

__all__ = ["StoreCalibration", "some_rewards"]

PLAIN = Counting().fit([[0.0]])
"""Plain ranks; counting learns nothing from other prompts."""


@dataclass(frozen=True, eq=False)
class StoreCalibration:
    """Quantiles of the prompts of a store of any size, by a calibrator.

    The calibrator learns from a few hundred evenly spaced prompts; a prompt's own rewards are read
    when the prompt occurs in a batch. Picklable, like its store.

    Raises ValueError for a calibrator that needs data that neither the store nor `features` has.
    """

    store: CalibrationStore
    learned: AbstractFitted

    features: Mapping[str, Sequence[float]] | None = field(default=None, repr=False)
    """Prompt id → numbers that describe the prompt, for calibrators that read features."""

    def __post_init__(self):
        _require_supplied(self.learned, self.features)

    @classmethod
    def of(
        cls,
        store: CalibrationStore,
        calibrator: "AbstractCalibrator | AbstractFitted | StoreCalibration | None" = None,
    ) -> "StoreCalibration":
        """A calibration of the store. The argument is a calibrator, which is fitted to the store
        now; a fitted calibrator; a calibration of this store; or None, which means plain ranks."""
        if isinstance(calibrator, StoreCalibration):
            if calibrator.store is not store:
                raise ArgumentError(
                    "calibrator",
                    "must be fitted to `store`; got a StoreCalibration of another store. Use "
                    "`StoreCalibration.fit(store, …)`.",
                )
            return calibrator
        if isinstance(calibrator, AbstractCalibrator):
            return cls.fit(store, calibrator)
        if calibrator is None:
            return cls(store, PLAIN)
        such_as = "a calibrator, such as Pooled(), or what its `fit` returned"
        return cls(store, _check.instance("calibrator", calibrator, AbstractFitted, such_as))

    @classmethod
    def fit(
        cls,
        store: CalibrationStore,
        calibrator: AbstractCalibrator,
        *,
        features: Mapping[str, Sequence[float]] | None = None,
    ) -> "StoreCalibration":
        """Learn from a store, deterministically.

        - `features`: prompt id → numbers that describe the prompt, for all prompts of the store;
          only for calibrators that read features.
        """
        _require_supplied(calibrator, features)
        if features is None:
            return cls(store, calibrator.fit(some_rewards(store)))
        ids, positions = list(store.rewards), _learned_from(store)
        own = _described(features, [ids[position] for position in positions])
        return cls(store, calibrator.fit(some_rewards(store), own), features)

    def quantiles(self, prompt_ids: Sequence[str], rewards) -> np.ndarray:
        """Expected quantile of each reward under its prompt's reference, in [0, 1].

        - `rewards`: one per prompt id, shape (n,), or several, shape (n, m).

        Raises DataError for prompts that are not in the store, and ValueError for rewards that are
        not finite.
        """
        return self.place(prompt_ids, rewards).quantile

    def shaped(self, prompt_ids: Sequence[str], rewards, transform: AbstractTransform):
        """Expected Φ of each reward, as in `AbstractFitted.shaped`; arguments as in `quantiles`."""
        return self.place(prompt_ids, rewards).expected(transform)

    @property
    def plain(self) -> bool:
        """Whether quantiles are plain ranks, so that prompts share nothing."""
        return isinstance(self.learned, FittedCounting)

    @property
    def interior(self) -> bool:
        """Whether quantiles always lie strictly between 0 and 1."""
        return isinstance(self.learned, FittedCounting) and self.learned.smoothing != "none"

    def smoothed(self, smoothing: Smoothing) -> "StoreCalibration":
        """The same calibration with smoothed ranks; ValueError if its quantiles are not plain
        ranks."""
        if not isinstance(self.learned, FittedCounting):
            raise ArgumentError(
                "smoothing",
                f"applies to plain ranks; got {smoothing!r} with a calibrator that has none. Leave "
                "one of them out.",
            )
        return replace(self, learned=replace(self.learned, smoothing=smoothing))

    @cached_property
    def most_draws(self) -> float:
        """The largest number of draws of an opponent for which a reward's chance to win can be
        estimated. For plain ranks it is the smallest number of reference rewards of any prompt;
        otherwise there is no limit."""
        return self.store.samples if self.plain else np.inf

    def place(self, prompt_ids: Sequence[str], rewards) -> AbstractPlacement:
        """The rewards' positions among the reference rewards of their prompts, looked up once.

        Arguments and errors as in `quantiles`.
        """
        if isinstance(self.learned, FittedCounting):  # the store ranks all prompts at once
            ranks = self.store.ranks(prompt_ids, rewards)
            return RankPlacement(*ranks, self.learned.smoothing)
        positions, first, rows = np.unique(
            self.store.positions(prompt_ids), return_index=True, return_inverse=True
        )
        own = rectangle([self.store.rewards.row(int(position)) for position in positions])
        described = None
        if self.features is not None:
            described = _described(self.features, [prompt_ids[i] for i in first])
        beliefs = self.learned.on(own, described).beliefs(rows, rewards)
        values = np.asarray(rewards, float)
        one_each = (len(rows), *[1] * (values.ndim - 1))
        lowest, highest = (
            end(own, axis=1)[rows].reshape(one_each) for end in (np.nanmin, np.nanmax)
        )
        return BeliefPlacement(beliefs, values, lowest, highest)


def some_rewards(store: CalibrationStore) -> np.ndarray:
    """The reference rewards that calibrators learn from, (prompts, K), nan where a prompt has
    fewer. The prompts are evenly spaced in the store."""
    return rectangle([store.rewards.row(int(position)) for position in _learned_from(store)])


def _learned_from(store: CalibrationStore) -> np.ndarray:
    """Positions of the prompts that calibrators learn from."""
    return evenly(np.ones(len(store.rewards), bool), LEARNED_FROM)


def _described(features: Mapping[str, Sequence[float]], prompt_ids: Sequence[str]) -> np.ndarray:
    """Features of these prompts, (prompts, d)."""
    missing = [prompt_id for prompt_id in prompt_ids if prompt_id not in features]
    if missing:
        raise ArgumentError(
            "features",
            f"must describe every prompt of the store; prompt_id {missing[0]!r} has none "
            f"({len(missing)} of {len(prompt_ids)} looked up). Add it.",
        )
    return _check.numbers("features", [features[prompt_id] for prompt_id in prompt_ids])


def _require_supplied(calibrator: AbstractCalibrator | AbstractFitted, features) -> None:
    """Raise ArgumentError unless the calibrator can be fitted to a store and the given features."""
    name = type(calibrator).__name__
    if calibrator.needs == "policy samples":
        raise ArgumentError(
            "calibrator",
            f"must read what a calibration store holds; {name} also reads samples of a policy, in "
            "the order of the rewards. Fit it to arrays and shape with what it learned, "
            "`Refined(…).fit(rewards).shaped(rows, rewards, transform)`, or use Pooled().",
        )
    if calibrator.needs == "features" and features is None:
        raise ArgumentError(
            "features",
            f"must describe each prompt for {name}; got None. Fit with "
            "`StoreCalibration.fit(store, QuantileRegression(), features={prompt_id: numbers})` "
            "and pass the result as `calibrator`, or use Pooled().",
        )
    if calibrator.needs == "rewards" and features is not None:
        raise ArgumentError("features", f"are not read by {name}. Leave them out.")
