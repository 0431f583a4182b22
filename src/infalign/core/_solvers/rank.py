"""The policy that wins most at a KL strength or a KL budget, for procedures that keep by rank.

A start close enough for Newton's method is the reference tilted by its own gradient, at the KL
asked for. Where the optimum is far from that (win rates beyond about .99) the solver follows it
from a smaller KL: its quantile function moves smoothly, so two solutions foretell the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, wrightomega

from infalign import _check
from infalign.core._policies import Curve
from infalign.core._procedures import AbstractProcedure, RankProcedure
from infalign.core._quadrature import NODES, Panels
from infalign.core._roots import bracketed_root
from infalign.core._soft_procedures import grid_for
from infalign.errors import SolveError

from .newton import Problem, State, newton, quench

RESOLUTION = 1e-7
"""Mass that a panel's last coefficients may hold; integrals err by far less."""

ROUGHLY = 1e-5
"""Residual at which a solution shows where its panels are too wide."""

ROUGH_LOG = 0.1
"""Error of a log-density, in nats, with which no panel may start."""

COUPLED_STEPS = ((2, 0.5), (10, 1.0), (10, 0.5))
"""How many tilts by the gradient at the tilt before improve a start, and the weight of each new
one; tried in turn. Undamped steps converge against worst-of-n, and may oscillate elsewhere."""

COARSE = 1e-4
"""Mass that a panel of a start may misplace."""

ROUNDS = 12
"""How often panels are cut for one solution."""

SMALLEST_LOG_BETA = -600.0
"""Below, the win rate differs from 1 by less than floating point can hold."""


@dataclass(frozen=True)
class Optimum:
    """A stationary point of W − β KL on the quantile axis."""

    curve: Curve
    """Density and CDF at the nodes of the quadrature."""

    gradient: np.ndarray
    """Φ = dW/df at the nodes, shifted to start at 0: the optimal transform."""

    exponent: np.ndarray
    """Φ/β at the nodes, shifted to end at 0: exact where Φ itself has lost its last digits."""

    beta: float
    win_rate: float
    kl: float
    losses: float = float("nan")
    """1 − W, with all its digits where W is next to 1."""


@dataclass(frozen=True)
class Start:
    """A guess of an optimum: points of its quantile function, in logits, and log β."""

    at: np.ndarray
    """logit of quantiles v, increasing."""

    rank: np.ndarray
    """logit of F(v), increasing."""

    log_beta: float


def solve(
    procedure: RankProcedure,
    against: AbstractProcedure,
    *,
    kl: float | None = None,
    beta: float | None = None,
) -> Optimum:
    """The optimal policy at a KL budget in nats, or at a KL strength β.

    Raises ValueError for arguments out of range, SolveError where double precision cannot hold the
    optimum.
    """
    if (kl is None) == (beta is None):
        raise ValueError(
            f"Give exactly one of `kl` (nats) and `beta` (win rate per nat); got kl={kl}, "
            f"beta={beta}."
        )
    path = Path(procedure, against)
    if kl is not None:
        return path.at_kl(_check.positive("kl", kl))
    return path.at_beta(_check.positive("beta", beta))


def frontier(
    procedure: RankProcedure, against: AbstractProcedure, kls: Sequence[float]
) -> list[Optimum]:
    """The optimal policy at each of several KL budgets, each from its neighbors."""
    path = Path(procedure, against)
    found = {kl: path.at_kl(kl) for kl in sorted({_check.positive("kl", kl) for kl in kls})}
    return [found[kl] for kl in kls]


