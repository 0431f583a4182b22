"""Win rates from a pairwise judge, which sees two responses and names the better.

A judge reads one response first, and many prefer what they read first (or last) whatever it says.
So every pair is judged in both orders: the mean of the two is free of that preference, and their
disagreement measures it (Zheng et al., Judging LLM-as-a-Judge, arXiv:2306.05685).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from infalign import _check
from infalign.core import AbstractProcedure
from infalign.errors import DataError

from .chances import selection_chances
from .uncertainty import EITHER_WAY, SKEWED, Estimate, over_prompts


@dataclass(frozen=True)
class Judged:
    """What a judge says of a policy and the reference, and how far it can be relied on."""

    win_rate: Estimate
    """Of the policy: the mean over both orders, ties counting one half."""

    position_bias: Estimate
    """How much more often the response shown first wins than half the time; in [−½, ½]."""

    consistency: Estimate
    """Share of pairs for which both orders name the same winner, or both a tie."""

    pairs: int
    """Pairs judged in both orders."""

    excluded: int
    """Pairs left out because a verdict on them is missing."""

    excluded_prompts: int
    """Prompts left out because none of their pairs is left."""


def judged(verdicts, *, missing: Literal["error", "exclude"] = "error") -> Judged:
    """Win rate, position bias and consistency from verdicts on both orders.

    - `verdicts`: shape (prompts, pairs, 2); 1 where the response shown first wins, 0 where the
      second does, ½ for a tie. The policy's is shown first in [..., 0] and second in [..., 1].
      nan marks a verdict that could not be had.
    - `missing`: whether such a verdict is an error, or its pair is left out and counted. Pairs
      that a judge cannot decide are seldom like the others: look at `excluded` before the rest.

    Each prompt has the same weight, and intervals are clustered by prompt.

    >>> found = judged([[[1.0, 0.0], [1.0, 1.0]]])   # one clear win; one that the order decides
    >>> found.win_rate.value, found.position_bias.value, found.consistency.value
    (0.75, 0.25, 0.5)
    """
    verdicts = np.asarray(verdicts, float)
    if verdicts.ndim != 3 or verdicts.shape[2] != 2 or verdicts.size == 0:
        raise ValueError(
            "`verdicts` must have shape (prompts, pairs, 2), both orders of each pair; "
            f"got shape {verdicts.shape}."
        )
    if missing not in ("error", "exclude"):
        raise ValueError(f'`missing` must be "error" or "exclude"; got {missing!r}.')
    absent = np.isnan(verdicts)
    wrong = ~absent & ~np.isin(verdicts, (0, 0.5, 1))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"`verdicts` must be 0, 0.5 or 1; got {verdicts[place]:g} at prompt {place[0]}, pair "
            f"{place[1]} ({wrong.sum()} of {wrong.size} are not). Pass whether the first shown won."
        )
    lost = absent.any(2)
    if lost.any() and missing == "error":
        prompt, pair = np.argwhere(lost)[0]
        raise DataError(
            f"`verdicts` must be complete; prompt {prompt}, pair {pair} lacks one ({lost.sum()} of "
            f'{lost.size} pairs do). Judge those again, or pass missing="exclude" to leave them '
            "out and have them counted."
        )
    counts = (~lost).sum(1)
    known = counts > 0
    if not known.any():
        raise DataError(
            f"`verdicts` has no pair with both verdicts (none of {lost.size}). Judge them again."
        )

    def mean(values, interval, *bounds):
        by_prompt = np.where(lost, 0, values).sum(1)[known] / counts[known]
        return over_prompts(by_prompt, bounds=bounds, interval=interval)

    ours, theirs = verdicts[..., 0], verdicts[..., 1]
    return Judged(
        mean((ours + 1 - theirs) / 2, SKEWED, 0, 1),
        mean((ours + theirs - 1) / 2, EITHER_WAY, -0.5, 0.5),
        mean(ours == 1 - theirs, SKEWED, 0, 1),
        int(counts.sum()),
        int(lost.sum()),
        int((~known).sum()),
    )


def draw_pairs(
    policy_rewards,
    reference_rewards,
    procedure: AbstractProcedure,
    pairs: int,
    *,
    rng: np.random.Generator,
    against: AbstractProcedure | None = None,
    calibration=None,
) -> np.ndarray:
    """Which samples to show a judge: pairs of responses as the procedures keep them.

    Each side's is drawn with its chance of being kept, averaged over all subsets of the prompt's
    samples, so that the judge's win rate is unbiased for that of kept responses.

    - `policy_rewards`, `reference_rewards`: shape (prompts, m) and (prompts, k); what the
      procedures keep by, nan where no sample was drawn.
    - `pairs`: per prompt, drawn independently.
    - `calibration`: as in `win_rate`.

    Returns indices into the samples, shape (prompts, pairs, 2): policy, reference.
    """
    _check.count("pairs", pairs)
    ours = selection_chances(policy_rewards, procedure, calibration=calibration)
    theirs = selection_chances(reference_rewards, against or procedure, calibration=calibration)
    if len(ours) != len(theirs):
        raise ValueError(
            f"`policy_rewards` and `reference_rewards` must have one row per prompt each; "
            f"got {len(ours)} and {len(theirs)} rows."
        )
    # The inverse of each side's distribution at uniform numbers; a chance of 0 is never drawn.
    drawn = []
    for chances in (ours, theirs):
        steps = np.cumsum(chances, axis=1)
        u = rng.random((len(chances), pairs, 1)) * steps[:, -1, None, None]
        drawn.append((u >= steps[:, None, :]).sum(2))
    return np.stack(drawn, axis=2)
