"""The gradient of the inference-time win rate itself, from groups of responses to one prompt.

A procedure keeps one of n responses of the policy, and the chance of the kept one to win is its
utility g. The mean utility ĝ over all n-subsets of a group of m responses is an unbiased estimate
of the win rate W (a U-statistic); ĝ₋ᵢ, that of the group without response i, does not depend on i.
By the score function

    ∇W = E[ Σᵢ (ĝ − ĝ₋ᵢ) ∇ log π(yᵢ) ],

so ĝ − ĝ₋ᵢ is what response i was worth to its group: a jackknife, unbiased for any procedure that
keeps by rank, with the group itself as the baseline. The advantages of a group sum to 0. For
best-of-n with 0/1 rewards this is pass@n policy optimization with a leave-one-out baseline
(PKPO, arXiv:2505.15201).
"""

import numpy as np

from infalign.errors import DataError

from ._inputs import finite_rewards
from ._procedures import RankProcedure


def group_win_rate(rewards, utilities, procedure: RankProcedure) -> np.ndarray:
    """ĝ of each group, shape (groups,): mean utility of the kept one over all subsets.

    - `rewards`: what the procedure keeps by, shape (groups, m), any scale, ties allowed.
    - `utilities`: g of each response, shape (groups, m); equal where rewards are.

    Raises ValueError for shapes that differ and groups smaller than the procedure draws.
    """
    rewards, utilities = _groups(rewards, utilities, procedure.draws, procedure)
    ranked = np.take_along_axis(utilities, np.argsort(rewards, axis=1, kind="stable"), axis=1)
    return ranked @ np.diff(procedure.subset_cdf(rewards.shape[1]))


def group_rewards(rewards, utilities, procedure: RankProcedure) -> np.ndarray:
    """Training rewards whose leave-one-out policy gradient is that of W, shape (groups, m).

    (m − 1)(ĝ − ĝ₋ᵢ): a trainer that subtracts the mean of the others in the group, as RLOO does,
    makes of it the advantage m(ĝ − ĝ₋ᵢ), and of its mean over the group ∇W. KL terms may be
    subtracted before. Each group's rewards sum to 0. Time grows as m log m.

    Arguments as of `group_win_rate`; groups need one response more than the procedure draws.

    >>> from infalign import BestOfN
    >>> group_rewards([[0.0, 1.0, 2.0]], [[0.0, 0.5, 1.0]], BestOfN(2))[0].round(3).tolist()
    [-0.333, -0.333, 0.667]
    """
    rewards, utilities = _groups(rewards, utilities, procedure.draws + 1, procedure)
    m = rewards.shape[1]
    order = np.argsort(rewards, axis=1, kind="stable")
    ranked = np.take_along_axis(utilities, order, axis=1)
    chance = np.diff(procedure.subset_cdf(m - 1))
    # Without the response at rank i those below keep their ranks, and those above fall by one.
    none = np.zeros((len(ranked), 1))
    below = np.hstack([none, np.cumsum(ranked[:, :-1] * chance, axis=1)])
    above = np.hstack([np.cumsum((ranked[:, 1:] * chance)[:, ::-1], axis=1)[:, ::-1], none])
    without = below + above
    worth = (m - 1) * (without.mean(1, keepdims=True) - without)
    found = np.empty_like(worth)
    np.put_along_axis(found, order, worth, axis=1)
    return found


def _groups(rewards, utilities, least: int, procedure: RankProcedure):
    if not isinstance(procedure, RankProcedure):
        raise ValueError(
            f"`procedure` must keep by rank, such as BestOfN(4); got {procedure!r}. Others read "
            "the calibrated reward, of which no unbiased gradient is known."
        )
    rewards = finite_rewards("rewards", rewards)
    utilities = finite_rewards("utilities", utilities)
    if rewards.shape != utilities.shape:
        raise ValueError(
            f"`utilities` must have the shape of `rewards`, {rewards.shape}; got {utilities.shape}."
        )
    if rewards.shape[1] < least:
        raise DataError(
            f"{procedure.spec} needs groups of at least {least} responses, of which each can be "
            f"left out; got {rewards.shape[1]}. Raise `num_generations`, or use a smaller n."
        )
    return rewards, utilities
