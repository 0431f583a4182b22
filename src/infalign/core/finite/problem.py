"""The problem of one procedure in one world: maximize W(π) − β KL(π ‖ π_ref) for each prompt."""

from dataclasses import dataclass

import numpy as np

from infalign.core._procedures import AbstractProcedure

from .maps import AbstractMap, Ranked
from .world import World


@dataclass(frozen=True, eq=False)
class Problem:
    """W(π) = ⟨T(π), utility⟩, on columns as few as the procedure allows.

    What keeps by rank sees the levels of the reward only: outcomes that tie share one column, and
    columns ascend. Everything else sees the outcomes.
    """

    world: World
    map: AbstractMap
    utility: np.ndarray
    """Chance that a column beats the kept response of the opponent, ties counted one half."""

    reference: np.ndarray

    @property
    def by_rank(self) -> bool:
        """Whether columns are levels."""
        return isinstance(self.map, Ranked)

    @classmethod
    def of(cls, world: World, procedure, against=None) -> "Problem":
        """The problem of a policy under `procedure` and the reference under `against`."""
        chosen = as_map("procedure", procedure)
        opponent = chosen if against is None else as_map("against", against)
        utility = world.mid_rank(selected(world, world.reference, opponent))
        if isinstance(chosen, Ranked):
            return cls(world, chosen, utility, world.on_levels(world.reference))
        return cls(world, chosen, world.at_outcomes(utility), world.reference)

    def columns(self, policy: np.ndarray) -> np.ndarray:
        """The mass of each column."""
        return self.world.on_levels(policy) if self.by_rank else policy

    def at_outcomes(self, values: np.ndarray) -> np.ndarray:
        """A value of each column, at each of its outcomes."""
        return self.world.at_outcomes(values) if self.by_rank else values

    def win_rate(self, policy: np.ndarray) -> np.ndarray:
        """W of each prompt, for masses of columns."""
        return (self._call(self.map.selected, policy) * self.utility).sum(1)

    def gradient(self, policy: np.ndarray, win_rate: np.ndarray) -> np.ndarray:
        """The coupled reward ∂W/∂π of each column, shifted so that its mean under π is `win_rate`.

        For plain sampling, where W = ⟨π, C⟩, that is C itself.
        """
        raw = self._call(self.map.gradient, policy, self.utility)
        return raw + (win_rate - (policy * raw).sum(1))[:, None]

    def starts(self) -> list[np.ndarray]:
        """Columns of policies to start from, besides the reference."""
        reference = self.reference if self.by_rank else self.world.as_given(self.reference)
        return [np.atleast_2d(start) for start in self.map.starts(reference)]

    def _call(self, function, *rows):
        if self.by_rank:
            return function(*rows)
        return np.atleast_2d(function(*(self.world.as_given(r) for r in rows)))


def selected(world: World, policy: np.ndarray, by: AbstractMap) -> np.ndarray:
    """T(π), the law of the kept response over the outcomes; rows are prompts.

    What keeps by rank breaks a tie among its draws at random, so that it splits what falls on a
    level in proportion to the policy.
    """
    if not isinstance(by, Ranked):
        return np.atleast_2d(by.selected(world.as_given(policy)))
    mass = world.on_levels(policy)
    share = np.divide(by.selected(mass), mass, out=np.zeros_like(mass), where=mass > 0)
    return policy * world.at_outcomes(share)


def as_map(name: str, procedure) -> AbstractMap:
    """`procedure` as a map from the policy to the law of the kept response."""
    if isinstance(procedure, AbstractMap):
        return procedure
    by_rank = all(hasattr(procedure, law) for law in ("cdf", "density", "slope"))
    if isinstance(procedure, AbstractProcedure) and by_rank:
        return Ranked(procedure)
    raise ValueError(
        f"`{name}` must be a rank-based procedure such as `BestOfN(4)`, or a "
        f"`finite.MajorityVote` or `finite.Custom`; got {procedure!r}. "
        "Any map from policies to laws becomes a procedure with `finite.Custom`."
    )
