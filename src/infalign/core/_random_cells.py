"""Expectations over random cell widths, exactly: a policy's mass per cell, its log Z and its KL.

The widths w₀, …, w_K of the cells that K uniform samples cut are exponential variables divided by
their sum. With tilts a_j = e^{e_j} and P(s) = Π_j 1/(1 + s a_j), it follows that

    E[w_j a_j / Z] = ∫₀^∞ P(s) a_j / (1 + s a_j) ds,
    E[log Z] = log ā + ∫₀^∞ ((1 + s ā)^{-(K+1)} − P(s)) ds/s,

where Z = Σ_j w_j a_j and ā is the mean of the a_j. In log s the integrands are analytic and vanish
at both ends, so the trapezoidal rule is exact up to rounding.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logsumexp

from ._shapes import Float

Cells = Float[np.ndarray, "cells"]
"""One value per cell, K + 1 in all."""

STEP = 0.25
"""Distance of the nodes in log s. The integrands are analytic for |Im log s| < π/2 whatever K is,
so the relative error is about e^{−π²/STEP} = 1e-17."""

NEGLIGIBLE = 42.0
"""The integrands are below e^{−42} = 6e-19 of their maximum beyond the nodes."""


@dataclass(frozen=True, eq=False)
class Expected:
    """Expectations over prompts of the policies with density ∝ e^exponent per cell."""

    mass: Cells
    """Of each cell."""

    log_z: float

    kl: float
    """In nats."""


def expected(exponents: Cells) -> Expected:
    """The expected mass of each cell, log Z and KL, without error but rounding.

    >>> top = np.array([0.0, 0.0, 0.0, 200.0])  # all mass in the top cell, of three samples
    >>> float(round(expected(top).kl, 6)) == round(1 + 1 / 2 + 1 / 3, 6)
    True
    """
    cells, top = len(exponents), exponents.max()
    # Centered, since KL and mass do not change with a common shift but rounding errors do.
    e = exponents - top
    mean = float(logsumexp(e) - np.log(cells))
    log_s = np.arange(-NEGLIGIBLE - np.log(cells), NEGLIGIBLE + np.log(cells), STEP)
    terms = log_s[:, None] + e
    weight = STEP * np.exp(-np.logaddexp(0, terms).sum(1))
    equal = STEP * np.exp(-cells * np.logaddexp(0, log_s + mean))
    mass = weight @ expit(terms)
    log_z = mean + float(np.sum(equal - weight))
    return Expected(mass, log_z + float(top), float(mass @ e) - log_z)
