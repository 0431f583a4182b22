"""The optimum for procedures that read the calibrated reward itself: soft best-of-n and rewind.

Their win rate is a functional of the whole density, so no differential equation describes the
optimum. Soft best-of-n is solved by Newton's method on all nodes at once; rewind by a search over
one number.
"""

from dataclasses import dataclass

import numpy as np

from infalign import _check
from infalign.core._interface import AbstractProcedure
from infalign.core._policies import Curve
from infalign.core._quadrature import Panels
from infalign.core._soft_procedures import Rewind, SoftBestOfN, SoftenedProcedure
from infalign.errors import SolveError

from .newton import LOG_BETA_STEP, Budget, Strength, Values
from .point import Optimum
from .rewind import RewindOptimum, beta_for
from .starts import laws_grid, log_scale_at

FINE = (16, 24)
"""Number of times that panels halve toward 0 and 1: fine enough for any tilt by these laws."""

STEPS = 40
"""Number of Newton steps before a budget is approached more slowly."""

TOLERANCE = 1e-12
"""Largest residual of the log-density, in nats."""

AT_ROUNDING = 1e3 * TOLERANCE
"""Residual that is accepted once the descent stops, because rounding ended it."""

SHORTEST = 1e-3
"""Shortest fraction of a Newton step that the line search tries."""

ASCENTS = 100
"""Maximum number of steps of an ascent."""

SETTLED = 0.02
"""Change of the log-density, in nats, at which an ascent ends."""

LEAST_WEIGHT = 1e-3
"""Smallest weight of a step's goal before an ascent stops."""

STRONG = 10.0
"""A strength at which the first start, a small tilt of the reference, is close enough."""

SLOWEST = 1.1
"""Smallest ratio of two budgets in a row before following ends."""

SMALL = 1e-3
"""A budget, in nats, at which the first start is close enough."""


def solve_softened(
    procedure: SoftenedProcedure,
    against: AbstractProcedure,
    *,
    kl: float | None,
    beta: float | None,
) -> Optimum:
    """The optimal policy at a KL budget in nats, or at a KL strength β."""
    grid = laws_grid(procedure, against, *FINE)
    opponent = against.cdf(grid.nodes)
    if isinstance(procedure, Rewind):
        if beta is None:
            beta = beta_for(procedure, against, grid, opponent, _check.positive("kl", kl))
        curve = RewindOptimum(procedure, grid, opponent, beta).curve()
    elif isinstance(procedure, SoftBestOfN):
        system = _System(procedure, grid, opponent)
        with np.errstate(all="ignore"):  # what overflows is rejected by its residual
            if beta is None:
                state, last = _at_kl(system, _check.positive("kl", kl))
            else:
                state, last = _at_beta(system, beta)
        if state is None:
            followed = (
                f"a walk from small budgets ended at kl={last.curve.kl:.4g}, "
                f"beta={np.exp(last.log_beta):.2g}, and starts near the answer do not converge"
                if last is not None
                else "the solver does not converge"
            )
            raise SolveError(
                f"No optimum was found for {procedure!r} against {against!r} with "
                f"{f'kl={kl:g}' if beta is None else f'beta={beta:g}'}; {followed}. "
                "Ask for a smaller `kl` or a larger `beta`."
            )
        curve, beta = state.curve, float(np.exp(state.log_beta)) if beta is None else beta
    else:
        raise ValueError(f"`procedure` must select by rank or have a solver; got {procedure!r}.")
    gradient = procedure.gradient(grid, curve.density, opponent)
    gradient = gradient - gradient.flat[0]
    exponent = (gradient - gradient.flat[-1]) / beta
    return Optimum(curve, gradient, exponent, beta, curve.win_rate(procedure, against), curve.kl)


@dataclass(frozen=True)
class _System:
    """y = (Φ_f − Φ_f(1)) / β with f = e^y / ∫ e^y, at all nodes at once."""

    procedure: SoftBestOfN
    grid: Panels
    opponent: Values
    """G at the nodes."""

    def gradient(self, density: Values) -> Values:
        """Φ_f − Φ_f(1), where the last node approximates 1."""
        gradient = self.procedure.gradient(self.grid, density, self.opponent)
        return gradient - gradient.flat[-1]

    def at_reference(self) -> Values:
        return self.gradient(np.ones_like(self.grid.nodes))


