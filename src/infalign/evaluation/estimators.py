"""Unbiased inference-time win rates from finite samples.

From m policy and k reference samples of a prompt, the estimate averages over *all* n-subsets of
each side: the U-statistic, unbiased and of minimum variance. Order statistics give it in
O((m + k) log(m + k)), without resampling.
"""

from functools import cache

import numpy as np

from infalign import _check
from infalign.core import AbstractProcedure, finite_rewards

from .laws import calibrated, drawn, law, rectangles, subset_cdf
from .merged import wins_between
from .uncertainty import EITHER_WAY, SKEWED, AbstractInterval, Estimate, over_prompts


def win_rate(
    policy_rewards,
    reference_rewards,
    procedure: AbstractProcedure,
    *,
    against: AbstractProcedure | None = None,
    calibration=None,
    interval: AbstractInterval = SKEWED,
) -> Estimate:
    """Chance that the policy under `procedure` beats the reference, ties counting one half.

    With A(v), B(v) the chances that the kept response of either side has a reward of at most v,
    W = Σ_v (A(v) − A(v⁻)) · ½ (B(v⁻) + B(v)).

    - `policy_rewards`, `reference_rewards`: shape (prompts, m) and (prompts, k), any scale; nan
      marks a sample that was not drawn.
    - `procedure`: how the policy is decoded.
    - `against`: how the reference is decoded; `procedure` unless given.
    - `calibration`: rewards of K further reference samples, shape (prompts, K), among which the
      calibrated reward is counted that `SoftBestOfN` and `Rewind` read; not read otherwise.
    - `interval`: how the interval is found.

    Returns the mean over prompts with its interval. Raises ValueError if a prompt has fewer
    samples than a procedure draws, and if the calibration is the reference that is judged.

    Unbiased if both procedures keep by rank. Else so for given calibrated rewards, and their errors
    add a bias of order 1/K. For a policy F(u) = u³, by simulation: −0.010, −0.006 and −0.004 for
    `SoftBestOfN(4, 0.1)` at K = 8, 16 and 32, −0.024, −0.013 and −0.007 for `SoftBestOfN(8, 0.05)`;
    for `Rewind` of either sign, as its threshold falls between the steps of 1/K, up to 0.016 at
    K = 16 and 32. The judged samples in the place of others would do 1 to 4 times as much harm.

    >>> from infalign import BestOfN
    >>> round(win_rate([[1.0, 2.0, 5.0]], [[3.0, 4.0]], BestOfN(2)).value, 9)  # 2 of 3 pairs have 5
    0.666666667
    """
    per_prompt = _per_prompt(policy_rewards, reference_rewards, procedure, against, calibration)
    return over_prompts(per_prompt, bounds=(0, 1), interval=interval)


def win_rate_difference(
    a_rewards,
    b_rewards,
    reference_rewards,
    procedure: AbstractProcedure,
    *,
    against: AbstractProcedure | None = None,
    calibration=None,
    interval: AbstractInterval = EITHER_WAY,
) -> Estimate:
    """Win rate of policy a minus that of policy b, paired by prompt.

    Both face the same reference samples, so what prompts and reference have in common cancels and
    the interval is narrower than those of the two win rates. Arguments as for `win_rate`.
    """
    a, b = (
        _per_prompt(rewards, reference_rewards, procedure, against, calibration)
        for rewards in (a_rewards, b_rewards)
    )
    return over_prompts(a - b, bounds=(-1, 1), interval=interval)


def _per_prompt(policy_rewards, reference_rewards, procedure, against, calibration):
    """The win rate of every prompt."""
    against = procedure if against is None else against
    policy = finite_rewards("policy_rewards", policy_rewards, missing=True)
    reference = finite_rewards("reference_rewards", reference_rewards, missing=True)
    if len(policy) != len(reference):
        raise ValueError(
            f"`policy_rewards` and `reference_rewards` must have one row per prompt each; "
            f"got {len(policy)} and {len(reference)} rows."
        )
    _check.enough_samples("policy_rewards", drawn(policy), procedure.draws, procedure)
    _check.enough_samples("reference_rewards", drawn(reference), against.draws, against)
    known = calibrated(calibration, reference, procedure, against)
    wins, remembered = np.empty(len(policy)), cache(subset_cdf)
    for rows, (a, b) in rectangles(policy, reference):
        some = None if known is None else known[rows]
        laws = law(procedure, a, some, remembered), law(against, b, some, remembered)
        wins[rows] = wins_between(a, b, *laws)
    return wins
