"""Starts for Newton's method by an iteration on the axis of ranks, s = F(v).

There the optimum's density satisfies df/ds = h(s) g(V(s)) / β, V = F⁻¹ (docs/maths.md, section 6).
With V held fixed, its solutions are f = b (ε + a), where a(s) is the integral of h g(V) up to s, as
a share of its total A, and b = A/β. The condition ∫ ds/f = V(1) = 1 determines b, and one root in
log ε gives the requested KL, ∫ log f ds, or β. The new V = ∫ ds/f then replaces the old one.

Against plain sampling g = 1, so the first step is the solution. If G is convex, as for best-of-n,
the win rate is convex in V and a step maximizes a lower bound of W − β KL that is exact at the old
policy: the iteration never falls, and an error shrinks by a factor of about four a step.
"""

from dataclasses import dataclass, replace

import numpy as np

from infalign.core._interface import AbstractProcedure
from infalign.core._quadrature import FROM_LEFT, NODES, Panels, through

from .newton import Budget, Iterate, Problem, Values, quench
from .starts import ROUGH_LOG, laws_grid

STEPS = 8
"""Largest number of steps."""

SETTLED = 0.01
"""Change of log β at which the steps end."""

RESOLUTION = 1e-7
"""Share of an integral that a panel may misplace before it is cut."""

STEEP = 2.0
"""Largest rise of the log-density in a panel, in nats."""

CUTS = 12
"""Maximum number of times that panels are cut."""

DEPTH = 20
"""Number of panels that replace the first one if h(0) > 0, each a quarter as wide as the next: a
policy may then have very little mass at low quantiles."""

ROOT_STEPS = 80
"""Maximum number of Newton steps for ε."""

ROUGHLY = 1e-3
"""Relative error of the KL, or of β, at which the search for ε ends while V still changes."""

EXACTLY = 1e-11
"""That error if the first step is the solution."""

MOST_LOW = 40
"""Number of panels without mass at low quantiles above which they are not cut any more."""

LONGEST = 20.0
"""Longest Newton step in log ε, unless log ε itself is far longer."""


@dataclass(frozen=True)
class Area:
    """a at the nodes of panels of ranks."""

    grid: Panels
    values: Values
    total: float
    """A."""

    first: float
    """a at the right end of the first panel, below which a is taken as linear if h(0) > 0; else
    0."""

    @classmethod
    def of(cls, problem: Problem, grid: Panels, law: Values, quantiles: Values) -> "Area | None":
        """None if A is 0 in double precision.

        - `law`: h at the nodes.
        - `quantiles`: V at the nodes.
        """
        values, edges = grid.cumulate(law * problem.against.density(quantiles))
        total = float(edges[-1])
        if not total > 0:
            return None
        deep = problem.procedure.density(np.zeros(1))[0] > 0
        # Rounding may leave the smallest values below 0.
        values = np.maximum(values, 0) / total
        return cls(grid, values, total, float(edges[1]) / total if deep else 0.0)

    @property
    def width(self) -> float:
        """Width of the first panel."""
        return 2 * float(self.grid.half[0, 0])

    def below(self, log_share: np.ndarray | float, x: float) -> np.ndarray | float:
        """∫ ds / (ε + a) up to a share of the first panel, given by its logarithm; x = −log ε."""
        return self.width / self.first * np.logaddexp(0, np.log(self.first) + x + log_share)

    def weak(self, kl: float) -> float:
        """−log ε of a weak tilt, whose KL is Var(a) / (2 ε²)."""
        variance = self.grid.integrate((self.values - self.grid.integrate(self.values)) ** 2)
        return 0.5 * float(np.log(2 * kl / max(variance, 1e-300)))

    def scales(self, x: float) -> tuple[float, float, float, float]:
        """log b and the KL at −log ε = x, and their slopes in x."""
        weights, epsilon = self.grid.weights.copy(), np.exp(-x)
        density = epsilon + self.values
        if self.first:
            weights[0] = 0
            b = float(self.below(0.0, x))
            rise = self.width / self.first / (1 + np.exp(-np.log(self.first) - x))
            kl = -self.width * x  # negligible, and right to leading order
        else:
            b, rise, kl = 0.0, 0.0, 0.0
        inverse = weights / density
        share = epsilon * inverse.sum()
        b += inverse.sum()
        rise += epsilon * float(np.vdot(inverse, 1 / density))
        kl += np.log(b) + np.vdot(weights, np.log(density))
        return float(np.log(b)), float(kl), rise / b, rise / b - share

    def root(self, problem: Problem, log_beta: float, x: float, tolerance: float) -> float:
        """−log ε at which the budget, or β, is as requested."""
        condition = problem.condition
        low, high = -np.inf, np.inf
        for _ in range(ROOT_STEPS):
            log_b, kl, b_slope, kl_slope = self.scales(x)
            if isinstance(condition, Budget):
                kl = max(kl, 1e-300)
                miss, slope = np.log(kl / condition.kl), kl_slope / kl
            else:
                miss, slope = log_b - np.log(self.total) + log_beta, b_slope
            if not abs(miss) > tolerance:
                break
            low, high = (low, x) if miss > 0 else (x, high)
            step = -miss / slope if slope > 0 else -np.sign(miss)
            longest = max(LONGEST, abs(x) / 2)
            x += float(np.clip(step, -longest, longest))
            if not low < x < high:
                x = (low + high) / 2
        return x