class Path:
    """The optima of one procedure as the KL budget grows; remembers the last two."""

    def __init__(self, procedure: RankProcedure, against: AbstractProcedure):
        self.procedure, self.against = procedure, against
        self.states: list[State] = []

    def at_kl(self, kl: float) -> Optimum:
        """The optimum at a budget, which must not lie below those asked for before."""
        problem = Problem(self.procedure, self.against, kl)
        found = self._direct(problem)
        if found is None:
            found = self._walk(problem, lambda state: state.problem.kl >= kl, most=kl)
        return self._optimum(found)

    def at_beta(self, beta: float) -> Optimum:
        """The optimum at a KL strength."""
        problem, target = Problem(self.procedure, self.against, None), float(np.log(beta))
        found = _resolve(problem, *self._tilted_reference(target))
        if found is None:
            last = self._walk(problem, lambda state: state.log_beta <= target)
            found = _resolve(problem, last.grid, last.y, target)
            # Between the last two, where log β crosses the target.
            if found is None:
                a, b = (s.log_beta for s in self.states)
                share = (target - a) / (b - a)
                kls = [s.problem.kl for s in self.states]
                kl = float(np.exp(np.interp(share, [0, 1], np.log(kls))))
                between = self._from(Problem(self.procedure, self.against, kl))
                if between is not None:
                    found = _resolve(problem, between.grid, between.y, target)
        if found is None:
            raise self._beyond(f"beta={beta:g}")
        return self._optimum(found)

    def near(self, start: Start, kl: float | None = None) -> Optimum:
        """The stationary point next to a guess: at a budget, or at the guess's own β."""
        problem = Problem(self.procedure, self.against, kl)
        grid = laws_grid(self.procedure, self.against)
        found = _resolve(problem, *start_from(problem, grid, start))
        if found is None:
            raise self._beyond(f"kl={kl:g}" if kl else f"beta={np.exp(start.log_beta):g}")
        return self._optimum(found)

    def _direct(self, problem: Problem) -> State | None:
        """The optimum from the last ones, or else from the reference."""
        found = self._from(problem) if self.states else None
        if found is None:
            for steps, weight in COUPLED_STEPS:
                start = self._tilted_reference(None, problem.kl, steps, weight)
                found = _resolve(problem, *start)
                if found is not None:
                    break
        if found is not None:
            self.states = [*self.states[-1:], found]
        return found

    def _from(self, problem: Problem) -> State | None:
        """The optimum at a budget near those of the last two."""
        with np.errstate(all="ignore"):  # a start too far off is refused by what follows
            return _resolve(problem, *_foretell(self.states, problem.kl))

    def _walk(self, problem: Problem, arrived, most: float = 700.0) -> State:
        """Follow the optimum from a small KL upwards until it has arrived."""
        kl = min(most, 1.0) / 5
        while not self.states or self.states[-1].problem.kl > most:
            self.states = []
            if self._direct(Problem(self.procedure, self.against, kl)) is None:
                kl /= 5
            if kl < 1e-9:
                raise self._beyond(f"kl={most:g}")
        step = 1.0
        while not arrived(self.states[-1]):
            time = _time(self.states[-1].problem.kl) + step
            kl = min(most, _kl_at(time))
            found = self._from(Problem(self.procedure, self.against, kl))
            if found is None:
                step /= 3
                if step < 1e-3:
                    raise self._beyond(f"kl={most:g}")
                continue
            self.states = [self.states[-1], found]
            step = min(1.5 * step, 2.0)
            if found.log_beta < SMALLEST_LOG_BETA:
                raise self._beyond(f"kl={most:g}")
        return self.states[-1]

    def _tilted_reference(self, log_beta: float | None, kl: float | None = None, *steps):
        """The reference tilted by its own gradient: panels, y and log β of a start."""
        grid = laws_grid(self.procedure, self.against)
        gradient = self._gradient(grid, grid.nodes)
        if kl is not None:
            return self._coupled_steps(grid, gradient, kl, *steps)
        # At a strength: the best of several amplitudes.
        scales = np.exp(-log_beta + np.arange(-4.0, 4.5, 0.5))
        curves = [Curve(grid, scale * gradient) for scale in scales]
        worth = [c.win_rate(self.procedure, self.against) - np.exp(log_beta) * c.kl for c in curves]
        best = curves[int(np.argmax(worth))]
        if not 1e-9 < best.kl:
            return grid, best.log_density - best.log_density.max(), log_beta
        grid, y, _ = self._coupled_steps(grid, gradient, best.kl)
        return grid, y, log_beta

    def _coupled_steps(self, grid: Panels, gradient: np.ndarray, kl: float, steps=2, weight=0.5):
        """A start nearer the optimum: tilt by the gradient at the last tilt, a few times.

        - `weight`: of the new CDF in its mean with the one before.
        """
        cdf, near = grid.nodes, None
        for step in range(steps + 1):
            near = _log_scale_for(grid, gradient, kl, near)
            if step == steps:
                break
            curve = Curve(grid, np.exp(near) * gradient)
            cdf = (1 - weight) * cdf + weight * curve.cdf
            rough = grid.unresolved(curve.density) > COARSE
            if rough.any():
                grid, old = grid.cut(rough), grid
                cdf = np.clip(old.interpolate(cdf, grid), 0, 1)
            gradient = self._gradient(grid, cdf)
        return grid, np.exp(near) * gradient, -near

    def _gradient(self, grid: Panels, cdf: np.ndarray) -> np.ndarray:
        """Φ = −∫_v^1 h(F) dG at the nodes."""
        return -grid.cumulate_down(self.procedure.density(cdf) * self.against.density(grid.nodes))[
            0
        ]

    def _optimum(self, state: State) -> Optimum:
        curve, grid = state.curve, state.grid
        rate = self.procedure.density(curve.cdf) * state.opponent
        return Optimum(
            curve,
            grid.cumulate(rate)[0],
            -grid.cumulate_down(state.rate)[0],
            float(np.exp(state.log_beta)),
            curve.win_rate(self.procedure, self.against),
            curve.kl,
            grid.integrate(self.procedure.cdf(curve.cdf) * state.opponent),
        )

    def _beyond(self, asked: str) -> SolveError:
        reached = f"up to kl={self.states[-1].problem.kl:.4g}" if self.states else "at a small KL"
        return SolveError(
            f"No optimum was found for {self.procedure!r} against {self.against!r} with {asked}; "
            f"it could be followed {reached}. Beyond, its win rate or its density is more than "
            "double precision holds. Ask for a smaller `kl` or a larger `beta`."
        )


