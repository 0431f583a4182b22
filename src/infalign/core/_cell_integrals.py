"""Win rates on a quantile axis that is cut into cells, where a policy is uniform within each cell.

1 − W = ∫ H(F) dG, and Φ = −∫_v^1 h(F) dG, with F and u linear within a cell.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np

from ._interface import AbstractProcedure, RankProcedure
from ._shapes import Float

Edges = Float[np.ndarray, "prompts edges"]

Widths = Float[np.ndarray, "prompts cells"]
"""One value per cell of each prompt."""

NEGLIGIBLE = 1e-9
"""Cells in which ∫ h(F) dG is smaller need no quadrature."""

SIZES = np.sort(np.outer([2, 3], 2 ** np.arange(12)).ravel())
"""Numbers of nodes of the quadratures within a cell."""


@lru_cache(maxsize=len(SIZES))
def _rule(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights, which take longer to compute than to use."""
    return np.polynomial.legendre.leggauss(nodes)


@dataclass(frozen=True, eq=False)
class Inside:
    """The nodes of a quadrature in some cells of some prompts, or in a part of each cell."""

    cell: np.ndarray
    """Place of each cell among those of all prompts, row by row."""

    cdf: Float[np.ndarray, "parts nodes"]
    """F of the policy."""

    weight: Float[np.ndarray, "parts nodes"]
    """dG: the opponent's density times the weight of the quadrature."""

    place: Float[np.ndarray, "parts nodes"]
    """Position in the cell, from 0 to 1."""

    def sums(self, values: Float[np.ndarray, "parts nodes"], shape: tuple[int, int]) -> Widths:
        """Sum over the nodes of each cell."""
        size = shape[0] * shape[1]
        return np.bincount(self.cell, values.sum(1), size).reshape(shape)


@dataclass(frozen=True, eq=False)
class Layout:
    """The cells of some prompts, for integrals over the quantile axis."""

    widths: Widths
    mass: Widths
    procedure: RankProcedure
    against: AbstractProcedure

    @cached_property
    def edges(self) -> tuple[Edges, Edges]:
        """F and u at the edges of the cells."""
        axes = np.zeros((2, len(self.mass), self.mass.shape[1] + 1))
        np.cumsum(self.mass, axis=1, out=axes[0, :, 1:])
        np.cumsum(self.widths, axis=1, out=axes[1, :, 1:])
        np.clip(axes, 0, 1, out=axes)
        return axes[0], axes[1]

    @cached_property
    def rises(self) -> tuple[Widths, Widths, Widths]:
        """H at the left end of each cell, and the rises of H and of G in it."""
        cdf, u = self.edges
        law, opponent = self.procedure.cdf(cdf), self.against.cdf(u)
        return law[:, :-1], np.diff(law, axis=1), np.diff(opponent, axis=1)

    def losses(self) -> Float[np.ndarray, "prompts"]:
        """1 − W = ∫ H(F) dG of each prompt."""
        below, _, opponent = self.rises
        total = below * opponent
        for part in self.inside:
            rise = self.procedure.cdf(part.cdf) - below.ravel()[part.cell, None]
            total += part.sums(rise * part.weight, total.shape)
        return total.sum(1)

    def marginal(self) -> Widths:
        """Φ = −∫_v^1 h(F) dG, averaged over each cell."""
        rates, inner = np.zeros((2, *self.widths.shape))
        for part in self.inside:
            rate = self.procedure.density(part.cdf) * part.weight
            rates += part.sums(rate, rates.shape)
            inner += part.sums(rate * part.place, rates.shape)
        after = np.cumsum(rates[:, ::-1], axis=1)[:, ::-1] - rates
        return -after - inner

    @cached_property
    def inside(self) -> list[Inside]:
        """Quadrature within the cells that matter, with more nodes where the integrand is steeper.

        H(F) g is a polynomial of degree n + m − 1 for n and m draws, for which (n + m)/2 nodes
        suffice. In a part of the axis with mass p and width w, the terms of degree k of such a
        polynomial fall like e^{−k²/λ}, with λ = n p + m w, so a multiple of √λ nodes suffices too.
        Cells are cut where g jumps.
        """
        (cdf, u), (_, rise, opponent) = self.edges, self.rises
        cells = np.flatnonzero(rise * opponent > NEGLIGIBLE * self.mass)
        axes = (u[:, :-1], self.widths, cdf[:, :-1], self.mass)
        left, width, start, mass = (np.take(axis, cells) for axis in axes)
        draws = self.procedure.draws, self.against.draws
        needed = np.minimum(1.5 + 2 * np.sqrt(draws[0] * mass + draws[1] * width), sum(draws) / 2)
        rule = np.searchsorted(SIZES, needed)
        parts = []
        for low, high in pairwise((0.0, *self.against.breaks, 1.0)):
            begin = np.clip(left, low, high)
            length = np.clip(left + width, low, high) - begin
            for number in np.flatnonzero(np.bincount(rule)):
                at = np.flatnonzero((rule == number) & (length > 0))
                nodes, weights = _rule(int(SIZES[number]))
                x = begin[at, None] + length[at, None] * ((1 + nodes) / 2)
                place = (x - left[at, None]) / width[at, None]
                policy = np.clip(start[at, None] + place * mass[at, None], 0, 1)
                weight = self.against.density(np.clip(x, 0, 1)) * length[at, None] * (weights / 2)
                parts.append(Inside(cells[at], policy, weight, place))
        return parts
