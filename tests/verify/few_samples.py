"""Designs for K calibration samples per prompt, by simulation with other draws."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

import infalign as ia

from .check import Errors, Family
from .procedures import Pair, by_rank

MOST_DRAWS = 16

CELLS = 20_000
"""Total number of cells, over the simulated prompts."""

AT, WEIGHTS = np.polynomial.legendre.leggauss(24)


@dataclass(frozen=True)
class Question:
    """A call of `design` with `samples`."""

    procedure: Pair
    against: Pair
    kl: float
    samples: int

    def __repr__(self) -> str:
        return (
            f"design({self.procedure}, against={self.against}, kl={self.kl}, "
            f"samples={self.samples})"
        )


@dataclass(frozen=True)
class Prompts:
    """Prompts whose quantile axes are cut by K sorted uniform numbers."""

    widths: np.ndarray

    @classmethod
    def drawn(cls, samples: int) -> "Prompts":
        count = max(CELLS // (samples + 1), 400)
        cuts = np.sort(np.random.default_rng(7).random((count, samples)), axis=1)
        return cls(np.diff(cuts, axis=1, prepend=0.0, append=1.0))

    def kls(self, exponents: np.ndarray) -> np.ndarray:
        """KL of each prompt's policy, whose density is ∝ e^exponent in each cell."""
        top = exponents.max()
        mass = self.widths * np.exp(exponents - top)
        total = mass.sum(1)
        return mass @ exponents / total - np.log(total) - top

    def win_rates(self, exponents: np.ndarray, procedure: Pair, against: Pair) -> np.ndarray:
        """W of each prompt's policy: Gauss's rule in each cell, where F is linear."""
        mass = self.widths * np.exp(exponents - exponents.max())
        mass = mass / mass.sum(1, keepdims=True)
        share = (AT + 1) / 2
        u = (np.cumsum(self.widths, 1) - self.widths)[..., None] + self.widths[..., None] * share
        reached = (np.cumsum(mass, 1) - mass)[..., None] + mass[..., None] * share
        rate = procedure.law.cdf(np.clip(reached, 0, 1)) * against.law.density(np.clip(u, 0, 1))
        return 1 - ((rate @ WEIGHTS) / 2 * self.widths).sum(1)


def draw(rng: np.random.Generator) -> Question:
    """K from 1 to 64, budgets that K samples can express."""
    procedure = by_rank(rng, MOST_DRAWS)
    against = procedure if rng.random() < 0.6 else by_rank(rng, MOST_DRAWS)
    samples = int(np.exp(rng.uniform(0, np.log(65))))
    most = min(2.0, 0.8 * float(np.sum(1 / np.arange(1, samples + 1))))
    kl = float(f"{np.exp(rng.uniform(np.log(0.01), np.log(most))):.3g}")
    return Question(procedure, against, kl, samples)


def answer(question: Question) -> ia.Design:
    return ia.design(
        question.procedure.procedure,
        against=question.against.procedure,
        kl=question.kl,
        samples=question.samples,
    )


def judge(question: Question, design: ia.Design) -> Errors:
    prompts, pair = Prompts.drawn(question.samples), (question.procedure, question.against)
    at = np.arange(question.samples + 1) / question.samples
    exponents = design.transform(at) / design.beta
    wins, kls = prompts.win_rates(exponents, *pair), prompts.kls(exponents)
    error = np.hypot(standard_error(wins), design.stderr)
    best_lead = -np.inf
    for shape in (at, *(np.expm1(t * at) / np.expm1(t) for t in (-20, -5, 5, 20))):
        excess = lambda s, x=shape: float(prompts.kls(s * x).mean() - kls.mean())  # noqa: E731
        if excess(500) < 0:
            continue  # this shape does not reach the KL
        rival = prompts.win_rates(brentq(excess, 1e-9, 500) * shape, *pair)
        spread = standard_error(rival - wins) + 1e-4
        best_lead = max(best_lead, float((rival - wins).mean() / spread))
    return {
        "win rate, standard errors": abs(wins.mean() - design.win_rate) / error,
        "KL, standard errors": abs(kls.mean() - design.kl) / standard_error(kls),
        "budget, relative": abs(design.kl / question.kl - 1),
        "lead of another transform, standard errors": max(best_lead, 0.0),
    }


def standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(values.size)) + 1e-12


FEW_SAMPLES = Family(
    "few calibration samples",
    "`design` with K = 1 to 64 calibration samples, for procedures of up to 16 draws and 0.01 to 2 "
    "nats. By simulation of prompts with other draws: the win rate and the KL of the table, and "
    "the lead of identity and four exponentials at the same KL, all in standard errors.",
    draw,
    answer,
    judge,
    {
        "win rate, standard errors": 5,
        "KL, standard errors": 5,
        "budget, relative": 1e-6,
        "lead of another transform, standard errors": 5,
    },
    share=2,
)
