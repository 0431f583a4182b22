"""The solution of KL-regularized RL on the quantile axis: a tilt of the reference.

Training on Φ(C) with strength β gives the density f(u) = e^{Φ(u)/β} / Z, Z = ∫₀¹ e^{Φ/β}, for
every prompt, reward and model (InfAlign, arXiv:2412.19792).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from infalign import _check
from infalign._look import Pictured, Shown, label

from ._inputs import quantile
from ._interface import AbstractProcedure, RankProcedure, require_procedure
from ._quadrature import NODES, Panels, graded
from ._shapes import ArrayLike, Float, Real
from ._transforms import AbstractTransform

MISSED_MASS = 1e-9
"""Probability that a panel may misplace before it is cut; errors of integrals over it are far
smaller."""

STEEP = 2.0
"""Rise of the log-density between a panel's last two nodes, in nats, from which mass may lie behind
the last one."""

ROUNDING = 4 * np.finfo(float).eps
"""Relative error of Φ that counts as rounding."""

CUTS = 40
"""Maximum number of halvings of a panel, since a kink remains at any width."""

HALVINGS = 44
"""Number of halvings of the first panels toward both ends: 2⁻⁴⁴ is 6e-14, for policies up to 30
nats."""


STEEP = 30.0
"""Highest density that is drawn in a linear scale."""

VISIBLE = 1e-9
"""Share of the highest density below which it is not drawn."""

RARE = 1e-6
"""Win rate below which it is summed by itself and not as 1 minus the losses."""


class Curve:
    """A density on the quantile axis and its CDF, at the nodes of a quadrature that resolves it."""

    def __init__(self, grid: Panels, exponent: Float[np.ndarray, "panels nodes"]) -> None:
        """- `exponent`: the unnormalized log-density; `log_partition` is its normalization."""
        top = exponent.max()  # e^exponent may overflow; e^(exponent - top) cannot
        mass = np.exp(exponent - top)
        total = grid.integrate(mass)
        self.grid = grid
        self.log_partition = float(np.log(total) + top)
        self.log_density = exponent - self.log_partition
        self.density = mass / total
        cdf, edges = grid.cumulate(self.density)
        # Rounding may leave F an ulp outside [0, 1], where H is not defined.
        self.cdf, self.cdf_at_edges = np.clip(cdf, 0, 1), edges

    def columns(self) -> dict[str, np.ndarray]:
        """Quantiles, density and CDF at the nodes."""
        curves = {"u": self.grid.nodes, "density": self.density, "cdf": self.cdf}
        return {name: values.ravel() for name, values in curves.items()}

    def draw(self, axes: Any, title: str) -> None:
        """Draw the density on axes of matplotlib, in a logarithmic scale if it is steep."""
        shown = self.density > VISIBLE * self.density.max()
        axes.plot(self.grid.nodes[shown], self.density[shown])
        if self.density.max() > STEEP:
            axes.set_yscale("log")
        label(axes, x="quantile u under the reference", y="density f(u)", title=title)

    @cached_property
    def kl(self) -> float:
        """∫ f log f = ∫ (f log f − f + 1), whose integrand is never negative."""
        f = self.density
        # f − 1 by expm1, since next to the reference f's own digits are those of 1.
        surplus = np.where(f > 0, np.expm1(self.log_density), -1)
        kl = self.grid.integrate(f * np.where(f > 0, self.log_density, 0) - surplus)
        return max(kl, 0.0)  # rounding may leave −1e-32 in place of 0

    @property
    def spread(self) -> float:
        """The variance of log f under f, at which the KL of a tilt falls with log β."""
        f, kl = self.density, self.kl
        return self.grid.integrate(f * np.where(f > 0, self.log_density - kl, 0) ** 2)

    def win_rate(self, procedure: AbstractProcedure, against: AbstractProcedure) -> float:
        """W = 1 − ∫ S dG, S the CDF of the selected response and G the opponent's law."""
        selected = procedure.selected_cdf(self.grid, self.density, self.cdf)
        wins = 1 - self.grid.integrate(selected * against.density_on(self.grid))
        if wins > RARE or not isinstance(procedure, RankProcedure):
            return wins
        # W = ∫ G dS without the cancellation, which could leave a win rate below 0.
        rate = procedure.density(self.cdf) * self.density
        return self.grid.integrate(rate * against.cdf(self.grid.nodes))


