"""Prompts on which a reward is constant: none of their responses ranks above another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from infalign import _check
from infalign._look import Shown
from infalign.stores import CalibrationStore

__all__ = ["MESSAGES", "Constant", "constant_rewards"]

LOOKED_AT = 64
"""Maximum number of constant prompts whose texts are looked at."""

MESSAGES = """the text of messages is `completion[-1]["content"]`"""
"""How a reward gets at a text that comes as messages."""

Texts = Callable[[Sequence[str]], Sequence[Sequence[str]]]
"""The responses of prompts, by their ids."""


@dataclass(frozen=True)
class Constant(Shown):
    """The prompts of a store on which the reward is constant."""

    prompts: int
    """Number of prompts with two or more responses."""

    count: int
    """Number of those whose responses all have one reward."""

    values: tuple[float, ...]
    """Their rewards, increasing; at most three."""

    range: tuple[float, float]
    """The lowest and the highest reward of the store."""

    first: tuple[str, float]
    """Id and reward of the first of them."""

    same_texts: bool
    """Whether each of them has the same text in all of its responses."""

    def words(self, reward: str) -> str:
        """A sentence about it, and one about its likely cause.

        - `reward`: the reward, as its user names it.
        """
        name, value = self.first
        if self.count == self.prompts:
            return (
                f"The reward {reward} is constant on each of {self.prompts} prompts, such as "
                f"{value:g} on the first: no policy can be trained on it. {self.cause}"
            )
        return (
            f"The reward {reward} is constant on {self.count} of {self.prompts} prompts, such as "
            f"{value:g} on {_check.short(name)}: nothing can be learned from these. {self.cause}"
        )

    @property
    def cause(self) -> str:
        """The likely cause, and what to do."""
        if self.same_texts:
            return (
                "The responses to such a prompt are one and the same text: raise "
                "`sampling.temperature` or `sampling.max_new_tokens`."
            )
        low, high = self.range
        if low == high:
            return (
                "It gives every response the same reward: it may not find in a response what it "
                f"looks for, read messages as a text ({MESSAGES}), or catch an error of its own. "
                "Call it on a few responses."
            )
        if self.values == (low,):
            return (
                "They have the lowest reward of all: the prompts may be too hard for the model, or "
                "the reward does not find in a response what it looks for."
            )
        if self.values == (high,):
            return (
                "They have the highest reward of all: the prompts may be too easy for the model, "
                "or the reward accepts every response."
            )
        if set(self.values) <= {low, high}:
            return (
                "They have the lowest or the highest reward of all: the prompts may be too hard "
                "or too easy for the model. More responses (`calibration.samples`) may differ."
            )
        return (
            "It differs between prompts: it may score the prompt, or a column of it, instead of "
            "the response."
        )


def constant_rewards(store: CalibrationStore, texts: Texts | None = None) -> Constant | None:
    """The prompts on which the reward is constant; None if there are none.

    Prompts with one response do not count.
    """
    prompts = count = before = 0
    values: set[float] = set()
    positions: list[int] = []
    low, high, first = np.inf, -np.inf, np.nan
    for block, counts in store.rewards.blocks():
        ends = np.cumsum(counts)
        lowest, highest = block[ends - counts], block[ends - 1]
        constant = np.flatnonzero((counts > 1) & (lowest == highest))
        prompts, count = prompts + int((counts > 1).sum()), count + constant.size
        low, high = min(low, float(lowest.min())), max(high, float(highest.max()))
        if constant.size and not positions:
            first = float(lowest[constant[0]])
        values |= set(np.unique(lowest[constant])[:3].tolist())
        positions += (before + constant[: LOOKED_AT - len(positions)]).tolist()
        before += len(counts)
    if not count:
        return None
    wanted = set(positions)
    ids = [i for n, i in enumerate(islice(store.rewards, positions[-1] + 1)) if n in wanted]
    rows = texts(ids) if texts is not None else ()
    same = bool(rows) and all(len(set(row)) == 1 for row in rows)
    some = tuple(sorted(values)[:3])
    return Constant(prompts, count, some, (low, high), (ids[0], first), same)
