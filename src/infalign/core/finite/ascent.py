"""Monotone ascent of J = W − β KL in log-densities, for all prompts at once.

With ψ = log(π/π_ref) an optimum is a fixed point ψ = R/β + constant, R the coupled reward at π
(InfAlign, arXiv:2412.19792, theorem 1). The error e = R/β − ψ is itself a direction of ascent, and
exact for plain sampling; better ones, tried first, are

- Newton's method where a response is kept by rank: W's second derivative is diagonal in the CDF, so
  a step is one tridiagonal system, with no division by probabilities that may underflow;
- Anderson's extrapolation of the last few fixed-point steps elsewhere.

A line search on J keeps every step an ascent.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logsumexp

from .problem import Problem

MEMORY = 8
"""Steps that Anderson's extrapolation looks back on."""

TOLERANCE = 1e-13
"""Residual at which a climb has arrived, if the gradient is that exact."""

ROUNDING = 1e-14
"""What J may fall by in a step, in units of 1 + β: its own last digits."""

NEAR = 5e-2
"""Residual below which Newton's method also uses curvature that may point downhill."""

PATIENCE = 200
"""Steps without halving the residual, after which rounding has the last word."""


@dataclass(frozen=True)
class Climber:
    """Where the ascent stands, one row per prompt."""

    psi: np.ndarray
    """log(π/π_ref) of each column, normalized also where the reference has no mass."""

    policy: np.ndarray
    win_rate: np.ndarray
    kl: np.ndarray
    objective: np.ndarray
    gradient: np.ndarray | None = None
    """The coupled reward R."""

    error: np.ndarray | None = None
    """R/β − ψ, of mean 0 under the policy."""

    residual: np.ndarray | None = None
    """Total variation between the policy and π_ref e^{R/β} / Z."""

    bound: np.ndarray | None = None
    """KL(policy ‖ π_ref e^{R/β} / Z): β times it bounds what is left to gain where W is concave."""


class Ascent:
    """The landscape of one problem at one β."""

    def __init__(self, problem: Problem, beta: float):
        self.problem, self.beta = problem, beta
        with np.errstate(divide="ignore"):
            self.log_reference = np.log(problem.reference)

    def at(self, psi) -> Climber:
        """The tilt e^ψ of the reference and its objective."""
        psi = psi - logsumexp(self.log_reference + psi, axis=1, keepdims=True)
        policy = np.exp(self.log_reference + psi)
        kl = np.maximum((policy * psi).sum(1), 0)  # below 0 by rounding only
        win_rate = self.problem.win_rate(policy)
        return Climber(psi, policy, win_rate, kl, win_rate - self.beta * kl)

    def look(self, climber: Climber) -> Climber:
        """The same point with its gradient."""
        gradient = self.problem.gradient(climber.policy, climber.win_rate)
        tilt = gradient / self.beta
        tilt = tilt - logsumexp(self.log_reference + tilt, axis=1, keepdims=True)
        change = tilt - climber.psi
        bound = -(climber.policy * change).sum(1)
        residual = np.abs(np.exp(self.log_reference + tilt) - climber.policy).sum(1) / 2
        error = change + bound[:, None]
        return replace(climber, gradient=gradient, error=error, residual=residual, bound=bound)

    def climb(self, psi, steps: int = 2000) -> Climber:
        """A stationary point above the tilt e^ψ, or as near to one as rounding lets it."""
        tolerance = max(TOLERANCE, self.problem.map.precision / self.beta)
        here = self.look(self.at(psi))
        direct = _newton if self.problem.by_rank else _Anderson()
        best, since = here.residual, 0
        for _ in range(steps):
            since = 0 if (here.residual < best / 2).any() else since + 1
            best = np.where(here.residual < best / 2, here.residual, best)
            if (here.residual <= tolerance).all() or since > PATIENCE:
                break
            here = self.look(self._step(here, direct(self, here)))
        return here

    def _step(self, here: Climber, direction) -> Climber:
        """The longest of the steps 1, 1/2, 1/4, … that climbs, per prompt."""
        slope = self.beta * (here.policy * here.error * direction).sum(1)
        downhill = ~(slope > 0) | ~np.isfinite(direction).all(1)
        direction = np.where(downhill[:, None], here.error, direction)
        slope = np.where(downhill, self.beta * (here.policy * here.error**2).sum(1), slope)
        length = np.ones_like(slope)
        for _ in range(40):
            there = self.at(here.psi + length[:, None] * direction)
            gain = there.objective - here.objective
            short = ~(gain >= 1e-4 * length * slope - ROUNDING * (1 + self.beta))
            if not short.any():
                return there
            length = np.where(short, length / 2, length)
        return self.at(here.psi + np.where(short, 0, length)[:, None] * direction)


def _newton(ascent: Ascent, here: Climber) -> np.ndarray:
    """δψ with δψ − δR/β = e.

    Neighboring levels give δψ_{b+1} − δψ_b − k_b δF_b = e_{b+1} − e_b, where −βk is W's second
    derivative in F, and the masses give δF_b − δF_{b−1} = π_b δψ_b with δF_0 = δF_m = 0. In the
    order δψ_1, δF_1, δψ_2, δF_2, … both are rows of one tridiagonal matrix.

    Where W is not concave (k < 0) the step could head for a saddle; far from the fixed point such k
    are left out, which is still an ascent (W's convex part is replaced by its tangent).
    """
    problem, (prompts, width) = ascent.problem, here.psi.shape
    k = problem.map.curvature(here.policy, problem.utility) / ascent.beta
    k = np.where((k < 0) & (here.residual > NEAR)[:, None], 0, k)
    bands = np.zeros((3, prompts, width, 2))  # above, on and below the diagonal, by column
    bands[1, :, :, 0], bands[1, :, :-1, 1], bands[1, :, -1, 1] = -here.policy, -k, 1
    bands[0, :, :, 1], bands[0, :, 1:, 0] = 1, 1
    bands[2, :, :-1, 0], bands[2, :, :-1, 1] = -1, -1
    right = np.zeros((prompts, width, 2))
    right[:, :-1, 1] = np.diff(here.error)
    try:
        from scipy.linalg import solve_banded  # slow to import

        solution = solve_banded((1, 1), bands.reshape(3, -1), right.ravel(), check_finite=False)
    except np.linalg.LinAlgError:
        return here.error
    return solution.reshape(prompts, width, 2)[:, :, 0]


class _Anderson:
    """The step to where the errors of the last few points, combined, are least under π."""

    def __init__(self):
        self.points, self.errors = [], []

    def __call__(self, ascent: Ascent, here: Climber) -> np.ndarray:
        self.points = [*self.points, here.psi][-MEMORY:]
        self.errors = [*self.errors, here.error][-MEMORY:]
        if len(self.points) == 1:
            return here.error
        moves, changes = np.diff(self.points, axis=0), np.diff(self.errors, axis=0)
        direction = np.empty_like(here.error)
        for row, root in enumerate(np.sqrt(here.policy)):
            basis = (changes[:, row] * root).T
            mix, *_ = np.linalg.lstsq(basis, here.error[row] * root, rcond=1e-12)
            direction[row] = here.error[row] - mix @ (moves[:, row] + changes[:, row])
        return direction
