"""Rewards of published rivals that need no reference samples, for comparisons at equal KL.

Both read whole groups, as `GroupShapedReward` does, and like it return rewards whose leave-one-out
baseline, which RLOO subtracts, makes them the advantages of their papers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from infalign import _check
from infalign.calibration.store import CalibrationStore
from infalign.groups import group_rewards
from infalign.procedures import RankProcedure

from .group import group_size
from .raw import log_calibration, raw_rewards, reward_name


@dataclass(frozen=True)
class MaxAtKReward:
    """Max@k policy gradient: E[reward of the best of k], its gradient unbiased (PKPO, Walder and
    Karkhanis, arXiv:2505.15201), as RLOO's reward.

    The raw reward in the place of the chance to win: what a unit of reward is worth differs between
    prompts and along the scale. With worst-of-n it is min@n, and with order statistics theirs.

    - `reward`: a TRL reward function; `store` only logs quantiles.
    - `procedure`: what keeps one; groups need more responses than it draws.
    """

    reward: Callable[..., Sequence[float]]
    store: CalibrationStore
    procedure: RankProcedure
    key: str = "prompt_id"

    @property
    def __name__(self):
        return f"max_at_k_{reward_name(self.reward)}"

    def __call__(self, prompts, completions, *, log_metric=None, **columns) -> list[float]:
        """One training reward per completion; completions of a group must follow each other."""
        raw, ids = raw_rewards(self.reward, prompts, completions, columns, self.key)
        log_calibration(self.store, ids, raw, log_metric)
        rows = raw.reshape(-1, group_size(ids))
        return group_rewards(rows, rows, self.procedure).ravel().tolist()


@dataclass(frozen=True)
class RiskSensitiveReward:
    """Exponential utility: (1/s) log E[e^{s r}] in the place of E[r] (RS-GRPO, Jiang et al.,
    arXiv:2509.24261), as RLOO's reward.

    Its gradient is E[(e^{s r} / E e^{s r} − 1)/s ∇ log π]; the mean is that of the group, as in the
    paper, which makes it slightly biased. s > 0 seeks risk and helps the best of many, s < 0 avoids
    it.

    - `strength`: s, in units of 1/reward.
    """

    reward: Callable[..., Sequence[float]]
    store: CalibrationStore
    strength: float
    key: str = "prompt_id"

    def __post_init__(self):
        if _check.real("strength", self.strength) == 0:
            raise ValueError("`strength` must not be 0, which is the raw reward; got 0.")

    @property
    def __name__(self):
        return f"risk_sensitive_{reward_name(self.reward)}"

    def __call__(self, prompts, completions, *, log_metric=None, **columns) -> list[float]:
        """One training reward per completion; completions of a group must follow each other."""
        raw, ids = raw_rewards(self.reward, prompts, completions, columns, self.key)
        log_calibration(self.store, ids, raw, log_metric)
        return risk_rewards(raw.reshape(-1, group_size(ids)), self.strength).ravel().tolist()


def risk_rewards(rewards: np.ndarray, strength: float) -> np.ndarray:
    """Training rewards of groups, (groups, m), that RLOO makes advantages of RS-GRPO of."""
    m = rewards.shape[1]
    scaled = strength * np.asarray(rewards, float)
    share = np.exp(scaled - logsumexp(scaled, axis=1, keepdims=True)) * m
    return (m - 1) / m * (share - 1) / strength
