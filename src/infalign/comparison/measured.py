"""The samples of a comparison as arrays, and the estimates they give."""

from pathlib import Path

import numpy as np

from infalign.core import quantiles
from infalign.decoding.selection import Decoder, MajorityVote, reads
from infalign.errors import DataError
from infalign.evaluation.chances import selected_win_rate, selection_chances
from infalign.evaluation.estimators import win_rate
from infalign.evaluation.length import LengthControl, length_controlled
from infalign.evaluation.uncertainty import Estimate, over_prompts
from infalign.evaluation.votes import vote_chances

from .plan import CALIBRATION, REFERENCE, SELECTING, Comparison
from .samples import column_of, read

FRONTIER_LIMIT = 8.0
"""Nats beyond which the best possible win rate is not told: it is 1 to many digits."""


def in_theory(*procedures: Decoder) -> bool:
    """Whether the quantile axis tells what these procedures do: all but votes on answers."""
    return not any(isinstance(p, MajorityVote) for p in procedures)


class Measured:
    """The samples of a comparison as arrays of shape (prompts, samples), by policy."""

    def __init__(self, comparison: Comparison, folder: Path):
        self.comparison, self.folder = comparison, folder
        self.samples = read(comparison, folder)
        self.shape = (len(comparison.prompts), comparison.samples)

    def column(self, name: str, column: str) -> np.ndarray:
        """A column of one policy's samples; null becomes nan."""
        return self.samples[name].matrix(column)

    def texts(self, name: str) -> np.ndarray:
        """The responses of one policy."""
        return np.array(self.samples[name].rows("completion"), object)

    def rewards(self, name: str, reward: str = SELECTING) -> np.ndarray:
        """What one reward gave one policy's samples."""
        return self.column(name, column_of(reward))

    def answers(self, name: str, vote: MajorityVote) -> np.ndarray:
        """The answers of one policy's responses."""
        found = np.empty(self.shape, object)
        found.ravel()[:] = [vote.answer(text) for text in self.texts(name).ravel()]
        return found

    def read_by(self, procedure: Decoder, name: str) -> np.ndarray:
        """What a procedure looks at of one policy's responses."""
        match reads(procedure):
            case "answers":
                return self.answers(name, procedure)
            case "quantiles":
                return quantiles(self.rewards(name), self.rewards(CALIBRATION))
        return self.rewards(name)

    def chances(self, name: str, procedure: Decoder) -> np.ndarray:
        """The chance of each of one policy's samples to be the one that is kept."""
        if isinstance(procedure, MajorityVote):
            return vote_chances(self.answers(name, procedure), procedure.n)
        return selection_chances(self.rewards(name), procedure, **self.calibration)

    def win_rate(
        self, name: str, procedure: Decoder, against: Decoder, reward: str = SELECTING
    ) -> Estimate:
        """Of one policy against the reference, judged by one reward."""
        ours, theirs = self.rewards(name, reward), self.rewards(REFERENCE, reward)
        if reward == SELECTING and in_theory(procedure, against):
            return win_rate(ours, theirs, procedure, against=against, **self.calibration)
        kept, selected_theirs = self.chances(name, procedure), self.chances(REFERENCE, against)
        return selected_win_rate(ours, kept, theirs, selected_theirs)

    def selected_reward(self, name: str, procedure: Decoder, reward: str) -> Estimate:
        """Mean of one reward over what one policy keeps."""
        return over_prompts((self.chances(name, procedure) * self.rewards(name, reward)).sum(1))

    def length_controlled(
        self, name: str, procedure: Decoder, against: Decoder
    ) -> LengthControl | None:
        """What is left of a win rate between responses of the same number of characters; None
        where the policy's are all longer, or all shorter, and for majority votes.

        Characters, since policies may have different tokenizers.
        """
        if not in_theory(procedure, against):
            return None
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
        known = CALIBRATION in self.samples
        return {"calibration": self.rewards(CALIBRATION)} if known else {}
