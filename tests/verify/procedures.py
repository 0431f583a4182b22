"""Random procedures, each as the package's object and as an independent law."""

from dataclasses import dataclass

import numpy as np

import infalign as ia

from . import laws
from .laws import Law


@dataclass(frozen=True)
class Pair:
    """A procedure and its law."""

    procedure: ia.AbstractProcedure
    law: Law

    def __repr__(self) -> str:
        return repr(self.procedure)


def sampling() -> Pair:
    return Pair(ia.Sampling(), laws.best(1))


def best(n: int) -> Pair:
    return Pair(ia.BestOfN(n), laws.best(n))


def worst(n: int) -> Pair:
    return Pair(ia.WorstOfN(n), laws.worst(n))


def place(n: int, k: int) -> Pair:
    return Pair(ia.OrderStatistic(n, k), laws.place(n, k))


def poisson(mu: float) -> Pair:
    return Pair(ia.BestOfPoisson(mu), laws.poisson(mu))


def mixture(weights: tuple[float, ...], parts: list[Pair]) -> Pair:
    procedure = ia.Mixture(tuple(p.procedure for p in parts), weights)
    return Pair(procedure, laws.mixture(weights, [p.law for p in parts]))


def rewind(threshold: float, tries: int) -> Pair:
    return Pair(ia.Rewind(threshold, tries), laws.rewind(threshold, tries))


def soft_best(n: int, temperature: float) -> Pair:
    return Pair(ia.SoftBestOfN(n, temperature), laws.soft_best(n, temperature))


RANKED = ("best", "worst", "best", "worst", "place", "poisson", "mixture")
"""Families of procedures that select by rank, by how often they are drawn."""


def by_rank(rng: np.random.Generator, most: int, kinds: tuple[str, ...] = RANKED) -> Pair:
    """A random procedure that selects by rank, of up to `most` draws."""
    kind, n = str(rng.choice(kinds)), draws(rng, most)
    if kind == "best":
        return best(n)
    if kind == "worst":
        return worst(n)
    if kind == "place":
        return place(n, int(rng.integers(1, n + 1)))
    if kind == "poisson":
        return poisson(float(round(np.exp(rng.uniform(np.log(0.1), np.log(max(most / 2, 1)))), 3)))
    weight = float(round(rng.uniform(0.05, 0.95), 2))
    return mixture((weight, 1 - weight), [by_rank(rng, most, RANKED[:-1]) for _ in range(2)])


def draws(rng: np.random.Generator, most: int) -> int:
    """A number of draws, from 1, evenly on a logarithmic scale."""
    return min(int(np.exp(rng.uniform(0, np.log(most + 1)))), most)


def opponent(rng: np.random.Generator, own: Pair, most: int) -> Pair:
    """A random opponent: the same procedure, plain sampling, or another, also one by value."""
    kind = rng.random()
    if kind < 0.4:
        return own
    if kind < 0.55:
        return sampling()
    if kind < 0.9:
        return by_rank(rng, most)
    if kind < 0.95:
        return rewind(float(round(rng.uniform(0.05, 0.95), 3)), draws(rng, 16))
    return soft_best(draws(rng, 16), float(round(np.exp(rng.uniform(np.log(0.05), 0)), 3)))
