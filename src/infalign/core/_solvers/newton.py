"""Newton's method for the optimum's two-point boundary problem, one linear panel at a time.

For a procedure that keeps by rank the optimal log-density is the win rate's own gradient over β
(InfAlign, arXiv:2412.19792, theorem 1, on the quantile axis):

    y(v) = −(1/β) ∫_v^1 h(F) dG,     f = e^y / ∫ e^y,     F(v) = ∫₀^v f,

with y = 0 at v = 1, its largest value. Linearized, y and F at a node depend on the rest of the axis
through two numbers at the panel's right edge only. So each panel is eliminated by a small matrix
of its own, a recursion from 1 to 0 joins them, and a step costs time linear in the panels.
A KL budget adds log β to the unknowns and KL(f) = κ to the equations.
"""

from dataclasses import dataclass

import numpy as np

from infalign.core._policies import Curve
from infalign.core._procedures import AbstractProcedure, RankProcedure
from infalign.core._quadrature import ORDER, TO_RIGHT, Panels

STEPS = 12
"""Newton steps before a start is given up."""

TOLERANCE = 1e-12
"""Largest relative residual of a solution; rounding allows about a tenth of it."""

EMPTY = 750.0
"""Fall of the log-density, in nats, beyond which e^y is 0 in double precision."""

LOG_BETA_STEP = 2.0
"""Largest change of log β in one step."""


@dataclass(frozen=True)
class Problem:
    """What is to be solved: a procedure, its opponent, and a KL budget or a KL strength."""

    procedure: RankProcedure
    against: AbstractProcedure
    kl: float | None
    """Budget in nats; None where `log_beta` of the start is to be kept."""


def quench(grid: Panels, rate: np.ndarray) -> np.ndarray:
    """Mark the panels that hold mass in double precision, and set the rate of the others to 0.

    Against worst-of-n the rate at low quantiles may be 10²⁰ and more, in vain: the density has long
    underflowed to 0, and polynomials through such values would overshoot.
    """
    at_right = np.cumsum((grid.weights * rate).sum(1)[::-1])[::-1]
    alive = np.append(at_right[1:], 0.0) < EMPTY
    rate[~alive] = 0
    return alive


