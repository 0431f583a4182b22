"""Procedures that really run: draw responses from a model, score them, keep one.

`decode` runs any procedure on any `Sampler` and `Scorer`; `keep` is the choice alone. Attacks on
the prompt, which procedures know nothing of, are in `augmentations` and `red_team`.
"""

from .answers import load_answers as load_answers
from .answers import numeric_answer as numeric_answer
from .decode import Decoded as Decoded
from .decode import decode as decode
from .decode import draw_calibration as draw_calibration
from .keep import FORMS as FORMS
from .keep import MajorityVote as MajorityVote
from .keep import keep as keep
from .keep import parse_decoder as parse_decoder
from .keep import reads as reads
