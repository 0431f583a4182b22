"""An honest verdict on samples that exist already: which policy wins, under which procedure, and
whether the data can tell."""

from .analysis import Analysis, analyze
from .curve import Curve, Flip, curve
from .gate import Gate, Outcome, gate
from .measures import Measure, measures, read_measure
from .ranking import Pair, Ranked, Ranking, rank
from .reading import read_samples
from .samples import Matched, Samples, match

__all__ = [
    "Analysis",
    "Curve",
    "Flip",
    "Gate",
    "Matched",
    "Measure",
    "Outcome",
    "Pair",
    "Ranked",
    "Ranking",
    "Samples",
    "analyze",
    "curve",
    "gate",
    "match",
    "measures",
    "rank",
    "read_measure",
    "read_samples",
]
