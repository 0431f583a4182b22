"""Calibrators: quantiles of rewards, estimated from a few reference rewards per prompt.

`Counting` is the plain rank; the others pool what prompts have in common. `choose` selects one of
them only if it predicts held-out reference samples better. `assessment` computes the win rate of
the policy that is trained on a calibrator.
"""

from .choice import Choice, choose
from .counting import Counting
from .in_store import StoreCalibration
from .interface import AbstractCalibrator, AbstractFitted
from .placement import AbstractPlacement
from .pooled import Pooled
from .refined import Refined
from .regression import QuantileRegression
from .scores import NormalScores
from .tail import TailExtrapolation

__all__ = [
    "AbstractCalibrator",
    "AbstractFitted",
    "AbstractPlacement",
    "Choice",
    "Counting",
    "NormalScores",
    "Pooled",
    "QuantileRegression",
    "Refined",
    "StoreCalibration",
    "TailExtrapolation",
    "choose",
]
