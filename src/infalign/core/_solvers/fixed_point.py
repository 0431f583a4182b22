"""The coupled reward and policy as the paper finds them: by iterating one from the other.

InfAlign (arXiv:2412.19792) calls it `bon_fp` and `won_fp`: tilt the reference by the gradient of
the win rate at the last policy, again and again, on a grid of quantiles. It is kept as a reference
method, independent of `design` in everything but the laws; use `design` for anything else.
"""

from dataclasses import dataclass, field

import numpy as np

from infalign import _check
from infalign.core._procedures import AbstractProcedure, RankProcedure


@dataclass(frozen=True)
class FixedPoint:
    """Where the iteration ended."""

    procedure: RankProcedure
    against: AbstractProcedure
    beta: float
    win_rate: float
    kl: float
    """KL(policy ‖ reference) in nats."""

    steps: int
    """Tilts taken."""

    converged: bool
    """Whether the last tilt moved less mass than `tolerance`. If not: damp it, or raise
    `max_steps`."""

    quantiles: np.ndarray = field(repr=False, compare=False)
    """Middles of the cells."""

    density: np.ndarray = field(repr=False, compare=False)
    """The policy's density, constant in each cell; its mean is 1."""

    residuals: np.ndarray = field(repr=False, compare=False)
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
    """Iterate f ← e^{Φ_f/β} / Z from the reference, Φ_f(v) = −∫_v^1 h(F) dG, on even cells.

    Win rate and gradient belong together on any grid, so that what is known of the iteration holds
    on it exactly: for H concave (worst-of-n) the undamped one never lowers W − β KL; for H convex
    (best-of-n) it overshoots, and may end in a cycle of two policies. Second order in the cells.

    - `procedure`: how the policy will be decoded; keeps by rank.
    - `beta`: KL strength, in units of win rate per nat; > 0.
    - `against`: how the reference it must beat is decoded; `procedure` unless given.
    - `cells`: cells of equal width, in each of which the policy's density is constant.
    - `damping`: share of the new log-density in the next one, the rest is the last one's; in
      (0, 1], 1 is undamped.
    - `tolerance`: total variation between a policy and the tilt by its gradient that ends it.
    - `max_steps`: tilts at most.

    >>> from infalign import BestOfN
    >>> found = fixed_point(BestOfN(4), beta=0.2, damping=0.5)
    >>> found.converged, round(found.win_rate, 4), round(found.kl, 4)
    (True, 0.8806, 0.5351)
    """
    if not isinstance(procedure, RankProcedure):
        raise ValueError(
            f"`procedure` must keep by rank, like BestOfN(4); got {procedure!r}. "
            "`infalign.design` solves the others."
        )
    against = procedure if against is None else against
    if not isinstance(against, AbstractProcedure):
        raise ValueError(f"`against` must be a procedure such as BestOfN(4); got {against!r}.")
    grid = _Cells(procedure, against, _check.count("cells", cells))
    _check.positive("beta", beta)
    _check.positive("tolerance", tolerance)
    _check.count("max_steps", max_steps, at_least=0)
    if not 0 < _check.real("damping", damping) <= 1:
        raise ValueError(f"`damping` must be above 0 and at most 1, undamped; got {damping:g}.")
    log_density = np.zeros(cells)
    density = np.ones(cells)
    residuals = []
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
        grid.win_rate(cdf),
        float((density * log_density).mean()),
        len(residuals) - 1,
        residuals[-1] <= tolerance,
        (np.arange(cells) + 0.5) / cells,
        density,
        np.array(residuals),
    )


class _Cells:
    """Sums over even cells; CDFs are taken at their edges, inside which they are linear."""

    def __init__(self, procedure: RankProcedure, against: AbstractProcedure, cells: int):
        self.procedure = procedure
        steps = np.diff(against.cdf(np.arange(cells + 1) / cells))
        # The trapezoidal rule for ∫ H dG: with H = G its sum telescopes, so that the reference
        # ties with itself to rounding.
        self.weights = (np.append(0.0, steps) + np.append(steps, 0.0)) / 2

    def cdf(self, density: np.ndarray) -> np.ndarray:
        """F at the edges."""
        sums = np.append(0.0, np.cumsum(density))
        return sums / sums[-1]

    def win_rate(self, cdf: np.ndarray) -> float:
        """W = 1 − ∫ H(F) dG."""
        return 1 - float(self.weights @ self.procedure.cdf(cdf))

    def gradient(self, cdf: np.ndarray) -> np.ndarray:
        """−∫_v^1 h(F) dG in each cell: the derivative of this `win_rate` by the cell's mass."""
        return -np.cumsum((self.procedure.density(cdf) * self.weights)[:0:-1])[::-1]


def _normalized(log_density: np.ndarray) -> np.ndarray:
    """Shifted so that the density has mean 1."""
    top = log_density.max()
    return log_density - (top + np.log(np.exp(log_density - top).mean()))
