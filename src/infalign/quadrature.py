"""Integrals over the quantile axis, by Gauss-Legendre panels that grow finer towards both ends.

Laws of best-of-n live within 1/n of one end and policies at κ nats within e^-κ of it, so panels
halve in width towards 0 and 1; inside a panel every integrand here is smooth, and a handful of
nodes reaches double precision.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.polynomial import legendre

ORDER = 16
"""Nodes in each panel."""


@lru_cache(maxsize=1)
def _rule():
    """Nodes, weights and running-integral matrix of one panel [-1, 1]."""
    nodes, weights = legendre.leggauss(ORDER)
    # The interpolant's Legendre coefficients, integrated from -1 and evaluated at the nodes.
    coefficients = np.linalg.inv(legendre.legvander(nodes, ORDER - 1))
    running = legendre.legvander(nodes, ORDER) @ legendre.legint(coefficients, lbnd=-1, axis=0)
    return nodes, weights, running


@dataclass(frozen=True)
class Panels:
    """Quadrature on [0, 1]: panels that halve `depth` times towards either end, cut in `parts`."""

    depth: int
    parts: int = 1

    def __post_init__(self):
        nodes, weights, running = _rule()
        near = 0.5 ** np.arange(self.depth, 0, -1)  # 2^-depth … 1/2
        coarse = np.concatenate([[0], near, 1 - near[-2::-1], [1]])
        inside = coarse[:-1, None] + np.diff(coarse)[:, None] * np.arange(self.parts) / self.parts
        edges = np.append(inside.ravel(), 1.0)
        half = np.diff(edges)[:, None] / 2
        put = object.__setattr__  # frozen: computed once, from the two fields alone
        put(self, "edges", edges)
        put(self, "nodes", (edges[:-1, None] + half * (1 + nodes)).ravel())
        put(self, "weights", (half * weights).ravel())
        put(self, "_running", half[:, :, None] * running)

    def integrate(self, values: np.ndarray) -> float:
        """∫₀¹ of a function given by its values at the nodes."""
        return float(self.weights @ values)

    def cumulate(self, values: np.ndarray) -> np.ndarray:
        """∫₀^v at every node v, of a function given by its values at the nodes."""
        rows = values.reshape(-1, ORDER)
        totals = (self.weights.reshape(-1, ORDER) * rows).sum(1)
        before = np.concatenate([[0], np.cumsum(totals)[:-1]])
        return (before[:, None] + np.einsum("pij,pj->pi", self._running, rows)).ravel()

    def cumulation_matrix(self) -> np.ndarray:
        """The matrix of `cumulate`, shape (nodes, nodes), block lower triangular."""
        panels = len(self.edges) - 1
        matrix = np.tril(np.ones((panels, panels)), -1)[:, None, :, None]
        matrix = matrix * self.weights.reshape(1, 1, panels, ORDER) * np.ones((1, ORDER, 1, 1))
        index = np.arange(panels)
        matrix[index, :, index, :] = self._running
        return matrix.reshape(self.nodes.size, self.nodes.size)

    def partial(self, density, u: np.ndarray, totals: np.ndarray) -> np.ndarray:
        """∫₀^u of a callable at arbitrary u; `totals` is its `cumulate` at panel edges."""
        nodes, weights, _ = _rule()
        panel = np.clip(np.searchsorted(self.edges, u, "right") - 1, 0, len(self.edges) - 2)
        left = self.edges[panel]
        half = (u - left) / 2
        # At an edge nothing is added, and a density that is not defined at 0 need not be.
        reach = np.where(half > 0, half, (self.edges[panel + 1] - left) / 2)
        inside = density(left[..., None] + reach[..., None] * (1 + nodes)) @ weights
        return totals[panel] + half * inside

    def unresolved(self, density: np.ndarray) -> float:
        """Mass that the panels may miss: the largest of any panel's last two coefficients."""
        nodes, _, _ = _rule()
        to_coefficients = np.linalg.inv(legendre.legvander(nodes, ORDER - 1))
        last = (density.reshape(-1, ORDER) @ to_coefficients.T)[:, -2:]
        return float((np.diff(self.edges)[:, None] * np.abs(last)).max())

    def refine(self, values: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
        """`points` evenly spaced points in each panel, its left edge included, and the values of
        the interpolating polynomials there."""
        nodes, _, _ = _rule()
        steps = np.arange(points) / points
        lagrange = legendre.legvander(2 * steps - 1, ORDER - 1) @ np.linalg.inv(
            legendre.legvander(nodes, ORDER - 1)
        )
        u = self.edges[:-1, None] + np.diff(self.edges)[:, None] * steps
        return u.ravel(), (values.reshape(-1, ORDER) @ lagrange.T).ravel()


@lru_cache(maxsize=8)
def panels(depth: int, parts: int = 1) -> Panels:
    """The shared quadrature of one fineness."""
    return Panels(depth, parts)
