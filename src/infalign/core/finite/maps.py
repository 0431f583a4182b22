"""Procedures as maps from the policy to the law of the selected response.

On a finite outcome set any procedure is such a map T. Maximizing a function of T(π) also requires
the map's derivative, as a vector-Jacobian product.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from infalign import _check
from infalign.core._interface import RankProcedure
from infalign.core._shapes import Float
from infalign.errors import ArgumentError

__all__ = ["AbstractMap", "Custom", "Ranked"]

SHAPE = np.linspace(0, 1, 2049)
"""Quantiles at which the sign of a law's curvature is checked."""

STEP = 1e-4
"""Share of the policy moved to one outcome in a finite difference."""

EXACT = 1e-15
"""Absolute error of a gradient in closed form."""

DIFFERENCED = 1e-10
"""Absolute error of a gradient by finite differences."""

Rows = Float[np.ndarray, "*prompts outcomes"]


class AbstractMap(ABC):
    """T, the map from the policy to the law of the selected response, with its derivative.

    Policies have the shape of the reward: (outcomes,) or (prompts, outcomes).
    """

    @property
    def precision(self) -> float:
        """Absolute error of `gradient`."""
        return EXACT

    @property
    @abstractmethod
    def concave(self) -> bool:
        """Whether ⟨T(π), utility⟩ is concave in π for every utility that increases with the
        reward."""

    @abstractmethod
    def selected(self, policy: Rows) -> Rows:
        """T(π), a distribution over the outcomes of each prompt."""

    @abstractmethod
    def gradient(self, policy: Rows, utility: Rows) -> Rows:
        """∂⟨T(π), utility⟩ / ∂π(y), up to a constant within each prompt."""

    def starts(self, reference: Rows) -> list[np.ndarray]:
        """Policies from which an ascent may reach maxima that it does not reach from the
        reference."""
        return [(reference + self.selected(reference)) / 2]


@dataclass(frozen=True)
class Ranked(AbstractMap):
    """A rank-based procedure with law H, in a world whose outcomes are in increasing order and
    never tie.

    The selected response has CDF H(F), so T(π)_a = H(F_a) − H(F_{a−1}).
    """

    procedure: RankProcedure

    @property
    def concave(self) -> bool:
        return bool((self.procedure.slope(SHAPE) >= 0).all())  # H convex

    def selected(self, policy: Rows) -> Rows:
        return np.diff(self.procedure.cdf(_cdf(policy)), prepend=0)

    def gradient(self, policy: Rows, utility: Rows) -> Rows:
        # By parts, ⟨T(π), utility⟩ = utility_m - Σ_a H(F_a) (utility_{a+1} - utility_a): more mass
        # at b raises F_a for all a >= b. The constant makes the first entry 0.
        steps = self.procedure.density(_cdf(policy)[..., :-1]) * np.diff(utility)
        return np.concatenate([np.zeros_like(policy[..., :1]), np.cumsum(steps, axis=-1)], axis=-1)

    def curvature(self, policy: Rows, utility: Rows) -> np.ndarray:
        """−∂²⟨T(π), utility⟩ / ∂F_a², for all F_a but the last, which is 1."""
        return self.procedure.slope(_cdf(policy)[..., :-1]) * np.diff(utility)


def _cdf(policy: np.ndarray) -> np.ndarray:
    """Cumulative sums that end at exactly 1."""
    cdf = np.cumsum(policy, axis=-1)
    return np.minimum(cdf / cdf[..., -1:], 1)


@dataclass(frozen=True)
class Custom(AbstractMap):
    """A procedure of your own: any differentiable T.

    >>> other = Custom(lambda policy: policy[::-1])  # selects the outcome that was not drawn
    >>> other.gradient(np.array([0.3, 0.7]), np.array([0.0, 1.0])).round(9).tolist()
    [0.7, -0.3]
    """

    apply: Callable[[np.ndarray], np.ndarray]
    """Policy → law of the selected response, of the same shape; prompts must not mix."""

    pullback: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    """(policy, utility) → ∂⟨T(π), utility⟩/∂π, the vector-Jacobian product, up to a constant
    within each prompt. Default: finite differences, with three calls of `apply` per outcome."""

    concave: bool = False
    """Whether ⟨T(π), utility⟩ is concave in π: the `gap` of a solution relies on it."""

    def __post_init__(self) -> None:
        _check.function("apply", self.apply)
        if self.pullback is not None:
            _check.function("pullback", self.pullback)
        _check.truth("concave", self.concave)

    @property
    def precision(self) -> float:
        return DIFFERENCED if self.pullback is None else EXACT

    def selected(self, policy: Rows) -> Rows:
        law = np.asarray(self.apply(policy), dtype=float)
        if law.shape != policy.shape:
            raise ArgumentError(
                "apply",
                f"must return a law of the policy's shape {policy.shape}; got shape {law.shape}.",
            )
        bad = ~(law >= -1e-12)
        if bad.any() or not np.allclose(law.sum(-1), 1, atol=1e-8):
            raise ArgumentError(
                "apply",
                "must return probabilities that sum to 1 for each prompt; got sums of "
                f"{law.sum(-1).min():g} to {law.sum(-1).max():g} and {bad.sum()} of {bad.size} "
                "entries that are negative or nan. T(π) must be a law for every policy π.",
            )
        return law

    def gradient(self, policy: Rows, utility: Rows) -> Rows:
        if self.pullback is not None:
            return np.asarray(self.pullback(policy, utility), dtype=float)

        def value(share: float, outcome: int) -> Float[np.ndarray, "*any"]:
            moved = (1 - share) * policy
            moved[..., outcome] += share
            return (self.selected(moved) * utility).sum(-1)

        # One-sided: a step toward an outcome stays a policy, but a step back may not. Third order:
        # f'(0) = (−11 f(0) + 18 f(h) − 9 f(2h) + 2 f(3h)) / 6h + O(h³).
        here = 11 * value(0, 0)
        columns = [
            18 * value(STEP, y) - 9 * value(2 * STEP, y) + 2 * value(3 * STEP, y) - here
            for y in range(policy.shape[-1])
        ]
        return np.stack(columns, axis=-1) / (6 * STEP)
