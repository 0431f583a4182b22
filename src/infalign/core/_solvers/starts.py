"""Starts for Newton's method: tilts of the reference, and extrapolations of known optima.

Optima move along the axis as the KL grows. In logits their quantile function V(s) = F⁻¹(s) is
nearly linear in a clock that runs like log κ for small budgets and like κ for large ones, so two
optima predict the next.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import expit, wrightomega

from infalign.core._interface import AbstractProcedure
from infalign.core._policies import Curve
from infalign.core._quadrature import Panels
from infalign.core._roots import NoRoot, falling_root
from infalign.core._soft_procedures import grid_for
from infalign.errors import SolveError

from .newton import Iterate, Problem, State, Values, quench

RESOLUTION = 1e-7
"""Mass that a panel's last coefficients may hold; errors of integrals are far smaller."""

ROUGH_LOG = 0.1
"""Largest error of a log-density, in nats, with which a panel may start."""

HIDDEN = 0.5
"""Mass behind a panel's last node above which it is cut."""

COARSE = 1e-4
"""Mass that a panel of a start may misplace."""

ROUNDS = 12
"""Maximum number of times that panels are cut for one solution."""

LARGEST_LOG_SCALE = 600.0
"""Log scale of a tilt beyond which the win rate differs from 1 by less than rounding."""

AMPLITUDES = np.arange(-4.0, 4.5, 0.5)
"""Amplitudes of the tilts of the reference that are tried at a strength, in log units around it."""


class CoupledSteps(NamedTuple):
    """Improves a tilt of the reference by repeatedly tilting by the gradient at the last tilt.

    Undamped steps converge against worst-of-n and may oscillate elsewhere.
    """

    steps: int
    weight: float
    """Weight of the new CDF in its mean with the previous one; 1 means undamped."""


IMPROVEMENTS = (CoupledSteps(2, 0.5), CoupledSteps(10, 1.0), CoupledSteps(10, 0.5))
"""Settings that are tried in turn."""


@dataclass(frozen=True)
class Start:
    """A guess of an optimum: points of its quantile function, in logits, and log β."""

    at: np.ndarray
    """logit of quantiles v, increasing."""

    rank: np.ndarray
    """logit of F(v), increasing."""

    log_beta: float


@dataclass(frozen=True)
class Waypoint:
    """A solved budget."""

    kl: float
    """Nats."""

    state: State

    @property
    def time(self) -> float:
        """The clock, in which optima move evenly."""
        return self.kl + float(np.log(self.kl))


def kl_at(time: float) -> float:
    """The budget at which the clock shows `time`: κ + log κ inverted."""
    return float(wrightomega(time))


def laws_grid(
    procedure: AbstractProcedure, against: AbstractProcedure, near_0: int = 5, near_1: int = 5
) -> Panels:
    """Panels that resolve both laws at the reference, cut from panels that halve `near_0` and
    `near_1` times toward the ends."""
    grid = grid_for(procedure, against, near_0=near_0, near_1=near_1)
    for _ in range(ROUNDS):
        laws = procedure.density_on(grid), against.density_on(grid)
        rough = np.maximum(*(grid.unresolved(law) for law in laws)) > RESOLUTION
        if not rough.any():
            break
        grid = grid.cut(rough)
    return grid


def tilted_reference(problem: Problem, kl: float, improvement: CoupledSteps) -> Iterate:
    """The reference tilted by its own gradient to a KL, improved by coupled steps."""
    grid = laws_grid(problem.procedure, problem.against)
    return _improved(problem, grid, problem.gradient(grid, grid.nodes), kl, improvement)


def tilted_reference_at(problem: Problem, log_beta: float) -> Iterate:
    """The best of the reference's tilts by its own gradient at a strength β."""
    grid = laws_grid(problem.procedure, problem.against)
    gradient = problem.gradient(grid, grid.nodes)
    curves = [Curve(grid, scale * gradient) for scale in np.exp(-log_beta + AMPLITUDES)]
    objectives = [
        c.win_rate(problem.procedure, problem.against) - np.exp(log_beta) * c.kl for c in curves
    ]
    best = curves[int(np.argmax(objectives))]
    if not 1e-9 < best.kl:  # too near the reference to improve
        return Iterate(grid, best.log_density - best.log_density.max(), log_beta)
    improved = _improved(problem, grid, gradient, best.kl, IMPROVEMENTS[0])
    return Iterate(improved.grid, improved.y, log_beta)


def _improved(
    problem: Problem, grid: Panels, gradient: Values, kl: float, improvement: CoupledSteps
) -> Iterate:
    """The tilt by `gradient` to a KL, improved by coupled steps."""
    cdf = grid.nodes
    log_scale = log_scale_at(grid, gradient, kl, None)
    for _ in range(improvement.steps):
        curve = Curve(grid, np.exp(log_scale) * gradient)
        cdf = (1 - improvement.weight) * cdf + improvement.weight * curve.cdf
        rough = grid.unresolved(curve.density) > COARSE
        if rough.any():
            grid, old = grid.cut(rough), grid
            cdf = np.clip(old.interpolate(cdf, grid), 0, 1)
        gradient = problem.gradient(grid, cdf)
        log_scale = log_scale_at(grid, gradient, kl, log_scale)
    return Iterate(grid, np.exp(log_scale) * gradient, -log_scale)


