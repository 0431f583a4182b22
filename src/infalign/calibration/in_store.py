"""A calibrator on the prompts of a store: what it learned once, applied to whom it is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from infalign import _check
from infalign.core import AbstractTransform
from infalign.stores import CalibrationStore
from infalign.stores.ragged import rectangle

from .choice import evenly
from .counting import Counting, FittedCounting
from .hierarchy import LEARNED_FROM
from .interface import AbstractCalibrator, AbstractFitted
from .location import AbstractLocation, BeliefLocation, RankLocation

PLAIN = Counting().fit([[0.0]])
"""Plain ranks: counting learns nothing from other prompts."""


@dataclass(frozen=True, eq=False)
class StoreCalibration:
    """Quantiles of the prompts of a store, of any size, by a calibrator that shares between them.

    What prompts have in common is learned from some hundreds of them, evenly spaced; a prompt's own
    rewards are read when it is asked for. Picklable as its store is.
    """

    store: CalibrationStore
    learned: AbstractFitted

    @classmethod
    def of(
        cls, store: CalibrationStore, calibrator: AbstractCalibrator | AbstractFitted | None = None
    ) -> "StoreCalibration":
        """A calibrator on a store, as it is given: one that learns from the store now, one that has
        learned already, or None for plain ranks."""
        if isinstance(calibrator, AbstractCalibrator):
            return cls.fit(store, calibrator)
        if calibrator is None:
            return cls(store, PLAIN)
        such_as = "a calibrator, such as Pooled(), or what its `fit` returned"
        return cls(store, _check.instance("calibrator", calibrator, AbstractFitted, such_as))

    @classmethod
    def fit(cls, store: CalibrationStore, calibrator: AbstractCalibrator) -> "StoreCalibration":
        """Learn from a store; the same store gives the same."""
        return cls(store, calibrator.fit(some_rewards(store)))

    def quantiles(self, prompt_ids: Sequence[str], rewards) -> np.ndarray:
        """Expected quantile of each reward under its prompt's reference, in [0, 1].

        - `rewards`: one per prompt id, shape (n,), or several, shape (n, m).

        Raises DataError for prompts that the store does not know, and ValueError for rewards that
        are not finite.
        """
        return self.locate(prompt_ids, rewards).quantile

    def shaped(self, prompt_ids: Sequence[str], rewards, transform: AbstractTransform):
        """Expected Φ of each reward, as `AbstractFitted.shaped`; arguments as of `quantiles`."""
        return self.locate(prompt_ids, rewards).expected(transform)

    @property
    def counts(self) -> bool:
        """Whether quantiles are plain ranks, in which prompts share nothing."""
        return isinstance(self.learned, FittedCounting)

    @cached_property
    def most_draws(self) -> float:
        """The most draws of an opponent whom a reward's chance to beat can be estimated for: the
        smallest number of reference rewards of a prompt for plain ranks, else any number."""
        return self.store.samples if self.counts else np.inf

    def locate(self, prompt_ids: Sequence[str], rewards) -> AbstractLocation:
        """Where rewards lie among the reference rewards of their prompts, looked up once.

        Arguments and errors as of `quantiles`.
        """
        if isinstance(self.learned, FittedCounting):  # the store counts for all prompts at once
            ranks = self.store.ranks(prompt_ids, rewards)
            return RankLocation(*ranks, self.learned.smoothing)
        positions, rows = np.unique(self.store.positions(prompt_ids), return_inverse=True)
        own = rectangle([self.store.rewards.row(int(position)) for position in positions])
        beliefs = self.learned.on(own).beliefs(rows, rewards)
        values = np.asarray(rewards, float)
        one_each = (len(rows), *[1] * (values.ndim - 1))
        lowest, highest = (
            end(own, axis=1)[rows].reshape(one_each) for end in (np.nanmin, np.nanmax)
        )
        return BeliefLocation(beliefs, values, lowest, highest)


def some_rewards(store: CalibrationStore) -> np.ndarray:
    """Reference rewards of prompts evenly spaced through a store, (prompts, K), nan where a prompt
    has fewer: as many as calibrators learn from."""
    positions = evenly(np.ones(len(store.rewards), bool), LEARNED_FROM)
    return rectangle([store.rewards.row(int(position)) for position in positions])
