"""Published alternatives that need no reference samples, for comparisons at equal KL.

Both read whole groups, as `GroupShaper` does. RLOO subtracts a leave-one-out baseline, which turns
their training rewards into the advantages of the papers.
"""

import numpy as np
from scipy.special import logsumexp

from infalign import _check
from infalign.core import RankProcedure, group_rewards, group_win_rate, require_by_rank
from infalign.errors import ArgumentError
from infalign.stores import CalibrationStore

from .grouping import group_size, require_group
from .shaper import AbstractShaper, Batch, Shaped, calibrated

__all__ = ["MaxAtK", "RiskSensitive", "risk_rewards", "risk_utility"]


class MaxAtK(AbstractShaper):
    """Max@k policy gradient: the unbiased gradient of E[reward of the best of k] (PKPO, Walder and
    Karkhanis, arXiv:2505.15201).

    It is `GroupShaper` with the raw reward in place of the chance to win, so the weight of a unit
    of reward differs between prompts and along the scale. Worst-of-n makes it min@n; other order
    statistics are possible.

    - `store`: used for logging only.
    - `procedure`: selects one response; groups must have more responses than it draws.
    - `group`: responses per prompt in a step, as in `GroupShaper`.
    """

    def __init__(
        self, store: CalibrationStore, procedure: RankProcedure, *, group: int | None = None
    ):
        super().__init__(calibrated(store))
        self.procedure = require_by_rank("procedure", procedure)
        self.group = require_group(group, procedure)

    def _shaped(self, batch: Batch) -> Shaped:
        rows = batch.raw.reshape(-1, group_size(batch.prompt_ids, self.group))
        selected = group_win_rate(rows, rows, self.procedure).mean()  # rewards instead of chances
        value = group_rewards(rows, rows, self.procedure).ravel()
        return Shaped(batch, value, {"infalign/kept_reward": float(selected)})


class RiskSensitive(AbstractShaper):
    """Exponential utility: (1/s) log E[e^{s r}] in place of E[r] (RS-GRPO, Jiang et al.,
    arXiv:2509.24261).

    Its gradient is E[(e^{s r} / E e^{s r} − 1)/s ∇ log π]. The inner mean is taken over the group,
    as in the paper, which makes the gradient slightly biased. s > 0 seeks risk, which helps
    best-of-n; s < 0 avoids it.

    - `store`: used for logging only.
    - `strength`: s, in units of 1/reward.
    - `group`: responses per prompt in a step, at least 2; its default is that of `GroupShaper`.
    """

    def __init__(self, store: CalibrationStore, strength: float, *, group: int | None = None):
        super().__init__(calibrated(store))
        self.strength = _check.real("strength", strength)
        if self.strength == 0:
            raise ArgumentError("strength", "must not be 0, which is the raw reward; got 0.")
        self.group = require_group(group)

    def _shaped(self, batch: Batch) -> Shaped:
        rows = batch.raw.reshape(-1, group_size(batch.prompt_ids, self.group))
        utility = float(risk_utility(rows, self.strength).mean())
        value = risk_rewards(rows, self.strength).ravel()
        return Shaped(batch, value, {"infalign/utility": utility})


def risk_utility(rewards: np.ndarray, strength: float) -> np.ndarray:
    """(1/s) log of the mean e^{s r} of each group, (groups,): the objective of RS-GRPO."""
    scaled = strength * rewards
    return (logsumexp(scaled, axis=1) - np.log(scaled.shape[1])) / strength


def risk_rewards(rewards: np.ndarray, strength: float) -> np.ndarray:
    """Training rewards of groups, (groups, m), which RLOO turns into the advantages of RS-GRPO."""
    m = rewards.shape[1]
    scaled = strength * rewards
    share = np.exp(scaled - logsumexp(scaled, axis=1, keepdims=True)) * m
    return (m - 1) / m * (share - 1) / strength
