"""Calibrators: reference rewards of each prompt to quantiles, from few samples.

`Counting` is the plain rank. The others share what prompts have in common; `choose` takes one of
them only where held-out reference samples say that it is better. `judge` says what a calibrator is
worth: the win rate of the policy that is trained on it.
"""

from .choice import Choice, choose
from .counting import Counting
from .in_store import StoreCalibration
from .interface import AbstractCalibrator, AbstractFitted
from .location import AbstractLocation
from .pooled import Pooled
from .refined import Refined
from .regression import QuantileRegression
from .scores import NormalScores
from .tail import TailExtrapolation

__all__ = [
    "AbstractCalibrator",
    "AbstractFitted",
    "AbstractLocation",
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
