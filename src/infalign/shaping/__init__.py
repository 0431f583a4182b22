"""Training rewards: raw reward → quantile → shaped value.

`Shaper` is the step itself; `ShapedReward` wraps it as a reward function for TRL.
`GroupShapedReward` is the exact objective, computed from whole groups, and `MonitoredReward` is the
raw reward. `MaxAtKReward` and `RiskSensitiveReward` are published alternatives. Each places a batch
at most once (`shaper.Batch`). `AsCalibrated` gives a run's reward what calibration gave it.
"""

from .as_calibrated import AsCalibrated
from .group_shaper import GroupShaper
from .monitor import Monitor
from .reward_function import awaited, call, checked_output, constant, reward_name
from .shaper import AbstractShaper, Shaped, Shaper
from .trl import (
    GroupShapedReward,
    MaxAtKReward,
    MonitoredReward,
    RiskSensitiveReward,
    ShapedReward,
    TrainingReward,
)

__all__ = [
    "AbstractShaper",
    "AsCalibrated",
    "GroupShapedReward",
    "GroupShaper",
    "MaxAtKReward",
    "Monitor",
    "MonitoredReward",
    "RiskSensitiveReward",
    "Shaped",
    "ShapedReward",
    "Shaper",
    "TrainingReward",
    "awaited",
    "call",
    "checked_output",
    "constant",
    "reward_name",
]
