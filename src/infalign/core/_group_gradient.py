"""The gradient of the inference-time win rate itself, from groups of responses to one prompt.

A procedure selects one of n responses of the policy; the selected response's chance to win is its
utility g. The mean utility ĝ over all n-subsets of a group of m responses is an unbiased estimate
of the win rate W (a U-statistic), and ĝ₋ᵢ, the mean utility of the group without response i, does
not depend on response i. By the score function

    ∇W = E[ Σᵢ (ĝ − ĝ₋ᵢ) ∇ log π(yᵢ) ],

so ĝ − ĝ₋ᵢ is the advantage of response i. It is a jackknife that is unbiased for any procedure that
selects by rank, with the group itself as the baseline. The advantages of a group sum to 0. For
best-of-n with 0/1 rewards this is pass@n policy optimization with a leave-one-out baseline (PKPO,
arXiv:2505.15201).
"""

import numpy as np

from infalign.errors import ArgumentError, DataError

from ._inputs import finite_rewards
from ._interface import RankProcedure, require_by_rank
from ._shapes import ArrayLike, Float, Real


def group_win_rate(
    rewards: Real[ArrayLike, "groups m"],
    utilities: Real[ArrayLike, "groups m"],
    procedure: RankProcedure,
) -> Float[np.ndarray, "groups"]:
    """ĝ of each group: the mean utility of the selected response over all subsets.

    - `rewards`: the rewards that the procedure selects by; any scale, ties allowed.
    - `utilities`: g of each response; equal where rewards are.

    Raises ValueError for shapes that differ, DataError for groups smaller than the procedure draws.
    """
    rewards, utilities = _groups(rewards, utilities, procedure, spare=0)
    ranked = np.take_along_axis(utilities, np.argsort(rewards, axis=1, kind="stable"), axis=1)
    return ranked @ np.diff(procedure.subset_cdf(rewards.shape[1]))


def group_rewards(
    rewards: Real[ArrayLike, "groups m"],
    utilities: Real[ArrayLike, "groups m"],
    procedure: RankProcedure,
) -> Float[np.ndarray, "groups m"]:
    """Training rewards whose leave-one-out policy gradient is the gradient of W.

    They are (m − 1)(ĝ − ĝ₋ᵢ). A trainer that subtracts the mean of the others in the group, as RLOO
    does, turns them into the advantages m(ĝ − ĝ₋ᵢ). Their mean product with ∇ log π over the group
    is an unbiased estimate of ∇W. KL terms may be subtracted first. Each group's rewards sum to 0.
    The cost grows like m log m.

    The arguments are those of `group_win_rate`, but groups need at least one response more than the
    procedure draws.

    >>> from infalign import BestOfN
    >>> group_rewards([[0.0, 1.0, 2.0]], [[0.0, 0.5, 1.0]], BestOfN(2))[0].round(3).tolist()
    [-0.333, -0.333, 0.667]
    """
    rewards, utilities = _groups(rewards, utilities, procedure, spare=1)
    m = rewards.shape[1]
    order = np.argsort(rewards, axis=1, kind="stable")
    ranked = np.take_along_axis(utilities, order, axis=1)
    chance = np.diff(procedure.subset_cdf(m - 1))
    # ĝ₋ᵢ: without the response at rank i, those below keep their ranks and those above fall by one.
    none = np.zeros((len(ranked), 1))
    below = np.hstack([none, np.cumsum(ranked[:, :-1] * chance, axis=1)])
    above = np.hstack([np.cumsum((ranked[:, 1:] * chance)[:, ::-1], axis=1)[:, ::-1], none])
    without = below + above
    # ĝ is the mean of the ĝ₋ᵢ.
    advantages = (m - 1) * (without.mean(1, keepdims=True) - without)
    in_order = np.empty_like(advantages)
    np.put_along_axis(in_order, order, advantages, axis=1)
    return in_order


def _groups(
    rewards: ArrayLike, utilities: ArrayLike, procedure: RankProcedure, *, spare: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays of the same shape, with at least `spare` more responses than the procedure
    draws."""
    remedy = "Others read the calibrated reward; no unbiased gradient is known for them."
    require_by_rank("procedure", procedure, remedy)
    rewards = finite_rewards("rewards", rewards)
    utilities = finite_rewards("utilities", utilities)
    if rewards.shape != utilities.shape:
        raise ArgumentError(
            "utilities",
            f"must have the shape of `rewards`, {rewards.shape}; got shape {utilities.shape}.",
        )
    least = procedure.draws + spare
    if rewards.shape[1] < least:
        raise DataError(
            f"{procedure.spec} needs groups of at least {least} responses"
            f"{', so that each can be left out' if spare else ''}; got {rewards.shape[1]}. "
            "Draw larger groups, or use a smaller n."
        )
    return rewards, utilities
