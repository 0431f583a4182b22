"""Gold rewards of the responses that a procedure selects, which reveal reward hacking.

The procedure selects by the proxy, the reward it was given. A gold reward, a length or a verdict is
then averaged over the selected responses, weighted by `chances.selection_chances`.
"""

import numpy as np

from infalign import _check
from infalign.core import finite_rewards

from .chances import selected_mean, selected_win_rate, selection_chances
from .uncertainty import EITHER_WAY, AbstractInterval, Estimate

__all__ = [
    "gold_reward",
    "gold_win_rate",
]


def gold_reward(
    values, rewards, procedure, *, calibration=None, interval: AbstractInterval = EITHER_WAY
) -> Estimate:
    """Mean of `values` over the responses that `procedure` selects by `rewards`.

    - `values`, `rewards`: shape (prompts, samples), any scale; nan marks a sample that was not
      drawn, the same in both.
    - `calibration`, `interval`: as in `win_rate`.

    >>> from infalign import BestOfN
    >>> gold_reward([[10.0, 0.0]], [[1.0, 2.0]], BestOfN(2)).value   # the proxy selects the second
    0.0
    """
    values, rewards = _same_samples("values", values, "rewards", rewards)
    chances = selection_chances(rewards, procedure, calibration=calibration)
    return selected_mean(values, chances, interval=interval)


def gold_win_rate(
    policy_values,
    policy_rewards,
    reference_values,
    reference_rewards,
    procedure,
    *,
    against=None,
    calibration=None,
    interval: AbstractInterval = EITHER_WAY,
) -> Estimate:
    """Chance that the policy's selected response has the higher value; ties count one half.

    Both sides select by their rewards; the selected responses are then compared by their values.
    Equal to `win_rate` if the values are the rewards.

    - `policy_values`, `policy_rewards`: shape (prompts, m); those of the reference (prompts, k).
    - `procedure`, `against`: how policy and reference are decoded. Default of `against`:
      `procedure`.
    - `calibration`, `interval`: as in `win_rate`.

    Raises ValueError for shapes that differ and for fewer samples than a procedure draws.
    """
    ours = _same_samples("policy_values", policy_values, "policy_rewards", policy_rewards)
    theirs = _same_samples(
        "reference_values", reference_values, "reference_rewards", reference_rewards
    )
    _check.paired_rows(policy_values=ours[0], reference_values=theirs[0])
    return selected_win_rate(
        ours[0],
        selection_chances(ours[1], procedure, calibration=calibration),
        theirs[0],
        selection_chances(theirs[1], against or procedure, calibration=calibration),
        interval=interval,
    )


def _same_samples(name, values, rewards_name, rewards) -> tuple[np.ndarray, np.ndarray]:
    values = _check.finite_matrix(name, values, missing=True)
    rewards = finite_rewards(rewards_name, rewards, missing=True)
    if values.shape != rewards.shape or (np.isnan(values) != np.isnan(rewards)).any():
        raise ValueError(
            f"`{name}` and `{rewards_name}` must belong to the same samples; got shapes "
            f"{values.shape} and {rewards.shape}, missing samples "
            f"{np.isnan(values).sum()} and {np.isnan(rewards).sum()}."
        )
    return values, rewards