def _resolve(problem: Problem, grid: Panels, y: np.ndarray, log_beta: float) -> State | None:
    """The solution near a start, on panels cut until they resolve it; None if there is none."""
    with np.errstate(all="ignore"):  # what overflows on the way is refused where it stays
        return _resolved(problem, grid, y, log_beta)


def _resolved(problem, grid, y, log_beta):
    for _ in range(ROUNDS):
        opponent = problem.against.density(grid.nodes)
        state = newton(State(problem, grid, y, log_beta, opponent), ROUGHLY)
        if state is None:
            return None
        rough = _missed(state) > RESOLUTION
        if not rough.any():
            return newton(state)
        finer = grid.cut(rough)
        y, log_beta = grid.interpolate(state.y, finer), state.log_beta
        grid = finer
    return None


def _missed(state: State) -> np.ndarray:
    """What each panel may miss: of the mass, and relative to the losses 1 − W = ∫ H(F) dG, which β
    is in proportion to and which may all come from a place with little mass."""
    grid, curve = state.grid, state.curve
    kept = state.problem.procedure.selected_cdf(grid, curve.density, curve.cdf)
    losses = (grid.weights * kept * state.opponent).sum(1)
    losses /= losses.sum()
    mass = np.maximum(curve.cdf_at_edges[1:], 1e-300)
    # Mass that a panel misplaces is missing at all later ones; an error of its rate scales all
    # mass before it.
    later = np.maximum.accumulate((losses / mass)[::-1])[::-1]
    before = np.maximum(mass, np.cumsum(losses))
    misplaced = grid.unresolved(curve.density)
    # Behind a steep front every node may be empty, and all the mass right of the last one.
    log_edge = -state.below_at_edges[1:] - curve.log_partition
    steep = log_edge - curve.log_density[:, -1] > 2
    # Such an error is not squared by the quadrature.
    hidden = np.exp(log_edge) * grid.half[:, 0] * (1 - NODES[-1]) / np.sqrt(RESOLUTION)
    misplaced += np.where(steep, hidden, 0)
    log_error = grid.unresolved(state.rate)
    coarse = np.where(log_error > ROUGH_LOG, np.inf, 0)
    return np.max([misplaced * np.maximum(1, later), log_error * before, coarse], axis=0)


def laws_grid(
    procedure: AbstractProcedure, against: AbstractProcedure, near_0: int = 5, near_1: int = 5
) -> Panels:
    """Panels that resolve both laws at the reference, from ones that halve so often at the ends."""
    grid = grid_for(procedure, against, near_0=near_0, near_1=near_1)
    for _ in range(ROUNDS):
        laws = procedure.density(grid.nodes), against.density(grid.nodes)
        rough = np.maximum(*(grid.unresolved(law) for law in laws)) > RESOLUTION
        if not rough.any():
            break
        grid = grid.cut(rough)
    return grid


