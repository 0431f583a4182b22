"""Procedures that read the calibrated reward itself, not only ranks: soft best-of-n and rewind.

On the quantile axis their temperature and threshold are in units of the calibrated reward, so a
procedure is the same for every prompt and model. They are not maps of the policy's CDF; each
defines the gradient (and curvature) of its win rate as a functional of the policy's density f.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import exp1

from infalign import _check

from ._inputs import Quantiles, Values, quantile
from ._interface import AbstractProcedure, Nodes, register_procedure
from ._procedures import BestOfN
from ._quadrature import Panels, graded
from ._shapes import Float


class SoftenedProcedure(AbstractProcedure):
    """A procedure defined by functionals of the policy's density at quadrature nodes."""

    reads = "quantiles"

    @abstractmethod
    def gradient(self, grid: Panels, density: Nodes, opponent: Nodes) -> Nodes:
        """Φ = dW/df at the nodes, up to a constant.

        - `density`: f at the nodes.
        - `opponent`: G, the CDF of the opponent's selected response, at the nodes.
        """


@register_procedure(
    "soft-best-of-n",
    words="soft best-of-{n} ({temperature})",
    example="soft-best-of-n:4:0.1",
)
@dataclass(frozen=True)
class SoftBestOfN(SoftenedProcedure):
    """Draw `n` responses, select response i with chance ∝ e^{C_i / temperature}.

    It lies between plain sampling (high temperature) and best-of-n (low temperature). Source:
    arXiv:2505.03156, here with the calibrated reward C instead of the raw reward.
    """

    n: int
    """Responses drawn."""

    temperature: float
    """In units of the calibrated reward; at least 0.005, since below that the procedure equals
    best-of-n."""

    def __post_init__(self) -> None:
        _check.count("n", self.n)
        if _check.positive("temperature", self.temperature) < 0.005:
            raise ValueError(
                f"`temperature` must be at least 0.005; got {self.temperature:g}. Use "
                f"{BestOfN.__name__}({self.n}), from which it cannot be distinguished."
            )
        object.__setattr__(self, "temperature", float(self.temperature))

    @property
    def draws(self) -> int:
        return self.n

    def choose(self, values: Sequence[float], rng: np.random.Generator) -> int:
        u = np.array(values)
        chances = np.exp((u - u.max()) / self.temperature)
        return int(rng.choice(u.size, p=chances / chances.sum()))

    # The chance to select u among the others v_j is E[w(u) / (w(u) + Σ w(v_j))], where w(u) =
    # e^{(u-1)/T}. With 1/x = ∫ e^{-sx} ds it is a one-dimensional integral over
    # L(s) = E[e^{-s w(v)}]:
    # selected density = n f(u) w(u) ∫ e^{-s w(u)} L(s)^(n-1) ds.
    # In log s the integrand is analytic in a strip, where the trapezoidal rule converges
    # geometrically.

    @cached_property
    def _s(self) -> Float[np.ndarray, "s"]:
        return np.exp(np.arange(-38.0, 1 / self.temperature + 5, 0.25))

    def _w(self, u: np.ndarray | float) -> Values:
        return np.exp((u - 1) / self.temperature)

    @cached_property
    def _reference(self) -> Float[np.ndarray, "s"]:
        """ds · n L(s)^(n-1) of the reference, whose L is an exponential integral."""
        t, s = self.temperature, self._s
        laplace = t * (exp1(s * np.exp(-1 / t)) - exp1(s))
        return 0.25 * s * self.n * laplace ** (self.n - 1)

    def cdf(self, u: Quantiles) -> Values:
        u = quantile("u", u)
        t, s = self.temperature, self._s
        # ∫₀^u w e^{-s w} = (T/s) (e^{-s w(0)} - e^{-s w(u)})
        low = self._w(0.0)
        rise = -np.expm1(-s * (self._w(u)[..., None] - low)) * np.exp(-s * low)
        return (rise * t / s) @ self._reference

    def density(self, u: Quantiles) -> Values:
        w = self._w(quantile("u", u))[..., None]
        return (w * np.exp(-self._s * w)) @ self._reference

    def selected_cdf(self, grid: Panels, density: Nodes, cdf: Nodes) -> Nodes:
        return grid.cumulate(self.selected_density(grid, density))[0]

    def selected_density(self, grid: Panels, density: Nodes) -> Nodes:
        """The density of the selected response when a policy draws the responses."""
        kernel, laplace = self._transform(grid, density)
        weight = 0.25 * self._s * self.n * laplace ** (self.n - 1)
        w = self._w(grid.nodes)
        return density * w * (weight @ kernel).reshape(w.shape)

    def _transform(
        self, grid: Panels, density: Nodes
    ) -> tuple[Float[np.ndarray, "s n"], Float[np.ndarray, "s"]]:
        """e^{-s w} at every (s, node), and L(s)."""
        if self._last.get("grid") is not grid:  # a solver stays on one grid
            kernel = np.exp(-self._s[:, None] * self._w(grid.nodes).ravel())
            self._last.update(grid=grid, kernel=kernel)
        kernel = self._last["kernel"]
        return kernel, kernel @ (grid.weights * density).ravel()

    @cached_property
    def _last(self) -> dict[str, Any]:
        """The last grid, and the kernel on it."""
        return {}

    def _moments(self, grid: Panels, density: Nodes, opponent: Nodes) -> tuple[np.ndarray, ...]:
        kernel, laplace = self._transform(grid, density)
        gain = (opponent * self._w(grid.nodes)).ravel()
        wins = kernel @ (gain * (grid.weights * density).ravel())
        step = 0.25 * self._s * self.n
        # L(s) underflows only if e^{-s w} underflows everywhere.
        inverse = np.where(laplace > 0, 1 / np.where(laplace > 0, laplace, 1), 0)
        first = step * laplace ** (self.n - 1)
        second = (self.n - 1) * first * inverse
        third = (self.n - 2) * second * inverse
        return kernel, gain, wins, first, second, third

    def gradient(self, grid: Panels, density: Nodes, opponent: Nodes) -> Nodes:
        # W = n ∫ L^(n-1) M ds with M(s) = ∫ f G w e^{-s w}.
        kernel, gain, wins, first, second, _ = self._moments(grid, density, opponent)
        slope = (second * wins) @ kernel + gain * (first @ kernel)
        return slope.reshape(grid.nodes.shape)

    def curvature(self, grid: Panels, density: Nodes, opponent: Nodes) -> Float[np.ndarray, "_ _"]:
        """d²W/df(u)df(v) at the nodes, as a square matrix."""
        kernel, gain, wins, _, second, third = self._moments(grid, density, opponent)
        mixed = (kernel * second[:, None]).T @ (kernel * gain)
        return (kernel * (third * wins)[:, None]).T @ kernel + mixed + mixed.T


