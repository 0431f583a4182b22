"""Every public procedure and transform, with the examples that the contracts run on.

A new one needs a row in its table here, and then passes the same tests as the others.
"""

import inspect
from itertools import chain

from hypothesis import settings

from infalign import (
    BestOfN,
    Exponential,
    Identity,
    Log,
    Probit,
    Sampling,
    Tabulated,
    WorstOfN,
)

law = settings(derandomize=True, deadline=None, max_examples=50)
"""How hypothesis runs here: the same examples every time, and no clock."""

PROCEDURES = {
    Sampling: [Sampling()],
    BestOfN: [BestOfN(n) for n in (1, 2, 4, 32)],
    WorstOfN: [WorstOfN(n) for n in (1, 2, 4, 32)],
}
KEEPS = {Sampling: lambda drawn: drawn[0], BestOfN: max, WorstOfN: min}
"""What each procedure does with the samples it drew, in plain Python."""

TRANSFORMS = {
    Identity: [Identity()],
    Log: [Log()],
    Probit: [Probit()],
    Exponential: [Exponential(t) for t in (-10.0, 0.0, 0.5, 20.0)],
    Tabulated: [Tabulated((0, 0.3, 0.9, 1), (-2, 0, 0, 5)), Tabulated((0, 1), (0, 1))],
}

procedures = list(chain.from_iterable(PROCEDURES.values()))
transforms = list(chain.from_iterable(TRANSFORMS.values()))


def implementations(base: type) -> set[type]:
    """The concrete subclasses of `base` that `import infalign` defines, at any depth."""
    children = base.__subclasses__()
    found = {c for c in children if c.__module__.startswith("infalign.")}
    found = {c for c in found if not inspect.isabstract(c)}
    return found.union(*map(implementations, children))