@dataclass(frozen=True)
class TiltedPolicy(Shown, Pictured):
    """The policy with calibrated-reward density f(u) = e^{Φ(u)/β} / Z.

    >>> from infalign import BestOfN, Log, Sampling
    >>> best_of_4 = TiltedPolicy(Log(), beta=1 / 3)      # f(u) = 4 u³
    >>> round(best_of_4.kl, 6), round(best_of_4.win_rate(Sampling()), 6)
    (0.636294, 0.8)
    """

    transform: AbstractTransform
    """Φ, the training reward as a function of the quantile."""

    beta: float
    """KL strength, in units of Φ per nat; > 0."""

    def __post_init__(self) -> None:
        _check.instance("transform", self.transform, AbstractTransform, "a transform such as Log()")
        _check.positive("beta", self.beta)

    @cached_property
    def _curve(self) -> Curve:
        return self.curve()

    def _facts(self) -> dict[str, object]:
        return {"transform": self.transform, "beta": self.beta, "kl": self.kl}

    def _columns(self) -> dict[str, np.ndarray]:
        return self._curve.columns()

    def _draw(self, axes: Any) -> None:
        self._curve.draw(axes, title=f"KL {self.kl:.3g} nats")

    def curve(self, *laws: AbstractProcedure) -> Curve:
        """The density at the nodes of a quadrature that resolves it and the given laws."""
        breaks = {b for law in laws for b in law.breaks}
        breaks |= {*self.transform.jumps, *self.transform.kinks}
        grid = graded(HALVINGS, HALVINGS, tuple(sorted(breaks)))
        cuts = 0
        while True:
            upper = grid.nodes > 0.5
            phi = np.empty_like(grid.nodes)
            phi[~upper] = self.transform(grid.nodes[~upper])
            phi[upper] = self.transform.below_1(grid.from_1[upper])
            curve = Curve(grid, phi / self.beta)
            masses = [curve.density]
            for law in laws:
                masses += [law.density_on(grid), law.density(curve.cdf) * curve.density]
            # Where Φ/β is huge, cutting does not remove the rounding errors of Φ.
            mass = grid.weights * curve.density
            allowed = np.maximum(MISSED_MASS, ROUNDING / self.beta * (mass * np.abs(phi)).sum(1))
            rough = np.max([grid.unresolved(m) for m in masses], axis=0) > allowed
            # Behind a steep front every node may be empty, with mass to the right of the last one.
            rises = np.diff(curve.log_density[:, -2:], axis=1)[:, 0]
            if (steep := rises > STEEP).any():
                edge = self.transform.below_1(grid.distances[1:][steep]) / self.beta
                hidden = np.exp(edge - curve.log_partition) * grid.half[steep, 0]
                rough[steep] |= hidden * (1 - NODES[-1]) > allowed[steep]
            if not rough.any() or cuts == CUTS:
                return curve
            grid, cuts = grid.cut(rough), cuts + 1

    @property
    def log_partition(self) -> float:
        """log Z = log ∫₀¹ e^{Φ/β}."""
        return self._curve.log_partition

    @property
    def kl(self) -> float:
        """KL(policy ‖ reference) = ∫ f log f, in nats."""
        return self._curve.kl

    @property
    def kl_slope(self) -> float:
        """dKL / d log β, which is −Var(log f) under f."""
        return -self._curve.spread

    def density(self, u: Real[ArrayLike, "*any"]) -> Float[np.ndarray, "*any"]:
        """f(u), elementwise; the reference has density 1."""
        return np.exp(self.transform(quantile("u", u)) / self.beta - self.log_partition)

    def cdf(self, u: Real[ArrayLike, "*any"]) -> Float[np.ndarray, "*any"]:
        """F(u) = ∫₀^u f, elementwise."""
        grid, edges = self._curve.grid, self._curve.cdf_at_edges
        return np.clip(grid.partial(self.density, quantile("u", u), edges), 0, 1)

    def win_rate(
        self, procedure: AbstractProcedure, against: AbstractProcedure | None = None
    ) -> float:
        """Chance that the policy under `procedure` beats the reference under `against`.

        W = 1 − ∫ H(F(u)) dG(u) for a procedure that selects by rank.

        - `against`: how the reference is decoded. Default: `procedure`.
        """
        require_procedure("procedure", procedure)
        against = procedure if against is None else require_procedure("against", against)
        return self.curve(procedure, against).win_rate(procedure, against)
