"""Unbiased inference-time win rates from finite samples.

From m policy and k reference samples of a prompt, the estimate averages over *all* n-subsets of
each side. This U-statistic is unbiased and has minimum variance. Order statistics give it in
O((m + k) log(m + k)), without resampling.
"""

from functools import cache

import numpy as np

from infalign import _check
from infalign.core import AbstractProcedure, finite_rewards, require_procedure

from .laws import calibrated, drawn, law, rectangles, subset_cdf
from .merged import wins_between
from .uncertainty import EITHER_WAY, AbstractInterval, Estimate, over_prompts

__all__ = ["win_rate", "win_rate_difference"]


def win_rate(
    policy_rewards,
    reference_rewards,
    procedure: AbstractProcedure,
    *,
    against: AbstractProcedure | None = None,
    calibration=None,
    interval: AbstractInterval = EITHER_WAY,
) -> Estimate:
    """Chance that the policy under `procedure` beats the reference; ties count one half.

    W = Σ_v (A(v) − A(v⁻)) · ½ (B(v⁻) + B(v)), where A(v) and B(v) are the chances that the
    selected response of the policy and of the reference has a reward of at most v.

    - `policy_rewards`, `reference_rewards`: shape (prompts, m) and (prompts, k), any scale; nan
      marks a sample that was not drawn.
    - `procedure`: how the policy is decoded.
    - `against`: how the reference is decoded. Default: `procedure`.
    - `calibration`: rewards of K further reference samples, shape (prompts, K), which calibrate the
      rewards for `SoftBestOfN` and `Rewind`; ignored by other procedures.
    - `interval`: the method for the interval.

    Returns the mean over prompts with its interval. Raises ValueError if a prompt has fewer samples
    than a procedure draws, or if the calibration rewards are the reference rewards.

    The estimate is unbiased if both procedures select by rank. For other procedures it is unbiased
    given the calibrated rewards, whose errors add a bias of order 1/K. For a policy F(u) = u³,
    simulation gives −0.010, −0.006 and −0.004 for `SoftBestOfN(4, 0.1)` at K = 8, 16 and 32, and
    −0.024, −0.013 and −0.007 for `SoftBestOfN(8, 0.05)`. For `Rewind` the bias has either sign, as
    its threshold falls between multiples of 1/K, and reaches 0.016 at K = 16 and 32. Calibrating
    with the judged samples themselves would be 1 to 4 times as biased.

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

    Both policies face the same reference samples. The difficulty of prompts and the noise of the
    reference therefore cancel, and the interval is narrower than the intervals of the two win
    rates. Arguments as for `win_rate`.
    """
    a, b = (
        _per_prompt(rewards, reference_rewards, procedure, against, calibration, name)
        for name, rewards in (("a_rewards", a_rewards), ("b_rewards", b_rewards))
    )
    return over_prompts(a - b, bounds=(-1, 1), interval=interval)


def _per_prompt(
    policy_rewards,
    reference_rewards,
    procedure: AbstractProcedure,
    against: AbstractProcedure | None,
    calibration,
    name: str = "policy_rewards",
) -> np.ndarray:
    """The win rate of every prompt; `name` is the argument name of the policy's rewards."""
    require_procedure("procedure", procedure)
    against = procedure if against is None else require_procedure("against", against)
    policy = finite_rewards(name, policy_rewards, missing=True)
    reference = finite_rewards("reference_rewards", reference_rewards, missing=True)
    _check.paired_rows(**{name: policy, "reference_rewards": reference})
    _check.enough_samples(name, drawn(policy), procedure.draws, procedure)
    _check.enough_samples("reference_rewards", drawn(reference), against.draws, against)
    checked = calibrated(calibration, reference, procedure, against)
    wins, by_rank = np.empty(len(policy)), cache(subset_cdf)
    for rows, (a, b) in rectangles(policy, reference):
        own = None if checked is None else checked[rows]
        wins[rows] = wins_between(
            a, b, law(procedure, a, own, by_rank), law(against, b, own, by_rank)
        )
    return wins
