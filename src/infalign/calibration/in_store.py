"""A calibrator on the prompts of a store: what it learned once, applied to whom it is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from infalign.core import AbstractTransform
from infalign.stores import CalibrationStore
from infalign.stores.ragged import rectangle

from .choice import evenly
from .hierarchy import LEARNED_FROM
from .interface import AbstractCalibrator, AbstractFitted


@dataclass(frozen=True, eq=False)
class StoreCalibration:
    """Quantiles of the prompts of a store, of any size, by a calibrator that shares between them.

    What prompts have in common is learned from some hundreds of them, evenly spaced; a prompt's own
    rewards are read when it is asked for. Picklable as its store is.
    """

    store: CalibrationStore
    learned: AbstractFitted

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
        rows, fitted = self._on(prompt_ids)
        return fitted.quantiles(rows, rewards)

    def shaped(self, prompt_ids: Sequence[str], rewards, transform: AbstractTransform):
        """Expected Φ of each reward, as `AbstractFitted.shaped`; arguments as of `quantiles`."""
        rows, fitted = self._on(prompt_ids)
        return fitted.shaped(rows, rewards, transform)

    def _on(self, prompt_ids) -> tuple[np.ndarray, AbstractFitted]:
        """What was learned, applied to the prompts that are asked for, and their rows in it."""
        positions, rows = np.unique(self.store.positions(prompt_ids), return_inverse=True)
        own = rectangle([self.store.rewards.row(int(position)) for position in positions])
        return rows, self.learned.on(own)


def some_rewards(store: CalibrationStore) -> np.ndarray:
    """Reference rewards of prompts evenly spaced through a store, (prompts, K), nan where a prompt
    has fewer: as many as calibrators learn from."""
    positions = evenly(np.ones(len(store.rewards), bool), LEARNED_FROM)
    return rectangle([store.rewards.row(int(position)) for position in positions])
