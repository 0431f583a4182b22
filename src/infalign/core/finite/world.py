"""A finite world: for each prompt, finitely many outcomes with their rewards and reference
probabilities."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from infalign import _check
from infalign._look import Shown
from infalign.core._shapes import ArrayLike, Float, Int
from infalign.errors import ArgumentError

__all__ = ["World", "probabilities", "rewards"]

SUM_TOLERANCE = 1e-9
"""Largest error of the sum of a row of probabilities."""


@dataclass(frozen=True, eq=False)
class World(Shown):
    """Rewards, the reference probabilities, and the levels of tied rewards; rows are prompts."""

    reward: Float[np.ndarray, "prompts outcomes"]
    reference: Float[np.ndarray, "prompts outcomes"]
    single: bool
    """Whether there is a single prompt, given without a prompt axis."""

    @classmethod
    def of(cls, reward: ArrayLike, reference: ArrayLike, *, name: str = "reference") -> "World":
        """The world of `reward` and `reference`, both (outcomes,) or (prompts, outcomes)."""
        reward = rewards(reward)
        reference = probabilities(name, reference, reward.shape)
        return cls(np.atleast_2d(reward), np.atleast_2d(reference), reward.ndim == 1)

    def as_given(self, rows: np.ndarray) -> np.ndarray:
        """`rows`, without the prompt axis if the caller gave none."""
        return rows[0] if self.single else rows

    @cached_property
    def level(self) -> Int[np.ndarray, "prompts outcomes"]:
        """Number of distinct rewards of the prompt below the outcome's own."""
        order = np.argsort(self.reward, axis=1)
        ascending = np.take_along_axis(self.reward, order, axis=1)
        rises = np.diff(ascending, axis=1, prepend=ascending[:, :1]) > 0
        level = np.empty_like(order)
        np.put_along_axis(level, order, np.cumsum(rises, axis=1), axis=1)
        return level

    def on_levels(self, mass: np.ndarray) -> np.ndarray:
        """The mass on each level, shape (prompts, levels); rows with fewer levels end in zeros."""
        prompts, width = len(self.level), self.level.max() + 1
        cell = self.level + width * np.arange(prompts)[:, None]
        total = np.bincount(cell.ravel(), mass.ravel(), minlength=prompts * width)
        return total.reshape(prompts, width)

    def at_outcomes(self, per_level: np.ndarray) -> np.ndarray:
        """The value of each level, at each of its outcomes."""
        return np.take_along_axis(per_level, self.level, axis=1)

    def mid_rank(self, law: np.ndarray) -> np.ndarray:
        """On each level, the chance to beat a draw from `law`; ties count one half."""
        mass = self.on_levels(law)
        return np.cumsum(mass, axis=1) - mass / 2


def rewards(value: ArrayLike) -> Float[np.ndarray, "*prompts outcomes"]:
    """`value` as finite rewards of shape (outcomes,) or (prompts, outcomes)."""
    value = _check.numbers("reward", value)
    if value.ndim not in (1, 2) or value.size == 0:
        raise ArgumentError(
            "reward",
            "must be a non-empty array of shape (outcomes,) or (prompts, outcomes); "
            f"got shape {value.shape}.",
        )
    bad = ~np.isfinite(value)
    if bad.any():
        raise ArgumentError(
            "reward",
            f"must be finite; got {value[bad][0]:g} at {_where(bad)} "
            f"({bad.sum()} of {value.size} entries). If prompts have different numbers of "
            "outcomes, pad with any finite reward at a reference probability of 0.",
        )
    return value


def probabilities(
    name: str, value: ArrayLike, shape: tuple[int, ...]
) -> Float[np.ndarray, "*prompts outcomes"]:
    """`value` as distributions over the last axis, of the shape of the rewards."""
    value = _check.numbers(name, value)
    if value.shape != shape:
        raise ArgumentError(
            name,
            f"must have the shape of `reward`, {shape}; got shape {value.shape}. "
            "Give one probability per outcome, 0 where a prompt lacks it.",
        )
    bad = ~(value >= 0)
    if bad.any():
        raise ArgumentError(
            name,
            f"must hold probabilities; got {value[bad][0]:g} at {_where(bad)} "
            f"({bad.sum()} of {value.size} entries).",
        )
    total = np.atleast_1d(value.sum(axis=-1))
    off = np.flatnonzero(~(np.abs(total - 1) <= SUM_TOLERANCE))
    if off.size:
        where = f"prompt {off[0]} ({off.size} of {total.size} prompts)" if len(shape) == 2 else ""
        raise ArgumentError(
            name,
            f"must sum to 1 over the outcomes; got {total[off[0]]:.10g}"
            f"{' at ' + where if where else ''}. Divide each row by its sum, in double precision.",
        )
    return value


def _where(bad: np.ndarray) -> str:
    """The first entry of `bad`, in words."""
    *prompt, outcome = np.argwhere(bad)[0]
    return "".join([*(f"prompt {p}, " for p in prompt), f"outcome {outcome}"])
