"""Inference-time procedures as laws on the quantile axis.

A procedure draws responses and selects one. The calibrated reward of a reference response is
u ~ Uniform(0, 1), so that of the selected one has some CDF H(u), the procedure's law. A procedure
that selects by rank turns *any* policy with CDF F into one with CDF H(F), so design and evaluation
need only its law (InfAlign, arXiv:2412.19792, section 4). Procedures that read the calibrated
reward itself are in `_soft_procedures`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from scipy.special import betainc, betaln, binom, gammaln, pdtr, xlogy

from infalign import _check
from infalign.errors import DataError

from ._inputs import Quantiles, Values, quantile
from ._quadrature import Panels
from ._registry import Registry, Unreadable
from ._shapes import Float

Nodes = Float[np.ndarray, "panels nodes"]
"""Values at the nodes of a quadrature."""

Reads = Literal["nothing", "rewards", "quantiles"]
"""What a procedure looks at to select a response."""

BERNSTEIN_LIMIT = 16
"""Largest number of draws for which chances by rank are computed from a law: the conversion loses
about one decimal digit for every two draws."""


class AbstractProcedure(ABC):
    """Selects one response out of several draws."""

    reads: ClassVar[Reads | None] = None
    """What `choose` gets of each response; None for a procedure that only has a law."""

    @property
    @abstractmethod
    def draws(self) -> int:
        """Responses drawn to select one; the largest number, if it varies."""

    @property
    def spec(self) -> str:
        """The text form, as `parse_procedure` reads it; the `repr` of an unregistered procedure."""
        return PROCEDURES.spec(self)

    @abstractmethod
    def cdf(self, u: Quantiles) -> Values:
        """H(u), elementwise: chance that the selected reference response ranks at or below u."""

    @abstractmethod
    def density(self, u: Quantiles) -> Values:
        """h = H', elementwise."""

    @abstractmethod
    def selected_cdf(self, grid: Panels, density: Nodes, cdf: Nodes) -> Nodes:
        """CDF of the selected response when a policy draws the responses, at the nodes of `grid`.

        - `grid`: quadrature `Panels`.
        - `density`, `cdf`: f and F of the policy at its nodes.
        """

    @property
    def breaks(self) -> tuple[float, ...]:
        """Quantiles at which h jumps, for quadrature."""
        return ()

    def settled(self, rng: np.random.Generator) -> "AbstractProcedure":
        """The procedure with its random parts drawn, such as a random number of responses."""
        return self

    def choose(self, values: Sequence[float], rng: np.random.Generator) -> int:
        """Index of the response that a settled procedure selects.

        - `values`: what the procedure `reads` of each of `draws` responses, in random order, so
          that a choice of the first among equals is a random one.
        """
        raise NotImplementedError(f"{type(self).__name__} has a law but no `choose`")


PROCEDURES: Registry[AbstractProcedure] = Registry("procedure", AbstractProcedure)
"""Every procedure that text can name."""

P = TypeVar("P", bound=type[AbstractProcedure])


def register_procedure(
    name: str,
    *,
    words: str | None = None,
    label: str | None = None,
    family: bool = False,
    example: str | None = None,
    form: str | None = None,
) -> Callable[[P], P]:
    """A class decorator: text can name the procedure from now on.

    `parse_procedure`, `spec`, configurations, the command line with its help and errors, reports
    and the explorer then know it. Fields of the dataclass of type int, float or str are its
    parameters. A class with other fields has a classmethod `from_text`, which reads the text after
    `name:`, and its own `spec`.

    - `name`: lower-case words joined by hyphens.
    - `words`: the words of reports, with a field per parameter such as `best-of-{n}`; default: the
      text form.
    - `label`: a short name for lists of choices; default: the name with spaces.
    - `family`: whether reports show the procedure as a curve over its only parameter, `n: int`.
    - `example`: a text form such as `best-of-n:4`; default: the name, if there are no parameters.
    - `form`: the text form in help and errors; default: `name:N` with all parameters. Empty if text
      cannot name the class.

    Raises ValueError for a name that is taken. A class that is defined again, as by running a
    notebook's cell twice, replaces its former definition.

    >>> from infalign import BestOfN, register_procedure
    >>> @register_procedure("better-of-two", words="the better of two")
    ... class BetterOfTwo(RankProcedure):
    ...     draws = 2
    ...     def cdf(self, u: Quantiles) -> Values:
    ...         return BestOfN(2).cdf(u)
    ...     def density(self, u: Quantiles) -> Values:
    ...         return BestOfN(2).density(u)
    ...     def slope(self, u: Quantiles) -> Values:
    ...         return BestOfN(2).slope(u)
    >>> PROCEDURES.parse("better-of-two").spec, PROCEDURES.words("better-of-two")
    ('better-of-two', 'the better of two')
    >>> PROCEDURES.remove("better-of-two")
    """
    return PROCEDURES.register(
        name, words=words, label=label, family=family, example=example, form=form
    )


