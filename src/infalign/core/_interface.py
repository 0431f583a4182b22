"""The interface of procedures: their law on the quantile axis, their name, and the choice of a
response.

A procedure draws responses and selects one. The calibrated reward of a reference response is u ~
Uniform(0, 1), so the calibrated reward of the selected response has some CDF H(u), the procedure's
law. A procedure that selects by rank turns *any* policy with CDF F into a policy with CDF H(F), so
design and evaluation need only its law (InfAlign, arXiv:2412.19792, section 4). Procedures that
read the calibrated reward itself are in `_soft_procedures`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import ClassVar, Literal, TypeVar

import numpy as np
from scipy.special import binom

from infalign import _check
from infalign.errors import DataError

from . import _order_statistics
from ._inputs import Quantiles, Values, quantile
from ._quadrature import Panels
from ._registry import Registry
from ._shapes import Float

Nodes = Float[np.ndarray, "panels nodes"]
"""Values at the nodes of a quadrature."""

Reads = Literal["nothing", "rewards", "quantiles"]
"""The values by which a procedure selects a response."""

BERNSTEIN_LIMIT = 16
"""Largest number of draws for which chances by rank are computed from a law: the conversion loses
about one decimal digit for every two draws."""


class AbstractProcedure(ABC):
    """Selects one of several drawn responses."""

    reads: ClassVar[Reads | None] = None
    """The value of each response that `choose` gets; None for a procedure that only has a law."""

    @property
    @abstractmethod
    def draws(self) -> int:
        """Number of responses drawn to select one; the largest number if it varies."""

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

    def density_below_1(self, distance: Quantiles) -> Values:
        """h(1 − distance), elementwise; override it where h falls to 0 at 1 and rounding of
        1 − distance would matter."""
        return self.density(1 - quantile("distance", distance))

    def density_on(self, grid: Panels) -> Nodes:
        """h at the nodes of `grid`, which may lie nearer to 1 than floating-point numbers do."""
        upper = grid.nodes > 0.5
        values = np.empty_like(grid.nodes)
        values[~upper] = self.density(grid.nodes[~upper])
        values[upper] = self.density_below_1(grid.from_1[upper])
        return values

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
        """The procedure after its random parts are drawn, such as a random number of responses."""
        return self

    def choose(self, values: Sequence[float], rng: np.random.Generator) -> int:
        """Index of the response that a settled procedure selects.

        - `values`: the values that the procedure `reads` for each of `draws` responses, in random
          order, so that choosing the first of several equal values is a random choice.
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
    """Class decorator that registers a procedure under the name of its text form.

    `parse_procedure`, `spec`, configurations, the command line with its help and errors, reports
    and the explorer then recognize it. The dataclass's fields, of type int, float or str, are the
    parameters. A class with other fields needs a classmethod `from_text`, which reads the text
    after `name:`, and its own `spec`.

    - `name`: lower-case words joined by hyphens.
    - `words`: the description in reports, with a placeholder per parameter, such as `best-of-{n}`;
      default: the text form.
    - `label`: a short name for lists of choices; default: the name with spaces.
    - `family`: whether reports show the procedure as a curve over its only parameter, `n: int`.
    - `example`: a text form such as `best-of-n:4`; default: the name if there are no parameters.
    - `form`: the text form in help and errors; default: `name:N` with all parameters. Empty if the
      class has no text form.

    Raises ValueError for a name that is taken. A class that is defined again, for example by
    running a notebook cell twice, replaces its former definition.

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

    A new procedure needs `draws`, `cdf`, `density` and `slope`. The solver, win rates and contract
    tests follow from them, and so do the unbiased estimator and decoding for up to 16 draws.
    `register_procedure` gives it a name.
    """

    reads: ClassVar[Reads | None] = "rewards"

    @property
    def fewest(self) -> int:
        """The minimum number of samples from which the procedure can be estimated: `draws`, if
        fixed."""
        return self.draws

    @abstractmethod
    def slope(self, u: Quantiles) -> Values:
        """h' = H'', elementwise."""

    def slope_range(self, low: Quantiles, high: Quantiles) -> tuple[Values, Values]:
        """The least and the largest H'' between two quantiles, elementwise, or bounds on them that
        tighten to both as the quantiles approach each other.

        Computed here from the chances of the ranks among a fixed number of draws. Raises DataError
        where `subset_cdf` does; a procedure with such a law must override it.
        """
        ranges = [
            chance * np.array(_order_statistics.slope_range(self.draws, k, low, high))
            for k, chance in enumerate(_rank_chances(self)[::-1], start=1)
            if chance > 0
        ]
        least, most = sum(ranges)
        return least, most

    def selected_cdf(self, grid: Panels, density: Nodes, cdf: Nodes) -> Nodes:
        return self.cdf(cdf)

    def subset_cdf(self, m: int) -> Float[np.ndarray, "_"]:
        """Chance that the response selected from a random subset of m samples is among the j
        lowest, for j = 0 … m: the law for an unbiased estimate from m samples.

        Subsets have `draws` samples, drawn without replacement. The array is computed once and
        must not be changed.

        Raises DataError if the law is not that of a fixed number of draws, or is that of more than
        16 draws; the procedure then has to define `subset_law`.
        """
        m = _check.count("m", m, at_least=self.fewest)
        return _subset_law(self, m) if isinstance(self, Hashable) else self.subset_law(m)

    def subset_law(self, m: int) -> Float[np.ndarray, "_"]:
        """Computes `subset_cdf`, here from the law H; override it for more than 16 draws."""
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
        parts = [_order_statistics.law(n, int(n - i), m) for i in j[:-1]]
        return np.diff(chances) @ parts

    def choose(self, values: Sequence[float], rng: np.random.Generator) -> int:
        place = rng.choice(len(values), p=_rank_chances(self))
        # The order is random, so a stable sort breaks ties at random.
        return int(np.argsort(values, kind="stable")[place])


@lru_cache(maxsize=64)
def _subset_law(procedure: RankProcedure, m: int) -> np.ndarray:
    law = procedure.subset_law(m)
    law.flags.writeable = False
    return law


@lru_cache
def _rank_chances(procedure: RankProcedure) -> np.ndarray:
    """Chance that each rank among all draws is selected, lowest rank first."""
    chances = np.diff(procedure.subset_cdf(procedure.draws))
    chances = np.maximum(chances, 0)  # chances solved from a law may miss 0 by rounding
    return chances / chances.sum()


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
