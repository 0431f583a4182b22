"""The samples of a comparison as arrays, and the estimates they give."""

from pathlib import Path

import numpy as np

from infalign.errors import DataError
from infalign.evaluation.estimators import win_rate
from infalign.evaluation.gold import gold_reward, gold_win_rate
from infalign.evaluation.length import LengthControl, length_controlled
from infalign.evaluation.uncertainty import Estimate

from .plan import CALIBRATION, REFERENCE, SELECTING, Comparison
from .samples import column_of, read

FRONTIER_LIMIT = 8.0
"""Nats beyond which the best possible win rate is not told: it is 1 to many digits."""


class Measured:
    """The samples of a comparison as arrays of shape (prompts, samples), by policy."""

    def __init__(self, comparison: Comparison, folder: Path):
        self.comparison, self.folder = comparison, folder
        self.tables = read(comparison, folder)
        self.shape = (len(comparison.prompts), comparison.samples)

    def column(self, name: str, column: str) -> np.ndarray:
        """A column of one policy's samples; null becomes nan."""
        values = self.tables[name][column].to_numpy(zero_copy_only=False)
        return values.astype(float).reshape(self.shape)

    def texts(self, name: str) -> np.ndarray:
        """The responses of one policy."""
        return np.array(self.tables[name]["completion"].to_pylist(), object).reshape(self.shape)

    def rewards(self, name: str, reward: str = SELECTING) -> np.ndarray:
        """What one reward gave one policy's samples."""
        return self.column(name, column_of(reward))

    def win_rate(self, name: str, procedure, against, reward: str = SELECTING) -> Estimate:
        """Of one policy against the reference, judged by one reward."""
        kept = (self.rewards(name), self.rewards(REFERENCE))
        if reward == SELECTING:
            return win_rate(*kept, procedure, against=against, **self.calibration)
        return gold_win_rate(
            self.rewards(name, reward),
            kept[0],
            self.rewards(REFERENCE, reward),
            kept[1],
            procedure,
            against=against,
            **self.calibration,
        )

    def kept_reward(self, name: str, procedure, reward: str) -> Estimate:
        """Mean of one reward over what one policy keeps."""
        values, kept_by = self.rewards(name, reward), self.rewards(name)
        return gold_reward(values, kept_by, procedure, **self.calibration)

    def length_controlled(self, name: str, procedure, against) -> LengthControl | None:
        """What is left of a win rate between responses of the same number of characters; None
        where the policy's are all longer, or all shorter.

        Characters, since policies may have different tokenizers.
        """
        ours, theirs = (np.vectorize(len)(self.texts(n)) for n in (name, REFERENCE))
        rewards = self.rewards(name), self.rewards(REFERENCE)
        try:
            return length_controlled(
                rewards[0],
                ours,
                rewards[1],
                theirs,
                procedure,
                against=against,
                **self.calibration,
            )
        except DataError:
            return None

    @property
    def calibration(self) -> dict:
        """What estimators of procedures that read calibrated rewards need besides."""
        known = CALIBRATION in self.tables
        return {"calibration": self.rewards(CALIBRATION)} if known else {}
