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

REUSES = 2
"""Number of steps in which a linearization should lead to a solution if it is used again."""

Values = Float[np.ndarray, "panels nodes"]
"""A function at the nodes of a quadrature."""


@dataclass(frozen=True)
class Strength:
    """β is given, so log β does not change."""

    def residual(self, curve: Curve) -> float:
        return 0.0

    def slopes(self, curve: Curve, change: np.ndarray) -> np.ndarray:
        return np.array([0.0, 1.0])

    def rest(self, curve: Curve, change: np.ndarray, now: Curve) -> float:
        return 0.0


@dataclass(frozen=True)
class Budget:
    """KL(f) = κ is given, so log β is unknown."""

    kl: float
    """κ, in nats."""

    def residual(self, curve: Curve) -> float:
        return curve.kl / self.kl - 1

    def slopes(self, curve: Curve, change: np.ndarray) -> np.ndarray:
        """The coefficients of c and δ log β in δKL − (κ − KL) = 0.

        δf = f (δy − c) integrates to 0, so δKL = ∫ δf log f = ∫ f log f δy − c ∫ f log f.

        - `change`: coefficients of δy at the nodes, (panels, nodes, 2).
        """
        log_mass = (curve.grid.weights * curve.density * curve.log_density).ravel()
        slopes = log_mass @ change.reshape(-1, 2)
        slopes[0] -= log_mass.sum()
        return slopes

    def rest(self, curve: Curve, change: np.ndarray, now: Curve) -> float:
        """The part of that equation that contains neither.

        - `change`: the same part of δy at the nodes.
        - `now`: the policy that is to change; `curve` is where the equation was linearized.
        """
        log_mass = curve.grid.weights * curve.density * curve.log_density
        return float(np.vdot(log_mass, change)) + now.kl - self.kl


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
    at_right = np.zeros(len(grid))
    np.cumsum(grid.totals(rate)[:0:-1], out=at_right[-2::-1])
    alive = at_right < EMPTY
    if not alive.all():
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
        self.linear: Linearization | None = None
        """The linearization that led here, and the share of the error that its step left."""
        self.shrinkage = 1.0

    def _over_beta(self, law: Values) -> Values:
        """`law` times g/β: the rate r from h(F), its slope from h'(F)."""
        return law * self.opponent * np.exp(-self.log_beta)

    def slope(self) -> Values:
        """s = h'(F) g / β, the slope of the rate in F."""
        slope = self._over_beta(self.problem.procedure.slope(self.curve.cdf))
        slope[~self.alive] = 0
        return slope

    def moved(self, change: Values, log_beta: float, length: float) -> "State":
        """The state after the fraction `length` of a Newton step."""
        y, log_beta = self.y + length * change, self.log_beta + length * log_beta
        return State(self.problem, Iterate(self.grid, y, log_beta), self.opponent)


class Linearization:
    """The equations, linearized at a state and eliminated, so that they can be solved for the
    residuals there or nearby.

    With the residual e = y + ∫_v^1 r, s = h'(F) g / β, D(v) = ∫₀^v f δy and c = D(1), which is the
    change of log ∫ e^y, the linearization is δF = D − c F and

        z := δy + e = −∫_v^1 δr,    δr = s (D − c F) − r δ log β,    D' = f (z − e).

    On a panel, z and D depend on the rest of the axis through z_R and D_R, R the panel's right
    edge. With the operators S = ∫_v^R s · and M = ∫_v^R f ·, which integrate from the nodes to R,
    the linearization on the panel is D = D_R − M (z − e) and

        (I − S M) z = z_R − S D_R + c S F + δ log β ∫_v^R r − S M e.
    """

    def __init__(self, state: State) -> None:
        grid, curve = state.grid, state.curve
        self.curve, self.condition = curve, state.problem.condition
        slope = state.slope()
        to_right = grid.half[:, :, None] * TO_RIGHT
        by_slope, by_mass = to_right * slope[:, None, :], to_right * curve.density[:, None, :]
        coupled = by_slope @ by_mass
        inverse = np.linalg.inv(np.eye(ORDER) - coupled)
        self.by_residual = inverse @ coupled
        # z = δy + e by (z_R, D_R, c, δ log β).
        known = np.empty((len(grid), ORDER, 4))
        known[:, :, 0] = 1
        known[:, :, 1] = -by_slope.sum(2)
        known[:, :, 2] = (by_slope @ curve.cdf[:, :, None])[:, :, 0]
        known[:, :, 3] = state.rate @ TO_RIGHT.T * grid.half
        change = inverse @ known
        # The drops of z and D across a panel, by δy at its nodes and by the same four.
        weighted = grid.weights * slope
        self.drops = np.empty((len(grid), 2, ORDER))
        self.drops[:, 0] = -(weighted[:, None, :] @ by_mass)[:, 0]
        self.drops[:, 1] = grid.weights * curve.density
        drops = self.drops @ change
        drops[:, 0, 1] += weighted.sum(1)
        drops[:, 0, 2] -= (weighted * curve.cdf).sum(1)
        drops[:, 0, 3] -= (grid.weights * state.rate).sum(1)
        self.join = Joined(drops[:, :, :2])
        at_edges = self.join.solve(drops[:, :, 2:])
        # Once z_R and D_R are known, δy depends on c and δ log β alone.
        self.by_edge = change[:, :, :2]
        self.change = self.by_edge @ at_edges[1:] + change[:, :, 2:]
        # Two equations determine them: D(1) = c, and the condition on β.
        mass_row = at_edges[-1, 1] - [1, 0]
        self.rows = np.array([mass_row, self.condition.slopes(curve, self.change)])

    def step(self, state: State) -> tuple[Values, float]:
        """Changes of y and log β that solve the linearized equations for a state's residuals."""
        residual = state.residual[:, :, None]
        change = -(self.by_residual @ residual) - residual
        at_edges = self.join.solve(self.drops @ change)
        change = (self.by_edge @ at_edges[1:] + change)[:, :, 0]
        rest = [at_edges[-1, 1, 0], self.condition.rest(self.curve, change, state.curve)]
        c, log_beta = np.linalg.solve(self.rows, -np.array(rest)).tolist()
        return self.change @ [c, log_beta] + change, log_beta


