"""All stationary points at a KL strength: shots along the ranks, and the roots between them.

On cells of rank a stationary policy is determined by one number, the part of the quantile axis that
the first cell covers: f rises at each edge by λ g(V) ΔH, and V by Δs/f in each cell (`transport`).
A shot is a solution if it arrives at V = 1 exactly, so a solution lies between any two neighboring
shots of which one ends below 1 and one above (docs/maths.md, section 11).
"""

import numpy as np
from scipy.special import expit, logit

from infalign.core._interface import AbstractProcedure, RankProcedure
from infalign.core._shapes import Float
from infalign.errors import SolveError

from .ascents import refined
from .point import Optimum
from .rank import Path
from .transport import FAR, NEAR, Chain, Goal, Link

SHOTS = 200
"""Shots by the logit of the first cell's part; as many again by f(0)."""

FINER = 33
"""Shots between two neighbors that differ, each time that a root is narrowed down."""

TIMES = 3
"""Number of times that roots are narrowed down."""

SAME = 1e-6
"""Difference of two KLs, in nats, below which two points are one."""

Shots = Float[np.ndarray, "shots"]
Roots = Float[np.ndarray, "roots"]


def stationary_points(
    procedure: RankProcedure, against: AbstractProcedure, beta: float, *, far: bool = False
) -> list[Optimum]:
    """Every policy with y' = h(F) g / β that a scan of shots locates.

    Two roots between the same two shots would be missed.

    - `far`: whether ranks within e⁻³⁶ of both ends have cells, which matter if the win rate is next
      to 0 or 1.
    """
    goal = Goal(log_scale=-float(np.log(beta)))
    chain = Chain.over(procedure, against, FAR if far else NEAR)
    path = Path(procedure, against)
    points: list[Optimum] = []
    for link in _roots(chain, float(-np.log(beta))):
        if not np.isfinite(link.log_density).all():
            continue
        solution = link.solved(goal)
        if solution is None:
            continue
        try:
            point = path.near(refined(solution, goal, climb=False).start)
        except SolveError:
            continue
        if not any(abs(point.kl - other.kl) < SAME for other in points):
            points.append(point)
    return points


def _roots(chain: Chain, log_scale: float) -> list[Link]:
    """The shots next to roots."""
    width = chain.widths[0]
    # f does not fall, so f(0) ≤ 1, and the first cell covers at least its own width.
    by_part = np.linspace(logit(width), FAR, SHOTS)
    by_density = logit(width / np.linspace(1 - 1 / SHOTS, 1 / SHOTS, SHOTS))
    first = np.unique(np.concatenate([by_part, by_density]))
    near, far = _brackets(chain, log_scale, first)
    for _ in range(TIMES):
        if near.size == 0:
            return []
        between = np.linspace(near, far, FINER, axis=1)
        ends = _shoot(chain, log_scale, between.ravel()).reshape(between.shape)
        at = np.argmax(np.diff(np.sign(ends), axis=1) != 0, axis=1)
        rows = np.arange(near.size)
        near, far = between[rows, at], between[rows, at + 1]
    densities: list[np.ndarray] = []
    _shoot(chain, log_scale, (near + far) / 2, densities)
    with np.errstate(divide="ignore"):
        return [Link(chain, np.log(f), log_scale) for f in np.array(densities).T]


def _brackets(chain: Chain, log_scale: float, first: Shots) -> tuple[Roots, Roots]:
    """Neighboring shots of which one ends below 1 and one above."""
    at = np.flatnonzero(np.diff(np.sign(_shoot(chain, log_scale, first))) != 0)
    return first[at], first[at + 1]


def _shoot(
    chain: Chain, log_scale: float, first: Shots, densities: list[np.ndarray] | None = None
) -> Shots:
    """V − 1 where shots end.

    - `first`: logit of the part of the axis that the first cell covers.
    - `densities`: receives f in each cell, if given.
    """
    covered = expit(first)
    density = chain.widths[0] / covered
    with np.errstate(all="ignore"):  # what overflows ends below 1
        steps = np.exp(log_scale) * chain.rises
        for step, width in zip(steps, chain.widths[1:], strict=True):
            if densities is not None:
                densities.append(density)
            at = np.clip(covered, 0, 1)
            density = density + step * chain.density(at, 1 - at)
            covered = covered + width / density
    if densities is not None:
        densities.append(density)
    return covered - 1
