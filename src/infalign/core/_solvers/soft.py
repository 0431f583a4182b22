"""The optimum for procedures that read the calibrated reward itself: soft best-of-n and rewind.

Their win rate is a functional of the whole density, so no differential equation describes the
optimum. Soft best-of-n is solved by Newton's method on all nodes at once; rewind by a search over
one number.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from infalign import _check
from infalign.core._interface import AbstractProcedure
from infalign.core._policies import Curve
from infalign.core._quadrature import Panels
from infalign.core._roots import NoRoot, falling_root
from infalign.core._shapes import Bool
from infalign.core._soft_procedures import Rewind, SoftBestOfN, SoftenedProcedure
from infalign.errors import SolveError

from .newton import LOG_BETA_STEP, Budget, Strength, Values
from .point import Optimum
from .rewind import RewindOptimum, at_budget
from .starts import ROUNDS, kl_at, laws_grid, log_scale_at

FINE = (8, 16)
"""Number of times that panels halve toward 0 and 1 at first, before they are cut for a policy."""

FINEST = (16, 24)
"""The same for rewind, whose panels are not cut any more."""

COARSE = 1e-3
"""Mass that a panel of a start may misplace."""

RESOLUTION = 1e-5
"""Mass that a panel may misplace; the relative error of 1 − W is about its square."""

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

TINY = 1e-6
"""KL of a tilt of the reference, in nats, up to which it is next to the optimum."""

WEAK = 0.1
"""Largest budget, in nats, from which the search for a strength starts."""

EARLIEST, LATEST = -20.0, 100.0
"""Times, by the clock κ + log κ of `starts`, between which it goes on."""

NEARLY = 1e-2
"""Error of the time that it may leave."""

LOST = 1e-12
"""Share of comparisons lost below which the win rate counts as 1."""


def solve_softened(
    procedure: SoftenedProcedure,
    against: AbstractProcedure,
    *,
    kl: float | None,
    beta: float | None,
) -> Optimum:
    """The optimal policy at a KL budget in nats, or at a KL strength β."""
    grid = laws_grid(procedure, against, *(FINEST if isinstance(procedure, Rewind) else FINE))
    if isinstance(procedure, Rewind):
        opponent = against.cdf(grid.nodes)
        if beta is None:
            kl = _check.positive("kl", kl)
            beta, curve = at_budget(procedure, against, grid, opponent, kl)
        else:
            optimum = RewindOptimum(procedure, grid, opponent, beta)
            curve = optimum.curve(optimum.best)
        gradient = procedure.gradient(grid, curve.density, opponent)
        losses = 1 - curve.win_rate(procedure, against)
    elif isinstance(procedure, SoftBestOfN):
        with np.errstate(all="ignore"):  # what overflows is rejected by its residual
            system = _System(procedure, against, grid)
            if beta is None:
                state, last = _at_kl(system, _check.positive("kl", kl))
            else:
                state, last = _at_beta(system, beta)
        if state is None:
            raise SolveError(
                f"No optimum was found for {procedure!r} against {against!r} with "
                f"{f'kl={kl:g}' if beta is None else f'beta={beta:g}'}; {_reason(last)}. "
                "Ask for a smaller `kl` or a larger `beta`."
            )
        curve, beta = state.curve, float(np.exp(state.log_beta)) if beta is None else beta
        gradient, losses = state.system.gradient(curve.density), state.system.losses(curve)
    else:
        raise ValueError(f"`procedure` must select by rank or have a solver; got {procedure!r}.")
    exponent = (gradient - gradient.flat[-1]) / beta
    gradient = gradient - gradient.flat[0]
    return Optimum(curve, gradient, exponent, beta, 1 - losses, curve.kl, losses)


@dataclass(frozen=True)
class _System:
    """y = (Φ_f − Φ_f(1)) / β with f = e^y / ∫ e^y, at all nodes at once.

    W is linear in G, and 1 where G is, so it is 1 less the same functional of 1 − G: no digits are
    lost to a win rate near 1.
    """

    procedure: SoftBestOfN
    against: AbstractProcedure
    grid: Panels

    @cached_property
    def above(self) -> Values:
        """1 − G at the nodes, to full precision."""
        return self.grid.cumulate_down(self.against.density_on(self.grid))[0]

    def cut(self, rough: Bool[np.ndarray, "panels"]) -> "_System":
        return _System(self.procedure, self.against, self.grid.cut(rough))

    def losses(self, curve: Curve) -> float:
        """1 − W."""
        selected = self.procedure.selected_density(self.grid, curve.density)
        return self.grid.integrate(selected * self.above)

    def gradient(self, density: Values) -> Values:
        """Φ_f − Φ_f(1), where the last node approximates 1."""
        gradient = -self.procedure.gradient(self.grid, density, self.above)
        return gradient - gradient.flat[-1]

    def curvature(self, density: Values) -> np.ndarray:
        """W″ at pairs of nodes."""
        return -self.procedure.curvature(self.grid, density, self.above)

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
        # Relative where |y| is large: the density is 0 there.
        relative = float(np.abs(self.residual / (1 + np.abs(y))).max())
        self.error = max(relative, abs(self.shortfall))

    def newton_step(self) -> tuple[Values, float]:
        """Changes of y and log β that solve the linearized equations.

        With δf = f (δy − ∫ f δy) and W'' the second derivative of the win rate in f,

            δy − (W'' δf)/β + (Φ/β) δ log β = −residual.

        The last row is δ log β = 0 at a given strength, and ∫ f (log f − KL) δy = κ − KL, over κ,
        at a budget.
        """
        system, curve, size = self.system, self.curve, self.y.size
        mass = (system.grid.weights * curve.density).ravel()
        by_y = system.curvature(curve.density) * mass
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
        if state.error <= TOLERANCE:
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


def _resolved(state: _State | None) -> _State | None:
    """The same solution on panels that are cut until they resolve it, or None."""
    for _ in range(ROUNDS):
        if state is None:
            return None
        rough = state.curve.grid.unresolved(state.curve.density) > RESOLUTION
        if not rough.any():
            return state
        system = state.system.cut(rough)
        y = state.curve.grid.interpolate(state.y, system.grid)
        state = _newton(_State(system, state.condition, y, state.log_beta))
    return None


def _ascended(system: _System, kl: float) -> tuple[Values, float]:
    """A log-density with a KL of `kl` nats near a maximum of the win rate, and log β: coupled
    steps from the reference, each damped until it raises the win rate."""
    grid, weight = system.grid, 1.0

    def tilted(exponent: Values, near: float | None) -> tuple[Values, float]:
        log_scale = log_scale_at(grid, exponent, kl, near)
        return np.exp(log_scale) * exponent, log_scale

    y, log_scale = tilted(system.at_reference(), None)
    losses = system.losses(Curve(grid, y))
    for _ in range(ASCENTS):
        goal, log_scale = tilted(system.gradient(Curve(grid, y).density), log_scale)
        if np.abs(goal - y).max() < SETTLED:
            break
        while weight > LEAST_WEIGHT:
            trial = tilted((1 - weight) * y + weight * goal, 0.0)[0]
            fewer = system.losses(Curve(grid, trial))
            if fewer < losses:
                y, losses = trial, fewer
                break
            weight /= 2
        else:
            break
        weight = min(1.0, 1.5 * weight)
    return y, -log_scale


def _near(system: _System, kl: float) -> _State:
    """The end of an ascent at a budget, on panels that are cut where its density needs it."""
    for _ in range(ROUNDS):
        end = _State(system, Budget(kl), *_ascended(system, kl))
        rough = system.grid.unresolved(end.curve.density) > COARSE
        if not rough.any():
            break
        system = system.cut(rough)
    return end


def _at_kl(system: _System, kl: float) -> tuple[_State | None, _State | None]:
    """The optimum at a budget next to an ascent's end, and that end."""
    near = _near(system, kl)
    return _resolved(_newton(near)), near


