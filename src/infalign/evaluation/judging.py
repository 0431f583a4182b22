"""Win rates from a pairwise judge, which sees two responses and names the better one.

A judge reads one response first, and many judges prefer the first (or last) response regardless of
its content. Every pair is therefore judged in both orders. The mean of the two verdicts is free of
that preference, and their disagreement measures it (Zheng et al., Judging LLM-as-a-Judge,
arXiv:2306.05685).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from infalign import _check
from infalign._look import Shown
from infalign.core import AbstractProcedure
from infalign.errors import ArgumentError, DataError
from infalign.seeds import derived

from .chances import draw_selected, selection_chances
from .uncertainty import EITHER_WAY, AbstractInterval, Estimate, over_prompts

__all__ = ["JudgeWinRate", "draw_pairs", "judge_win_rate", "selected_pairs"]


@dataclass(frozen=True)
class JudgeWinRate(Shown):
    """A policy's win rate according to a judge, and how reliable that judge is."""

    win_rate: Estimate
    """Mean over both orders; ties count one half."""

    position_bias: Estimate
    """How far the share of wins of the response shown first exceeds one half; in [−½, ½]."""

    consistency: Estimate
    """Share of pairs for which both orders name the same winner, or both a tie."""

    pairs: int
    """Pairs judged in both orders."""

    excluded: int
    """Pairs left out because one of their verdicts is missing."""

    excluded_prompts: int
    """Prompts left out because all of their pairs were."""

    judged: np.ndarray = field(repr=False)
    """Whether each prompt has a pair with both verdicts; the estimates' prompts are those."""


def judge_win_rate(verdicts, *, missing: Literal["error", "exclude"] = "error") -> JudgeWinRate:
    """Win rate, position bias and consistency from verdicts on both orders.

    - `verdicts`: shape (prompts, pairs, 2); 1 where the response shown first wins, 0 where the
      second does, ½ for a tie. The policy's is shown first in [..., 0] and second in [..., 1].
      nan marks a missing verdict.
    - `missing`: "error" refuses missing verdicts; "exclude" leaves out their pairs and counts them.
      Pairs that a judge cannot decide are rarely typical, so check `excluded` first.

    Each prompt has the same weight, and intervals are clustered by prompt.

    >>> result = judge_win_rate([[[1.0, 0.0], [1.0, 1.0]]])   # a clear win; one decided by order
    >>> result.win_rate.value, result.position_bias.value, result.consistency.value
    (0.75, 0.25, 0.5)
    """
    verdicts = _check.numbers("verdicts", verdicts)
    if verdicts.ndim != 3 or verdicts.shape[2] != 2 or verdicts.size == 0:
        raise ArgumentError(
            "verdicts",
            "must have shape (prompts, pairs, 2), both orders of each pair; "
            f"got shape {verdicts.shape}.",
        )
    _check.one_of("missing", missing, ("error", "exclude"))
    absent = np.isnan(verdicts)
    wrong = ~absent & ~np.isin(verdicts, (0, 0.5, 1))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ArgumentError(
            "verdicts",
            f"must be 0, 0.5 or 1; got {verdicts[place]:g} at prompt {place[0]}, pair "
            f"{place[1]} ({wrong.sum()} of {wrong.size} are not). Pass whether the first shown "
            "won.",
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
            f"`verdicts` has no pair with both verdicts (0 of {lost.size}). Judge them again."
        )

    def mean(values, interval: AbstractInterval, low: float, high: float) -> Estimate:
        by_prompt = np.where(lost, 0, values).sum(1)[known] / counts[known]
        return over_prompts(by_prompt, bounds=(low, high), interval=interval)

    ours, theirs = verdicts[..., 0], verdicts[..., 1]
    return JudgeWinRate(
        win_rate=mean((ours + 1 - theirs) / 2, EITHER_WAY, 0, 1),
        position_bias=mean((ours + theirs - 1) / 2, EITHER_WAY, -0.5, 0.5),
        consistency=mean(ours == 1 - theirs, EITHER_WAY, 0, 1),
        pairs=int(counts.sum()),
        excluded=int(lost.sum()),
        excluded_prompts=int((~known).sum()),
        judged=known,
    )


def draw_pairs(
    policy_rewards,
    reference_rewards,
    procedure: AbstractProcedure,
    pairs: int,
    *,
    seed: int,
    keys: Sequence[str] | None = None,
    against: AbstractProcedure | None = None,
    calibration=None,
) -> np.ndarray:
    """Samples to show a judge: pairs of responses, drawn as the procedures select them.

    Each response is drawn with its chance of being selected, averaged over all subsets of the
    prompt's samples, so the judge's win rate is an unbiased estimate for selected responses. More
    samples, prompts or pairs leave as many pairs as possible what they were.

    - `policy_rewards`, `reference_rewards`: shape (prompts, m) and (prompts, k); the rewards that
      the procedures select by, nan where no sample was drawn.
    - `pairs`: per prompt, drawn independently.
    - `keys`: names of the prompts, all different. Default: "0", "1", …
    - `calibration`: as in `win_rate`.

    Returns indices into the samples, shape (prompts, pairs, 2): policy, reference.
    """
    ours = selection_chances(policy_rewards, procedure, calibration=calibration)
    theirs = selection_chances(reference_rewards, against or procedure, calibration=calibration)
    _check.paired_rows(policy_rewards=ours, reference_rewards=theirs)
    return selected_pairs(ours, theirs, pairs, seed=seed, keys=keys)


def selected_pairs(
    policy_chances: np.ndarray,
    reference_chances: np.ndarray,
    pairs: int,
    *,
    seed: int,
    keys: Sequence[str] | None = None,
) -> np.ndarray:
    """`draw_pairs` for known selection chances."""
    _check.count("pairs", pairs)
    sides = {"policy": policy_chances, "reference": reference_chances}
    drawn = [
        draw_selected(chances, pairs, seed=derived(seed, side), keys=keys)
        for side, chances in sides.items()
    ]
    return np.stack(drawn, axis=2)
