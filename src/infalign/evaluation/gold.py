"""What another reward says of the responses that a procedure keeps: where reward hacking shows.

The procedure keeps by the reward it was given, the proxy; a gold reward, a length or a verdict is
read off what it keeps. With the chance of each sample to be the one kept, averaged over all subsets
of the samples (`selection_chances`), every such figure is a weighted mean: unbiased, and no
subset is ever drawn.
"""

import numpy as np

from infalign import _check
from infalign.core import finite_rewards

from .chances import selection_chances
from .uncertainty import EITHER_WAY, SKEWED, AbstractInterval, Estimate, over_prompts


def gold_reward(
    values, rewards, procedure, *, calibration=None, interval: AbstractInterval = EITHER_WAY
) -> Estimate:
    """Mean of `values` over the responses that `procedure` keeps by `rewards`.

    - `values`, `rewards`: shape (prompts, samples), any scale; nan marks a sample that was not
      drawn, the same in both.
    - `calibration`, `interval`: as in `win_rate`.

    >>> from infalign import BestOfN
    >>> gold_reward([[10.0, 0.0]], [[1.0, 2.0]], BestOfN(2)).value   # the proxy keeps the second
    0.0
    """
    values, rewards = _pair("values", values, "rewards", rewards)
    chances = selection_chances(rewards, procedure, calibration=calibration)
    return over_prompts(np.nansum(chances * values, axis=1), interval=interval)


def gold_win_rate(
    policy_values,
    policy_rewards,
    reference_values,
    reference_rewards,
    procedure,
    *,
    against=None,
    calibration=None,
    interval: AbstractInterval = SKEWED,
) -> Estimate:
    """Chance that what the policy keeps has the higher value, ties counting one half.

    Both sides keep by their rewards; only then are the kept responses compared by their values.
    Equal to `win_rate` where the values are the rewards.

    - `policy_values`, `policy_rewards`: shape (prompts, m); those of the reference (prompts, k).
    - `procedure`, `against`: how policy and reference are decoded; the same unless given.
    - `calibration`, `interval`: as in `win_rate`.

    Raises ValueError for shapes that differ and for fewer samples than a procedure draws.
    """
    ours = _pair("policy_values", policy_values, "policy_rewards", policy_rewards)
    theirs = _pair("reference_values", reference_values, "reference_rewards", reference_rewards)
    if len(ours[0]) != len(theirs[0]):
        raise ValueError(
            "`policy_values` and `reference_values` must have one row per prompt each; "
            f"got {len(ours[0])} and {len(theirs[0])} rows."
        )
    kept = selection_chances(ours[1], procedure, calibration=calibration)
    selected_theirs = selection_chances(theirs[1], against or procedure, calibration=calibration)
    return selected_win_rate(ours[0], kept, theirs[0], selected_theirs, interval=interval)


def selected_win_rate(
    policy_values,
    policy_chances,
    reference_values,
    reference_chances,
    *,
    interval: AbstractInterval = SKEWED,
) -> Estimate:
    """Chance that the policy's value is the higher one, each side kept with the given chances.

    - `policy_values`, `policy_chances`: shape (prompts, m); those of the reference (prompts, k).
      Rows of chances sum to 1, and are 0 where a value is nan.
    """
    columns = (policy_values, policy_chances, reference_values, reference_chances)
    wins = np.array([_beats(*row) for row in zip(*columns, strict=True)])
    return over_prompts(wins, bounds=(0, 1), interval=interval)


def _beats(a, chance_a, b, chance_b) -> float:
    """P(a > b) + ½ P(a = b) for values drawn with the given chances; nan has none."""
    order = np.argsort(b)  # nan last
    below = np.concatenate([[0.0], np.cumsum(chance_b[order])])
    ranked, known = b[order], ~np.isnan(a)
    low = below[np.searchsorted(ranked, a[known], "left")]
    up_to = below[np.searchsorted(ranked, a[known], "right")]
    return float(chance_a[known] @ (low + up_to) / 2)


def _pair(name, values, rewards_name, rewards):
    values = _check.finite_matrix(name, values, missing=True)
    rewards = finite_rewards(rewards_name, rewards, missing=True)
    if values.shape != rewards.shape or (np.isnan(values) != np.isnan(rewards)).any():
        raise ValueError(
            f"`{name}` and `{rewards_name}` must belong to the same samples; got shapes "
            f"{values.shape} and {rewards.shape}, missing samples "
            f"{np.isnan(values).sum()} and {np.isnan(rewards).sum()}."
        )
    return values, rewards
