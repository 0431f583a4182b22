"""The optimum next to a start: Newton's method on panels that are cut until they resolve it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from infalign._look import Pictured, Shown
from infalign.core._policies import RARE, Curve
from infalign.core._quadrature import NODES
from infalign.core._shapes import Float

from .newton import Iterate, Problem, State, Values, newton
from .starts import RESOLUTION, ROUGH_LOG, ROUNDS

ROUGHLY = 1e-5
"""Residual at which a solution is accurate enough to show which panels are too wide."""

FINELY = RESOLUTION / 100
"""Mass that a panel may misplace in the integral of the losses."""

STEEP = 2.0
"""Rise of the log-density, in nats, between a panel's last node and its right edge, above which the
nodes may miss mass."""


@dataclass(frozen=True)
class Optimum(Shown, Pictured):
    """A stationary point of W − β KL on the quantile axis."""

    curve: Curve
    """Density and CDF at the nodes of the quadrature."""

    gradient: Values
    """Φ = dW/df at the nodes, shifted to start at 0: the optimal transform."""

    exponent: Values
    """Φ/β at the nodes, shifted to end at 0: exact where Φ itself has lost its last digits."""

    beta: float
    win_rate: float
    kl: float
    losses: float = float("nan")
    """1 − W, to full precision even if W is close to 1."""

    def _facts(self) -> dict[str, object]:
        return {
            "win_rate": self.win_rate,
            "kl": self.kl,
            "beta": self.beta,
            "losses": self.losses,
            "gradient": self.gradient,
        }

    def _columns(self) -> dict[str, np.ndarray]:
        return self.curve.columns() | {"gradient": self.gradient.ravel()}

    def _draw(self, axes: Any) -> None:
        self.curve.draw(axes, title=f"win rate {self.win_rate:.4f} at {self.kl:.3g} nats")

    @classmethod
    def of(cls, state: State) -> "Optimum":
        """The optimum of a solved state."""
        curve, grid, problem = state.curve, state.grid, state.problem
        rate = problem.procedure.density(curve.cdf) * state.opponent
        losses = _losses(state)
        return cls(
            curve,
            gradient=grid.cumulate(rate)[0],
            exponent=-grid.cumulate_down(state.rate)[0],
            beta=float(np.exp(state.log_beta)),
            win_rate=1 - losses
            if 1 - losses > RARE
            else curve.win_rate(problem.procedure, problem.against),
            kl=curve.kl,
            losses=losses,
        )


def _losses(state: State) -> float:
    """1 − W = ∫ H(F) dG. An error of F at the nodes cancels in the policy's own integrals but not
    here, where both laws may change fast within a panel: such panels are cut."""
    problem, grid, y = state.problem, state.grid, state.y
    rough = grid.unresolved(state.curve.density) > FINELY
    if not rough.any():
        selected, opponent = problem.procedure.cdf(state.curve.cdf), state.opponent
    else:
        grid = grid.cut(rough)
        curve = Curve(grid, state.grid.interpolate(y, grid))
        selected, opponent = problem.procedure.cdf(curve.cdf), problem.against.density_on(grid)
    return grid.integrate(selected * opponent)


def solve_near(problem: Problem, start: Iterate) -> State | None:
    """The solution near a start, on panels cut until they resolve it; None if no solution
    exists."""
    with np.errstate(all="ignore"):  # a start that overflows is rejected by its residual
        for _ in range(ROUNDS):
            if not np.isfinite(start.y).all():
                return None
            opponent = problem.against.density_on(start.grid)
            state = newton(State(problem, start, opponent), ROUGHLY)
            if state is None:
                return None
            rough = missed(state) > RESOLUTION
            if not rough.any():
                return newton(state)
            finer = start.grid.cut(rough)
            start = Iterate(finer, start.grid.interpolate(state.y, finer), state.log_beta)
    return None


def missed(state: State) -> Float[np.ndarray, "panels"]:
    """Mass, and share of the losses 1 − W = ∫ H(F) dG, that each panel may miss.

    β is proportional to the losses, which may all come from a region with little mass.
    """
    grid, curve = state.grid, state.curve
    selected = state.problem.procedure.selected_cdf(grid, curve.density, curve.cdf)
    losses = (grid.weights * selected * state.opponent).sum(1)
    losses /= losses.sum()
    mass = np.maximum(curve.cdf_at_edges[1:], 1e-300)
    # Mass that a panel misplaces is missing from all later panels; an error of the panel's rate
    # scales all mass before it.
    later = np.maximum.accumulate((losses / mass)[::-1])[::-1]
    before = np.maximum(mass, np.cumsum(losses))
    misplaced = grid.unresolved(curve.density)
    # Behind a steep front every node may be empty, with all the mass to the right of the last node.
    log_edge = -state.below_at_edges[1:] - curve.log_partition
    steep = log_edge - curve.log_density[:, -1] > STEEP
    # The quadrature does not square such an error, hence the root.
    hidden = np.exp(log_edge) * grid.half[:, 0] * (1 - NODES[-1]) / np.sqrt(RESOLUTION)
    misplaced += np.where(steep, hidden, 0)
    log_error = grid.unresolved(state.rate)
    coarse = np.where(log_error > ROUGH_LOG, np.inf, 0)
    return np.max([misplaced * np.maximum(1, later), log_error * before, coarse], axis=0)
