"""Reward functions for TRL: what a response is worth, from its raw reward and its prompt's store.

`ShapedReward` is the transformed quantile, InfAlign-CTRL's; `GroupShapedReward` the exact objective
from whole groups; `MonitoredReward` the raw reward; `MaxAtKReward` and `RiskSensitiveReward` are
rivals.
"""

from .group import GroupShapedReward
from .raw import checked_rewards, reward_name
from .rivals import MaxAtKReward, RiskSensitiveReward
from .transformed import MonitoredReward, ShapedReward

__all__ = [
    "GroupShapedReward",
    "MaxAtKReward",
    "MonitoredReward",
    "RiskSensitiveReward",
    "ShapedReward",
    "checked_rewards",
    "reward_name",
]