@dataclass(frozen=True)
class Tilt:
    """f = b (ε + a)."""

    area: Area
    x: float
    """−log ε."""

    log_b: float

    @property
    def log_beta(self) -> float:
        return float(np.log(self.area.total)) - self.log_b

    def quantiles(self) -> tuple[Values, np.ndarray, np.ndarray, np.ndarray]:
        """V at the nodes, measured from each panel's left edge; each panel's share of [0, 1]; and
        V and 1 − V at the edges."""
        area = self.area
        inverse = np.exp(-self.log_b) / (np.exp(-self.x) + area.values)
        grid = area.grid
        shares = (grid.weights * inverse).sum(1)
        local = grid.half * (inverse @ FROM_LEFT.T)
        if area.first:
            scale = np.exp(-self.log_b)
            local[0] = area.below(np.log((1 + NODES) / 2), self.x) * scale
            shares[0] = area.below(0.0, self.x) * scale
        below = np.concatenate([[0.0], np.cumsum(shares)])
        above = np.concatenate([np.cumsum(shares[::-1])[::-1], [0.0]])
        return local, shares, below, above


def suit(against: AbstractProcedure) -> bool:
    """Whether the iteration is the first choice: against a concave G it oscillates."""
    low, high = against.density(np.array([0.0, 1.0]))
    return bool(low <= high) and not against.breaks


def iterated(problem: Problem, log_beta: float = float("nan")) -> Iterate | None:
    """A start at the problem's budget, or at the strength `log_beta`; None if double precision ends
    the iteration."""
    grid = _ranks(problem)
    opponent = problem.against.density(grid.nodes)
    uncoupled = bool(np.ptp(opponent) == 0)
    law, quantiles = problem.procedure.density(grid.nodes), grid.nodes
    x, last, steps, cuts = float("nan"), float("nan"), 0, 0
    while True:
        area = Area.of(problem, grid, law, quantiles)
        if area is None:
            return None
        if np.isnan(x):
            budget = problem.condition.kl if isinstance(problem.condition, Budget) else 1.0
            x = area.weak(budget)
        x = area.root(problem, log_beta, x, EXACTLY if uncoupled else ROUGHLY)
        tilt = Tilt(area, x, area.scales(x)[0])
        local, shares, below, above = tilt.quantiles()
        quantiles = np.clip(below[:-1, None] + local, 0, 1)
        if not np.isfinite(quantiles).all():
            return None
        rough = grid.unresolved(1 / (np.exp(-x) + area.values)) > RESOLUTION * np.exp(tilt.log_b)
        rough |= grid.unresolved(law * problem.against.density(quantiles)) > (
            RESOLUTION * area.total
        )
        rough |= np.ptp(np.log(np.exp(-x) + area.values), axis=1) > STEEP
        if area.first:
            rough[0] = False
        if rough.any() and cuts < CUTS:
            finer = grid.cut(rough)
            quantiles = np.clip(grid.interpolate(quantiles, finer), 0, 1)
            grid, law, cuts = finer, problem.procedure.density(finer.nodes), cuts + 1
            continue
        steps += 1
        if uncoupled or steps == STEPS or abs(tilt.log_beta - last) < SETTLED:
            if area.first and not suit(problem.against):
                start = on_quantiles(problem, tilt, lowest(problem, float(below[1])))
            else:
                start = _on_quantiles(tilt, local, shares, below, above)
            if start is None or isinstance(problem.condition, Budget):
                return start
            return replace(start, log_beta=log_beta)
        last = tilt.log_beta


