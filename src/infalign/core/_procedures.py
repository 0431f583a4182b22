"""The procedures that select by rank, each by its law H."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import betainc, gammaln, pdtr, xlogy

from infalign import _check
from infalign._look import Shown
from infalign.errors import ArgumentError

from . import _order_statistics
from ._inputs import Quantiles, Values, quantile
from ._interface import (
    PROCEDURES,
    AbstractProcedure,
    RankProcedure,
    register_procedure,
    require_by_rank,
)
from ._order_statistics import power
from ._registry import Unreadable
from ._shapes import Float

LARGEST_MU = 1_000_000
"""Largest mean of `BestOfPoisson`, whose law is summed over that many numbers of draws."""


@register_procedure("sampling", words="plain sampling", label="plain sampling")
@dataclass(frozen=True)
class Sampling(RankProcedure):
    """Draw one response: H(u) = u."""

    reads = "nothing"

    @property
    def draws(self) -> int:
        return 1

    def cdf(self, u: Quantiles) -> Values:
        return quantile("u", u)

    def density(self, u: Quantiles) -> Values:
        return np.ones_like(quantile("u", u))

    def slope(self, u: Quantiles) -> Values:
        return np.zeros_like(quantile("u", u))

    def slope_range(self, low: Quantiles, high: Quantiles) -> tuple[Values, Values]:
        return self.slope(low), self.slope(high)  # h' rises

    def subset_law(self, m: int) -> Float[np.ndarray, "_"]:
        return np.arange(m + 1) / m


@register_procedure("best-of-n", words="best-of-{n}", family=True, example="best-of-n:4")
@dataclass(frozen=True)
class BestOfN(RankProcedure):
    """Draw `n` responses, select the one with the highest reward: H(u) = uⁿ."""

    n: int
    """Responses drawn; 1 is plain sampling."""

    def __post_init__(self) -> None:
        _check.count("n", self.n)

    @property
    def draws(self) -> int:
        return self.n

    def cdf(self, u: Quantiles) -> Values:
        return power(quantile("u", u), self.n)

    def density(self, u: Quantiles) -> Values:
        return self.n * power(quantile("u", u), self.n - 1)

    def slope(self, u: Quantiles) -> Values:
        u = quantile("u", u)
        return np.zeros_like(u) if self.n == 1 else self.n * (self.n - 1) * power(u, self.n - 2)

    def slope_range(self, low: Quantiles, high: Quantiles) -> tuple[Values, Values]:
        return self.slope(low), self.slope(high)  # h' rises

    def subset_law(self, m: int) -> Float[np.ndarray, "_"]:
        # C(j, n) / C(m, n), all n among the j lowest, from the top down by C(j - 1, n) / C(j, n) =
        # (j - n) / j: neither C(100000, 1024) nor its logarithm, which costs 6 digits, is needed.
        j = np.arange(m, self.n, -1)
        down = np.cumprod(np.append(1.0, (j - self.n) / j))
        return np.append(np.zeros(self.n), down[::-1])


@register_procedure("worst-of-n", words="worst-of-{n}", family=True, example="worst-of-n:4")
@dataclass(frozen=True)
class WorstOfN(RankProcedure):
    """Draw `n` responses, select the one with the lowest reward: H(u) = 1 − (1 − u)ⁿ.

    Models an attacker who tries n times and uses the most harmful response.
    """

    n: int
    """Responses drawn; 1 is plain sampling."""

    def __post_init__(self) -> None:
        _check.count("n", self.n)

    @property
    def draws(self) -> int:
        return self.n

    # The mirror image of best-of-n, H(u) = 1 - B(1 - u), in a form that is exact for small u.
    def cdf(self, u: Quantiles) -> Values:
        with np.errstate(divide="ignore"):
            return -np.expm1(self.n * np.log1p(-quantile("u", u)))

    def density(self, u: Quantiles) -> Values:
        return self.n * power(1 - quantile("u", u), self.n - 1)

    def density_below_1(self, distance: Quantiles) -> Values:
        return self.n * power(quantile("distance", distance), self.n - 1)

    def slope(self, u: Quantiles) -> Values:
        u = quantile("u", u)
        if self.n == 1:
            return np.zeros_like(u)
        return -self.n * (self.n - 1) * power(1 - u, self.n - 2)

    def slope_range(self, low: Quantiles, high: Quantiles) -> tuple[Values, Values]:
        return self.slope(low), self.slope(high)  # h' rises

    def subset_law(self, m: int) -> Float[np.ndarray, "_"]:
        return 1 - BestOfN(self.n).subset_cdf(m)[::-1]


@register_procedure(
    "order-statistic",
    words="{n} draws, place {k}",
    label="k-th best of n",
    example="order-statistic:5:2",
)
@dataclass(frozen=True)
class OrderStatistic(RankProcedure):
    """Draw `n` responses, select the k-th best: H(u) = I_u(n − k + 1, k), the incomplete beta."""

    n: int
    """Responses drawn."""

    k: int
    """Rank of the selected response: 1 is the best, n the worst."""

    def __post_init__(self) -> None:
        _check.count("n", self.n)
        _check.count("k", self.k)
        if self.k > self.n:
            raise ValueError(f"`k` must be at most `n`; got k={self.k} of n={self.n} responses.")

    @property
    def draws(self) -> int:
        return self.n

    def cdf(self, u: Quantiles) -> Values:
        return betainc(self.n - self.k + 1, self.k, quantile("u", u))

    def density(self, u: Quantiles) -> Values:
        return _order_statistics.density(self.n, self.k, u)

    def density_below_1(self, distance: Quantiles) -> Values:
        mirrored = self.n - self.k + 1
        return _order_statistics.density(self.n, mirrored, quantile("distance", distance))

    def slope(self, u: Quantiles) -> Values:
        return _order_statistics.slope(self.n, self.k, u)

    def slope_range(self, low: Quantiles, high: Quantiles) -> tuple[Values, Values]:
        return _order_statistics.slope_range(self.n, self.k, low, high)

    def subset_law(self, m: int) -> Float[np.ndarray, "_"]:
        return _order_statistics.law(self.n, self.k, m)


@register_procedure(
    "best-of-poisson",
    words="best-of-Poisson({mu})",
    label="best of 1 + Poisson(μ)",
    example="best-of-poisson:3",
)
@dataclass(frozen=True)
class BestOfPoisson(RankProcedure):
    """Best of a random number of responses, 1 + Poisson(μ): H(u) = u e^{μ(u − 1)}.

    Interpolates best-of-n smoothly, at an expected cost of 1 + μ draws (arXiv:2506.19248).
    """

    mu: float
    """Expected number of draws beyond the first; ≥ 0."""

    def __post_init__(self) -> None:
        mu = _check.real("mu", self.mu)
        if not 0 <= mu <= LARGEST_MU:
            raise ArgumentError("mu", f"must be from 0 to {LARGEST_MU:,}; got {mu:g}.")
        object.__setattr__(self, "mu", mu)

    @property
    def draws(self) -> int:
        """A number of draws that is exceeded with probability 10⁻¹²."""
        return 1 if self.mu == 0 else 1 + int(np.ceil(_poisson_quantile(self.mu)))

    def cdf(self, u: Quantiles) -> Values:
        u = quantile("u", u)
        return u * np.exp(self.mu * (u - 1))

    def density(self, u: Quantiles) -> Values:
        u = quantile("u", u)
        return (1 + self.mu * u) * np.exp(self.mu * (u - 1))

    def slope(self, u: Quantiles) -> Values:
        u = quantile("u", u)
        return self.mu * (2 + self.mu * u) * np.exp(self.mu * (u - 1))

    def slope_range(self, low: Quantiles, high: Quantiles) -> tuple[Values, Values]:
        return self.slope(low), self.slope(high)  # h' rises

    @property
    def fewest(self) -> int:
        return 1

    def settled(self, rng: np.random.Generator) -> AbstractProcedure:
        return BestOfN(1 + int(rng.poisson(self.mu)))

    def subset_law(self, m: int) -> Float[np.ndarray, "_"]:
        """The mixture over the numbers of draws that m samples allow, except for a probability of
        10⁻¹²."""
        more = np.arange(min(self.draws, m))
        chances = np.exp(xlogy(more, self.mu) - self.mu - gammaln(more + 1))
        law, i = np.zeros(m + 1), np.arange(m + 1)
        best = i / m  # of n draws: C(i, n) / C(m, n), for n = 1, 2, … in turn
        for j, chance in enumerate(chances, start=1):
            law += chance * best
            best = best * np.maximum(i - j, 0) / max(m - j, 1)
        return law / law[-1]


@register_procedure(
    "mixture",
    form="mixture:W*SPEC+W*SPEC",
    example="mixture:0.5*best-of-n:4+0.5*sampling",
)
@dataclass(frozen=True)
class Mixture(Shown, RankProcedure):
    """One of several rank-based procedures, chosen at random for each response."""

    procedures: tuple[RankProcedure, ...]

    weights: tuple[float, ...]
    """Chance of each procedure; the chances sum to 1."""

    def __post_init__(self) -> None:
        weights = [_check.real("weights", w) for w in _check.entries("weights", self.weights)]
        object.__setattr__(self, "procedures", tuple(_check.entries("procedures", self.procedures)))
        object.__setattr__(self, "weights", tuple(weights))
        wrong = [p for p in self.procedures if not isinstance(p, RankProcedure)]
        if wrong or not self.procedures:
            raise ValueError(
                "`procedures` must be one or more procedures that select by rank; got "
                f"{wrong[0] if wrong else '()'!r}."
            )
        same = len(self.weights) == len(self.procedures)
        if not (same and min(self.weights) > 0 and abs(sum(self.weights) - 1) <= 1e-12):
            raise ValueError(
                "`weights` must be one number above 0 for each procedure, with sum 1; "
                f"got {self.weights} for {len(self.procedures)} procedures."
            )

    def _mean(self, name: str, argument: Any) -> np.ndarray:
        parts = [getattr(p, name)(argument) for p in self.procedures]
        return np.tensordot(self.weights, np.array(parts), 1)

    @property
    def draws(self) -> int:
        return max(p.draws for p in self.procedures)

    @property
    def fewest(self) -> int:
        return max(p.fewest for p in self.procedures)

    @property
    def spec(self) -> str:
        pairs = zip(self.weights, self.procedures, strict=True)
        return "mixture:" + "+".join(f"{w!r}*{p.spec}" for w, p in pairs)

    @classmethod
    def from_text(cls, text: str) -> "Mixture":
        """The mixture written `W*SPEC+W*SPEC`."""
        parts = [part.partition("*") for part in _check.text("text", text).split("+")]
        try:
            weights = tuple(float(weight) for weight, _, _ in parts)
        except ValueError:
            raise Unreadable(f"`text` must be W*SPEC+W*SPEC; got {_check.short(text)}.") from None
        procedures = [require_by_rank("text", PROCEDURES.parse(spec)) for _, _, spec in parts]
        return cls(tuple(procedures), weights)

    def settled(self, rng: np.random.Generator) -> AbstractProcedure:
        return self.procedures[rng.choice(len(self.weights), p=self.weights)].settled(rng)

    def cdf(self, u: Quantiles) -> Values:
        return self._mean("cdf", u)

    def density(self, u: Quantiles) -> Values:
        return self._mean("density", u)

    def density_below_1(self, distance: Quantiles) -> Values:
        return self._mean("density_below_1", distance)

    def slope(self, u: Quantiles) -> Values:
        return self._mean("slope", u)

    def slope_range(self, low: Quantiles, high: Quantiles) -> tuple[Values, Values]:
        ranges = np.array([p.slope_range(low, high) for p in self.procedures])
        least, most = np.tensordot(self.weights, ranges, 1)
        return least, most

    def subset_law(self, m: int) -> Float[np.ndarray, "_"]:
        return self._mean("subset_cdf", m)


def _poisson_quantile(mu: float) -> float:
    """The least j with P(Poisson(mu) > j) ≤ 10⁻¹²."""
    j = np.arange(int(mu + 12 * np.sqrt(mu) + 40))
    return float(j[np.argmax(pdtr(j, mu) >= 1 - 1e-12)])
