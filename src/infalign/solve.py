"""The policy that wins most at a KL strength or a KL budget, by Newton's method.

At the optimum the log-density is the win rate's own gradient divided by β (InfAlign,
arXiv:2412.19792, theorem 1, on the quantile axis):

    ψ(v) = (1/β) ∫₀^v h(F(s)) dG(s),     f = e^ψ / ∫ e^ψ,     F(v) = ∫₀^v f.

The fixed point is solved at the nodes of the quadrature, where the two integrals are matrices, so
that Newton's method has an exact Jacobian and no step of an iteration to tune. A KL budget adds β
to the unknowns and KL(f) = κ to the equations.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from . import _check
from .errors import SolveError
from .policies import entropy_gap, win_rate_on
from .procedures import AbstractProcedure
from .quadrature import Panels, panels

GRIDS = ((10, 1), (10, 4), (32, 1))
"""Depth and parts of the panels, tried in turn: finer inside, then finer at the ends."""

RESOLUTION = 1e-4
"""Largest last coefficient of a panel, in mass; quadrature errs by about its square."""


@dataclass(frozen=True)
class Optimum:
    """A stationary point of W − β KL on the quantile axis."""

    grid: Panels
    gradient: np.ndarray
    """Φ = dW/df at the nodes, shifted to start at 0: the optimal transform."""

    density: np.ndarray
    """f at the nodes."""

    beta: float
    win_rate: float
    kl: float
    gap: float
    """Certified bound on what any policy could gain at this β; nan where W is not concave."""


def solve(
    procedure: AbstractProcedure,
    against: AbstractProcedure,
    *,
    kl: float | None = None,
    beta: float | None = None,
    tolerance: float = 1e-12,
) -> Optimum:
    """The optimum at a KL budget `kl` (nats) or at a strength `beta`; give exactly one.

    Where W is concave the optimum is unique and Newton's method follows it from the reference;
    elsewhere an ascent from the reference comes first.

    Raises ValueError for arguments out of range and SolveError when the solver stalls.
    """
    if (kl is None) == (beta is None):
        raise ValueError("Give exactly one of `kl` (nats) and `beta`.")
    budget = None if kl is None else _check.positive("kl", kl)
    strength = None if beta is None else _check.positive("beta", beta)
    for depth, parts in GRIDS:
        system = _System(panels(depth, parts), procedure, against)
        find = _continue if procedure.concave else _ascend
        state = find(system, budget, strength, tolerance)
        if state is None:
            continue
        # Where a boundary layer falls between the nodes, the answer is that of the grid.
        found = system.optimum(state)
        on_budget = budget is None or abs(found.kl / budget - 1) < 1e-8
        if on_budget and found.grid.unresolved(found.density) < RESOLUTION:
            return found
    asked = f"beta={beta:g}" if kl is None else f"kl={kl:g}"
    raise SolveError(
        f"No optimum was found for {procedure} against {against} with {asked}: it lies beyond "
        "double precision. Ask for a smaller `kl` or a larger `beta`."
    )


def _continue(system: "_System", budget, strength, tolerance) -> np.ndarray | None:
    """Newton's method along a path from the reference, where the optimum is known.

    The path is logarithmic in the budget or in β; its steps halve where Newton's method fails.
    """
    # Near the reference ψ is small and a budget κ needs β = sd(Φ) / √(2κ).
    first = system.gradient(np.ones_like(system.grid.nodes))
    spread = np.sqrt(system.grid.integrate(first**2) - system.grid.integrate(first) ** 2)
    small = (0.3 * spread / np.ptp(first)) ** 2 / 2  # ψ then spans 0.3
    if budget:
        at, target = np.log(min(budget, small)), np.log(budget)
        log_beta = np.log(spread) - (at + np.log(2)) / 2
    else:
        at, target = np.log(max(strength, np.ptp(first) / 0.3)), np.log(strength)
        log_beta = at
    start = np.append(first * np.exp(-log_beta), log_beta)
    state = system.newton(start, at, bool(budget), tolerance)
    if state is None:
        return None
    step, slope = np.log(4.0), np.zeros_like(state)
    while at != target:
        change = np.sign(target - at) * min(step, abs(target - at))
        following = target if abs(target - at) <= step else at + change
        solution = system.newton(state + change * slope, following, bool(budget), tolerance)
        if solution is None:
            step /= 2
            if step < 1e-3:
                return None
            continue
        slope = (solution - state) / change  # the next guess continues in this direction
        state, at, step = solution, following, step * 1.5
    return state


def _ascend(system: "_System", budget, strength, tolerance, steps=200) -> np.ndarray | None:
    """The paper's fixed point, which for a convex win rate is minorise-maximise: W never falls.

    Each step maximises the tangent of W at f: its tilt e^{Φ_f/β}, with β given or, under a budget,
    such that the tilt spends it all. Newton's method finishes where the iteration has come close.
    """
    density = np.ones_like(system.grid.nodes)
    first = system.gradient(density)
    spread = np.sqrt(system.grid.integrate(first**2) - system.grid.integrate(first) ** 2)
    # Small steps first: a long one from the reference may climb another hill.
    if budget:
        path = np.geomspace(min(budget, (0.3 * spread / np.ptp(first)) ** 2 / 2), budget, 12)
    else:
        path = np.geomspace(max(strength, np.ptp(first) / 0.3), strength, 12)
    state = None
    for at in path:
        close = tolerance if at == path[-1] else 1e-3
        for _ in range(steps):
            gradient = system.gradient(density)
            log_beta = system.spend(gradient, at) if budget else np.log(at)
            if log_beta is None:
                return None
            following = np.append(gradient * np.exp(-log_beta), log_beta)
            moved = np.inf if state is None else np.abs(following - state).max()
            state = following
            density, _ = system.distribution(state[:-1])
            if moved < close * max(1.0, np.abs(state).max()):
                break
            if at == path[-1] and moved < 1e-4:
                finished = system.newton(state, np.log(at), bool(budget), tolerance)
                if finished is not None:
                    return finished
        else:
            return None
    return state


class _System:
    """The discretised equations of one procedure and opponent."""

    def __init__(self, grid: Panels, procedure, against):
        self.grid, self.procedure, self.against = grid, procedure, against
        self.opponent = against.density(grid.nodes)
        self.running = grid.cumulation_matrix()

    def distribution(self, psi):
        """Density and CDF at the nodes of the tilt e^ψ."""
        density = np.exp(psi - _log_partition(self.grid, psi))
        return density, np.clip(self.running @ density, 0, 1)

    def gradient(self, density):
        """Φ(v) = ∫₀^v h(F) dG."""
        cdf = np.clip(self.running @ density, 0, 1)
        return self.running @ (self.procedure.density(cdf) * self.opponent)

    def spend(self, gradient, budget) -> float | None:
        """log β at which the tilt e^{Φ/β} has a KL of `budget`; None where none can be computed."""

        def excess(log_beta):
            density, _ = self.distribution(gradient * np.exp(-log_beta))
            return entropy_gap(self.grid, density) - budget

        middle = float(np.log(np.ptp(gradient)))
        low, high = middle, middle
        while excess(low) < 0:
            low -= 2
            if low < middle - 40:
                return None
        while excess(high) > 0:
            high += 2
        return brentq(excess, low, high, xtol=1e-14) if low < high else low

    def residual(self, state, target, budgeted):
        psi, beta = state[:-1], np.exp(state[-1])
        density, _ = self.distribution(psi)
        last = (
            entropy_gap(self.grid, density) / np.exp(target) - 1 if budgeted else state[-1] - target
        )
        return np.append(psi - self.gradient(density) / beta, last)

    def jacobian(self, state, target, budgeted):
        psi, beta = state[:-1], np.exp(state[-1])
        density, cdf = self.distribution(psi)
        mass = self.grid.weights * density
        log_density = psi - _log_partition(self.grid, psi)
        # dF = ∫₀^v f dψ - F ∫₀¹ f dψ: the second term keeps F(1) = 1.
        shift = self.running * density - np.outer(cdf, mass)
        inner = (self.procedure.slope(cdf) * self.opponent)[:, None] * shift
        size = psi.size
        matrix = np.zeros((size + 1, size + 1))
        matrix[:size, :size] = np.eye(size) - self.running @ inner / beta
        matrix[:size, size] = self.gradient(density) / beta
        if budgeted:
            kl = mass @ log_density
            matrix[size, :size] = mass * (log_density - kl) / np.exp(target)
        else:
            matrix[size, size] = 1
        return matrix

    def newton(self, state, target, budgeted, tolerance, steps=15):
        """The solution near `state`, or None if Newton's method with halving does not get there.

        `target` is the logarithm of the KL budget, or of β.
        """
        residual = self.residual(state, target, budgeted)
        size = np.abs(residual).max()
        for _ in range(steps):
            if size <= tolerance * max(1.0, np.abs(state[:-1]).max()):
                return state
            try:
                change = np.linalg.solve(self.jacobian(state, target, budgeted), -residual)
            except np.linalg.LinAlgError:
                return None
            length = min(1.0, 2 / max(abs(change[-1]), 1e-300))  # at most e² in β at once
            while length > 0.05:
                trial = state + length * change
                residual_there = self.residual(trial, target, budgeted)
                size_there = np.abs(residual_there).max()
                if size_there < size:
                    break
                length /= 2
            else:
                # Rounding, not the iteration, may be what stops the descent.
                return state if size <= 100 * tolerance * np.abs(state).max() else None
            state, residual, size = trial, residual_there, size_there
        return None

    def optimum(self, state) -> Optimum:
        psi, beta = state[:-1], float(np.exp(state[-1]))
        density, cdf = self.distribution(psi)
        gradient = self.gradient(density)
        win_rate = win_rate_on(self.grid, cdf, self.procedure, self.against)
        kl = entropy_gap(self.grid, density)
        gap = float("nan")
        if self.procedure.concave:
            # W lies below its tangent at f, whose KL-regularised maximum is known in closed form:
            # max J <= W(f) - <Φ, f> + β log ∫ e^{Φ/β}, where max <Φ, p> - β KL(p) is the last term.
            # Φ here is the gradient shifted by a constant, which cancels.
            log_z = _log_partition(self.grid, gradient / beta)
            mean = self.grid.integrate(gradient * density)
            gap = max(float(beta * log_z - mean + beta * kl), 0.0)
        return Optimum(self.grid, gradient, density, beta, win_rate, kl, gap)


def _log_partition(grid: Panels, exponent: np.ndarray) -> float:
    """log ∫ e^exponent, by its largest value, which alone may overflow."""
    top = exponent.max()
    return float(np.log(grid.integrate(np.exp(exponent - top))) + top)
