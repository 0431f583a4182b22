"""Monotone ascent of J = W − β KL in log-densities, for all prompts at once.

With ψ = log(π/π_ref) an optimum is a fixed point ψ = R/β + constant, R the coupled reward at π
(InfAlign, arXiv:2412.19792, theorem 1). The error e = R/β − ψ is itself a direction of ascent,
which is exact for plain sampling. Better directions are tried first:

- Newton's, if a response is selected by rank: W's second derivative is diagonal in the CDF, so a
  step is one tridiagonal system, without division by probabilities that may underflow;
- otherwise Anderson's extrapolation of the last few fixed-point steps.

A line search on J keeps every step an ascent.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from infalign._look import Shown
from infalign.core._shapes import Float

from .maps import Ranked
from .problem import Problem

__all__ = ["Ascent", "Climber", "Point"]

MEMORY = 8
"""Points that Anderson's extrapolation combines."""

TOLERANCE = 1e-13
"""Residual at which a climb has converged, if the gradient is accurate enough."""

ROUNDING = 1e-14
"""Largest fall of J in a step that is attributed to rounding, in units of 1 + β."""

NEAR = 5e-2
"""Residual below which Newton's method also uses negative curvature, which may point downhill."""

PATIENCE = 200
"""Number of steps without halving the residual after which rounding is assumed to limit it."""

STEPS = 2000
"""Maximum number of steps of a climb."""

HALVINGS = 40
"""Maximum number of halvings of a step in a line search."""

ENOUGH = 1e-4
"""Share of the rise predicted by the slope that a step must achieve (Armijo)."""


PerPrompt = Float[np.ndarray, "prompts"]
Columns = Float[np.ndarray, "prompts columns"]


@dataclass(frozen=True)
class Point(Shown):
    """A policy with its objective, one row per prompt."""

    psi: Columns
    """log(π/π_ref) of each column, normalized even where the reference has no mass."""

    policy: Columns
    win_rate: PerPrompt
    kl: PerPrompt
    objective: PerPrompt


@dataclass(frozen=True)
class Climber(Point):
    """A policy with the gradient of its objective."""

    gradient: Columns
    """The coupled reward R."""

    error: Columns
    """R/β − ψ, with mean 0 under the policy."""

    residual: PerPrompt
    """Total variation between the policy and π_ref e^{R/β} / Z."""

    bound: PerPrompt
    """KL(policy ‖ π_ref e^{R/β} / Z): times β, it bounds the possible gain if W is concave."""


class Ascent:
    """The objective of one problem at one β, and its ascent."""

    def __init__(self, problem: Problem, beta: float) -> None:
        self.problem, self.beta = problem, beta
        with np.errstate(divide="ignore"):
            self.log_reference = np.log(problem.reference)

    def at(self, psi: Columns) -> Point:
        """The tilt e^ψ of the reference and its objective."""
        psi = psi - logsumexp(self.log_reference + psi, axis=1, keepdims=True)
        policy = np.exp(self.log_reference + psi)
        kl = np.maximum((policy * psi).sum(1), 0)  # below 0 only by rounding
        win_rate = self.problem.win_rate(policy)
        return Point(psi, policy, win_rate, kl, objective=win_rate - self.beta * kl)

    def look(self, point: Point) -> Climber:
        """The same policy with its gradient."""
        gradient = self.problem.gradient(point.policy, point.win_rate)
        tilt = gradient / self.beta
        tilt = tilt - logsumexp(self.log_reference + tilt, axis=1, keepdims=True)
        change = tilt - point.psi
        bound = -(point.policy * change).sum(1)
        residual = np.abs(np.exp(self.log_reference + tilt) - point.policy).sum(1) / 2
        error = change + bound[:, None]
        return Climber(
            **vars(point), gradient=gradient, error=error, residual=residual, bound=bound
        )

    def climb(self, psi: Columns) -> Climber:
        """A stationary point with a higher J than the tilt e^ψ, or as close to one as rounding
        allows."""
        procedure = self.problem.map
        tolerance = max(TOLERANCE, procedure.precision / self.beta)
        here = self.look(self.at(psi))
        direct: Callable[[Climber], Columns] = (
            _Newton(procedure, self.problem.utility, self.beta)
            if isinstance(procedure, Ranked)
            else _Anderson()
        )
        best, since = here.residual, 0
        for _ in range(STEPS):
            since = 0 if (here.residual < best / 2).any() else since + 1
            best = np.where(here.residual < best / 2, here.residual, best)
            if (here.residual <= tolerance).all() or since > PATIENCE:
                break
            here = self.look(self._step(here, direct(here)))
        return here

    def _step(self, here: Climber, direction: Columns) -> Point:
        """The longest of the steps 1, 1/2, 1/4, … that climbs, for each prompt."""
        slope = self.beta * (here.policy * here.error * direction).sum(1)
        downhill = ~(slope > 0) | ~np.isfinite(direction).all(1)
        direction = np.where(downhill[:, None], here.error, direction)
        slope = np.where(downhill, self.beta * (here.policy * here.error**2).sum(1), slope)
        length = np.ones_like(slope)
        for _ in range(HALVINGS):
            there = self.at(here.psi + length[:, None] * direction)
            gain = there.objective - here.objective
            short = ~(gain >= ENOUGH * length * slope - ROUNDING * (1 + self.beta))
            if not short.any():
                return there
            length = np.where(short, length / 2, length)
        return self.at(here.psi + np.where(short, 0, length)[:, None] * direction)


