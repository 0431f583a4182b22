"""A tilted policy by quadrature: panels are halved until the density is resolved."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.legendre import leggauss, legvander

from .laws import Law

NODES = 12
RESOLVED = 1e-13
"""Mass that a panel may have wrong."""

SEEN = 1e-12
"""Density below which a policy has no mass."""

STEEP, EMPTY = 2.0, -100.0
"""Rise of log f in a panel above which it is cut for a residual; log f below which it is not."""

AT, WEIGHTS = leggauss(NODES)


def _cumulation() -> np.ndarray:
    """Matrix that maps values at the nodes to integrals from −1 to each node."""
    order = np.arange(NODES)
    coefficients = (legvander(AT, NODES - 1) * WEIGHTS[:, None]).T * (order[:, None] + 0.5)
    # ∫ P_k = (P_{k+1} − P_{k−1}) / (2k + 1), and 1 + x for k = 0.
    p = legvander(AT, NODES)
    integrals = np.empty((NODES, NODES))
    integrals[:, 0] = 1 + AT
    for k in range(1, NODES):
        integrals[:, k] = (p[:, k + 1] - p[:, k - 1]) / (2 * k + 1)
    return integrals @ coefficients


CUMULATION = _cumulation()


@dataclass(frozen=True)
class Tilt:
    """The policy f ∝ e^exponent, at the nodes of its panels."""

    exponent: Callable[[np.ndarray], np.ndarray]
    log_mass: float
    """log ∫ e^exponent."""

    u: np.ndarray
    weights: np.ndarray
    log_density: np.ndarray
    cdf: np.ndarray

    @classmethod
    def of(
        cls,
        exponent: Callable[[np.ndarray], np.ndarray],
        against: Law,
        ends: Sequence[float] = (),
    ) -> "Tilt":
        """- `exponent`: log f but for a constant, a function of u.
        - `against`: a law whose jumps end panels.
        - `ends`: further ends of panels.
        """
        graded = {0.0, 1.0, *(0.5 ** np.arange(1, 50)), *(1 - 0.5 ** np.arange(1, 45))}
        edges = np.array(sorted({*graded, *ends, *against.breaks}))
        low, high = edges[:-1], edges[1:]
        for _ in range(40):
            u, weights = _nodes(low, high)
            values = exponent(u)
            mass = np.exp(values - values.max())
            total = (mass * weights).sum()
            finer = [_nodes(low, (low + high) / 2), _nodes((low + high) / 2, high)]
            halves = [np.exp(exponent(v) - values.max()) * w for v, w in finer]
            off = np.abs((mass * weights).sum(1) - halves[0].sum(1) - halves[1].sum(1)) / total
            rough = (off > RESOLVED) & (high - low > 1e-15 * high)
            if not rough.any():
                break
            middle = ((low + high) / 2)[rough]
            low, high = np.sort(np.append(low, middle)), np.sort(np.append(high, middle))
        density = mass / total
        in_panel = (high - low)[:, None] / 2 * density @ CUMULATION.T
        before = np.concatenate([[0.0], np.cumsum((density * weights).sum(1))[:-1]])
        cdf = np.clip(before[:, None] + in_panel, 0, 1)
        log_mass = float(values.max() + np.log(total))
        return cls(exponent, log_mass, u, weights, values - log_mass, cdf)

    def residual(self, procedure: Law, against: Law, beta: float) -> float:
        """How far log f is from a constant plus Φ/β, where Φ(u) = ∫₀ᵘ g(v) h(F(v)) dv is the
        gradient of the win rate, on average over f: 0 for a stationary policy. h, g: the laws'
        densities."""
        # h(F)/β may be 1e50 where F is a polynomial's error in a panel in which f rises from 0.
        steep = np.ptp(self.log_density, axis=1) > STEEP
        steep &= (self.log_density[:, -1] > EMPTY) & (self.weights.sum(1) > 1e-14)
        if steep.any():
            middles = self.u[steep].mean(1)
            finer = Tilt.of(self.exponent, against, [*self.edges, *middles])
            return finer.residual(procedure, against, beta)
        slopes = against.density(self.u) * procedure.density(self.cdf)
        half = self.weights[:, :1] / WEIGHTS[0]
        rises = (slopes * self.weights).sum(1)
        # From above, where the mass lies: Φ/β may be 1e200 where f is next to 0.
        above = np.cumsum(rises[::-1])[::-1]
        rest = above[:, None] - half * slopes @ CUMULATION.T
        seen = self.log_density > np.log(SEEN)
        mass = np.where(seen, np.exp(self.log_density) * self.weights, 0)
        off = np.where(seen, self.log_density + rest / beta, 0)
        return float((mass * np.abs(off - (mass * off).sum())).sum())

    def density_at(self, u: np.ndarray) -> np.ndarray:
        """f."""
        return np.exp(self.exponent(u) - self.log_mass)

    def cdf_at(self, u: np.ndarray) -> np.ndarray:
        """F, from the panels below and a rule over the rest."""
        shares = []
        for end in u:
            last = int(np.searchsorted(self.edges, end, "right")) - 1
            at, weights = _nodes(self.edges[[last]], np.array([end]))
            below = (np.exp(self.log_density[:last]) * self.weights[:last]).sum()
            shares.append(below + (self.density_at(at) * weights).sum())
        return np.array(shares)

    @property
    def edges(self) -> np.ndarray:
        """The lower ends of the panels."""
        return np.append(0.0, np.cumsum(self.weights.sum(1)))[:-1]

    @property
    def kl(self) -> float:
        """∫ f log f = ∫ (f log f − f + 1)."""
        f = np.exp(self.log_density)
        return float((self.weights * (f * self.log_density - f + 1)).sum())

    @property
    def rounding(self) -> float:
        """How far rounding of u moves log f, on average: within 1e-12 of 1 numbers are coarse."""
        moved = np.abs(self.exponent(np.nextafter(self.u, 0)) - self.exponent(self.u))
        return float((self.weights * np.exp(self.log_density) * moved).sum())

    def loss(self, procedure: Law, against: Law) -> float:
        """1 − W = ∫ H(F) dG."""
        return float((self.weights * procedure.cdf(self.cdf) * against.density(self.u)).sum())


def _nodes(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    half = (high - low)[:, None] / 2
    return low[:, None] + half * (AT + 1), half * WEIGHTS
