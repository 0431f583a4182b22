"""Reading the reply of a language model that judges."""

import re

from infalign._thinking import answer_after_thinking

__all__ = ["read_verdict"]

VERDICTS = {"a": 1.0, "b": 0.0, "tie": 0.5}

_MARKUP = str.maketrans("", "", "*_`")
_WRAPPING = " \t\n\r\"'“”‘’«»()[]{}<>.,:;!#"
_VERDICT = re.compile(
    r"((the )?(final |better )?(answer|verdict|choice|response|assistant|option)( is)?[\s:]*)*"
    rf"[{re.escape(_WRAPPING)}]*(?P<word>a|b|tie)"
)


def read_verdict(reply: str) -> float | None:
    """The verdict in a reply, or None if it is not readable.

    A thought before the answer is skipped, as by `answer_after_thinking`. The rest must be A, B or
    tie alone, in any case. Emphasis, quotes, brackets and punctuation around the word do not
    matter, nor do the words that name it: answer, verdict, choice, response, assistant or option.
    Anything else, such as a reason or two verdicts, is not readable.

    >>> read_verdict("A."), read_verdict("Answer: **[[B]]**"), read_verdict("<think>B?</think> Tie")
    (1.0, 0.0, 0.5)
    >>> read_verdict("A is better"), read_verdict("A and B"), read_verdict("<think>A")
    (None, None, None)
    """
    answer = answer_after_thinking(reply)
    if answer is None:
        return None
    plain = answer.translate(_MARKUP).strip(_WRAPPING).lower()
    match = _VERDICT.fullmatch(plain)
    return None if match is None else VERDICTS[match["word"]]