def log_scale_at(grid: Panels, gradient: Values, kl: float, near: float | None) -> float:
    """The log of the scale at which a tilt by `gradient` has a KL of `kl` nats, to within a
    percent."""
    gradient = gradient - gradient.max()
    if near is None:
        # A small tilt has a KL of scale² var(Φ) / 2.
        mean = grid.integrate(gradient)
        variance = grid.integrate((gradient - mean) ** 2)
        if not variance > 0:
            raise SolveError(
                "The win rate's gradient is concentrated beyond double precision: the procedure "
                "draws too many responses for a policy to be designed. Ask for a smaller n."
            )
        near = 0.5 * float(np.log(2 * kl / variance))

    def shortfall(log_scale: float) -> float:
        exponent = np.exp(log_scale) * gradient
        mass = grid.weights * np.exp(exponent)
        total = mass.sum()
        cost = np.vdot(mass, exponent) / total - np.log(total)
        return float(np.log(kl / max(cost, 1e-300)))

    try:
        return falling_root(
            shortfall, near, step=0.3, growth=2, high=LARGEST_LOG_SCALE, xtol=1e-2, rtol=1e-6
        )
    except NoRoot as end:  # the budget exceeds the KL of any tilt by this gradient
        return end.at


def predicted(waypoints: list[Waypoint], problem: Problem, kl: float) -> Iterate:
    """The predicted optimum at a budget near that of the last waypoint."""
    last = waypoints[-1]
    state = last.state
    if len(waypoints) == 1 or kl == last.kl:
        gradient = -state.grid.cumulate_down(
            problem.procedure.density(state.curve.cdf) * state.opponent
        )[0]
        log_scale = log_scale_at(state.grid, gradient, kl, near=-state.log_beta)
        return Iterate(state.grid, np.exp(log_scale) * gradient, -log_scale)
    first = waypoints[0]
    ahead = (kl + float(np.log(kl)) - last.time) / (last.time - first.time)
    log_beta = state.log_beta + ahead * (state.log_beta - first.state.log_beta)
    rank_0, at_0 = _quantile_function(first.state)
    rank, at = _quantile_function(state)
    both = np.clip(rank, max(rank[0], rank_0[0]), min(rank[-1], rank_0[-1]))
    moved = at + ahead * (_interpolate(both, rank, at) - _interpolate(both, rank_0, at_0))
    # Edges move with the mass around them, except edges where a law jumps.
    edges = np.log(state.grid.edges[1:-1]) - np.log(state.grid.distances[1:-1])
    edges = edges + np.interp(edges, at, moved - at)
    breaks = np.array(problem.procedure.breaks + problem.against.breaks)
    edges = np.union1d(edges[np.isfinite(edges)], np.log(breaks) - np.log1p(-breaks))
    grid = Panels(
        np.concatenate([[0.0], expit(edges), [1.0]]), np.concatenate([[1.0], expit(-edges), [0.0]])
    )
    return from_quantiles(problem, grid, Start(moved, rank, log_beta))


def at_kl(iterate: Iterate, kl: float) -> Iterate:
    """The same gradient at the β with which it tilts to a KL: where the win rate is next to 0 or 1,
    a small error of the gradient's shape is a large one of its scale."""
    log_scale = log_scale_at(iterate.grid, iterate.y, kl, near=0.0)
    return Iterate(iterate.grid, np.exp(log_scale) * iterate.y, iterate.log_beta - log_scale)


def from_quantiles(problem: Problem, grid: Panels, start: Start) -> Iterate:
    """The gradient at a guess, divided by the guess's β, on `grid` cut until the result is
    smooth."""
    cuts = 0
    while True:
        nodes = np.log(grid.nodes) - np.log(grid.from_1)
        cdf = expit(_interpolate(nodes, start.at, start.rank))
        rate = problem.procedure.density(cdf) * problem.against.density_on(grid)
        rate *= np.exp(-start.log_beta)
        quench(grid, rate)
        # All mass may lie between a panel's last node and its edge.
        with np.errstate(divide="ignore"):
            edges = np.log(grid.edges[1:]) - np.log(grid.distances[1:])
        ends = np.interp([nodes[:, -1], edges], start.at, start.rank)
        hidden = np.append(expit(ends[1, :-1]), 1.0) - expit(ends[0])
        coarse = (grid.unresolved(rate) > ROUGH_LOG) | (hidden > HIDDEN)
        if not coarse.any() or cuts == ROUNDS:
            return Iterate(grid, -grid.cumulate_down(rate)[0], start.log_beta)
        grid, cuts = grid.cut(coarse), cuts + 1


def _interpolate(x: np.ndarray, at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Cubic Hermite interpolation with slopes from neighboring points; constant beyond the ends."""
    if at.size < 3 or (np.diff(at) <= 0).any():
        return np.interp(x, at, values)
    slopes = np.gradient(values, at)
    x = np.clip(x, at[0], at[-1])
    i = np.clip(np.searchsorted(at, x) - 1, 0, at.size - 2)
    width = at[i + 1] - at[i]
    t = (x - at[i]) / width
    rise = values[i + 1] - values[i]
    # The chord, plus t (1 − t) times a linear term that vanishes if both slopes equal the chord's.
    bend = slopes[i] * width - rise, rise - slopes[i + 1] * width
    return values[i] + t * rise + t * (1 - t) * ((1 - t) * bend[0] + t * bend[1])


def _quantile_function(state: State) -> tuple[np.ndarray, np.ndarray]:
    """logit s and logit V(s) at the nodes, both increasing."""
    curve, grid = state.curve, state.grid
    above, above_edges = grid.cumulate_down(curve.density)
    # Where F falls by orders of magnitude within a panel, its smallest values there are rounding.
    live = (curve.cdf > 1e-4 * curve.cdf_at_edges[1:, None]) & (curve.cdf > 1e-250)
    live &= (above > 1e-4 * above_edges[:-1, None]) & (above > 1e-250)
    rank = np.log(curve.cdf[live]) - np.log(above[live])
    at = np.log(grid.nodes[live]) - np.log(grid.from_1[live])
    new = np.append(True, rank[1:] > np.maximum.accumulate(rank)[:-1])
    return rank[new], at[new]
