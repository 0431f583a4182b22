"""Reward functions for TRL: what a response is worth, from its raw reward and its prompt's store.

`ShapedReward` is the transformed quantile, InfAlign-CTRL's; `GroupShapedReward` the exact objective
from whole groups; `MonitoredReward` the raw reward; `MaxAtKReward` and `RiskSensitiveReward` are
rivals.
"""

from .group import GroupShapedReward as GroupShapedReward
from .raw import checked_rewards as checked_rewards
from .raw import reward_name as reward_name
from .rivals import MaxAtKReward as MaxAtKReward
from .rivals import RiskSensitiveReward as RiskSensitiveReward
from .transformed import MonitoredReward as MonitoredReward
from .transformed import ShapedReward as ShapedReward
