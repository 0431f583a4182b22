"""Procedures by enumeration: every draw listed, the selected one looked up."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

import infalign as ia

Law = dict[float, float]
"""Chance of each value."""


@dataclass(frozen=True)
class Places:
    """The k-th best of n with a chance each: best, worst, any place, and mixtures."""

    procedure: ia.RankProcedure
    parts: tuple[tuple[float, int, int], ...]
    """(chance, n, k)."""

    def __repr__(self) -> str:
        return repr(self.procedure)

    @property
    def draws(self) -> int:
        return max(n for _, n, _ in self.parts)

    def of_subsets(self, values: Sequence[float]) -> Law:
        """The selected value over all subsets of some samples."""
        law: Law = defaultdict(float)
        for chance, n, k in self.parts:
            sets = list(combinations(values, n))
            for drawn in sets:
                law[sorted(drawn)[n - k]] += chance / len(sets)
        return law

    def of_sequences(self, reward: Sequence[float], policy: Sequence[float]) -> np.ndarray:
        """The law of the selected outcome over all sequences of draws; ties break at random."""
        selected = np.zeros(len(policy))
        for chance, n, k in self.parts:
            for drawn, weight in sequences(policy, n):
                value = sorted(reward[y] for y in drawn)[n - k]
                tied = [y for y in drawn if reward[y] == value]
                for y in tied:
                    selected[y] += chance * weight / len(tied)
        return selected


def sequences(policy: Sequence[float], n: int) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every sequence of n outcomes and its chance."""
    for drawn in product(range(len(policy)), repeat=n):
        yield drawn, float(np.prod([policy[y] for y in drawn]))


def places(rng: np.random.Generator, most: int, mixed: bool = True) -> Places:
    """A random one of up to `most` draws."""
    kind = rng.integers(4 if mixed else 3)
    n = int(rng.integers(1, most + 1))
    if kind == 0:
        return Places(ia.BestOfN(n), ((1.0, n, 1),))
    if kind == 1:
        return Places(ia.WorstOfN(n), ((1.0, n, n),))
    if kind == 2:
        k = int(rng.integers(1, n + 1))
        return Places(ia.OrderStatistic(n, k), ((1.0, n, k),))
    one, other = places(rng, most, False), places(rng, most, False)
    weight = float(round(rng.uniform(0.1, 0.9), 2))
    mixture = ia.Mixture((one.procedure, other.procedure), (weight, 1 - weight))
    (_, *a), (_, *b) = one.parts[0], other.parts[0]
    return Places(mixture, ((weight, *a), (1 - weight, *b)))


def winner(labels: Sequence[object]) -> dict[object, float]:
    """The chance of each label to win a vote; None does not vote."""
    counts = {label: labels.count(label) for label in set(labels) if label is not None}
    most = [label for label, count in counts.items() if count == max(counts.values())]
    return {label: 1 / len(most) for label in most}
