"""Theoretical outlook: the β, KL and win rate of training on a calibrator's quantiles.

For plain ranks they follow from K alone (`infalign.core.FewSamples`). For a calibrator that pools
prompts they depend on the rewards, and are computed on simulated prompts that resemble those of the
store.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from infalign.core import AbstractProcedure, AbstractTransform, FewSamples, RankProcedure, design

from .assessment import Truth, achieved
from .counting import FittedCounting
from .interface import AbstractFitted
from .pooled import FittedPooled, Pooled
from .scores import FittedScores
from .simulated import SimulatedPrompts

__all__ = [
    "AbstractOutlook",
    "Outcome",
    "RankOutlook",
    "SimulatedOutlook",
    "expected",
    "outlook_of",
]

PROMPTS = 256
"""Number of simulated prompts. The win rates of two transforms on them differ by a few thousandths
by chance."""

AS_IF = (1, 2, 4, 8)
"""Factors on K. Pooled samples of similar prompts are as informative as two to four times as many
plain ranks, so the candidate tables are the best ones for that many ranks."""

SEED = 20_241_219


@dataclass(frozen=True)
class Outcome:
    """Averages over prompts."""

    beta: float
    kl: float
    """In nats."""

    win_rate: float


class AbstractOutlook(ABC):
    """The theoretical result of training with a calibrator and K samples per prompt."""

    @abstractmethod
    def achieved(
        self,
        transform: AbstractTransform,
        procedure: RankProcedure,
        against: AbstractProcedure,
        *,
        kl: float | None = None,
        beta: float | None = None,
    ) -> Outcome:
        """The outcome of training on a transform, at exactly one of `kl` and `beta`.

        Raises SolveError if the KL is out of reach.
        """

    @abstractmethod
    def best(
        self,
        procedure: RankProcedure,
        against: AbstractProcedure,
        *,
        kl: float | None = None,
        beta: float | None = None,
    ) -> AbstractTransform:
        """The transform to train on."""


@dataclass(frozen=True)
class RankOutlook(AbstractOutlook):
    """Training on plain ranks."""

    samples: int
    """K."""

    def achieved(self, transform, procedure, against, *, kl=None, beta=None):
        few = FewSamples(self.samples)
        if beta is None:
            beta, exponents = few.at_kl(transform, kl)
        else:
            exponents = few.values(transform) / beta
        few_achieved = few.achieved(exponents, procedure, against)
        return Outcome(beta, few_achieved.kl, few_achieved.win_rate)

    def best(self, procedure, against, *, kl=None, beta=None):
        return design(procedure, kl=kl, beta=beta, against=against, samples=self.samples).transform


@dataclass(frozen=True)
class SimulatedOutlook(AbstractOutlook):
    """Training with a fitted calibrator, on simulated prompts."""

    learned: AbstractFitted = field(repr=False)
    prompts: SimulatedPrompts = field(repr=False)
    samples: int
    """K."""

    @cached_property
    def _drawn(self) -> tuple[Truth, AbstractFitted]:
        rewards, truth, _ = self.prompts.draw(self.samples, np.random.default_rng(SEED))
        return truth, self.learned.on(rewards)

    def achieved(self, transform, procedure, against, *, kl=None, beta=None):
        truth, fitted = self._drawn
        shaped = truth.shaped(fitted, transform)
        assessed = achieved([truth], [shaped], procedure, against, kl=kl, beta=beta)
        return Outcome(assessed.beta, assessed.kl, assessed.win_rate)

    def best(self, procedure, against, *, kl=None, beta=None):
        tables = [
            RankOutlook(self.samples * factor).best(procedure, against, kl=kl, beta=beta)
            for factor in AS_IF
        ]

        def objective(table: AbstractTransform) -> float:
            outcome = self.achieved(table, procedure, against, kl=kl, beta=beta)
            return outcome.win_rate - outcome.beta * outcome.kl if kl is None else outcome.win_rate

        return max(tables, key=objective)


def outlook_of(learned: AbstractFitted, rewards: np.ndarray) -> AbstractOutlook:
    """The outlook for a calibrator that learned from these reference rewards.

    - `rewards`: (prompts, K), nan where a prompt has fewer.
    """
    if isinstance(learned, FittedScores):  # an increasing map leaves win rates unchanged
        return outlook_of(learned.learned, learned.scale(rewards))
    samples = int(np.isfinite(rewards).sum(1).min())
    if isinstance(learned, FittedCounting):
        return RankOutlook(samples)
    hierarchy = learned if isinstance(learned, FittedPooled) else Pooled().fit(rewards)
    if not isinstance(hierarchy, FittedPooled):
        return RankOutlook(samples)
    return SimulatedOutlook(learned, SimulatedPrompts(hierarchy, PROMPTS), samples)


expected = outlook_of
"""The former name, used in earlier documentation."""
