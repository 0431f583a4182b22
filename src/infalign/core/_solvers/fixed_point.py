"""The coupled reward and policy, by the paper's fixed-point iteration.

InfAlign (arXiv:2412.19792) calls it `bon_fp` and `won_fp`: tilt the reference by the gradient of
the win rate at the last policy, again and again, on a grid of quantiles. It serves as an
independent check that shares only the laws with `design`; use `design` for everything else.
"""

from dataclasses import dataclass, field

import numpy as np

from infalign import _check
from infalign._look import Shown
from infalign.core._interface import (
    AbstractProcedure,
    RankProcedure,
    require_by_rank,
    require_procedure,
)
from infalign.core._shapes import Float
from infalign.errors import ArgumentError


@dataclass(frozen=True)
class FixedPoint(Shown):
    """Result of `fixed_point`: the last policy of the iteration."""

    procedure: RankProcedure
    against: AbstractProcedure
    beta: float
    win_rate: float
    kl: float
    """KL(policy ‖ reference) in nats."""

    steps: int
    """Tilts taken."""

    converged: bool
    """Whether the last tilt moved less mass than `tolerance`. If False, damp the iteration or raise
    `max_steps`."""

    quantiles: Float[np.ndarray, "cells"] = field(repr=False, compare=False)
    """Midpoints of the cells."""

    density: Float[np.ndarray, "cells"] = field(repr=False, compare=False)
    """The policy's density, constant in each cell; its mean is 1."""

    residuals: Float[np.ndarray, "steps_and_1"] = field(repr=False, compare=False)
    """Total variation between each policy and the tilt by its gradient, before each step and at
    the end; shape (steps + 1,)."""


def fixed_point(
    procedure: RankProcedure,
    *,
    beta: float,
    against: AbstractProcedure | None = None,
    cells: int = 2000,
    damping: float = 1.0,
    tolerance: float = 1e-12,
    max_steps: int = 10_000,
) -> FixedPoint:
    """Iterate f ← e^{Φ_f/β} / Z from the reference, Φ_f(v) = −∫_v^1 h(F) dG, on equal cells.

    The discrete gradient is the exact gradient of the discrete win rate, so the theory of the
    iteration holds on any grid. For H concave (worst-of-n), undamped steps never lower W − β KL;
    for H convex (best-of-n) they overshoot and may end in a cycle of two policies. The error is of
    second order in the cell width.

    - `procedure`: how the policy will be decoded; must select by rank.
    - `beta`: KL strength, in units of win rate per nat; > 0.
    - `against`: how the reference, the policy's opponent, is decoded. Default: `procedure`.
    - `cells`: cells of equal width; the policy's density is constant in each.
    - `damping`: weight of the new log-density in its average with the last one; in (0, 1], where 1
      means undamped.
    - `tolerance`: total variation between a policy and the tilt by its gradient at which the
      iteration ends.
    - `max_steps`: maximum number of tilts.

    >>> from infalign import BestOfN
    >>> end = fixed_point(BestOfN(4), beta=0.2, damping=0.5)
    >>> end.converged, round(end.win_rate, 4), round(end.kl, 4)
    (True, 0.8806, 0.5351)
    """
    require_by_rank("procedure", procedure, "`infalign.design` solves the others.")
    against = procedure if against is None else require_procedure("against", against)
    grid = _Cells(procedure, against, _check.count("cells", cells))
    _check.positive("beta", beta)
    _check.positive("tolerance", tolerance)
    _check.count("max_steps", max_steps, at_least=0)
    if not 0 < _check.real("damping", damping) <= 1:
        raise ArgumentError("damping", f"must be above 0 and at most 1, undamped; got {damping:g}.")
    log_density = np.zeros(cells)
    density = np.ones(cells)
    residuals: list[float] = []
    while True:
        cdf = grid.cdf(density)
        tilted = _normalized(grid.gradient(cdf) / beta)
        residuals.append(float(np.abs(np.exp(tilted) - density).mean() / 2))
        if residuals[-1] <= tolerance or len(residuals) > max_steps:
            break
        log_density = _normalized((1 - damping) * log_density + damping * tilted)
        density = np.exp(log_density)
    return FixedPoint(
        procedure,
        against,
        beta,
        win_rate=grid.win_rate(cdf),
        kl=float((density * log_density).mean()),
        steps=len(residuals) - 1,
        converged=residuals[-1] <= tolerance,
        quantiles=(np.arange(cells) + 0.5) / cells,
        density=density,
        residuals=np.array(residuals),
    )


class _Cells:
    """Sums over equal cells. CDFs are given at the edges and are linear in between."""

    def __init__(self, procedure: RankProcedure, against: AbstractProcedure, cells: int) -> None:
        self.procedure = procedure
        steps = np.diff(against.cdf(np.arange(cells + 1) / cells))
        # The trapezoidal rule for ∫ H dG: with H = G its sum telescopes, so that the reference ties
        # with itself up to rounding.
        self.weights = (np.append(0.0, steps) + np.append(steps, 0.0)) / 2

    def cdf(self, density: np.ndarray) -> np.ndarray:
        """F at the edges."""
        sums = np.append(0.0, np.cumsum(density))
        return sums / sums[-1]

    def win_rate(self, cdf: np.ndarray) -> float:
        """W = 1 − ∫ H(F) dG."""
        return 1 - float(self.weights @ self.procedure.cdf(cdf))

    def gradient(self, cdf: np.ndarray) -> np.ndarray:
        """−∫_v^1 h(F) dG in each cell: the derivative of `win_rate` in the cell's mass."""
        return -np.cumsum((self.procedure.density(cdf) * self.weights)[:0:-1])[::-1]


def _normalized(log_density: np.ndarray) -> np.ndarray:
    """The log-density, shifted so that the density has mean 1."""
    top = log_density.max()
    return log_density - (top + np.log(np.exp(log_density - top).mean()))
