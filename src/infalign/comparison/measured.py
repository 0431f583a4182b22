"""The samples of a comparison as arrays, and the estimates they give."""

from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path

import numpy as np

from infalign.core import RankProcedure, quantiles
from infalign.decoding.selection import Decoder, MajorityVote, reads
from infalign.evaluation.chances import selected_mean, selected_win_rate, selection_chances
from infalign.evaluation.equal_length import LengthControl
from infalign.evaluation.estimators import win_rate
from infalign.evaluation.length import Candidates, length_control
from infalign.evaluation.uncertainty import Estimate
from infalign.evaluation.votes import vote_chances
from infalign.manifest import Manifest
from infalign.models.specs import ModelSpec
from infalign.stores import PromptSamples

from .comparison import CALIBRATION, REFERENCE, SELECTING, Comparison
from .origins import column_of
from .sampling import read

__all__ = ["AbstractMeasured", "Measured"]

ROUNDING = 1e-4
"""Relative difference of two scores of one text from which on a function or a server has not only
rounded differently."""


class AbstractMeasured(ABC):
    """Numbers of samples as arrays of shape (prompts, samples), by policy, and the win rates that
    follow from rewards.

    Selection chances and win rates are computed once; every estimate of a policy under a procedure
    uses the same chances.
    """

    def __init__(self, shape: tuple[int, int]):
        self.shape = shape
        self._chances: dict[tuple[str, Decoder], np.ndarray] = {}
        self._win_rates: dict[tuple[str, Decoder, Decoder, str], Estimate] = {}

    @abstractmethod
    def column(self, name: str, column: str) -> np.ndarray:
        """A column of one policy's samples; null becomes nan."""

    def rewards(self, name: str, reward: str = SELECTING) -> np.ndarray:
        """One reward of one policy's samples."""
        return self.column(name, column_of(reward))

    def chances(self, name: str, procedure: Decoder) -> np.ndarray:
        """The selection chance of each of one policy's samples."""
        key = (name, procedure)
        if key not in self._chances:
            self._chances[key] = self._selected(*key)
        return self._chances[key]

    @abstractmethod
    def _selected(self, name: str, procedure: Decoder) -> np.ndarray:
        """The selection chances, computed."""

    def win_rate(
        self, name: str, procedure: Decoder, against: Decoder, reward: str = SELECTING
    ) -> Estimate:
        """Win rate of one policy over the reference, judged by one reward."""
        key = (name, procedure, against, reward)
        if key not in self._win_rates:
            self._win_rates[key] = self._win_rate(*key)
        return self._win_rates[key]

    def _win_rate(self, name: str, procedure: Decoder, against: Decoder, reward: str) -> Estimate:
        ours, theirs = self.rewards(name, reward), self.rewards(REFERENCE, reward)
        if isinstance(procedure, RankProcedure) and isinstance(against, RankProcedure):
            if reward == SELECTING:  # one sort of both sides, faster than chances
                return win_rate(ours, theirs, procedure, against=against)
        chances = self.chances(name, procedure), self.chances(REFERENCE, against)
        return selected_win_rate(ours, chances[0], theirs, chances[1])


class Measured(AbstractMeasured):
    """The samples of a comparison, in files that are read when they are first needed."""

    def __init__(self, comparison: Comparison, manifest: Manifest):
        super().__init__((len(comparison.prompts), comparison.samples))
        self.comparison, self.manifest = comparison, manifest
        self._lengths: dict[str, np.ndarray] = {}
        self._rewards: dict[tuple[str, str], np.ndarray] = {}
        self._known: dict[str, list[dict[str, float]]] = {}

    @property
    def folder(self) -> Path:
        """The folder of the comparison's files."""
        return self.manifest.folder

    @cached_property
    def samples(self) -> dict[str, PromptSamples]:
        """The stored samples of the reference and every policy."""
        return read(self.comparison, self.manifest)

    def column(self, name: str, column: str) -> np.ndarray:
        """A column of one policy's samples; null becomes nan."""
        return self.samples[name].matrix(column)

    def rewards(self, name: str, reward: str = SELECTING) -> np.ndarray:
        """One reward of one policy's samples: equal responses to a prompt have one score, that of
        the reference's first one if the reference gave it.

        The score of a text is rounded differently in different batches. Without this, whichever
        side a batch rounded up would win between equal responses. Scores of a function or a server
        that differ by more than rounding are left as they are.
        """
        key = (name, reward)
        if key not in self._rewards:
            self._rewards[key] = self._settled(name, reward)
        return self._rewards[key]

    def _settled(self, name: str, reward: str) -> np.ndarray:
        scores = self.column(name, column_of(reward)).copy()
        if name != REFERENCE:
            self.rewards(REFERENCE, reward)
        exact = ModelSpec.parse(self.comparison.rewards[reward]).has_weights
        first: list[dict[str, float]] = []
        for at, own in enumerate(self.texts(name)):
            known = {} if name == REFERENCE else dict(self._known[reward][at])
            for place, text in enumerate(own):
                score = scores[at, place]
                before = known.setdefault(text, score)
                if exact or abs(score - before) <= ROUNDING * max(1.0, abs(before)):
                    scores[at, place] = before
            first.append(known)
        if name == REFERENCE:
            self._known[reward] = first
        return scores

    def texts(self, name: str) -> np.ndarray:
        """The responses of one policy."""
        return np.array(self.samples[name].rows("completion"), object)

    def lengths(self, name: str) -> np.ndarray:
        """The responses' lengths in characters, since policies may have different tokenizers."""
        if name not in self._lengths:
            self._lengths[name] = np.vectorize(len)(self.texts(name)).astype(float)
        return self._lengths[name]

    def read_by(self, procedure: Decoder, name: str) -> np.ndarray:
        """The values by which a procedure selects among one policy's samples."""
        if isinstance(procedure, MajorityVote):
            answers = np.empty(self.shape, object)
            answers.ravel()[:] = [procedure.answer(text) for text in self.texts(name).ravel()]
            return answers
        if reads(procedure) == "quantiles":
            return quantiles(self.rewards(name), self.rewards(CALIBRATION))
        return self.rewards(name)

    def _selected(self, name: str, procedure: Decoder) -> np.ndarray:
        if isinstance(procedure, MajorityVote):
            return vote_chances(self.read_by(procedure, name), procedure.n)
        return selection_chances(self.rewards(name), procedure, calibration=self._calibration)

    def selected_reward(self, name: str, procedure: Decoder, reward: str) -> Estimate:
        """Mean of one reward over the responses that one policy selects."""
        return selected_mean(self.rewards(name, reward), self.chances(name, procedure))

    def length_controlled(
        self, name: str, procedure: Decoder, against: Decoder
    ) -> LengthControl | None:
        """Predicted win rate between responses with the same number of characters.

        None for majority votes.
        """
        if isinstance(procedure, MajorityVote) or isinstance(against, MajorityVote):
            return None
        return length_control(
            self._candidates(name, procedure), self._candidates(REFERENCE, against)
        )

    def _candidates(self, name: str, procedure: Decoder) -> Candidates:
        return Candidates(self.rewards(name), self.lengths(name), self.chances(name, procedure))

    @cached_property
    def _calibration(self) -> np.ndarray | None:
        """Rewards of the second set of reference samples, if a procedure needs it."""
        return self.rewards(CALIBRATION) if CALIBRATION in self.samples else None
