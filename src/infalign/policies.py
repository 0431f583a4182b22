"""The solution of KL-regularised RL on the quantile axis: the reference, tilted.

Training on Φ(C) with strength β gives the density f(u) = e^{Φ(u)/β} / Z, Z = ∫₀¹ e^{Φ/β}, for
every prompt, reward and model (InfAlign, arXiv:2412.19792).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from . import _check
from .procedures import AbstractProcedure
from .quadrature import ORDER, panels
from .transforms import AbstractTransform

GRID = (44, 3)
"""Depth and parts of the panels: 2^-44 from an end, a tilt in double precision has no mass left."""


@dataclass(frozen=True)
class TiltedPolicy:
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

    def __post_init__(self):
        _check.positive("beta", self.beta)

    @cached_property
    def _nodes(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Density and CDF at the quadrature nodes, and log Z."""
        grid = panels(*GRID)
        exponent = self.transform(grid.nodes) / self.beta
        top = exponent.max()  # e^{Φ/β} may overflow; e^{(Φ - max Φ)/β} cannot
        log_z = float(np.log(grid.integrate(np.exp(exponent - top))) + top)
        density = np.exp(exponent - log_z)
        return density, grid.cumulate(density), log_z

    @property
    def log_partition(self) -> float:
        """log Z = log ∫₀¹ e^{Φ/β}."""
        return self._nodes[2]

    @property
    def kl(self) -> float:
        """KL(policy ‖ reference) = ∫ f log f, in nats."""
        density, _, _ = self._nodes
        return entropy_gap(panels(*GRID), density)

    def density(self, u) -> np.ndarray:
        """f(u), elementwise; 1 is the reference."""
        return np.exp(self.transform(u) / self.beta - self.log_partition)

    def cdf(self, u) -> np.ndarray:
        """F(u) = ∫₀^u f, elementwise."""
        grid = panels(*GRID)
        density, _, _ = self._nodes
        per_panel = (grid.weights * density).reshape(-1, ORDER).sum(1)
        totals = np.concatenate([[0], np.cumsum(per_panel)])
        return np.clip(grid.partial(self.density, _check.unit_interval("u", u), totals), 0, 1)

    def win_rate(
        self, procedure: AbstractProcedure, against: AbstractProcedure | None = None
    ) -> float:
        """Chance that the policy under `procedure` beats the reference under `against`.

        W = 1 − ∫ H(F(u)) dG(u); `against` is `procedure` unless given.
        """
        _, cdf, _ = self._nodes
        return win_rate_on(panels(*GRID), cdf, procedure, against or procedure)


def entropy_gap(grid, density: np.ndarray) -> float:
    """∫ f log f of a density given at the nodes of `grid`, with 0 log 0 = 0."""
    return max(grid.integrate(density * np.log(np.where(density > 0, density, 1))), 0.0)


def win_rate_on(grid, cdf: np.ndarray, procedure, against) -> float:
    """W = 1 − ∫ H(F(u)) g(u) du of a policy whose CDF F is given at the nodes of `grid`."""
    # Rounding may leave F an ulp outside [0, 1], where H is not defined.
    kept = procedure.cdf(np.clip(cdf, 0, 1))
    return 1 - grid.integrate(kept * against.density(grid.nodes))