@register_procedure(
    "rewind", words="rewind to {threshold}, {max_tries} tries", example="rewind:0.9:8"
)
@dataclass(frozen=True)
class Rewind(SoftenedProcedure):
    """Draw again until the calibrated reward reaches `threshold`; select the last response.

    After `max_tries` draws the last one is selected, whatever its reward.
    """

    threshold: float
    """Quantile under the reference, strictly between 0 and 1."""

    max_tries: int
    """Largest number of responses drawn; 1 is plain sampling."""

    def __post_init__(self) -> None:
        _check.real("threshold", self.threshold)
        _check.open_unit_interval("threshold", self.threshold, "every response would pass or fail")
        object.__setattr__(self, "threshold", float(self.threshold))
        _check.count("max_tries", self.max_tries)

    @property
    def draws(self) -> int:
        return self.max_tries

    @property
    def breaks(self) -> tuple[float, ...]:
        return (self.threshold,)

    def passes(self, quantile: float) -> bool:
        """Whether drawing ends after a response with this calibrated reward."""
        return _check.real("quantile", quantile) >= self.threshold

    def choose(self, values: Sequence[float], rng: np.random.Generator) -> int:
        """The first response that passes, in the order drawn; otherwise the last one."""
        passed = [i for i, u in enumerate(values[: self.max_tries]) if self.passes(u)]
        return passed[0] if passed else min(len(values), self.max_tries) - 1

    def rates(self, below: float) -> tuple[float, float]:
        """Ratio of the selected response's density to a draw's density, below and above the
        threshold.

        - `below`: chance that a draw of the policy falls below the threshold.
        """
        m = self.max_tries
        tries = float(np.sum(below ** np.arange(m)))  # expected draws, (1 - a^m) / (1 - a)
        return float(below ** (m - 1)), tries

    def cdf(self, u: Quantiles) -> Values:
        u = quantile("u", u)
        low, high = self.rates(self.threshold)
        return low * np.minimum(u, self.threshold) + high * np.maximum(u - self.threshold, 0)

    def density(self, u: Quantiles) -> Values:
        low, high = self.rates(self.threshold)
        return np.where(quantile("u", u) < self.threshold, low, high)

    def below(self, grid: Panels, density: Nodes) -> float:
        """F(threshold) of a policy; `grid` has an edge there."""
        return float(np.sum((grid.weights * density)[grid.nodes < self.threshold]))

    def selected_cdf(self, grid: Panels, density: Nodes, cdf: Nodes) -> Nodes:
        a = self.below(grid, density)
        low, high = self.rates(a)
        return low * np.minimum(cdf, a) + high * np.maximum(cdf - a, 0)

    def gradient(self, grid: Panels, density: Nodes, opponent: Nodes) -> Nodes:
        # W = S(a) ∫_τ^1 f G + a^(m-1) ∫_0^τ f G, S(a) = Σ_{j<m} a^j and a = ∫_0^τ f.
        under = grid.nodes < self.threshold
        a = self.below(grid, density)
        low, high = self.rates(a)
        win = grid.weights * density * opponent
        j = np.arange(1, self.max_tries)
        slope = float(np.sum(j * a ** (j - 1))) * win[~under].sum()
        if self.max_tries > 1:
            slope += (self.max_tries - 1) * a ** (self.max_tries - 2) * win[under].sum()
        return np.where(under, low * opponent + slope, high * opponent)


def grid_for(*procedures: AbstractProcedure, near_0: int = 12, near_1: int = 12) -> Panels:
    """Panels with edges where any of the laws jumps."""
    breaks = sorted({b for p in procedures for b in p.breaks})
    return graded(near_0, near_1, tuple(breaks))