class State:
    """A candidate (y, log β) with the residuals of its equations."""

    def __init__(self, problem: Problem, grid: Panels, y: np.ndarray, log_beta: float, opponent):
        self.problem, self.grid, self.y, self.log_beta = problem, grid, y, log_beta
        self.opponent = opponent
        self.curve = Curve(grid, y)
        self.rate = problem.procedure.density(self.curve.cdf) * opponent * np.exp(-log_beta)
        self.alive = quench(grid, self.rate)
        below, self.below_at_edges = grid.cumulate_down(self.rate)
        self.residual = y + below
        # Where y is huge the density is nil, and only its leading digits could matter.
        self.error = float(np.abs(self.residual / (1 + np.abs(y))).max())
        if problem.kl is not None:
            self.error = max(self.error, abs(self.curve.kl / problem.kl - 1))

    def moved(self, change: np.ndarray, log_beta: float, length: float) -> "State":
        """The state after a part of a Newton step."""
        y, log_beta = self.y + length * change, self.log_beta + length * log_beta
        return State(self.problem, self.grid, y, log_beta, self.opponent)

    def newton_step(self) -> tuple[np.ndarray, float]:
        """Changes of y and log β that solve the linearized equations."""
        grid, curve = self.grid, self.curve
        slope = self.problem.procedure.slope(curve.cdf) * self.opponent * np.exp(-self.log_beta)
        slope[~self.alive] = 0
        # With z = δy + residual and D = ∫₀^v f δy, on a panel with right edge R:
        #     z = z_R − ∫_v^R (slope (D − c F) − rate δlog β),   D = D_R − ∫_v^R f (z − residual),
        # where c = ∫₀¹ f δy is δ log ∫ e^y. Columns: z_R, D_R, c, δ log β, 1.
        rows = grid.half[:, :, None] * TO_RIGHT
        by_slope, by_mass = rows * slope[:, None, :], rows * curve.density[:, None, :]
        known = np.empty((len(grid), ORDER, 5))
        known[:, :, 0] = 1
        known[:, :, 1] = -by_slope.sum(2)
        known[:, :, 2] = (by_slope @ curve.cdf[:, :, None])[:, :, 0]
        known[:, :, 3] = (rows @ self.rate[:, :, None])[:, :, 0]
        known[:, :, 4] = -(by_slope @ (by_mass @ self.residual[:, :, None]))[:, :, 0]
        change = np.linalg.solve(np.eye(ORDER) - by_slope @ by_mass, known)
        change[:, :, 4] -= self.residual
        cumulated = -(by_mass @ change)
        cumulated[:, :, 1] += 1
        inner = slope[:, :, None] * cumulated
        inner[:, :, 2] -= slope * curve.cdf
        inner[:, :, 3] -= self.rate
        mass = grid.weights * curve.density
        drop_z = np.einsum("pq,pqk->pk", grid.weights, inner)
        drop_d = np.einsum("pq,pqk->pk", mass, change)
        at_edges = _join(drop_z, drop_d)
        by_unknown = np.einsum("pqk,pkj->pqj", change[:, :, :2], at_edges[1:]) + change[:, :, 2:]
        # Left to fulfil: D(1) = c, and the budget.
        mass_row = at_edges[-1, 1] - [1, 0, 0]
        if self.problem.kl is None:
            c, log_beta = -mass_row[2] / mass_row[0], 0.0
        else:
            log_mass = mass * self.curve.log_density
            kl_row = np.einsum("pq,pqj->j", log_mass, by_unknown)
            kl_row -= [log_mass.sum(), 0, self.problem.kl - curve.kl]
            rows = np.array([mass_row, kl_row])
            c, log_beta = np.linalg.solve(rows[:, :2], -rows[:, 2]).tolist()
        return by_unknown @ [c, log_beta, 1.0], log_beta


def _join(drop_z: np.ndarray, drop_d: np.ndarray) -> np.ndarray:
    """z and D at every edge as linear functions of (c, δ log β, 1), shape (panels + 1, 2, 3), from
    what each panel takes off them, with D(0) = 0 and z(1) = 0.

    Solved as the two-point problem that it is: carried along from one end, errors would grow.
    """
    count = len(drop_z)
    # Rows of the band: one of LAPACK's own, two diagonals above, the main one, one below.
    matrix = np.zeros((5, 2 * count + 2))
    band = matrix[1:]
    known = np.zeros((2 * count + 2, 3))
    # Unknowns z₀, D₀, z₁, D₁, …; rows: D₀ = 0, then each panel's two, then z = 0 at 1.
    band[1, 1] = 1
    band[3, 0:-2:2] = 1
    band[1, 2::2] = drop_z[:, 0] - 1
    band[0, 3::2] = drop_z[:, 1]
    known[1:-1:2] = -drop_z[:, 2:]
    band[3, 1:-1:2] = 1
    band[2, 2::2] = drop_d[:, 0]
    band[1, 3::2] = drop_d[:, 1] - 1
    known[2::2] = -drop_d[:, 2:]
    band[3, -2] = 1
    from scipy.linalg.lapack import dgbsv  # slow to import

    _, _, solution, failed = dgbsv(1, 2, matrix, known, overwrite_ab=True, overwrite_b=True)
    if failed:
        raise np.linalg.LinAlgError("The panels' equations are singular.")
    return solution.reshape(count + 1, 2, 3)


def newton(state: State, tolerance: float = TOLERANCE) -> State | None:
    """The solution near `state`, or None if Newton's method with halving does not get there."""
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
            if length < 0.01:
                # Rounding, not the iteration, may be what stops the descent.
                return state if state.error <= 100 * TOLERANCE else None
        state = trial
    return state if state.error <= 100 * TOLERANCE else None
