"""Rewards of published rivals that need no reference samples, for comparisons at equal KL.

Both read whole groups, as `GroupShapedReward` does, and like it return rewards whose leave-one-out
baseline, which RLOO subtracts, makes them the advantages of their papers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import logsumexp

from infalign import _check
from infalign.core import RankProcedure, group_rewards, group_win_rate
from infalign.stores import CalibrationStore

from .groups import group_size
from .monitor import Monitor
from .raw import raw_rewards, reward_name


@dataclass(frozen=True)
class MaxAtKReward:
    """Max@k policy gradient: E[reward of the best of k], its gradient unbiased (PKPO, Walder and
    Karkhanis, arXiv:2505.15201), as RLOO's reward.

    The raw reward in the place of the chance to win: what a unit of reward is worth differs between
    prompts and along the scale. With worst-of-n it is min@n, and with order statistics theirs.

    - `reward`: a TRL reward function; `store` only logs quantiles and win rates.
    - `procedure`: what keeps one; groups need more responses than it draws.
    - `against`: what it must beat, itself unless given; only logged.
    """

    reward: Callable[..., Sequence[float]]
    store: CalibrationStore
    procedure: RankProcedure
    against: RankProcedure | None = None
    key: str = "prompt_id"

    @cached_property
    def monitor(self) -> Monitor:
        """What logs."""
        return Monitor(self.store, None, self.procedure, self.against)

    @property
    def __name__(self):
        return f"max_at_k_{reward_name(self.reward)}"

    def __call__(self, prompts, completions, *, log_metric=None, **columns) -> list[float]:
        """One training reward per completion; completions of a group must follow each other."""
        raw, ids = raw_rewards(self.reward, prompts, completions, columns, self.key)
        rows = raw.reshape(-1, group_size(ids))
        self.monitor.log(log_metric, ids, raw)
        if log_metric is not None:
            kept = group_win_rate(rows, rows, self.procedure)  # rewards in the place of chances
            log_metric("infalign/kept_reward", float(kept.mean()))
        return group_rewards(rows, rows, self.procedure).ravel().tolist()


@dataclass(frozen=True)
class RiskSensitiveReward:
    """Exponential utility: (1/s) log E[e^{s r}] in the place of E[r] (RS-GRPO, Jiang et al.,
    arXiv:2509.24261), as RLOO's reward.

    Its gradient is E[(e^{s r} / E e^{s r} − 1)/s ∇ log π]; the mean is that of the group, as in the
    paper, which makes it slightly biased. s > 0 seeks risk and helps the best of many, s < 0 avoids
    it.

    - `reward`: a TRL reward function; `store` only logs quantiles and win rates.
    - `strength`: s, in units of 1/reward.
    - `procedure`, `against`: whose win rate is logged, from groups of as many as it draws.
    """

    reward: Callable[..., Sequence[float]]
    store: CalibrationStore
    strength: float
    procedure: RankProcedure | None = None
    against: RankProcedure | None = None
    key: str = "prompt_id"

    @cached_property
    def monitor(self) -> Monitor:
        """What logs."""
        return Monitor(self.store, None, self.procedure, self.against)

    def __post_init__(self):
        if _check.real("strength", self.strength) == 0:
            raise ValueError("`strength` must not be 0, which is the raw reward; got 0.")

    @property
    def __name__(self):
        return f"risk_sensitive_{reward_name(self.reward)}"

    def __call__(self, prompts, completions, *, log_metric=None, **columns) -> list[float]:
        """One training reward per completion; completions of a group must follow each other."""
        raw, ids = raw_rewards(self.reward, prompts, completions, columns, self.key)
        rows = raw.reshape(-1, group_size(ids))
        self.monitor.log(log_metric, ids, raw)
        if log_metric is not None:
            log_metric("infalign/utility", float(risk_utility(rows, self.strength).mean()))
        return risk_rewards(rows, self.strength).ravel().tolist()


def risk_utility(rewards: np.ndarray, strength: float) -> np.ndarray:
    """(1/s) log of the mean e^{s r} of each group, (groups,): what RS-GRPO raises."""
    scaled = strength * np.asarray(rewards, float)
    return (logsumexp(scaled, axis=1) - np.log(scaled.shape[1])) / strength


def risk_rewards(rewards: np.ndarray, strength: float) -> np.ndarray:
    """Training rewards of groups, (groups, m), that RLOO makes advantages of RS-GRPO of."""
    m = rewards.shape[1]
    scaled = strength * np.asarray(rewards, float)
    share = np.exp(scaled - logsumexp(scaled, axis=1, keepdims=True)) * m
    return (m - 1) / m * (share - 1) / strength
