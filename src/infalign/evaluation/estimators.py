"""Unbiased inference-time win rates from finite samples.

From m policy and k reference samples of a prompt, the estimate averages over *all* n-subsets of
each side: the U-statistic, unbiased and of minimum variance. Order statistics give it in
O((m + k) log(m + k)), without resampling.
"""

from functools import cache

import numpy as np

from infalign import _check
from infalign.procedures import AbstractProcedure, RankProcedure

from .uncertainty import Estimate, over_prompts


def win_rate(
    policy_rewards, reference_rewards, procedure: AbstractProcedure, *, against=None
) -> Estimate:
    """Chance that the policy under `procedure` beats the reference, ties counting one half.

    With A(v), B(v) the chances that the kept response of either side has a reward of at most v,
    W = Σ_v (A(v) − A(v⁻)) · ½ (B(v⁻) + B(v)).

    - `policy_rewards`, `reference_rewards`: shape (prompts, m) and (prompts, k), any scale; nan
      marks a sample that was not drawn.
    - `procedure`: how the policy is decoded.
    - `against`: how the reference is decoded; `procedure` unless given.

    Returns the mean over prompts with its interval. Raises ValueError if a prompt has fewer
    samples than the procedure draws.

    >>> from infalign import BestOfN
    >>> win_rate([[1.0, 2.0, 5.0]], [[3.0, 4.0]], BestOfN(2)).value   # 5 is kept in 2 of 3 pairs
    0.6666666666666666
    """
    against = against or procedure
    for name, given in (("procedure", procedure), ("against", against)):
        if not isinstance(given, RankProcedure):
            raise ValueError(
                f"`{name}` must keep by rank to be judged from samples; got {given!r}, which reads "
                "calibrated rewards. `infalign.design` has its win rate in theory."
            )
    policy = _check.finite_rewards("policy_rewards", policy_rewards, missing=True)
    reference = _check.finite_rewards("reference_rewards", reference_rewards, missing=True)
    if len(policy) != len(reference):
        raise ValueError(
            f"`policy_rewards` and `reference_rewards` must have one row per prompt each; "
            f"got {len(policy)} and {len(reference)} rows."
        )
    _check.enough_samples("policy_rewards", _drawn(policy), procedure.draws, procedure)
    _check.enough_samples("reference_rewards", _drawn(reference), against.draws, against)
    law = cache(lambda side, samples: side.subset_cdf(samples))  # the same for most prompts
    per_prompt = []
    for a, b in zip(policy, reference, strict=True):
        a, b = np.sort(a[~np.isnan(a)]), np.sort(b[~np.isnan(b)])
        per_prompt.append(_one(a, b, law(procedure, a.size), law(against, b.size)))
    return over_prompts(np.array(per_prompt))


def win_rate_difference(
    a_rewards, b_rewards, reference_rewards, procedure: AbstractProcedure, *, against=None
) -> Estimate:
    """Win rate of policy a minus that of policy b, paired by prompt.

    Both face the same reference samples, so what prompts and reference have in common cancels and
    the interval is narrower than those of the two win rates.
    """
    a = win_rate(a_rewards, reference_rewards, procedure, against=against)
    b = win_rate(b_rewards, reference_rewards, procedure, against=against)
    if a.per_prompt.size != b.per_prompt.size:
        raise ValueError(
            f"`a_rewards` and `b_rewards` must have the same prompts in the same order; "
            f"got {a.per_prompt.size} and {b.per_prompt.size} rows."
        )
    return over_prompts(a.per_prompt - b.per_prompt)


def _drawn(rewards):
    return (~np.isnan(rewards)).sum(1)


def _one(a, b, law_a, law_b) -> float:
    """One prompt's win rate from sorted rewards and the laws of what is kept of so many."""
    # Ranks of a among itself split ties evenly; only their sum over a tied value matters.
    mass = np.diff(law_a)
    below = law_b[np.searchsorted(b, a, "left")]
    up_to = law_b[np.searchsorted(b, a, "right")]
    return float(mass @ (below + up_to) / 2)
