"""Integrals over the quantile axis, by Gauss-Legendre panels that are cut where they must be.

Laws of best-of-n live within 1/n of one end of the axis and policies at κ nats within e^-κ of it,
so panels halve in width towards both ends; inside a panel every integrand here is smooth, and a
dozen nodes reach double precision. Where one is not, the panel is cut in two.

Distances from 1 are kept beside those from 0: a panel may be far narrower than the spacing of
floating-point numbers near 1.
"""

from functools import lru_cache

import numpy as np
from numpy.polynomial import legendre

ORDER = 12
"""Nodes in each panel."""

NODES, WEIGHTS = legendre.leggauss(ORDER)
_TO_COEFFICIENTS = np.linalg.inv(legendre.legvander(NODES, ORDER - 1))
# Integrals of the interpolating polynomial: from the panel's left edge, and to its right edge.
FROM_LEFT = legendre.legvander(NODES, ORDER) @ legendre.legint(_TO_COEFFICIENTS, lbnd=-1, axis=0)
TO_RIGHT = WEIGHTS - FROM_LEFT


class Panels:
    """Quadrature on [0, 1] over given panels. Values at the nodes have shape (panels, ORDER)."""

    def __init__(self, edges: np.ndarray, distances: np.ndarray | None = None):
        """- `edges`: from 0 to 1, increasing, shape (panels + 1,).
        - `distances`: 1 − edges, where floating point would lose it."""
        self.edges = edges
        self.distances = 1 - edges if distances is None else distances
        widths = np.where(edges[:-1] < 0.5, np.diff(edges), -np.diff(self.distances))
        self.half = widths[:, None] / 2
        self.nodes = edges[:-1, None] + self.half * (1 + NODES)
        self.from_1 = self.distances[1:, None] + self.half * (1 - NODES)
        self.weights = self.half * WEIGHTS

    def __len__(self):
        return len(self.half)

    def integrate(self, values: np.ndarray) -> float:
        """∫₀¹ of a function given at the nodes."""
        return float(np.vdot(self.weights, values))

    def cumulate(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """∫₀^v at every node v and at every edge."""
        edges = np.concatenate([[0.0], np.cumsum((self.weights * values).sum(1))])
        return edges[:-1, None] + self.half * (values @ FROM_LEFT.T), edges

    def cumulate_down(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """∫_v^1 at every node v and at every edge: summed from 1, so that it is exact near 1."""
        totals = (self.weights * values).sum(1)
        edges = np.concatenate([np.cumsum(totals[::-1])[::-1], [0.0]])
        return edges[1:, None] + self.half * (values @ TO_RIGHT.T), edges

    def partial(self, density, u: np.ndarray, totals: np.ndarray) -> np.ndarray:
        """∫₀^u of a callable at arbitrary u; `totals` is its integral up to the edges."""
        panel = np.clip(np.searchsorted(self.edges, u, "right") - 1, 0, len(self) - 1)
        left = self.edges[panel]
        half = (u - left) / 2
        # At an edge nothing is added, and a density that is not defined at 0 or 1 need not be.
        inside = np.where(
            (half > 0)[..., None], left[..., None] + half[..., None] * (1 + NODES), 0.5
        )
        return np.where(u < 1, totals[panel] + half * (density(inside) @ WEIGHTS), totals[-1])

    def unresolved(self, values: np.ndarray) -> np.ndarray:
        """What the panels may miss of ∫ values: each one's last two Legendre coefficients, times
        its width. Shape (panels,)."""
        last = np.abs(values @ _TO_COEFFICIENTS[-2:].T)
        return 2 * self.half[:, 0] * last.max(1)

    def cut(self, rough: np.ndarray) -> "Panels":
        """These panels, with those marked in `rough` cut: in two, or towards 1 if it is the last,
        where a function may have a scale far below that of its neighbors."""
        at = np.flatnonzero(rough)
        inside = at[at < len(self) - 1]
        edges = np.insert(self.edges, inside + 1, (self.edges[inside] + self.edges[inside + 1]) / 2)
        middle = (self.distances[inside] + self.distances[inside + 1]) / 2
        distances = np.insert(self.distances, inside + 1, middle)
        if len(at) > len(inside):
            tail = self.distances[-2] / 4.0 ** np.arange(1, 7)
            edges = np.concatenate([edges[:-1], 1 - tail, [1.0]])
            distances = np.concatenate([distances[:-1], tail, [0.0]])
        return Panels(edges, distances)

    def interpolate(self, values: np.ndarray, other: "Panels") -> np.ndarray:
        """Values at the nodes of `other`, which was cut from these panels, by the interpolating
        polynomials."""
        # Seen from whichever end of the axis is near, so that nothing cancels.
        left, right = other.edges[:-1], other.distances[:-1]
        from_0 = np.searchsorted(self.edges, left, "right") - 1
        from_1 = len(self) - np.searchsorted(self.distances[::-1], right, "left")
        panel = np.where(left < 0.5, from_0, from_1)
        start = np.where(left < 0.5, left - self.edges[panel], self.distances[panel] - right)
        local = (start[:, None] + other.half * (1 + NODES)) / self.half[panel] - 1
        coefficients = values[panel] @ _TO_COEFFICIENTS.T
        return np.einsum("pij,pj->pi", legendre.legvander(local, ORDER - 1), coefficients)

    def refine(self, values: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
        """`points` evenly spaced points in each panel, its left edge included, and the values of
        the interpolating polynomials there."""
        steps = np.arange(points) / points
        lagrange = legendre.legvander(2 * steps - 1, ORDER - 1) @ _TO_COEFFICIENTS
        u = self.edges[:-1, None] + 2 * self.half * steps
        return u.ravel(), (values @ lagrange.T).ravel()


@lru_cache(maxsize=64)
def graded(near_0: int, near_1: int, breaks: tuple[float, ...] = ()) -> Panels:
    """Panels that halve `near_0` times towards 0 and `near_1` times towards 1, with further edges
    at `breaks`, where an integrand may jump."""
    up = 0.5 ** np.arange(near_0, 0, -1)
    down = 0.5 ** np.arange(2, near_1 + 1)
    edges = np.concatenate([[0.0], up, 1 - down, [1.0]])
    distances = np.concatenate([[1.0], 1 - up, down, [0.0]])
    new = np.setdiff1d(breaks, edges)
    edges, distances = np.append(edges, new), np.append(distances, 1 - new)
    order = np.argsort(-distances, kind="stable")
    return Panels(edges[order], distances[order])
