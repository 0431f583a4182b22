"""Options that commands which sample share."""

from enum import StrEnum

from infalign.models.precision import WIDE


class Answer(StrEnum):
    """What of a response is its answer."""

    whole = "whole"
    after_thinking = "after-thinking"


class Dtype(StrEnum):
    """The precision of models."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


DTYPE = (
    "Precision of policies and rewards. auto: bfloat16 for models with layers at least "
    f"{WIDE} wide where the processor multiplies it, else float32."
)
ANSWER = (
    "What rewards and answers read of a response: all of it, or the part after the thought of a "
    "model that thinks in <think>…</think> first."
)
ASK_AGAIN = (
    "Further draws, with other seeds, for a response that has no answer, such as a thought that "
    "was cut off. Default: it is an error."
)
