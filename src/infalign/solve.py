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

from . import _check
from .errors import SolveError
from .policies import entropy_gap, win_rate_on
from .procedures import AbstractProcedure
from .quadrature import Panels, panels


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

    Starts near the reference, where the optimum is known, and continues to the target along a
    logarithmic scale, in steps that halve when Newton's method does not converge.

    Raises ValueError for arguments out of range and SolveError when the continuation stalls.
    """
    if (kl is None) == (beta is None):
        raise ValueError("Give exactly one of `kl` (nats) and `beta`.")
    budget = None if kl is None else _check.positive("kl", kl)
    strength = None if beta is None else _check.positive("beta", beta)
    reach = 2 + np.log2(max(procedure.draws, against.draws)) + (6 if budget is None else 2 * budget)
    system = _System(panels(int(np.ceil(reach)) + 4), procedure, against)

    # At the reference ψ = 0 and Φ is known; while ψ is small, a budget κ needs β = sd(Φ) / √(2κ).
    first = system.gradient(np.ones_like(system.grid.nodes))
    spread = np.sqrt(system.grid.integrate(first**2) - system.grid.integrate(first) ** 2)
    small = (0.3 * spread / np.ptp(first)) ** 2 / 2  # ψ then spans 0.3
    at = (
        np.log(min(budget, small)) if budget else max(np.log(strength), np.log(np.ptp(first) / 0.3))
    )
    target = np.log(budget if budget else strength)
    log_beta = np.log(spread) - (at + np.log(2)) / 2 if budget else at
    state = system.newton(
        np.append(first * np.exp(-log_beta), log_beta), at, bool(budget), tolerance
    )
    if state is None:
        raise SolveError(_stalled(procedure, against, kl, beta, "at its start"))
    step, slope = np.log(4.0), np.zeros_like(state)
    while at != target:
        change = np.sign(target - at) * min(step, abs(target - at))
        following = target if abs(target - at) <= step else at + change
        solution = system.newton(state + change * slope, following, bool(budget), tolerance)
        if solution is None:
            step /= 2
            if step < 1e-3:
                raise SolveError(_stalled(procedure, against, kl, beta, f"at {np.exp(at):g}"))
            continue
        slope = (solution - state) / change  # the next guess continues in this direction
        state, at, step = solution, following, step * 1.5
    return system.optimum(state)


def _stalled(procedure, against, kl, beta, where) -> str:
    asked = f"kl={kl:g}" if beta is None else f"beta={beta:g}"
    return (
        f"No optimum was found for {procedure} against {against} with {asked}: the continuation "
        f"stopped {where}. Ask for a smaller `kl` or a larger `beta`."
    )


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
