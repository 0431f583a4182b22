"""A verdict that a script acts on: is a policy worse than another, and can the data tell?"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from scipy.special import ndtri

from infalign import _check
from infalign._look import Shown
from infalign.errors import ArgumentError
from infalign.evaluation.uncertainty import Estimate

__all__ = ["Gate", "Outcome", "gate"]

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

    def __bool__(self) -> bool:
        return self.outcome is Outcome.NOT_WORSE


def gate(estimate: Estimate, limit: float = 0.0, *, margin: float = 0.0) -> Gate:
    """Compare an estimate with a limit, such as a win rate with ½ or a difference with 0.

    - NOT_WORSE: the interval lies at or above `limit` − `margin`, so a loss beyond the margin is
      excluded. With a margin of 0 this needs proof that the policy is at least as good; two equal
      policies cannot give it, whatever the number of prompts.
    - WORSE: the interval lies below `limit`, and a loss beyond the margin is not excluded.
    - CANNOT_TELL: neither.

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
    return Gate(outcome, estimate, limit, margin, needed)


def _prompts(estimate: Estimate, limit: float, margin: float) -> int | None:
    """Prompts for a verdict, with intervals that shrink with the square root of their number."""
    ways = []
    for distance, reach in (
        (estimate.value - (limit - margin), estimate.value - estimate.low),
        (limit - estimate.value, estimate.high - estimate.value),
    ):
        if distance > 0 and np.isfinite(reach):
            # The interval must clear the limit even where the estimate falls short of its mean.
            ways.append(((reach + ndtri(POWER) * estimate.stderr) / distance) ** 2)
    if not ways:
        return None
    return int(np.ceil(min(ways) * len(estimate.per_prompt)))