class _State:
    """A candidate (y, log β) with the residuals of its equations."""

    def __init__(
        self, system: _System, condition: Strength | Budget, y: Values, log_beta: float
    ) -> None:
        self.system, self.condition, self.y, self.log_beta = system, condition, y, log_beta
        self.curve = Curve(system.grid, y)
        self.tilt = system.gradient(self.curve.density) * np.exp(-log_beta)
        self.residual = y - self.tilt
        self.shortfall = condition.residual(self.curve)
        self.error = max(np.abs(self.residual).max(), abs(self.shortfall))

    def newton_step(self) -> tuple[Values, float]:
        """Changes of y and log β that solve the linearized equations.

        With δf = f (δy − ∫ f δy) and W'' the second derivative of the win rate in f,

            δy − (W'' δf)/β + (Φ/β) δ log β = −residual.

        The last row is δ log β = 0 at a given strength, and ∫ f (log f − KL) δy = κ − KL, over κ,
        at a budget.
        """
        system, curve, size = self.system, self.curve, self.y.size
        mass = (system.grid.weights * curve.density).ravel()
        by_y = system.procedure.curvature(system.grid, curve.density, system.opponent) * mass
        by_y -= np.outer(by_y.sum(1), mass)  # f stays normalized
        by_y = (by_y - by_y[-1]) * np.exp(-self.log_beta)
        matrix = np.zeros((size + 1, size + 1))
        matrix[:size, :size] = np.eye(size) - by_y
        matrix[:size, size] = self.tilt.ravel()
        if isinstance(self.condition, Budget):
            by_kl = mass * (curve.log_density.ravel() - curve.kl)
            matrix[size, :size] = by_kl / self.condition.kl
        else:
            matrix[size, size] = 1
        change = np.linalg.solve(matrix, -np.append(self.residual.ravel(), self.shortfall))
        return change[:-1].reshape(self.y.shape), change[-1]

    def moved(self, change: Values, log_beta: float, length: float) -> "_State":
        """The state after the fraction `length` of a Newton step."""
        y, log_beta = self.y + length * change, self.log_beta + length * log_beta
        return _State(self.system, self.condition, y, log_beta)


def _newton(state: _State) -> _State | None:
    """The solution near a state, or None."""
    for _ in range(STEPS):
        if state.error <= TOLERANCE * max(1, np.abs(state.y).max()):
            return state
        try:
            change, log_beta = state.newton_step()
        except np.linalg.LinAlgError:
            return None
        length = min(1.0, LOG_BETA_STEP / max(abs(log_beta), 1e-300))
        while True:
            trial = state.moved(change, log_beta, length)
            if trial.error < state.error:
                break
            length /= 2
            if length < SHORTEST:
                return state if state.error <= AT_ROUNDING else None
        state = trial
    return None


def _at_beta(system: _System, beta: float) -> tuple[_State | None, _State | None]:
    """The optimum at a strength, followed down from a strength at which it is easy to solve, and
    the last one that was reached."""
    strength = max(STRONG, beta)
    y, last = system.at_reference() / strength, None
    while True:
        strength = max(beta, strength / 2)
        state = _newton(_State(system, Strength(), y, float(np.log(strength))))
        if state is None or strength <= beta:
            return state, last
        y, last = state.y, state


def _ascended(system: _System, kl: float) -> tuple[Values, float]:
    """A log-density with a KL of `kl` nats near a maximum of the win rate, and log β: coupled
    steps from the reference, each damped until it raises the win rate."""
    grid, weight = system.grid, 1.0

    def tilted(exponent: Values, near: float | None) -> tuple[Values, float]:
        log_scale = log_scale_at(grid, exponent, kl, near)
        return np.exp(log_scale) * exponent, log_scale

    y, log_scale = tilted(system.at_reference(), None)
    value = _win_rate(system, y)
    for _ in range(ASCENTS):
        goal, log_scale = tilted(system.gradient(Curve(grid, y).density), log_scale)
        if np.abs(goal - y).max() < SETTLED:
            break
        while weight > LEAST_WEIGHT:
            trial = tilted((1 - weight) * y + weight * goal, 0.0)[0]
            higher = _win_rate(system, trial)
            if higher > value:
                y, value = trial, higher
                break
            weight /= 2
        else:
            break
        weight = min(1.0, 1.5 * weight)
    return y, -log_scale


def _win_rate(system: _System, y: Values) -> float:
    """W = ∫ G times the density of the selected response."""
    curve = Curve(system.grid, y)
    selected = system.procedure.selected_density(system.grid, curve.density)
    return system.grid.integrate(selected * system.opponent)


def _at_kl(system: _System, kl: float) -> tuple[_State | None, _State | None]:
    """The optimum at a budget, next to an ascent's end, or else followed up from a budget at which
    it is easy to solve; and the last one that was reached."""
    y, log_beta = _ascended(system, kl)
    state = _newton(_State(system, Budget(kl), y, log_beta))
    if state is not None:
        return state, state
    reached, factor = min(kl, SMALL), 4.0
    y, log_beta = _ascended(system, reached)
    last = _newton(_State(system, Budget(reached), y, log_beta))
    while last is not None and reached < kl:
        goal = min(kl, reached * factor)
        further = _newton(_State(system, Budget(goal), last.y, last.log_beta))
        if further is not None:
            last, reached = further, goal
            continue
        factor = np.sqrt(factor)
        if factor < SLOWEST:
            return None, last
    return last, last
