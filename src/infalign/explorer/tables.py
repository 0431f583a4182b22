"""Tables of the laws of registered procedures for which the page has no formula."""

from collections.abc import Iterator

import numpy as np

from infalign.core import PROCEDURES, AbstractProcedure, RankProcedure, words

__all__ = ["tables"]

FORMULAS = ("sampling", "best-of-n", "worst-of-n", "order-statistic", "best-of-poisson")
"""Procedures for which laws.js has a formula. All others are offered from tables."""

FAMILY = (2, 3, 4, 5, 8, 16, 32, 64)
"""The values of n for which a family of procedures gets tables."""

CELLS = 256
"""Number of cells of a table. h is a cubic in each cell, with an error of about 1e-8 for 32
draws."""


def tables() -> dict[str, dict]:
    """The laws that the page needs as tables, by text form.

    The page offers only procedures that select by rank with a law without jumps.
    """
    # Nodes are close where laws are steep: u = sin²(πi / 2N), as in `tabulated` of laws.js.
    u = np.sin(np.linspace(0, np.pi / 2, CELLS + 1)) ** 2
    laws = {}
    for procedure in _instances():
        if not isinstance(procedure, RankProcedure) or procedure.breaks:
            continue
        law = {
            "cdf": procedure.cdf(u),
            "density": procedure.density(u),
            "slope": procedure.slope(u),
        }
        if all(np.isfinite(values).all() for values in law.values()):
            laws[procedure.spec] = {
                "words": words(procedure),
                "draws": procedure.draws,
                **{name: [float(f"{x:.12g}") for x in values] for name, values in law.items()},
            }
    return laws


def _instances() -> Iterator[AbstractProcedure]:
    """The members of each other registered procedure that the page offers."""
    for name, entry in PROCEDURES.items():
        if name in FORMULAS:
            continue
        for text in [f"{name}:{n}" for n in FAMILY] if entry.family else [entry.example]:
            if text is not None:
                try:
                    yield PROCEDURES.parse(text)
                except ValueError:  # the family has no such n
                    continue
