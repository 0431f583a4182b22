"""Calibrators: reference rewards of each prompt to quantiles, from few samples.

`Counting` is the plain rank. The others share what prompts have in common; `choose` takes one of
them only where held-out reference samples say that it is better. `judge` says what a calibrator is
worth: the win rate of the policy that is trained on it.
"""

from .choose import Choice as Choice
from .choose import choose as choose
from .counting import Counting as Counting
from .in_store import StoreCalibration as StoreCalibration
from .interface import AbstractCalibrator as AbstractCalibrator
from .interface import AbstractFitted as AbstractFitted
from .pooled import Pooled as Pooled
from .refined import Refined as Refined
from .regression import QuantileRegression as QuantileRegression
from .scores import NormalScores as NormalScores
from .tail import TailExtrapolation as TailExtrapolation