class Joined:
    """z and D at every edge, from their drops across the panels.

    D(0) = 0 and z(1) = 0 are imposed at opposite ends, and the system is solved as the two-point
    problem that it is: a recursion from one end would amplify errors.
    """

    def __init__(self, drops: np.ndarray) -> None:
        """- `drops`: the drops of z and D across each panel by (z_R, D_R), (panels, 2, 2)."""
        count = self.count = len(drops)
        # Unknowns z₀, D₀, z₁, D₁, …. Equations: D₀ = 0; for panel p with edges p and p + 1
        #     z_p − z_{p+1} + drop_z = 0,   D_p − D_{p+1} + drop_d = 0;   z = 0 at the last edge.
        # Entry (i, j) of the matrix is stored at band[2 + i − j, j]: two diagonals above the main
        # one, one below. LAPACK needs another row on top as work space.
        storage = np.zeros((5, 2 * count + 2))
        band = storage[1:]
        band[1, 1] = 1  # D₀
        band[3, 0:-2:2] = 1  # z_p
        band[1, 2::2] = drops[:, 0, 0] - 1  # z_{p+1}
        band[0, 3::2] = drops[:, 0, 1]  # D_{p+1}
        band[3, 1:-1:2] = 1  # D_p
        band[2, 2::2] = drops[:, 1, 0]  # z_{p+1}
        band[1, 3::2] = drops[:, 1, 1] - 1  # D_{p+1}
        band[3, -2] = 1  # z at the last edge
        from scipy.linalg.lapack import dgbtrf  # slow to import

        self.factors, self.pivots, failed = dgbtrf(storage, 1, 2, overwrite_ab=True)
        if failed:
            raise np.linalg.LinAlgError("The panels' equations are singular.")

    def solve(self, drops: np.ndarray) -> np.ndarray:
        """z and D at every edge, (panels + 1, 2, columns).

        - `drops`: the known parts of the drops, (panels, 2, columns).
        """
        from scipy.linalg.lapack import dgbtrs  # slow to import

        right = np.zeros((2 * self.count + 2, drops.shape[2]))
        right[1:-1] = -drops.reshape(-1, drops.shape[2])
        solution, _ = dgbtrs(self.factors, 1, 2, right, self.pivots)
        return solution.reshape(self.count + 1, 2, -1)


def newton(state: State, tolerance: float = TOLERANCE) -> State | None:
    """The solution near `state`, or None if Newton's method with step halving does not reach
    one."""
    for _ in range(STEPS):
        if state.error <= tolerance:
            return state
        try:
            # Near the solution, the last linearization serves once more.
            serves = state.error * state.shrinkage**REUSES <= TOLERANCE
            linear = state.linear if state.linear and serves else Linearization(state)
            change, log_beta = linear.step(state)
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
        trial.linear, trial.shrinkage = linear, trial.error / state.error
        state = trial
    return state if state.error <= AT_ROUNDING else None
