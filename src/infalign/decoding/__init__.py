"""Procedures that run: draw responses from a model, score them, select one.

`decode` runs any procedure on any `Sampler` and `Scorer`; `select` is only the selection step.
Attacks that change the prompt are in `infalign.red_team`.
"""

from .answers import load_answers, numeric_answer
from .decode import Decoded, decode, draw_calibration
from .selection import FORMS, MajorityVote, parse_decoder, reads, select

__all__ = [
    "FORMS",
    "Decoded",
    "MajorityVote",
    "decode",
    "draw_calibration",
    "load_answers",
    "numeric_answer",
    "parse_decoder",
    "reads",
    "select",
]