def _at_beta(system: _System, beta: float) -> tuple[_State | None, _State | None]:
    """The optimum at a strength, next to that at the budget which has nearly this strength, and the
    last one that was reached."""
    gradient, log_beta, last = system.at_reference(), float(np.log(beta)), None
    mean = system.grid.integrate(gradient)
    # A small tilt has a KL of Var(Φ) / 2β².
    small = system.grid.integrate((gradient - mean) ** 2) / (2 * beta**2)
    if small < TINY:
        return _resolved(_newton(_State(system, Strength(), gradient / beta, log_beta))), None

    def excess(time: float) -> float:
        nonlocal last
        state, _ = _at_kl(system, kl_at(time))
        if state is None:
            return float("nan")
        last = state
        return state.log_beta - log_beta

    weak = min(small, WEAK)
    try:
        falling_root(excess, weak + float(np.log(weak)), low=EARLIEST, high=LATEST, xtol=NEARLY)
    except NoRoot:
        return None, last
    assert last is not None
    start = _State(last.system, Strength(), last.y, log_beta)
    return _resolved(_newton(start)), last


def _reason(last: _State | None) -> str:
    """Why no optimum was reached from a policy."""
    if last is None:
        return "the solver does not converge"
    losses, kl = last.system.losses(last.curve), last.curve.kl
    if losses < LOST:
        return (
            f"a policy with a KL of {kl:.4g} nats already loses less than {LOST:g} of the time, so "
            "the win rate is 1 and beta is too small for double precision"
        )
    return (
        f"the solver does not converge near a policy with a KL of {kl:.4g} nats and a win rate of "
        f"{1 - losses:.6g}"
    )