def _log_scale_for(grid: Panels, gradient: np.ndarray, kl: float, near: float | None) -> float:
    """The logarithm of the scale at which tilting by `gradient` costs `kl` nats, to a per cent."""
    gradient = gradient - gradient.max()
    if near is None:
        mean = grid.integrate(gradient)
        near = 0.5 * float(np.log(2 * kl / grid.integrate((gradient - mean) ** 2)))

    def excess(log_scale):
        exponent = np.exp(log_scale) * gradient
        mass = grid.weights * np.exp(exponent)
        total = mass.sum()
        return np.log(max(np.vdot(mass, exponent) / total - np.log(total), 1e-300) / kl)

    low, high = near - 0.3, near + 0.3
    while excess(low) > 0:
        low, high = low - 1, low
    while excess(high) < 0:
        low, high = high, high + 1
        if high > -SMALLEST_LOG_BETA:  # the budget is more than any tilt by this gradient costs
            return high
    return bracketed_root(excess, low, high, xtol=1e-2, rtol=1e-6)


# Optima move along the axis as the KL grows: V(s) = F⁻¹(s), in logits, is nearly linear in a clock
# that runs like log κ for small budgets and like κ for large ones.


def _time(kl: float) -> float:
    return kl + float(np.log(kl))


def _kl_at(time: float) -> float:
    """The inverse of `_time`."""
    return float(wrightomega(time))


def _foretell(states: list[State], kl: float) -> tuple[Panels, np.ndarray, float]:
    """Panels, y and log β to expect at a budget near that of the last state."""
    last = states[-1]
    if len(states) == 1 or kl == last.problem.kl:
        opponent, grid = last.opponent, last.grid
        rate = last.problem.procedure.density(last.curve.cdf) * opponent
        gradient = -grid.cumulate_down(rate)[0]
        log_scale = _log_scale_for(grid, gradient, kl, near=-last.log_beta)
        return grid, np.exp(log_scale) * gradient, -log_scale
    ahead = (_time(kl) - _time(last.problem.kl)) / (
        _time(last.problem.kl) - _time(states[0].problem.kl)
    )
    log_beta = last.log_beta + ahead * (last.log_beta - states[0].log_beta)
    (rank_0, at_0), (rank, at) = (_quantile_function(s) for s in states)
    both = np.clip(rank, max(rank[0], rank_0[0]), min(rank[-1], rank_0[-1]))
    moved = at + ahead * (_interpolate(both, rank, at) - _interpolate(both, rank_0, at_0))
    # Edges move with the mass around them, but for those where a law jumps.
    edges = np.log(last.grid.edges[1:-1]) - np.log(last.grid.distances[1:-1])
    edges = edges + np.interp(edges, at, moved - at)
    problem = last.problem
    breaks = np.array(problem.procedure.breaks + problem.against.breaks)
    edges = np.union1d(edges[np.isfinite(edges)], np.log(breaks) - np.log1p(-breaks))
    grid = Panels(
        np.concatenate([[0.0], expit(edges), [1.0]]), np.concatenate([[1.0], expit(-edges), [0.0]])
    )
    return start_from(problem, grid, Start(moved, rank, log_beta))


def start_from(problem: Problem, grid: Panels, start: Start):
    """Panels, y and log β of a guess: `grid`, cut until the gradient at the guess is smooth."""
    for cuts in range(ROUNDS + 1):
        nodes = np.log(grid.nodes) - np.log(grid.from_1)
        cdf = expit(_interpolate(nodes, start.at, start.rank))
        rate = problem.procedure.density(cdf) * problem.against.density(grid.nodes)
        rate *= np.exp(-start.log_beta)
        quench(grid, rate)
        coarse = grid.unresolved(rate) > ROUGH_LOG
        if not coarse.any() or cuts == ROUNDS:
            return grid, -grid.cumulate_down(rate)[0], start.log_beta
        grid = grid.cut(coarse)


def _interpolate(x: np.ndarray, at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Cubic Hermite interpolation with the slopes of neighbors; constant beyond the ends."""
    if at.size < 3 or (np.diff(at) <= 0).any():
        return np.interp(x, at, values)
    slopes = np.gradient(values, at)
    x = np.clip(x, at[0], at[-1])
    i = np.clip(np.searchsorted(at, x) - 1, 0, at.size - 2)
    width = at[i + 1] - at[i]
    t = (x - at[i]) / width
    rise = values[i + 1] - values[i]
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
