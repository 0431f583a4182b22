"""Newton's method for the optimum's two-point boundary problem, one linear panel at a time.

For a procedure that selects by rank, the optimal log-density is the win rate's own gradient over β
(InfAlign, arXiv:2412.19792, theorem 1, on the quantile axis; docs/maths.md, sections 6 and 12):

    y(v) + ∫_v^1 r = 0,   r = h(F) g / β,   f = e^y / ∫ e^y,   F(v) = ∫₀^v f,

with y = 0 at v = 1, its largest value. After linearization, y and F in a panel depend on the rest
of the axis only through two numbers at the panel's right edge. So each panel is eliminated by a
small matrix of its own, a banded system joins the panels, and the cost of a step is linear in their
number. A KL budget adds log β to the unknowns and KL(f) = κ to the equations.
"""

from dataclasses import dataclass

import numpy as np

from infalign.core._interface import AbstractProcedure, RankProcedure
from infalign.core._policies import Curve
from infalign.core._quadrature import ORDER, TO_RIGHT, Panels
from infalign.core._shapes import Bool, Float

STEPS = 12
"""Number of Newton steps before a start is given up."""

TOLERANCE = 1e-12
"""Largest relative residual of a solution; rounding accounts for about a tenth of it."""

AT_ROUNDING = 100 * TOLERANCE
"""Residual that is accepted once the descent stops, because rounding ended it."""

EMPTY = 750.0
"""Drop of the log-density, in nats, beyond which e^y is 0 in double precision."""

LOG_BETA_STEP = 2.0
"""Largest change of log β in one step."""

SHORTEST = 0.01
"""Shortest fraction of a Newton step that the line search tries."""

Values = Float[np.ndarray, "panels nodes"]
"""A function at the nodes of a quadrature."""


@dataclass(frozen=True)
class Strength:
    """β is given, so log β does not change."""

    def residual(self, curve: Curve) -> float:
        return 0.0

    def row(self, curve: Curve, change: np.ndarray) -> np.ndarray:
        return np.array([0.0, 1.0, 0.0])


@dataclass(frozen=True)
class Budget:
    """KL(f) = κ is given, so log β is unknown."""

    kl: float
    """κ, in nats."""

    def residual(self, curve: Curve) -> float:
        return curve.kl / self.kl - 1

    def row(self, curve: Curve, change: np.ndarray) -> np.ndarray:
        """The coefficients of (c, δ log β, 1) in δKL − (κ − KL) = 0.

        δf = f (δy − c) integrates to 0, so δKL = ∫ δf log f = ∫ f log f δy − c ∫ f log f.

        - `change`: coefficients of δy at the nodes, (panels, nodes, 3).
        """
        log_mass = curve.grid.weights * curve.density * curve.log_density
        row = log_mass.ravel() @ change.reshape(-1, 3)
        return row - [log_mass.sum(), 0, self.kl - curve.kl]


@dataclass(frozen=True)
class Problem:
    """A procedure, its opponent, and the equation that determines β."""

    procedure: RankProcedure
    against: AbstractProcedure
    condition: Strength | Budget

    def gradient(self, grid: Panels, cdf: Values) -> Values:
        """Φ = −∫_v^1 h(F) dG at the nodes, for a policy with CDF F."""
        rate = self.procedure.density(cdf) * self.against.density_on(grid)
        return -grid.cumulate_down(rate)[0]


@dataclass(frozen=True)
class Iterate:
    """The unknowns: y at the nodes of panels, and log β."""

    grid: Panels
    y: Values
    log_beta: float


def quench(grid: Panels, rate: Values) -> Bool[np.ndarray, "panels"]:
    """Mark the panels that hold mass in double precision, and set the rate of the others to 0.

    Against worst-of-n the rate at low quantiles may exceed 10²⁰ without any effect, since the
    density there has long underflowed to 0. Polynomials through such values would overshoot.
    """
    at_right = np.cumsum((grid.weights * rate).sum(1)[::-1])[::-1]
    alive = np.append(at_right[1:], 0.0) < EMPTY
    rate[~alive] = 0
    return alive


