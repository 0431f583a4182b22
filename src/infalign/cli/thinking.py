"""Options that commands which sample share."""

from enum import StrEnum


class Answer(StrEnum):
    """What of a response is its answer."""

    whole = "whole"
    after_thinking = "after-thinking"


ANSWER = (
    "What rewards and answers read of a response: all of it, or the part after the thought of a "
    "model that thinks in <think>…</think> first."
)
ASK_AGAIN = (
    "Further draws, with other seeds, for a response that has no answer, such as a thought that "
    "was cut off. Default: it is an error."
)
