"""Procedures that really run: draw responses from a model, score them, keep one.

`decode` runs any procedure on any `Sampler` and `Scorer`; `keep` is the choice alone. Attacks on
the prompt, which procedures know nothing of, are in `augmentations` and `red_team`.
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