@dataclass(frozen=True)
class _Newton:
    """The step δψ with δψ − δR/β = e, for a procedure that selects by rank.

    With −βk the second derivative of W in F, neighboring levels give

        δψ_{b+1} − δψ_b − k_b δF_b = e_{b+1} − e_b,

    and the masses give δF_b − δF_{b−1} = π_b δψ_b with δF_0 = δF_m = 0. In the order δψ_1, δF_1,
    δψ_2, δF_2, … both are rows of one tridiagonal matrix.

    If W is not concave (k < 0), the step could head for a saddle. Far from the fixed point negative
    k are set to 0, which replaces W's convex part by its tangent and is still an ascent.
    """

    procedure: Ranked
    utility: Columns
    beta: float

    def __call__(self, here: Climber) -> Columns:
        prompts, width = here.psi.shape
        k = self.procedure.curvature(here.policy, self.utility) / self.beta
        k = np.where((k < 0) & (here.residual > NEAR)[:, None], 0, k)
        # Above, on and below the diagonal, by column (LAPACK's order); last axis: δψ_b, δF_b.
        # Even rows: −π_b δψ_b + δF_b − δF_{b−1} = 0; odd rows: the neighbors' equation, and
        # δF_m = 0 at the last.
        bands = np.zeros((3, prompts, width, 2))
        bands[1, :, :, 0], bands[1, :, :-1, 1], bands[1, :, -1, 1] = -here.policy, -k, 1
        bands[0, :, :, 1], bands[0, :, 1:, 0] = 1, 1
        bands[2, :, :-1, 0], bands[2, :, :-1, 1] = -1, -1
        step = self._solved(bands, here.error)
        return here.error if step is None else step

    def _solved(self, bands: np.ndarray, right: Columns) -> Columns | None:
        """δψ with mean 0 under the policy for a right-hand side; None for a singular system."""
        from scipy.linalg import solve_banded  # slow to import

        sides = np.zeros((*right.shape, 2))
        sides[:, :-1, 1] = np.diff(right)
        try:
            solution = solve_banded((1, 1), bands.reshape(3, -1), sides.ravel(), check_finite=False)
        except np.linalg.LinAlgError:
            return None
        return solution.reshape(sides.shape)[:, :, 0]


class _Anderson:
    """The step to the combination of the last few points with the smallest error under π."""

    def __init__(self) -> None:
        self.points: list[np.ndarray] = []
        self.errors: list[np.ndarray] = []

    def __call__(self, here: Climber) -> Columns:
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
