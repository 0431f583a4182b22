"""What training on a calibrator's quantiles gives, said before anything is trained.

With counted quantiles β, KL and win rate follow from K alone (`few_samples`). What a calibrator
that shares between prompts is worth depends on the rewards, and is found on prompts like them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from infalign.core import AbstractProcedure, AbstractTransform, FewSamples, RankProcedure, design

from .counting import FittedCounting
from .interface import AbstractFitted
from .judge import Truth, achieved
from .pooled import FittedPooled, Pooled
from .scores import FittedScores
from .simulated import Alike

PROMPTS = 256
"""Prompts that are simulated: the win rates of two transforms on them differ by chance by some
thousandths."""

AS_IF = (1, 2, 4, 8)
"""A calibrator is worth so many times its samples: the tables tried are those that are best for so
many counted ones. Pooled samples of prompts alike are worth two to four times their number."""

SEED = 20_241_219


@dataclass(frozen=True)
class Outcome:
    """Averages over prompts."""

    beta: float
    kl: float
    """In nats."""

    win_rate: float


class AbstractExpected(ABC):
    """What comes out by theory with a calibrator and K samples a prompt."""

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
        """Of training on a transform, at one of `kl` and `beta`.

        Raises SolveError where the KL is out of reach.
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
class Counted(AbstractExpected):
    """With the plain rank."""

    samples: int

    def achieved(self, transform, procedure, against, *, kl=None, beta=None):
        few = FewSamples(self.samples)
        if beta is None:
            beta, exponents = few.at_kl(transform, kl)
        else:
            exponents = few.values(transform) / beta
        found = few.achieved(exponents, procedure, against)
        return Outcome(beta, found.kl, found.win_rate)

    def best(self, procedure, against, *, kl=None, beta=None):
        return design(procedure, kl=kl, beta=beta, against=against, samples=self.samples).transform


@dataclass(frozen=True)
class Simulated(AbstractExpected):
    """With what a calibrator learned, on prompts simulated like those it learned from."""

    learned: AbstractFitted = field(repr=False)
    prompts: Alike = field(repr=False)
    samples: int

    @cached_property
    def _drawn(self) -> tuple[Truth, AbstractFitted]:
        rewards, truth, _ = self.prompts.draw(self.samples, np.random.default_rng(SEED))
        return truth, self.learned.on(rewards)

    def achieved(self, transform, procedure, against, *, kl=None, beta=None):
        truth, fitted = self._drawn
        shaped = truth.shaped(fitted, transform)
        found = achieved([truth], [shaped], procedure, against, kl=kl, beta=beta)
        return Outcome(found.beta, found.kl, found.win_rate)

    def best(self, procedure, against, *, kl=None, beta=None):
        tables = [
            Counted(self.samples * times).best(procedure, against, kl=kl, beta=beta)
            for times in AS_IF
        ]

        def worth(table):
            found = self.achieved(table, procedure, against, kl=kl, beta=beta)
            return found.win_rate - found.beta * found.kl if kl is None else found.win_rate

        return max(tables, key=worth)


def expected(learned: AbstractFitted, rewards: np.ndarray) -> AbstractExpected:
    """What comes out with a calibrator that learned from these reference rewards, (prompts, K),
    nan where a prompt has fewer."""
    if isinstance(learned, FittedScores):  # an increasing map leaves win rates as they are
        return expected(learned.learned, learned.scale(rewards))
    samples = int(np.isfinite(rewards).sum(1).min())
    if isinstance(learned, FittedCounting):
        return Counted(samples)
    hierarchy = learned if isinstance(learned, FittedPooled) else Pooled().fit(rewards)
    if not isinstance(hierarchy, FittedPooled):
        return Counted(samples)
    return Simulated(learned, Alike(hierarchy, PROMPTS), samples)
