"""An honest verdict on samples that exist already: which policy wins, under which procedure, and
whether the data can tell."""

from .curve import Curve, Flip, curve
from .gate import Gate, Outcome, gate
from .measures import Measure, measures, read_measure
from .ranking import Pair, Ranked, Ranking, rank
from .samples import Matched, Samples, match

__all__ = [
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
    "curve",
    "gate",
    "match",
    "measures",
    "rank",
    "read_measure",
]