class RankProcedure(AbstractProcedure):
    """Selects by rank only: a policy with CDF F becomes one with CDF H(F).

    A new one needs `draws`, `cdf`, `density` and `slope`; solver, win rates, contract tests and,
    for up to 16 draws, the unbiased estimator and decoding follow from them. `register_procedure`
    gives it a name.
    """

    reads: ClassVar[Reads | None] = "rewards"

    @property
    def fewest(self) -> int:
        """The fewest samples from which the procedure can be estimated: `draws`, if fixed."""
        return self.draws

    @abstractmethod
    def slope(self, u: Quantiles) -> Values:
        """h' = H'', elementwise."""

    def selected_cdf(self, grid: Panels, density: Nodes, cdf: Nodes) -> Nodes:
        return self.cdf(cdf)

    def subset_cdf(self, m: int) -> Float[np.ndarray, "_"]:
        """Chance that the response selected from a random subset of m samples is among the j
        lowest, for j = 0 … m: the law an unbiased estimate from m samples uses.

        Subsets have `draws` samples, drawn without replacement. The array is computed once and
        must not be changed.

        Raises DataError if the law is not that of a fixed number of draws, or of more than 16:
        such a procedure has to define its `subset_law`.
        """
        m = _check.count("m", m, at_least=self.fewest)
        return _subset_law(self, m) if isinstance(self, Hashable) else self.subset_law(m)

    def subset_law(self, m: int) -> Float[np.ndarray, "_"]:
        """`subset_cdf`, computed. Here from the law H; override it for more than 16 draws."""
        n = self.draws
        if n > BERNSTEIN_LIMIT:
            raise DataError(
                f"`{self!r}` draws {n} responses, too many to compute its chances by rank from "
                f"its law (at most {BERNSTEIN_LIMIT}). Write its `subset_law`."
            )
        # H(u) = Σ_j C(n, j) u^j (1 - u)^(n - j) · P(selected among the j lowest of n): the columns
        # of the system are Bernstein polynomials at Chebyshev points, its unknowns these chances.
        j = np.arange(n + 1)
        u = (1 - np.cos(np.pi * (j + 0.5) / (n + 1))) / 2
        basis = binom(n, j) * u[:, None] ** j * (1 - u[:, None]) ** (n - j)
        chances = np.linalg.solve(basis, self.cdf(u))
        check = np.linspace(0, 1, 64)[:, None]
        again = (binom(n, j) * check**j * (1 - check) ** (n - j)) @ chances
        if np.abs(again - self.cdf(check[:, 0])).max() > 1e-8:
            raise DataError(
                f"The law of `{self!r}` is not a polynomial of degree {n}, so it does not select "
                f"one of {n} draws by rank. Correct `draws`, or write its `subset_law`."
            )
        parts = [OrderStatistic(n, int(n - i)).subset_cdf(m) for i in j[:-1]]
        return np.diff(chances) @ parts

    def choose(self, values: Sequence[float], rng: np.random.Generator) -> int:
        place = rng.choice(len(values), p=_rank_chances(self))
        # The order is random, so a sort that keeps it among equals breaks their ties.
        return int(np.argsort(values, kind="stable")[place])


@lru_cache(maxsize=64)
def _subset_law(procedure: RankProcedure, m: int) -> np.ndarray:
    law = procedure.subset_law(m)
    law.flags.writeable = False
    return law


