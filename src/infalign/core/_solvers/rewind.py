"""The optimum for rewind, by a search over the single number that couples its responses.

With a = F(τ) fixed, W is linear in the density, so the best policy is known in closed form and the
objective is a function of a alone (docs/maths.md, section 15):

    J(a) = β a log(Z₁/a) + β (1 − a) log(Z₂/(1 − a))

with Z₁ = ∫₀^τ e^{c₁ G/β} and Z₂ = ∫_τ^1 e^{c₂ G/β}, where c₁ and c₂ are the rates at which rewind
selects responses below and above τ.
"""

from dataclasses import dataclass

import numpy as np

from infalign._look import Shown
from infalign.core._interface import AbstractProcedure
from infalign.core._policies import Curve
from infalign.core._quadrature import Panels
from infalign.core._roots import NoRoot, bracketed_root, falling_root
from infalign.core._shapes import Bool
from infalign.core._soft_procedures import Rewind
from infalign.errors import SolveError

from .newton import Values

LOGITS = np.linspace(-40, 40, 400)
"""Log-odds of a at which the sign of J'(a) is checked; a maximum is located between two of them."""

LOG_BETAS = (-28.0, 40.0)
"""Limits of the search for a KL budget. At a β of 1e-12 the rounding of G, over β, is 1e-4 nats."""

NOISE = 1e-4
"""Relative difference of two KLs next to each other that is no jump."""

JUMP = 1e-9
"""Relative error of the KL above which the optimum counts as jumping over the budget."""


@dataclass(frozen=True)
class RewindOptimum(Shown):
    """The best policy for rewind at each chance a of falling below the threshold."""

    procedure: Rewind
    grid: Panels
    opponent: Values
    """G at the nodes."""

    beta: float

    @property
    def under(self) -> Bool[np.ndarray, "panels nodes"]:
        """The nodes below τ."""
        return self.grid.nodes < self.procedure.threshold

    def sides(self, a: float) -> list[tuple[float, float]]:
        """log Z and the mean of G under e^{c G/β}, below and above τ."""
        sides = []
        for side, rate in zip((self.under, ~self.under), self.procedure.rates(a), strict=True):
            exponent = rate * self.opponent[side] / self.beta
            top = exponent.max()  # e^exponent may overflow
            mass = self.grid.weights[side] * np.exp(exponent - top)
            mean = float(mass @ self.opponent[side] / mass.sum())
            sides.append((float(np.log(mass.sum()) + top), mean))
        return sides

    def objective(self, a: float) -> float:
        """J(a)."""
        (below, _), (above, _) = self.sides(a)
        return float(self.beta * (a * (below - np.log(a)) + (1 - a) * (above - np.log1p(-a))))

    def slope(self, logit: float) -> float:
        """J'(a) / β at a logit of a.

        The densities on both sides are optimal, so only the direct dependence on a matters: c₁ =
        a^{m−1} and c₂ = Σ_{j<m} a^j have the derivatives below.
        """
        a = 1 / (1 + np.exp(-logit))
        m = self.procedure.max_tries
        (below, mean_below), (above, mean_above) = self.sides(a)
        j = np.arange(1, m)
        d_above = float(np.sum(j * a ** (j - 1)))
        d_below = (m - 1) * a ** (m - 2) if m > 1 else 0.0
        gain = a * d_below * mean_below + (1 - a) * d_above * mean_above
        return float(below - above - logit + gain / self.beta)

    @property
    def best(self) -> float:
        """The a with the largest J, among all points where J' changes from positive to negative."""
        slopes = np.array([self.slope(x) for x in LOGITS])
        tops = np.flatnonzero((slopes[:-1] > 0) & (slopes[1:] <= 0))
        roots = [bracketed_root(self.slope, LOGITS[i], LOGITS[i + 1], xtol=1e-14) for i in tops]
        return max((float(1 / (1 + np.exp(-root))) for root in roots), key=self.objective)

    def curve(self) -> Curve:
        """The density of the best policy: mass a below τ and 1 − a above."""
        a = self.best
        (below, _), (above, _) = self.sides(a)
        low, high = self.procedure.rates(a)
        exponent = np.where(
            self.under,
            low * self.opponent / self.beta - below + np.log(a),
            high * self.opponent / self.beta - above + np.log1p(-a),
        )
        return Curve(self.grid, exponent)


def rewind_objective(procedure: Rewind, grid: Panels, opponent: Values, beta: float) -> float:
    """The largest W − β KL of any policy."""
    optimum = RewindOptimum(procedure, grid, opponent, beta)
    return optimum.objective(optimum.best)


def beta_for(
    procedure: Rewind, against: AbstractProcedure, grid: Panels, opponent: Values, kl: float
) -> float:
    """The strength at which the best policy has a KL budget."""

    def excess(log_beta: float) -> float:
        return kl_of(log_beta) / kl - 1

    def kl_of(log_beta: float) -> float:
        return RewindOptimum(procedure, grid, opponent, float(np.exp(log_beta))).curve().kl

    low, high = LOG_BETAS
    try:
        log_beta = falling_root(excess, 0.0, step=2.0, low=low, high=high, xtol=1e-15)
    except NoRoot as end:
        reached = float(np.exp(end.at))
        raise SolveError(
            f"No optimum was found for {procedure!r} against {against!r} with kl={kl:g}: its beta, "
            "by which the win rate changes per nat, lies beyond the limit of the search, "
            f"{reached:.2g}. Ask for a {'smaller' if end.at < 0 else 'larger'} `kl`."
        ) from None
    if abs(excess(log_beta)) > JUMP:
        before, after = kl_of(log_beta + JUMP), kl_of(log_beta - JUMP)
        if abs(after - before) < NOISE * kl:  # the rounding of G over a tiny β
            return float(np.exp(log_beta))
        raise SolveError(
            f"The optimum for {procedure!r} jumps from kl={before:.4g} to {after:.4g} at "
            f"beta={np.exp(log_beta):.6g}; no optimum has kl={kl:g}. Ask for a `kl` outside the "
            "jump."
        )
    return float(np.exp(log_beta))
