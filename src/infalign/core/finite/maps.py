"""Procedures as maps from the policy to the law of the response that is kept.

On a finite outcome set any procedure is such a map T. Whatever is maximized over T(π) asks one
more thing of it: its derivative, applied backwards.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from infalign.core._procedures import AbstractProcedure

SHAPE = np.linspace(0, 1, 2049)
"""Where the sign of a law's curvature is read."""

STEP = 1e-4
"""Share of the policy moved to one outcome in a finite difference."""


class AbstractMap(ABC):
    """T: the policy to the law of the kept response, with its derivative.

    Policies have the shape in which the reward was given: (outcomes,) or (prompts, outcomes).
    """

    precision = 1e-15
    """Absolute error of `gradient`."""

    @property
    @abstractmethod
    def concave(self) -> bool:
        """Whether ⟨T(π), utility⟩ is concave in π for each utility that rises with the reward."""

    @abstractmethod
    def selected(self, policy: np.ndarray) -> np.ndarray:
        """T(π), a distribution over the outcomes of each prompt."""

    @abstractmethod
    def gradient(self, policy: np.ndarray, utility: np.ndarray) -> np.ndarray:
        """∂⟨T(π), utility⟩ / ∂π(y), up to a constant within each prompt."""

    def starts(self, reference: np.ndarray) -> list[np.ndarray]:
        """Policies from which an ascent may climb other hills than from the reference."""
        return [(reference + self.selected(reference)) / 2]


@dataclass(frozen=True)
class Ranked(AbstractMap):
    """A rank-based procedure with law H, in a world whose outcomes ascend and never tie.

    The kept response has CDF H(F), so T(π)_a = H(F_a) − H(F_{a−1}).
    """

    procedure: AbstractProcedure

    @property
    def concave(self):
        return bool((self.procedure.slope(SHAPE) >= 0).all())  # H convex

    def selected(self, policy):
        return np.diff(self.procedure.cdf(_cdf(policy)), prepend=0)

    def gradient(self, policy, utility):
        # By parts, ⟨T(π), utility⟩ = utility_m - Σ_a H(F_a) (utility_{a+1} - utility_a): more mass
        # at b raises F_a for all a >= b. The constant is chosen to start at 0.
        steps = self.procedure.density(_cdf(policy)[..., :-1]) * np.diff(utility)
        return np.concatenate([np.zeros_like(policy[..., :1]), np.cumsum(steps, axis=-1)], axis=-1)

    def curvature(self, policy, utility):
        """−∂²⟨T(π), utility⟩ / ∂F_a², for all F_a but the last, which is 1."""
        return self.procedure.slope(_cdf(policy)[..., :-1]) * np.diff(utility)


def _cdf(policy):
    """Running sums that end at exactly 1."""
    cdf = np.cumsum(policy, axis=-1)
    return np.minimum(cdf / cdf[..., -1:], 1)


@dataclass(frozen=True)
class Custom(AbstractMap):
    """A procedure of your own: any differentiable T.

    >>> other = Custom(lambda policy: policy[::-1])  # of two outcomes, keeps the one not drawn
    >>> other.gradient(np.array([0.3, 0.7]), np.array([0.0, 1.0])).round(9).tolist()
    [0.7, -0.3]
    """

    apply: Callable[[np.ndarray], np.ndarray]
    """Policy → law of the kept response, of the same shape; prompts must not mix."""

    pullback: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    """(policy, utility) → ∂⟨T(π), utility⟩/∂π, the vector-Jacobian product, up to a constant
    within each prompt. Unless given, finite differences: three calls of `apply` per outcome."""

    concave: bool = False
    """Your word that ⟨T(π), utility⟩ is concave in π; the `gap` of a solution rests on it."""

    @property
    def precision(self):
        return 1e-10 if self.pullback is None else 1e-15

    def selected(self, policy):
        kept = np.asarray(self.apply(policy), dtype=float)
        if kept.shape != policy.shape:
            raise ValueError(
                f"`apply` must return a law of the policy's shape {policy.shape}; "
                f"got shape {kept.shape}."
            )
        bad = ~(kept >= -1e-12)
        if bad.any() or not np.allclose(kept.sum(-1), 1, atol=1e-8):
            raise ValueError(
                "`apply` must return probabilities that sum to 1 for each prompt; got sums of "
                f"{kept.sum(-1).min():g} to {kept.sum(-1).max():g} and {bad.sum()} of {bad.size} "
                "entries that are negative or nan. T(π) is a law for every policy π."
            )
        return kept

    def gradient(self, policy, utility):
        if self.pullback is not None:
            return np.asarray(self.pullback(policy, utility), dtype=float)

        def value(share, outcome):
            moved = (1 - share) * policy
            moved[..., outcome] += share
            return (self.selected(moved) * utility).sum(-1)

        # Towards an outcome every step stays a policy; backwards some would not. Third order.
        here = 11 * value(0, 0)
        columns = [
            18 * value(STEP, y) - 9 * value(2 * STEP, y) + 2 * value(3 * STEP, y) - here
            for y in range(policy.shape[-1])
        ]
        return np.stack(columns, axis=-1) / (6 * STEP)