@lru_cache
def _rank_chances(procedure: RankProcedure) -> np.ndarray:
    """Chance of each rank, the lowest first, to be the selected one of all draws."""
    chances = np.diff(procedure.subset_cdf(procedure.draws))
    chances = np.maximum(chances, 0)  # a law solved for its chances may miss 0 by rounding
    return chances / chances.sum()


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
        return quantile("u", u) ** self.n

    def density(self, u: Quantiles) -> Values:
        return self.n * quantile("u", u) ** (self.n - 1)

    def slope(self, u: Quantiles) -> Values:
        u = quantile("u", u)
        return np.zeros_like(u) if self.n == 1 else self.n * (self.n - 1) * u ** (self.n - 2)

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

    The defender's view of an attacker who tries n times and uses the most harmful response.
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
        return BestOfN(self.n).density(1 - quantile("u", u))

    def slope(self, u: Quantiles) -> Values:
        return -BestOfN(self.n).slope(1 - quantile("u", u))

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
    """Draw `n` responses, keep the k-th best: H(u) = I_u(n − k + 1, k), the incomplete beta."""

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
        return self._power(u, self.n - self.k, self.k - 1)

    def slope(self, u: Quantiles) -> Values:
        low, high = self.n - self.k, self.k - 1
        return low * self._power(u, low - 1, high) - high * self._power(u, low, high - 1)

    def _power(self, u: Quantiles, low: int, high: int) -> Values:
        """u^low (1 − u)^high over the beta function of the law; powers below 0 have no weight."""
        u = quantile("u", u)
        scale = np.exp(-betaln(self.n - self.k + 1, self.k) / max(low + high, 1))
        # The huge scale goes into each factor, so that neither overflows nor underflows alone.
        return (
            np.power(u * scale, max(low, 0))
            * np.power((1 - u) * scale, max(high, 0))
            * (scale if low + high == 0 else 1.0)
        )

    def subset_law(self, m: int) -> Float[np.ndarray, "_"]:
        # Of m samples, the i-th lowest is selected from C(i - 1, n - k) C(m - i, k - 1) subsets.
        # The ratio of that at i + 1 to that at i falls with i: products from the largest one on.
        low = self.n - self.k
        i = np.arange(low + 1, m - self.k + 1)
        up, down = i * (m - i - self.k + 1.0), (i - low) * (m - i + 0.0)
        top = np.count_nonzero(up > down)
        rise = np.cumprod((down / up)[:top][::-1])[::-1]
        fall = np.cumprod((up / down)[top:])
        subsets = np.cumsum(np.concatenate([rise, [1.0], fall]))
        return np.concatenate([np.zeros(low + 1), subsets / subsets[-1], np.ones(self.k - 1)])


@register_procedure(
    "best-of-poisson",
    words="best-of-Poisson({mu})",
    label="best of 1 + Poisson(μ)",
    example="best-of-poisson:3",
)
@dataclass(frozen=True)
class BestOfPoisson(RankProcedure):
    """Best of a random number of responses, 1 + Poisson(μ): H(u) = u e^{μ(u − 1)}.

    Interpolates best-of-n smoothly in its expected cost 1 + μ (arXiv:2506.19248).
    """

    mu: float
    """Expected number of draws beyond the first; ≥ 0."""

    def __post_init__(self) -> None:
        if _check.real("mu", self.mu) < 0:
            raise ValueError(f"`mu` must be at least 0; got {self.mu:g}.")
        object.__setattr__(self, "mu", float(self.mu))

    @property
    def draws(self) -> int:
        """A number that is exceeded once in 10¹² times."""
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

    @property
    def fewest(self) -> int:
        return 1

    def settled(self, rng: np.random.Generator) -> AbstractProcedure:
        return BestOfN(1 + int(rng.poisson(self.mu)))

    def subset_law(self, m: int) -> Float[np.ndarray, "_"]:
        """The mixture over the numbers of draws that m samples allow, up to 10⁻¹² of them."""
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
class Mixture(RankProcedure):
    """One of several rank-based procedures, chosen at random for each response."""

    procedures: tuple[RankProcedure, ...]

    weights: tuple[float, ...]
    """Chance of each; they sum to 1."""

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
            raise Unreadable(f"`text` must be W*SPEC+W*SPEC; got {text!r}.") from None
        procedures = [require_by_rank("text", PROCEDURES.parse(spec)) for _, _, spec in parts]
        return cls(tuple(procedures), weights)

    def settled(self, rng: np.random.Generator) -> AbstractProcedure:
        return self.procedures[rng.choice(len(self.weights), p=self.weights)].settled(rng)

    def cdf(self, u: Quantiles) -> Values:
        return self._mean("cdf", u)

    def density(self, u: Quantiles) -> Values:
        return self._mean("density", u)

    def slope(self, u: Quantiles) -> Values:
        return self._mean("slope", u)

    def subset_law(self, m: int) -> Float[np.ndarray, "_"]:
        return self._mean("subset_cdf", m)


def _poisson_quantile(mu: float) -> float:
    """The least j with P(Poisson(mu) > j) ≤ 10⁻¹²."""
    j = np.arange(int(mu + 12 * np.sqrt(mu) + 40))
    return float(j[np.argmax(pdtr(j, mu) >= 1 - 1e-12)])


def require_procedure(name: str, value: object) -> AbstractProcedure:
    """`value`, which must be a procedure."""
    return _check.instance(
        name,
        value,
        AbstractProcedure,
        "a procedure such as BestOfN(4)",
        "Text becomes one with `infalign.parse_procedure`.",
    )


def require_by_rank(name: str, value: object, remedy: str = "") -> RankProcedure:
    """`value`, which must be a procedure that selects by rank."""
    require_procedure(name, value)
    such_as = "a procedure that selects by rank, such as BestOfN(4)"
    return _check.instance(name, value, RankProcedure, such_as, remedy)
