"""Every public procedure and transform, with the examples that the contracts run on.

A new one needs a row in its table here, and then passes the same tests as the others.
"""

import inspect
from itertools import chain

import numpy as np
from hypothesis import settings

from infalign import (
    BestOfN,
    BestOfPoisson,
    Exponential,
    Identity,
    Log,
    Mixture,
    OrderStatistic,
    Power,
    Probit,
    RankProcedure,
    Rewind,
    Sampling,
    SoftBestOfN,
    Tabulated,
    WorstOfN,
)

law = settings(max_examples=50)
"""How often hypothesis tries a law: each law is tried for many objects."""

PROCEDURES = {
    Sampling: [Sampling()],
    BestOfN: [BestOfN(n) for n in (1, 2, 4, 32)],
    WorstOfN: [WorstOfN(n) for n in (1, 2, 4, 32)],
    OrderStatistic: [OrderStatistic(n, k) for n, k in ((1, 1), (3, 2), (4, 1), (4, 4), (32, 9))],
    BestOfPoisson: [BestOfPoisson(mu) for mu in (0, 0.7, 6.0)],
    Mixture: [
        Mixture((BestOfN(4), WorstOfN(2)), (0.25, 0.75)),
        Mixture((Sampling(), OrderStatistic(3, 2), BestOfN(2)), (0.5, 0.25, 0.25)),
    ],
    SoftBestOfN: [SoftBestOfN(1, 0.5), SoftBestOfN(2, 0.3), SoftBestOfN(8, 0.05)],
    Rewind: [Rewind(0.5, 1), Rewind(0.7, 3), Rewind(0.9, 8)],
}
"""A new procedure needs a row here."""


def keep(procedure, drawn, rng):
    """What a procedure does with the quantiles it draws from the iterator, in plain Python."""
    match procedure:
        case Sampling():
            return next(drawn)
        case BestOfN(n):
            return max(next(drawn) for _ in range(n))
        case WorstOfN(n):
            return min(next(drawn) for _ in range(n))
        case OrderStatistic(n, k):
            return sorted((next(drawn) for _ in range(n)), reverse=True)[k - 1]
        case BestOfPoisson(mu):
            return max(next(drawn) for _ in range(1 + rng.poisson(mu)))
        case Mixture(procedures, weights):
            return keep(procedures[rng.choice(len(weights), p=weights)], drawn, rng)
        case SoftBestOfN(n, temperature):
            some = np.array([next(drawn) for _ in range(n)])
            chances = np.exp((some - some.max()) / temperature)
            return rng.choice(some, p=chances / chances.sum())
        case Rewind(threshold, max_tries):
            for _ in range(max_tries):
                last = next(drawn)
                if last >= threshold:
                    break
            return last
    raise AssertionError(f"say here how {procedure!r} selects a response")


TRANSFORMS = {
    Identity: [Identity()],
    Log: [Log()],
    Probit: [Probit()],
    Exponential: [Exponential(t) for t in (-10.0, 0.0, 0.5, 20.0)],
    Power: [Power(a) for a in (0.5, 1, 7)],
    Tabulated: [Tabulated((0, 0.3, 0.9, 1), (-2, 0, 0, 5)), Tabulated((0, 1), (0, 1))],
}

procedures = list(chain.from_iterable(PROCEDURES.values()))
rank_procedures = [p for p in procedures if isinstance(p, RankProcedure)]
transforms = list(chain.from_iterable(TRANSFORMS.values()))


def implementations(base: type) -> set[type]:
    """The concrete subclasses of `base` that `import infalign` defines, at any depth."""
    children = base.__subclasses__()
    concrete = {c for c in children if c.__module__.startswith("infalign.")}
    concrete = {c for c in concrete if not inspect.isabstract(c)}
    return concrete.union(*map(implementations, children))