def _ranks(problem: Problem) -> Panels:
    """Panels of ranks that resolve both laws at the reference."""
    grid = laws_grid(problem.procedure, problem.against)
    if not problem.procedure.density(np.zeros(1))[0] > 0:
        return grid
    low = grid.edges[1] * 0.25 ** np.arange(DEPTH, 0, -1)
    edges = np.concatenate([[0.0], low, grid.edges[1:]])
    return Panels(edges, np.concatenate([[1.0], 1 - low, grid.distances[1:]]))


def lowest(problem: Problem, width: float) -> np.ndarray:
    """Edges of panels up to a quantile below which there is next to no mass, as shares of it: there
    the log-density follows the opponent's law."""
    edges = laws_grid(problem.procedure, problem.against).edges
    return np.append(edges[edges < width] / width, 1.0)


def on_quantiles(problem: Problem, tilt: Tilt, low: np.ndarray | None) -> Iterate | None:
    """The gradient at a tilt, divided by its β, on panels of quantiles; None if double precision
    cannot represent it.

    - `low`: edges that cut the first panel, which holds next to no mass, as shares of its width;
      it is cut further where the gradient is steep.
    """
    local, shares, below, above = tilt.quantiles()
    at = through(2 * local / shares[:, None] - 1, np.broadcast_to(NODES, local.shape), NODES)
    ranks = tilt.area.grid
    cdf = np.clip(ranks.edges[:-1, None] + ranks.half * (1 + at), 0, 1)
    above[0] = 1.0
    if not (np.isfinite(cdf).all() and np.isfinite(below).all()):
        return None
    law, edges = problem.procedure.density(cdf), (below, above)
    if low is not None:
        law[0] = problem.procedure.density(np.zeros(1))
    while True:
        if low is not None:
            inside = low[:-1] * below[1]
            edges = np.append(inside, below[1:]), np.append(1 - inside, above[1:])
        grid = between(*edges)
        empty = len(grid) - len(law)  # panels added to the first
        laws = law if low is None else law[np.r_[np.zeros(empty, int), 0 : len(law)]]
        rate = laws * problem.against.density_on(grid) * np.exp(-tilt.log_beta)
        quench(grid, rate)
        if low is None or len(low) > MOST_LOW:
            break
        coarse = np.flatnonzero(grid.unresolved(rate)[: len(low) - 1] > ROUGH_LOG)
        if not coarse.size:
            break
        low = np.insert(low, coarse + 1, (low[coarse] + low[coarse + 1]) / 2)
    return Iterate(grid, -grid.cumulate_down(rate)[0], tilt.log_beta)


def between(below: np.ndarray, above: np.ndarray) -> Panels:
    """Panels between edges, given by their distances from 0 and from 1, the smaller of which is
    exact."""
    edges = np.where(below < 0.5, below, 1 - above)
    distances = np.where(below < 0.5, 1 - below, above)
    edges[-1] = 1.0
    return Panels(edges, distances)


def _on_quantiles(
    tilt: Tilt, local: Values, shares: np.ndarray, below: np.ndarray, above: np.ndarray
) -> Iterate:
    """The log-density at the nodes of the panels of quantiles that the panels of ranks become."""
    log_density = np.log(np.exp(-tilt.x) + tilt.area.values)
    y = through(2 * local / shares[:, None] - 1, log_density, NODES)
    if tilt.area.first:
        # a is linear there, and then so is y in v.
        low = np.logaddexp(-tilt.x, np.log(tilt.area.first))
        y[0] = -tilt.x + (1 + NODES) / 2 * (low + tilt.x)
    above[0] = 1.0
    return Iterate(between(below, above), y - np.log1p(np.exp(-tilt.x)), tilt.log_beta)
