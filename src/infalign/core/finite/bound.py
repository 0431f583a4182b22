"""Branch and bound for procedures that select by rank: certified optima of few levels.

With F_a the policy's CDF at level a, m_a = F_a − F_{a−1} and w_a ≥ 0 the rise of the utility,

    J(F) = U_L − Σ_a w_a H(F_a) − β Σ_a m_a log(m_a/q_a).

The KL is convex in F, and each H depends on one F_a. On a box of F, adding the parabola ½ w_a K_a
(F_a − low)(high − F_a) with K_a ≥ −H″ makes J concave, and a concave function lies below its
tangent plane, whose maximum over the box is a sum. The bound misses the maximum by the square of
the box's width, so boxes are halved only near maxima.
"""

from dataclasses import dataclass

import numpy as np

from infalign._look import Shown
from infalign.core._interface import RankProcedure
from infalign.core._shapes import Float

from .maps import Ranked
from .problem import Problem

__all__ = ["Bound", "bound"]

Boxes = Float[np.ndarray, "boxes levels"]
Ratios = Float[np.ndarray, "boxes levels+1"]
"""Log-densities, of one level more than the CDF has free values."""

PerBox = Float[np.ndarray, "boxes"]

EXACT = 1e-9
"""Distance from the largest J at which the search ends, in units of win rate."""

MOST_BOXES = 200_000
"""Number of boxes after which the search ends with the bound that it has."""


TINY = 1e-300
"""Mass that stands for none; its share of the KL is below 1e-297."""


@dataclass(frozen=True)
class Bound(Shown):
    """The result of a search in one prompt."""

    largest: float
    """An upper bound on the objective of every policy."""

    policy: Float[np.ndarray, "columns"] | None
    """Masses with a larger objective than the given one; None if the search met none."""


def bound(problem: Problem, row: int, beta: float, known: float) -> Bound:
    """An upper bound on W − β KL in one prompt, within `EXACT` of the maximum for few levels.

    - `known`: the objective of a policy; the search ends when no box can hold a larger one by
      `EXACT`.
    """
    assert isinstance(problem.map, Ranked)
    present = np.flatnonzero(problem.reference[row] > 0)
    q, utility = problem.reference[row, present], problem.utility[row, present]
    objective = _Objective(problem.map.procedure, q, np.diff(utility), float(utility[-1]), beta)
    largest, cdf = _search(objective, known)
    if cdf is None:
        return Bound(largest, None)
    policy = np.zeros(problem.reference.shape[1])
    policy[present] = np.diff(cdf, prepend=0.0, append=1.0)
    return Bound(largest, policy)


def _search(objective: "_Objective", known: float) -> tuple[float, np.ndarray | None]:
    """An upper bound on J, and the CDF of a policy with J above `known` if one was met."""
    # The best policy's likelihood ratio rises with the level, so its CDF is below the reference's.
    high = np.cumsum(objective.reference)[None, :-1].copy()
    low = np.zeros_like(high)
    best: np.ndarray | None = None
    made = 0
    while low.size:
        made += len(low)
        low = np.maximum.accumulate(low, axis=1)
        high = np.minimum.accumulate(high[:, ::-1], axis=1)[:, ::-1]
        feasible = (low <= high).all(1)
        low, high = low[feasible], high[feasible]
        inner, value, bounds, cost = objective.over(low, high)
        if value.size and value.max() > known:
            known, best = float(value.max()), inner[value.argmax()]
        if made > MOST_BOXES:
            return max(float(bounds.max(initial=known)), known), best
        open_ = bounds > known + EXACT
        low, high, cost = low[open_], high[open_], cost[open_]
        boxes, axis = np.arange(len(low)), cost.argmax(1)
        middle = (low[boxes, axis] + high[boxes, axis]) / 2
        below, above = high.copy(), low.copy()
        below[boxes, axis] = above[boxes, axis] = middle
        low, high = np.concatenate([low, above]), np.concatenate([below, high])
    return known + EXACT, best


@dataclass(frozen=True)
class _Objective:
    """J of one prompt, on the levels that the reference has."""

    procedure: RankProcedure
    reference: Float[np.ndarray, "levels"]
    weights: Float[np.ndarray, "levels-1"]
    """w, the rises of the utility."""

    top: float
    """U_L, the utility of the highest level."""

    beta: float

    def over(self, low: Boxes, high: Boxes) -> tuple[Boxes, PerBox, PerBox, Boxes]:
        """A point of each box, the objective there, a bound on the objective in the box, and the
        share of each level in the distance between the two."""
        inner, log_ratio, kl = self._points(low, high)
        value = self.top - self.procedure.cdf(inner) @ self.weights - self.beta * kl
        curvature = self.weights * np.maximum(-self.procedure.slope_range(low, high)[0], 0)
        spare = curvature / 2 * (inner - low) * (high - inner)
        slope = self.beta * np.diff(log_ratio) - self.weights * self.procedure.density(inner)
        slope += curvature / 2 * (low + high - 2 * inner)
        rise = np.maximum(slope * (high - inner), slope * (low - inner)) + spare
        return inner, value, value + rise.sum(1), rise

    def _points(self, low: Boxes, high: Boxes) -> tuple[Boxes, Ratios, PerBox]:
        """A point of each box with mass on every level, its log-densities, and its KL."""
        width = high - low
        inner = low + width / 2
        mass = np.diff(inner, axis=1, prepend=0.0, append=1.0)
        # Where neighbors share their box, middles leave no mass between them: spread the points.
        tight = (mass[:, 1:-1] <= width.min(1, keepdims=True) / 1000).any(1)
        share = np.arange(1, self.weights.size + 1) / (self.weights.size + 1)
        inner[tight] = (low + width * share)[tight]
        mass = np.maximum(np.diff(inner, axis=1, prepend=0.0, append=1.0), TINY)
        log_ratio = np.log(mass / self.reference)
        return inner, log_ratio, (mass * log_ratio).sum(1)