class State:
    """A candidate solution with the residuals of its equations."""

    def __init__(self, problem: Problem, iterate: Iterate, opponent: Values):
        """- `opponent`: g, the density of the opponent's law, at the nodes."""
        self.problem, self.iterate, self.opponent = problem, iterate, opponent
        self.grid, self.y, self.log_beta = iterate.grid, iterate.y, iterate.log_beta
        self.curve = Curve(self.grid, self.y)
        self.rate = self._over_beta(problem.procedure.density(self.curve.cdf))
        self.alive = quench(self.grid, self.rate)
        below, self.below_at_edges = self.grid.cumulate_down(self.rate)
        self.residual = self.y + below
        # Relative where |y| is large: the density is 0 there, and only y's leading digits matter.
        relative = float(np.abs(self.residual / (1 + np.abs(self.y))).max())
        self.error = max(relative, abs(problem.condition.residual(self.curve)))

    def _over_beta(self, law: Values) -> Values:
        """`law` times g/β: the rate r from h(F), its slope from h'(F)."""
        return law * self.opponent * np.exp(-self.log_beta)

    def moved(self, change: Values, log_beta: float, length: float) -> "State":
        """The state after the fraction `length` of a Newton step."""
        y, log_beta = self.y + length * change, self.log_beta + length * log_beta
        return State(self.problem, Iterate(self.grid, y, log_beta), self.opponent)

    def newton_step(self) -> tuple[Values, float]:
        """Changes of y and log β that solve the linearized equations.

        With the residual e = y + ∫_v^1 r, s = h'(F) g / β, D(v) = ∫₀^v f δy and c = D(1), which is
        the change of log ∫ e^y, the linearization is δF = D − c F and

            z := δy + e = −∫_v^1 δr,    δr = s (D − c F) − r δ log β,    D' = f (z − e).
        """
        change, drop_z, drop_d = self._eliminated()
        at_edges = _joined(drop_z, drop_d)
        # δy at the nodes by (c, δ log β, 1), once z_R and D_R are known.
        change = change[:, :, :2] @ at_edges[1:] + change[:, :, 2:]
        # Two equations remain: D(1) = c, and the condition on β.
        mass_row = at_edges[-1, 1] - [1, 0, 0]
        rows = np.array([mass_row, self.problem.condition.row(self.curve, change)])
        c, log_beta = np.linalg.solve(rows[:, :2], -rows[:, 2]).tolist()
        return change @ [c, log_beta, 1.0], log_beta

    def _eliminated(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """δy at a panel's nodes, and the drops of z and D across the panel, as linear functions.

        The last axis of each result holds the coefficients of (z_R, D_R, c, δ log β, 1), R the
        panel's right edge. With the operators S = ∫_v^R s · and M = ∫_v^R f ·, which integrate from
        the nodes to R, the linearization on the panel is D = D_R − M (z − e) and

            (I − S M) z = z_R − S D_R + c S F + δ log β ∫_v^R r − S M e.
        """
        grid, curve = self.grid, self.curve
        slope = self._over_beta(self.problem.procedure.slope(curve.cdf))
        slope[~self.alive] = 0
        to_right = grid.half[:, :, None] * TO_RIGHT
        by_slope, by_mass = to_right * slope[:, None, :], to_right * curve.density[:, None, :]
        known = np.empty((len(grid), ORDER, 5))
        known[:, :, 0] = 1
        known[:, :, 1] = -by_slope.sum(2)
        known[:, :, 2] = (by_slope @ curve.cdf[:, :, None])[:, :, 0]
        known[:, :, 3] = (to_right @ self.rate[:, :, None])[:, :, 0]
        known[:, :, 4] = -(by_slope @ (by_mass @ self.residual[:, :, None]))[:, :, 0]
        change = np.linalg.solve(np.eye(ORDER) - by_slope @ by_mass, known)  # z
        change[:, :, 4] -= self.residual  # δy = z − e
        d = -(by_mass @ change)
        d[:, :, 1] += 1
        d_rate = slope[:, :, None] * d  # δr = s (D − c F) − r δ log β
        d_rate[:, :, 2] -= slope * curve.cdf
        d_rate[:, :, 3] -= self.rate
        drop_z = (grid.weights[:, None, :] @ d_rate)[:, 0]
        drop_d = ((grid.weights * curve.density)[:, None, :] @ change)[:, 0]
        return change, drop_z, drop_d


def _joined(drop_z: np.ndarray, drop_d: np.ndarray) -> np.ndarray:
    """z and D at every edge by (c, δ log β, 1), shape (panels + 1, 2, 3).

    - `drop_z`, `drop_d`: their drops across each panel by (z_R, D_R, c, δ log β, 1).

    D(0) = 0 and z(1) = 0 are imposed at opposite ends, and the system is solved as the two-point
    problem that it is: a recursion from one end would amplify errors.
    """
    count = len(drop_z)
    # Unknowns z₀, D₀, z₁, D₁, …. Equations: D₀ = 0; for panel p with edges p and p + 1
    #     z_p − z_{p+1} + drop_z = 0,   D_p − D_{p+1} + drop_d = 0;   z = 0 at the last edge.
    # Entry (i, j) of the matrix is stored at band[2 + i − j, j]: two diagonals above the main one,
    # one below. LAPACK needs another row on top as work space.
    storage = np.zeros((5, 2 * count + 2))
    band = storage[1:]
    right = np.zeros((2 * count + 2, 3))
    band[1, 1] = 1  # D₀
    band[3, 0:-2:2] = 1  # z_p
    band[1, 2::2] = drop_z[:, 0] - 1  # z_{p+1}
    band[0, 3::2] = drop_z[:, 1]  # D_{p+1}
    right[1:-1:2] = -drop_z[:, 2:]
    band[3, 1:-1:2] = 1  # D_p
    band[2, 2::2] = drop_d[:, 0]  # z_{p+1}
    band[1, 3::2] = drop_d[:, 1] - 1  # D_{p+1}
    right[2::2] = -drop_d[:, 2:]
    band[3, -2] = 1  # z at the last edge
    from scipy.linalg.lapack import dgbsv  # slow to import

    _, _, solution, failed = dgbsv(1, 2, storage, right, overwrite_ab=True, overwrite_b=True)
    if failed:
        raise np.linalg.LinAlgError("The panels' equations are singular.")
    return solution.reshape(count + 1, 2, 3)


def newton(state: State, tolerance: float = TOLERANCE) -> State | None:
    """The solution near `state`, or None if Newton's method with step halving does not reach
    one."""
    for _ in range(STEPS):
        if state.error <= tolerance:
            return state
        try:
            change, log_beta = state.newton_step()
        except np.linalg.LinAlgError:
            return None
        if not (np.isfinite(log_beta) and np.isfinite(change).all()):
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
    return state if state.error <= AT_ROUNDING else None
