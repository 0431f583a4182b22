"""Inference-time procedures as laws on the quantile axis.

A procedure draws responses and keeps one by rank. A reference response has calibrated reward
u ~ Uniform(0, 1), so the kept one has some CDF H(u), the procedure's law: all that design and
evaluation ever need to know about it (InfAlign, arXiv:2412.19792, section 4).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from . import _check


class AbstractProcedure(ABC):
    """How one response is kept out of several, seen through ranks only."""

    @property
    @abstractmethod
    def draws(self) -> int:
        """Responses drawn for each one kept."""

    @property
    @abstractmethod
    def spec(self) -> str:
        """The procedure in one word, as `parse_procedure` and the command line read it."""

    @property
    @abstractmethod
    def concave(self) -> bool:
        """Whether the win rate is concave in the policy's density (H convex)."""

    @abstractmethod
    def cdf(self, u: np.ndarray) -> np.ndarray:
        """H(u), elementwise: chance that the kept response ranks at or below u in [0, 1]."""

    @abstractmethod
    def density(self, u: np.ndarray) -> np.ndarray:
        """h = H', elementwise."""

    @abstractmethod
    def slope(self, u: np.ndarray) -> np.ndarray:
        """h' = H'', elementwise."""

    @abstractmethod
    def subset_cdf(self, m: int) -> np.ndarray:
        """Chance that the kept one of `draws` out of `m` samples, without replacement, is among
        the j lowest, for j = 0 … m: the law an unbiased estimate from m samples uses."""


@dataclass(frozen=True)
class BestOfN(AbstractProcedure):
    """Draw `n` responses, keep the one with the highest reward: H(u) = uⁿ."""

    n: int
    """Responses drawn; 1 is plain sampling."""

    def __post_init__(self):
        _check.count("n", self.n)

    @property
    def draws(self):
        return self.n

    @property
    def spec(self):
        return f"best-of-n:{self.n}"

    @property
    def concave(self):
        return True

    def cdf(self, u):
        return _check.unit_interval("u", u) ** self.n

    def density(self, u):
        return self.n * _check.unit_interval("u", u) ** (self.n - 1)

    def slope(self, u):
        u = _check.unit_interval("u", u)
        return np.zeros_like(u) if self.n == 1 else self.n * (self.n - 1) * u ** (self.n - 2)

    def subset_cdf(self, m):
        # C(j, n) / C(m, n): all n among the j lowest. In logs, since C(100000, 1024) overflows.
        j = np.arange(m + 1)
        inside = j >= self.n
        logs = _log_choose(np.where(inside, j, self.n), self.n) - _log_choose(m, self.n)
        return np.where(inside, np.exp(logs), 0.0)


@dataclass(frozen=True)
class WorstOfN(AbstractProcedure):
    """Draw `n` responses, keep the one with the lowest reward: H(u) = 1 − (1 − u)ⁿ.

    An attacker who tries n times and keeps what hurts most, seen from the defender.
    """

    n: int
    """Responses drawn; 1 is plain sampling."""

    def __post_init__(self):
        _check.count("n", self.n)

    @property
    def draws(self):
        return self.n

    @property
    def spec(self):
        return f"worst-of-n:{self.n}"

    @property
    def concave(self):
        return self.n == 1

    # The mirror image of best-of-n: H(u) = 1 - B(1 - u).
    def cdf(self, u):
        return 1 - BestOfN(self.n).cdf(1 - _check.unit_interval("u", u))

    def density(self, u):
        return BestOfN(self.n).density(1 - _check.unit_interval("u", u))

    def slope(self, u):
        return -BestOfN(self.n).slope(1 - _check.unit_interval("u", u))

    def subset_cdf(self, m):
        return 1 - BestOfN(self.n).subset_cdf(m)[::-1]


@dataclass(frozen=True)
class Sampling(AbstractProcedure):
    """Draw one response and keep it: H(u) = u."""

    @property
    def draws(self):
        return 1

    @property
    def spec(self):
        return "sampling"

    @property
    def concave(self):
        return True

    def cdf(self, u):
        return _check.unit_interval("u", u)

    def density(self, u):
        return np.ones_like(_check.unit_interval("u", u))

    def slope(self, u):
        return np.zeros_like(_check.unit_interval("u", u))

    def subset_cdf(self, m):
        return np.arange(m + 1) / m


PROCEDURES = {"sampling": Sampling, "best-of-n": BestOfN, "worst-of-n": WorstOfN}
"""The names of `parse_procedure` and what they build from whole numbers after colons."""


def parse_procedure(text: str) -> AbstractProcedure:
    """The procedure named by `text`, such as `sampling`, `best-of-n:4` or `worst-of-n:8`.

    Raises ValueError for an unknown name or an argument that is not a whole number.

    >>> parse_procedure("best-of-n:4")
    BestOfN(n=4)
    """
    name, *arguments = text.split(":")
    try:
        return PROCEDURES[name](*map(int, arguments))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"`procedure` must be sampling, best-of-n:N or worst-of-n:N with N at least 1; "
            f"got {text!r}."
        ) from error


def _log_choose(m, n):
    return gammaln(np.asarray(m) + 1.0) - gammaln(n + 1.0) - gammaln(np.asarray(m) - n + 1.0)
