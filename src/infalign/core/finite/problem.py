"""The problem of one procedure in one world: maximize W(π) − β KL(π ‖ π_ref) for each prompt."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from infalign._look import Shown
from infalign.core._interface import AbstractProcedure, RankProcedure
from infalign.core._shapes import Float
from infalign.errors import ArgumentError

from .maps import AbstractMap, Ranked
from .world import World

__all__ = ["Problem", "as_map", "selected"]

Procedure = AbstractProcedure | AbstractMap
"""How a policy is decoded. Of the first kind, only procedures that select by rank."""


@dataclass(frozen=True, eq=False)
class Problem(Shown):
    """W(π) = ⟨T(π), utility⟩, on as few columns as the procedure allows.

    A procedure that selects by rank sees only the levels of the reward: tied outcomes share one
    column, and columns are in increasing order. For any other procedure, columns are outcomes.
    """

    world: World
    map: AbstractMap
    utility: Float[np.ndarray, "prompts columns"]
    """Chance that a column beats the opponent's selected response; ties count one half."""

    reference: Float[np.ndarray, "prompts columns"]
    """The reference's mass on each column."""

    @property
    def by_rank(self) -> bool:
        """Whether columns are levels."""
        return isinstance(self.map, Ranked)

    @classmethod
    def of(cls, world: World, procedure: Procedure, against: Procedure | None = None) -> "Problem":
        """The problem of a policy under `procedure` against the reference under `against`."""
        chosen = as_map("procedure", procedure)
        opponent = chosen if against is None else as_map("against", against)
        utility = world.mid_rank(selected(world, world.reference, opponent))
        if isinstance(chosen, Ranked):
            return cls(world, chosen, utility, world.on_levels(world.reference))
        return cls(world, chosen, world.at_outcomes(utility), world.reference)

    def columns(self, policy: np.ndarray) -> np.ndarray:
        """The mass on each column."""
        return self.world.on_levels(policy) if self.by_rank else policy

    def at_outcomes(self, values: np.ndarray) -> np.ndarray:
        """The values of the columns at each of their outcomes."""
        return self.world.at_outcomes(values) if self.by_rank else values

    def win_rate(self, policy: np.ndarray) -> np.ndarray:
        """W of each prompt, for masses on columns."""
        return (self._call(self.map.selected, policy) * self.utility).sum(1)

    def gradient(self, policy: np.ndarray, win_rate: np.ndarray) -> np.ndarray:
        """The coupled reward ∂W/∂π of each column, shifted so that its mean under π is `win_rate`.

        For plain sampling, where W = ⟨π, C⟩, it is C itself.
        """
        raw = self._call(self.map.gradient, policy, self.utility)
        return raw + (win_rate - (policy * raw).sum(1))[:, None]

    def starts(self) -> list[np.ndarray]:
        """Further policies to start from, besides the reference, as masses on columns."""
        reference = self.reference if self.by_rank else self.world.as_given(self.reference)
        return [np.atleast_2d(start) for start in self.map.starts(reference)]

    def _call(self, function: Callable[..., np.ndarray], *rows: np.ndarray) -> np.ndarray:
        if self.by_rank:
            return function(*rows)
        return np.atleast_2d(function(*(self.world.as_given(r) for r in rows)))


def selected(world: World, policy: np.ndarray, by: AbstractMap) -> np.ndarray:
    """T(π), the law of the selected response over the outcomes; rows are prompts.

    Selection by rank breaks ties among the draws at random, so the mass that falls on a level is
    split in proportion to the policy.
    """
    if not isinstance(by, Ranked):
        return np.atleast_2d(by.selected(world.as_given(policy)))
    mass = world.on_levels(policy)
    share = np.divide(by.selected(mass), mass, out=np.zeros_like(mass), where=mass > 0)
    return policy * world.at_outcomes(share)


def as_map(name: str, procedure: Procedure) -> AbstractMap:
    """`procedure` as a map from the policy to the law of the selected response."""
    if isinstance(procedure, AbstractMap):
        return procedure
    if isinstance(procedure, RankProcedure):
        return Ranked(procedure)
    raise ArgumentError(
        name,
        "must be a rank-based procedure such as `BestOfN(4)`, or a `finite.MajorityVote` or "
        f"`finite.Custom`; got {procedure!r}. "
        "Any map from policies to laws becomes a procedure with `finite.Custom`.",
    )
