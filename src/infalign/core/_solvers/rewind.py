"""The optimum for rewind, by a search over the single number that couples its responses.

With a = F(τ) fixed, W is linear in the density, so the best policy is known in closed form and the
objective is a function of a alone (docs/maths.md, section 15):

    J(a) = β a log(Z₁/a) + β (1 − a) log(Z₂/(1 − a))

with Z₁ = ∫₀^τ e^{c₁ G/β} and Z₂ = ∫_τ^1 e^{c₂ G/β}, where c₁ and c₂ are the rates at which rewind
selects responses below and above τ.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import rel_entr

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
        roots = [bracketed_root(self.slope, *ends, xtol=1e-14) for ends in _falls(self.slope)]
        return max((float(1 / (1 + np.exp(-root))) for root in roots), key=self.objective)

    def kl(self, a: float) -> float:
        """The KL of the best policy with mass a below τ."""
        (below, mean_below), (above, mean_above) = self.sides(a)
        low, high = self.procedure.rates(a)
        under = low * mean_below / self.beta - below + np.log(a)
        return float(a * under + (1 - a) * (high * mean_above / self.beta - above + np.log1p(-a)))

    def win_rate(self, a: float) -> float:
        """W of the best policy with mass a below τ."""
        return self.objective(a) + self.beta * self.kl(a)

    def curve(self, a: float) -> Curve:
        """The density of the best policy with mass a below τ."""
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


def at_budget(
    procedure: Rewind, against: AbstractProcedure, grid: Panels, opponent: Values, kl: float
) -> tuple[float, Curve]:
    """The strength and the density of the best policy with a KL budget."""

    def optimum(log_beta: float) -> RewindOptimum:
        return RewindOptimum(procedure, grid, opponent, float(np.exp(log_beta)))

    def kl_of(log_beta: float) -> float:
        best = optimum(log_beta)
        return best.curve(best.best).kl

    low, high = LOG_BETAS
    try:
        log_beta = falling_root(
            lambda x: kl_of(x) / kl - 1, 0.0, step=2.0, low=low, high=high, xtol=1e-15
        )
    except NoRoot as end:
        reached = float(np.exp(end.at))
        raise SolveError(
            f"No optimum was found for {procedure!r} against {against!r} with kl={kl:g}: its beta, "
            "by which the win rate changes per nat, lies beyond the limit of the search, "
            f"{reached:.2g}. Ask for a {'smaller' if end.at < 0 else 'larger'} `kl`."
        ) from None
    best = optimum(log_beta)
    a = best.best
    if abs(kl_of(log_beta) / kl - 1) > JUMP:
        before, after = kl_of(log_beta + JUMP), kl_of(log_beta - JUMP)
        if abs(after - before) >= NOISE * kl:  # more than the rounding of G over a tiny β
            best, a = _within_jump(best, kl)
    return best.beta, best.curve(a)


def _within_jump(optimum: RewindOptimum, kl: float) -> tuple[RewindOptimum, float]:
    """The best policy of a KL over which the optimum jumps, from the optimum at the jump: at each a
    the budget determines β, and W rises with a as J does at that β."""

    tau = optimum.procedure.threshold

    def at(logit: float) -> RewindOptimum:
        a = 1 / (1 + np.exp(-logit))

        def excess(log_beta: float) -> float:
            return replace(optimum, beta=float(np.exp(log_beta))).kl(a) / kl - 1

        low, high = LOG_BETAS
        root = falling_root(excess, np.log(optimum.beta), low=low, high=high, xtol=1e-14)
        return replace(optimum, beta=float(np.exp(root)))

    def slope(logit: float) -> float:
        a = 1 / (1 + np.exp(-logit))
        if rel_entr(a, tau) + rel_entr(1 - a, 1 - tau) >= kl:  # mass a below τ alone costs more
            return float("nan")
        return at(logit).slope(logit)

    policies: list[tuple[RewindOptimum, float]] = []
    for left, right in _falls(slope):
        logit = bracketed_root(slope, left, right, xtol=1e-14)
        policies.append((at(logit), float(1 / (1 + np.exp(-logit)))))
    return max(policies, key=lambda policy: policy[0].win_rate(policy[1]))


def _falls(slope: Callable[[float], float]) -> list[tuple[float, float]]:
    """Neighbors of `LOGITS` between which a slope changes from positive to negative."""
    slopes = np.array([slope(x) for x in LOGITS])
    tops = np.flatnonzero((slopes[:-1] > 0) & (slopes[1:] <= 0))
    return [(float(LOGITS[i]), float(LOGITS[i + 1])) for i in tops]
