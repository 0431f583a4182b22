"""Integrals over the quantile axis by Gauss-Legendre panels, which are cut where the integrand
requires it.

The law of best-of-n is concentrated within 1/n of one end of the axis, and a policy at κ nats
within e^-κ of it, so panel widths halve toward both ends. Inside a panel the integrands are smooth,
and 12 nodes reach double precision; if an integrand is not smooth, the panel is cut in two.

Distances from 1 are stored as well as distances from 0, since a panel may be far narrower than the
spacing of floating-point numbers near 1.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.polynomial import legendre

from ._shapes import Bool, Float

ORDER = 12
"""Nodes in each panel."""

TAIL = 6
"""Number of panels that replace the last one when it is cut; each is a quarter as wide as the one
before."""

NODES, WEIGHTS = legendre.leggauss(ORDER)
_TO_COEFFICIENTS = np.linalg.inv(legendre.legvander(NODES, ORDER - 1))
# Integrals of the interpolating polynomial: from the panel's left edge, and to its right edge.
FROM_LEFT = legendre.legvander(NODES, ORDER) @ legendre.legint(_TO_COEFFICIENTS, lbnd=-1, axis=0)
TO_RIGHT = WEIGHTS - FROM_LEFT
# Both together with the integral over the whole panel: one product instead of two.
_LEFT_AND_WHOLE = np.column_stack([FROM_LEFT.T, WEIGHTS])
_RIGHT_AND_WHOLE = np.column_stack([TO_RIGHT.T, WEIGHTS])


def through(
    at: np.ndarray, values: np.ndarray, targets: np.ndarray, panel: np.ndarray | None = None
) -> np.ndarray:
    """In each panel, the polynomial through `values` at points `at`, evaluated at `targets`.

    - `at`: in the order and nearly in the positions of `NODES`.
    - `targets`: points in each panel, or in all panels the same points.
    - `panel`: the panel of each target, if it is not the target's row.
    """
    apart = at.T[:, None] - at.T  # products are fast along the first axis
    apart[range(ORDER), range(ORDER)] = 1
    weights = 1 / apart.prod(0).T
    rows = np.arange(len(at))[:, None] if panel is None else panel
    away = targets[..., None] - at[rows]
    pull = weights[rows] / np.where(away == 0, 1e-100, away)
    return np.einsum("...i,...i->...", pull, values[rows]) / pull.sum(-1)


class Panels:
    """Quadrature on [0, 1] over given panels. Values at the nodes have shape (panels, ORDER)."""

    def __init__(
        self,
        edges: Float[np.ndarray, "panels_and_1"],
        distances: Float[np.ndarray, "panels_and_1"] | None = None,
    ) -> None:
        """- `edges`: from 0 to 1, increasing.
        - `distances`: 1 − edges, if known without cancellation."""
        self.edges = edges
        self.distances = 1 - edges if distances is None else distances
        widths = np.where(edges[:-1] < 0.5, np.diff(edges), -np.diff(self.distances))
        self.half = widths[:, None] / 2
        self.nodes = edges[:-1, None] + self.half * (1 + NODES)
        self.from_1 = self.distances[1:, None] + self.half * (1 - NODES)
        self.weights = self.half * WEIGHTS

    def __len__(self) -> int:
        return len(self.half)

    def integrate(self, values: Float[np.ndarray, "panels nodes"]) -> float:
        """∫₀¹ of a function given at the nodes."""
        return float(np.vdot(self.weights, values))

    def cumulate(
        self, values: Float[np.ndarray, "panels nodes"]
    ) -> tuple[Float[np.ndarray, "panels nodes"], Float[np.ndarray, "panels_and_1"]]:
        """∫₀^v at every node v and at every edge."""
        parts = self.half * (values @ _LEFT_AND_WHOLE)
        edges = np.zeros(len(self) + 1)
        np.cumsum(parts[:, ORDER], out=edges[1:])
        return edges[:-1, None] + parts[:, :ORDER], edges

    def cumulate_down(
        self, values: Float[np.ndarray, "panels nodes"]
    ) -> tuple[np.ndarray, np.ndarray]:
        """∫_v^1 at every node v and at every edge, summed from 1: accurate near 1."""
        parts = self.half * (values @ _RIGHT_AND_WHOLE)
        edges = np.zeros(len(self) + 1)
        np.cumsum(parts[::-1, ORDER], out=edges[-2::-1])
        return edges[1:, None] + parts[:, :ORDER], edges

    def totals(self, values: Float[np.ndarray, "panels nodes"]) -> Float[np.ndarray, "panels"]:
        """The integral over each panel."""
        return self.half[:, 0] * (values @ WEIGHTS)

    def partial(
        self,
        density: Callable[[np.ndarray], np.ndarray],
        u: Float[np.ndarray, "*any"],
        totals: Float[np.ndarray, "panels_and_1"],
    ) -> Float[np.ndarray, "*any"]:
        """∫₀^u of a callable at arbitrary u; `totals` is its integral up to the edges."""
        panel = np.clip(np.searchsorted(self.edges, u, "right") - 1, 0, len(self) - 1)
        left = self.edges[panel]
        half = (u - left) / 2
        # At an edge nothing is added, so the density, which may be undefined at 0 or 1, is not
        # needed.
        inside = np.where(
            (half > 0)[..., None], left[..., None] + half[..., None] * (1 + NODES), 0.5
        )
        return np.where(u < 1, totals[panel] + half * (density(inside) @ WEIGHTS), totals[-1])

    def unresolved(self, values: Float[np.ndarray, "panels nodes"]) -> Float[np.ndarray, "panels"]:
        """How much of ∫ values each panel may miss: the larger of its last two Legendre
        coefficients, times its width."""
        last = np.abs(values @ _TO_COEFFICIENTS[-2:].T)
        return 2 * self.half[:, 0] * last.max(1)

    def cut(self, rough: Bool[np.ndarray, "panels"]) -> "Panels":
        """These panels, with those marked in `rough` cut in two. The last panel is cut toward 1,
        where a function may vary on a far smaller scale than in the other panels."""
        at = np.flatnonzero(rough)
        inside = at[at < len(self) - 1]
        edges = np.insert(self.edges, inside + 1, (self.edges[inside] + self.edges[inside + 1]) / 2)
        middle = (self.distances[inside] + self.distances[inside + 1]) / 2
        distances = np.insert(self.distances, inside + 1, middle)
        if len(at) > len(inside):
            tail = self.distances[-2] / 4.0 ** np.arange(1, TAIL + 1)
            edges = np.concatenate([edges[:-1], 1 - tail, [1.0]])
            distances = np.concatenate([distances[:-1], tail, [0.0]])
        return Panels(edges, distances)

    def interpolate(self, values: np.ndarray, other: "Panels") -> np.ndarray:
        """Values at the nodes of `other`, which was cut from these panels, by the interpolating
        polynomials."""
        # Positions are measured from the nearer end of the axis to avoid cancellation.
        left, right = other.edges[:-1], other.distances[:-1]
        from_0 = np.searchsorted(self.edges, left, "right") - 1
        from_1 = len(self) - np.searchsorted(self.distances[::-1], right, "left")
        panel = np.where(left < 0.5, from_0, from_1)
        start = np.where(left < 0.5, left - self.edges[panel], self.distances[panel] - right)
        result = values[panel]
        cut = (other.half != self.half[panel])[:, 0]
        local = (start[cut, None] + other.half[cut] * (1 + NODES)) / self.half[panel[cut]] - 1
        coefficients = result[cut] @ _TO_COEFFICIENTS.T
        powers = legendre.legvander(local, ORDER - 1)
        result[cut] = (powers @ coefficients[:, :, None])[:, :, 0]
        return result

    def joined(
        self, at: np.ndarray, values: Float[np.ndarray, "*functions panels nodes"]
    ) -> tuple["Panels", Float[np.ndarray, "*functions fewer nodes"]]:
        """These panels, with each panel in `at` joined to the next one, and values at the nodes of
        the result by the interpolating polynomials.

        - `at`: panels, increasing by at least 2.
        """
        left, right = self.half[at], self.half[at + 1]
        from_left = (1 + NODES) * (left + right)
        local = from_left / left - 1
        beyond = local > 1
        local = np.where(beyond, 1 - (1 - NODES) * (left + right) / right, local)
        lagrange = legendre.legvander(local, ORDER - 1) @ _TO_COEFFICIENTS
        here, there = values[..., at, :], values[..., at + 1, :]
        both = np.where(
            beyond,
            np.einsum("pij,...pj->...pi", lagrange, there),
            np.einsum("pij,...pj->...pi", lagrange, here),
        )
        values = values.copy()
        values[..., at, :] = both
        edges, distances = np.delete(self.edges, at + 1), np.delete(self.distances, at + 1)
        return Panels(edges, distances), np.delete(values, at + 1, axis=-2)

    def spread(self, points: int) -> tuple[np.ndarray, np.ndarray]:
        """`points` evenly spaced points in each panel, starting at its left edge, and their
        distances from 1."""
        steps = np.arange(points) / points
        u = self.edges[:-1, None] + 2 * self.half * steps
        distances = self.distances[1:, None] + 2 * self.half * (1 - steps)
        distances[:, 0] = self.distances[:-1]  # exact, where the sum may be an ulp off
        return u.ravel(), distances.ravel()

    def refine(self, values: np.ndarray, points: int) -> np.ndarray:
        """The values of the interpolating polynomials at the points of `spread`."""
        steps = np.arange(points) / points
        lagrange = legendre.legvander(2 * steps - 1, ORDER - 1) @ _TO_COEFFICIENTS
        return (values @ lagrange.T).ravel()


@lru_cache(maxsize=64)
def graded(near_0: int, near_1: int, breaks: tuple[float, ...] = ()) -> Panels:
    """Panels that halve `near_0` times toward 0 and `near_1` times toward 1, with further edges at
    `breaks`, where an integrand may jump."""
    up = 0.5 ** np.arange(near_0, 0, -1)
    down = 0.5 ** np.arange(2, near_1 + 1)
    edges = np.concatenate([[0.0], up, 1 - down, [1.0]])
    distances = np.concatenate([[1.0], 1 - up, down, [0.0]])
    new = np.setdiff1d(breaks, edges)
    edges, distances = np.append(edges, new), np.append(distances, 1 - new)
    order = np.argsort(-distances, kind="stable")
    return Panels(edges[order], distances[order])
