"""The optimum for procedures that read the calibrated reward itself: soft best-of-n and rewind.

Their win rate is a functional of the whole density, so there is no differential equation to follow:
soft best-of-n is solved by Newton's method on all nodes at once, rewind by a search over the one
number that couples its responses, the chance to fall below the threshold.
"""

import numpy as np

from infalign.core._policies import Curve
from infalign.core._procedures import AbstractProcedure
from infalign.core._quadrature import Panels
from infalign.core._roots import bracketed_root
from infalign.core._soft_procedures import Rewind, SoftBestOfN, SoftenedProcedure
from infalign.errors import SolveError

from .point import Optimum
from .starts import laws_grid

FINE = (16, 24)
"""How often panels halve towards 0 and 1: fine enough for any tilt by these laws."""

STEPS = 40
"""Newton steps before a budget is approached more slowly."""

TOLERANCE = 1e-12
"""Largest residual of the log-density, in nats."""

SCAN = 400
"""Chances to fall below a threshold that are tried."""


def solve_softened(
    procedure: SoftenedProcedure,
    against: AbstractProcedure,
    *,
    kl: float | None,
    beta: float | None,
) -> Optimum:
    """The optimal policy at a KL budget in nats, or at a KL strength β."""
    if isinstance(procedure, Rewind):
        return _rewind(procedure, against, kl, beta)
    return _soft(procedure, against, kl, beta)


def _optimum(procedure, against, curve: Curve, beta: float) -> Optimum:
    grid = curve.grid
    gradient = procedure.gradient(grid, curve.density, against.cdf(grid.nodes))
    gradient = gradient - gradient.flat[0]
    exponent = (gradient - gradient.flat[-1]) / beta
    win_rate = curve.win_rate(procedure, against)
    return Optimum(curve, gradient, exponent, beta, win_rate, curve.kl)


# --- Rewind. With a = F(τ) fixed, W is linear in the density, so the best policy is known in closed
# form and J is a function of a alone:
#     J(a) = β a log(Z₁/a) + β (1 − a) log(Z₂/(1 − a)),
# Z₁ and Z₂ the integrals of e^{cG/β} below and above τ, c how often a response is kept there.


def _rewind(procedure: Rewind, against, kl, beta) -> Optimum:
    grid = laws_grid(procedure, against, *FINE)
    opponent = against.cdf(grid.nodes)

    def best(strength: float) -> Curve:
        return Curve(grid, _rewind_exponent(procedure, grid, opponent, strength))

    if beta is not None:
        return _optimum(procedure, against, best(beta), beta)

    def excess(log_beta):
        return best(float(np.exp(log_beta))).kl / kl - 1

    low, high = -3.0, 1.0
    while excess(high) > 0:
        high += 2
    while excess(low) < 0:
        low -= 1
        if low < -12:
            raise SolveError(
                f"No optimum was found for {procedure!r} against {against!r} with kl={kl:g}. "
                "Ask for a smaller `kl`."
            )
    log_beta = bracketed_root(excess, low, high, xtol=1e-15)
    if abs(excess(log_beta)) > 1e-9:
        across = [best(float(np.exp(log_beta + side))).kl for side in (1e-9, -1e-9)]
        raise SolveError(
            f"The optimum for {procedure!r} jumps from kl={across[0]:.4g} to {across[1]:.4g} at "
            f"beta={np.exp(log_beta):.6g}: none has kl={kl:g}. Ask for a `kl` outside of the jump."
        )
    return _optimum(procedure, against, best(float(np.exp(log_beta))), float(np.exp(log_beta)))


def _rewind_exponent(procedure: Rewind, grid: Panels, opponent, beta) -> np.ndarray:
    """The unnormalized log-density of the best policy: the largest maximum of J(a)."""
    under = grid.nodes < procedure.threshold
    m = procedure.max_tries

    def parts(a):
        """log ∫ e^{cG/β}, and the mean of G, below and above the threshold."""
        out = []
        for side, rate in zip((under, ~under), procedure.rates(a), strict=True):
            exponent = rate * opponent[side] / beta
            top = exponent.max()
            mass = grid.weights[side] * np.exp(exponent - top)
            out += [np.log(mass.sum()) + top, mass @ opponent[side] / mass.sum()]
        return out

    def value(a):
        below, _, above, _ = parts(a)
        return a * (below - np.log(a)) + (1 - a) * (above - np.log1p(-a))

    def slope(logit):
        """J'(a) / β, by the envelope theorem."""
        a = 1 / (1 + np.exp(-logit))
        below, mean_below, above, mean_above = parts(a)
        j = np.arange(1, m)
        more_above = float(np.sum(j * a ** (j - 1)))
        more_below = (m - 1) * a ** (m - 2) if m > 1 else 0.0
        gain = a * more_below * mean_below + (1 - a) * more_above * mean_above
        return below - above - logit + gain / beta

    logits = np.linspace(-40, 40, SCAN)
    slopes = np.array([slope(x) for x in logits])
    tops = np.flatnonzero((slopes[:-1] > 0) & (slopes[1:] <= 0))
    roots = [bracketed_root(slope, logits[i], logits[i + 1], xtol=1e-14, rtol=1e-14) for i in tops]
    best = max((1 / (1 + np.exp(-r)) for r in roots), key=value)
    below, _, above, _ = parts(best)
    low, high = procedure.rates(best)
    return np.where(
        under,
        low * opponent / beta - below + np.log(best),
        high * opponent / beta - above + np.log1p(-best),
    )


