"""An honest verdict on samples that exist already: which policy wins, under which procedure, and
whether the data can tell."""

from infalign.evaluation.ranking import Pair, Ranked, Ranking, rank

from .analysis import Analysis, analyze
from .curve import Curve, Flip, curve
from .forecasts import Forecasts, forecast
from .gate import Gate, Outcome, assert_not_worse, gate
from .judging import Judgment, judge
from .lengths import equal_lengths
from .measures import Measure, measures, read_measure
from .reading import read_samples
from .samples import Matched, Samples, match
from .verdicts import Verdicts, join_verdicts, read_verdicts

__all__ = [
    "Analysis",
    "Curve",
    "Flip",
    "Forecasts",
    "Gate",
    "Judgment",
    "Matched",
    "Measure",
    "Outcome",
    "Pair",
    "Ranked",
    "Ranking",
    "Samples",
    "Verdicts",
    "analyze",
    "assert_not_worse",
    "curve",
    "equal_lengths",
    "forecast",
    "gate",
    "join_verdicts",
    "judge",
    "match",
    "measures",
    "rank",
    "read_measure",
    "read_samples",
    "read_verdicts",
]
