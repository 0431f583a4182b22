"""A verdict that a script acts on: is a policy worse than another, and can the data tell?"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal
from unittest import SkipTest

import numpy as np
from scipy.special import ndtri

from infalign import _check
from infalign._look import Shown
from infalign.errors import ArgumentError
from infalign.evaluation.uncertainty import Estimate

__all__ = ["Gate", "Outcome", "assert_not_worse", "gate"]

POWER = 0.8
"""Chance of a verdict with the number of prompts that is recommended."""


class Outcome(IntEnum):
    """What the data show; the value is the exit code of a command."""

    NOT_WORSE = 0
    WORSE = 3
    CANNOT_TELL = 4


@dataclass(frozen=True)
class Gate(Shown):
    """Whether an estimate stays above a limit, down to a margin that is tolerated."""

    outcome: Outcome
    estimate: Estimate
    limit: float
    margin: float
    prompts_needed: int | None
    """If the data cannot tell: the number of prompts with which they would, with a chance of 80 %,
    were the estimate the truth. None if no number would, or if there is a verdict."""

    question: str = ""
    """What is asked, such as "rl against base, pass@8"."""

    def __bool__(self) -> bool:
        return self.outcome is Outcome.NOT_WORSE

    @property
    def sentence(self) -> str:
        """The question, the answer with the interval in percent, and the remedy where the data
        cannot tell."""
        said = {
            Outcome.NOT_WORSE: "not worse",
            Outcome.WORSE: "shown worse",
            Outcome.CANNOT_TELL: "the data cannot tell",
        }[self.outcome]
        own = self.estimate
        value, low, high = (100 * x for x in (own.value, own.low, own.high))
        known = bool(np.isfinite([low, high]).all())
        interval = f" [{low:.1f}, {high:.1f}]" if known else ", no interval"
        line = (
            f"{self.question}: {said}, with a margin of {100 * self.margin:g} % "
            f"({value:.1f}{interval})"
        ).removeprefix(": ")
        if not known:
            line += "; an interval needs two or more prompts, each with a value"
        elif self.outcome is Outcome.CANNOT_TELL:
            needed = self.prompts_needed
            line += (
                f"; about {needed:,} prompts would" if needed else "; more prompts alone would not"
            )
        return line


def gate(
    estimate: Estimate, limit: float = 0.0, *, margin: float = 0.0, question: str = ""
) -> Gate:
    """Compare an estimate with a limit, such as a win rate with ½ or a difference with 0.

    - NOT_WORSE: the interval lies at or above `limit` − `margin`, so a loss beyond the margin is
      excluded. With a margin of 0 this needs proof that the policy is at least as good; two equal
      policies cannot give it, whatever the number of prompts.
    - WORSE: the interval lies below `limit`, and a loss beyond the margin is not excluded.
    - CANNOT_TELL: neither.

    `question` says in messages what is asked.

    >>> from infalign import over_prompts
    >>> gains = np.random.default_rng(0).normal(0.01, 0.1, size=100)
    >>> gate(over_prompts(gains), margin=0.02).outcome
    <Outcome.NOT_WORSE: 0>
    """
    _check.instance("estimate", estimate, Estimate, "an estimate, as `win_rate` returns")
    _check.real("limit", limit)
    if _check.real("margin", margin) < 0:
        raise ArgumentError("margin", f"must be at least 0; got {margin:g}.")
    needed = None
    if estimate.low >= limit - margin:
        outcome = Outcome.NOT_WORSE
    elif estimate.high < limit:
        outcome = Outcome.WORSE
    else:
        outcome = Outcome.CANNOT_TELL
        needed = _prompts(estimate, limit, margin)
    return Gate(outcome, estimate, limit, margin, needed, _check.text("question", question))


def assert_not_worse(gate: Gate, *, cannot_tell: Literal["fail", "skip", "pass"] = "fail") -> None:
    """A gate as a test of pytest or unittest: AssertionError with its sentence if shown worse.

    - `cannot_tell`: what becomes of the test if the data cannot tell. "skip" skips it and says
      how many prompts would be enough.

    >>> from infalign import over_prompts
    >>> gains = np.random.default_rng(0).normal(-0.1, 0.1, size=100)
    >>> assert_not_worse(gate(over_prompts(gains), question="rl against base"))
    Traceback (most recent call last):
    AssertionError: rl against base: shown worse, with a margin of 0 % (-9.2 [-11.1, -7.3])
    """
    _check.instance("gate", gate, Gate, "a gate, as `Analysis.gate` returns")
    choice = _check.one_of("cannot_tell", cannot_tell, ("fail", "skip", "pass"))
    if gate.outcome is Outcome.WORSE:
        raise AssertionError(gate.sentence)
    if gate.outcome is Outcome.CANNOT_TELL and choice != "pass":
        raise (SkipTest if choice == "skip" else AssertionError)(gate.sentence)


def _prompts(estimate: Estimate, limit: float, margin: float) -> int | None:
    """Prompts for a verdict, with intervals that shrink with the square root of their number or,
    where all prompts agree, with their number."""
    ways = []
    for distance, reach in (
        (estimate.value - (limit - margin), estimate.value - estimate.low),
        (limit - estimate.value, estimate.high - estimate.value),
    ):
        if not (distance > 0 and np.isfinite(reach)):
            continue
        if estimate.stderr == 0:
            ways.append(reach / distance)  # it reaches to what so few prompts cannot exclude
        else:
            # The interval must clear the limit even where the estimate falls short of its mean.
            ways.append(((reach + ndtri(POWER) * estimate.stderr) / distance) ** 2)
    if not ways:
        return None
    return int(np.ceil(min(ways) * len(estimate.per_prompt)))