def rewind_objective(procedure: Rewind, grid: Panels, opponent: np.ndarray, beta: float) -> float:
    """The largest W − β KL of any policy: log ∫ e^y of the best one's exponents, times β."""
    under = grid.nodes < procedure.threshold
    a = float(
        np.sum(
            (grid.weights * Curve(grid, _rewind_exponent(procedure, grid, opponent, beta)).density)[
                under
            ]
        )
    )
    total = 0.0
    for side, rate, share in zip((under, ~under), procedure.rates(a), (a, 1 - a), strict=True):
        exponent = rate * opponent[side] / beta
        top = exponent.max()
        log_z = np.log(np.sum(grid.weights[side] * np.exp(exponent - top))) + top
        total += share * (log_z - np.log(share))
    return beta * total


# --- Soft best-of-n: y = Φ_f/β up to a constant, f = e^y / ∫ e^y, on all nodes at once.


def _soft(procedure: SoftBestOfN, against, kl, beta) -> Optimum:
    grid = laws_grid(procedure, against, *FINE)
    opponent = against.cdf(grid.nodes)
    start = procedure.gradient(grid, np.ones_like(grid.nodes), opponent)
    start = start - start.flat[-1]
    if beta is not None:
        # Strong regularization is easy; follow the optimum down to the strength asked for.
        strength, found = max(10.0, beta), None
        y = start / strength
        while found is None or strength > beta:
            strength = max(beta, strength / 2)
            found = _newton(procedure, grid, opponent, y, np.log(strength), None)
            if found is None:
                raise _stalled(procedure, against, f"beta={beta:g}")
            y, _ = found
        return _optimum(procedure, against, Curve(grid, y), beta)
    spread = grid.integrate(start**2) - grid.integrate(start) ** 2
    reached = min(kl, 1e-3)
    log_beta = 0.5 * np.log(spread / (2 * reached))
    y, factor = start * np.exp(-log_beta), 4.0
    found = _newton(procedure, grid, opponent, y, log_beta, reached)
    while found is not None and reached < kl:
        goal = min(kl, reached * factor)
        further = _newton(procedure, grid, opponent, *found, goal)
        if further is None:
            factor = np.sqrt(factor)
            found = None if factor < 1.01 else found
        else:
            found, reached = further, goal
    if found is None:
        raise _stalled(procedure, against, f"kl={kl:g}")
    y, log_beta = found
    return _optimum(procedure, against, Curve(grid, y), float(np.exp(log_beta)))


def _newton(procedure, grid, opponent, y, log_beta, kl):
    """(y, log β) of the solution near a start, or None."""

    def residual(y, log_beta):
        curve = Curve(grid, y)
        gradient = procedure.gradient(grid, curve.density, opponent)
        gradient = gradient - gradient.flat[-1]
        left = y - gradient * np.exp(-log_beta)
        budget = 0.0 if kl is None else curve.kl / kl - 1
        return curve, gradient, left, budget, max(np.abs(left).max(), abs(budget))

    curve, gradient, left, budget, error = residual(y, log_beta)
    size = y.size
    for _ in range(STEPS):
        if error <= TOLERANCE * max(1, np.abs(y).max()):
            return y, log_beta
        mass = (grid.weights * curve.density).ravel()
        curvature = procedure.curvature(grid, curve.density, opponent) * mass
        curvature -= np.outer(curvature.sum(1), mass)  # f stays normalized
        curvature = (curvature - curvature[-1]) * np.exp(-log_beta)
        matrix = np.zeros((size + 1, size + 1))
        matrix[:size, :size] = np.eye(size) - curvature
        matrix[:size, size] = gradient.ravel() * np.exp(-log_beta)
        if kl is None:
            matrix[size, size] = 1
        else:
            matrix[size, :size] = mass * (curve.log_density.ravel() - curve.kl) / kl
        change = np.linalg.solve(matrix, -np.append(left.ravel(), budget))
        length = min(1.0, 2 / max(abs(change[-1]), 1e-300))
        while True:
            trial_y = y + length * change[:-1].reshape(y.shape)
            trial = residual(trial_y, log_beta + length * change[-1])
            if trial[-1] < error:
                break
            length /= 2
            if length < 1e-3:
                return (y, log_beta) if error <= 1e3 * TOLERANCE else None
        y, log_beta = trial_y, log_beta + length * change[-1]
        curve, gradient, left, budget, error = trial
    return None


def _stalled(procedure, against, asked):
    return SolveError(
        f"No optimum was found for {procedure!r} against {against!r} with {asked}. "
        "Ask for a smaller `kl` or a larger `beta`."
    )
