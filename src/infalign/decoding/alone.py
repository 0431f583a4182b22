r"""The value of a number that stands alone: none where it is a part of a larger expression.

What is written around a number decides. In 10:30, 3x + 2, 5·4, (-2)^2, ±5, log 2 and (3, 4), the
first number is a part of the answer only, and so it is no answer. "3 or 5", "3 to 5", "less than 5"
and "5 or more" are no single number either, but "1/2 or 0.5" is. Units, words and the marks of
prose leave it as it is: 5 cm, 20 °C, 3rd, 5/hour, **5**. In prose, "5!" at the end of a sentence is
no factorial. "Minus" and "negative" are signs.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from .numerals import NUMBER, value

__all__ = ["alone", "last_alone"]

_VARIABLE = r"(?:(?![mgshlLVWNJACF])[A-Za-z]|[\u0370-\u03ff])(?![^\W\d_])"
"""A single letter, except those of units such as m, s and V."""

_LETTER = r"[b-hj-zB-HJ-Z](?![A-Za-z-])"
"""A single letter that is no word, as "a" and "I" are."""

_OPERAND = rf"(?:[-+]?\$?(?:[.0-9(]|\\[A-Za-z])|{_LETTER})"
_FUNCTION = r"sin|cos|tan|cot|log|ln|lg|exp|sqrt|cbrt|gcd|lcm|max|min|mod|floor|ceil|abs"
_COMMAND = (
    r"\\(?:times|cdot|div|pm|mp|[dt]?frac|binom|alpha|beta|gamma|delta|theta|lambda|phi|omega|log"
    r"|ln|sin|cos|tan|exp|cup|cap)(?![A-Za-z])"
)

_GOES_ON = re.compile(
    rf":[0-9]|_[0-9{{]|{_VARIABLE}|[A-Za-z]+[0-9]|[abcxyz]{{2,3}}\b(?<!cc)|(?:pi|{_FUNCTION})\b"
    rf"|[A-Za-z]\s?(?:[-+]|\*(?!\*))\s?{_OPERAND}| [xyz]\b"
    rf"|\*{{1,2}}{_OPERAND}| \* {_OPERAND}|\s?[÷±]"
    rf"|[-+]{_OPERAND}| [-+] {_OPERAND}"
    rf"|\s?/\s?[-+]?(?:[.0-9(]|\\[A-Za-z])|/{_VARIABLE}"
    rf"|\(\s*(?:[-+]?[.0-9\\]|{_LETTER})|\s*\)+\s*(?:[\^!(]|[*/+-]\s*{_OPERAND}|{_VARIABLE})"
    r"|!(?![\s*_\"')!\u2000-\U0001ffff]*(?:$|(?<=\s)[A-Z]))"
    rf"|\s*{_COMMAND}"
    r"|\s(?:squared|cubed|factorial)\b|\s(?:plus|minus|times|divided by|over|choose|mod)\s+-?[0-9]"
)
"""What makes a number before it the beginning of an expression."""

_BEGINS = re.compile(
    r"(?:±|\\pm|\\mp|\+/-?|\bplus(?: or |[- ])minus"
    rf"|(?:\\|\b)(?:{_FUNCTION})(?:_\{{?\w+\}}?)?[\s(]*"
    r"|\b(?:root|square|cube|factorial|reciprocal|logarithm|sine|cosine|tangent) of"
    r"|[0-9](?::(?!\s)|_|\s?[*×·÷^]\s?|\s[-+/]\s)"
    r"|(?<![^\W\d_])[b-hj-z](?:\^\{?[0-9]+\}?)?\s*[-+*/^]|[)}\]]\s*[-+*/^])\s*[\\($]*$",
    re.IGNORECASE,
)
"""What makes a number after it the end of an expression."""

_BOUND = re.compile(
    r"(?:\b(?:(?:less|more|fewer|greater|larger|smaller|lower|higher|bigger|other) than"
    r"(?: or equal to)?|at (?:least|most)|up to|between|either|not)"
    r"|(?:[<>≤≥≠]|!(?==)|\\(?:leq?|geq?|lt|gt|neq?)(?![A-Za-z]))=?)\s*[\\($*]*$",
    re.IGNORECASE,
)
"""What makes a number after it a bound, or one of several."""

_TAG = re.compile(r"</?[a-z][^<>]*>\s*$", re.IGNORECASE)
"""A mark of HTML: its > is no comparison."""

_SEVERAL = re.compile(
    r"[\s$*°%)]*(?:[^\W\d_]{2,}\s+)??(?:(?P<or>or)|and|to|through)\s+[\\($*]*(?=[-+]?[.0-9\\])"
    r"|[\s$*°%)]*(?:[^\W\d_]{2,}\s+)??or (?:more|less|fewer|greater|above|below)\b"
)
"""A word after which another number or bound follows, as in 3 or 5, and 3 cm to 5 cm."""

_TERM = re.compile(r"(?<![^\W_])[b-hj-zB-HJ-Z](?:\^\{?[0-9]+\}?)?\s?$")
_PLACE = re.compile(r"[(\[{]\s*$"), re.compile(r"\s*[,;]\s*[-+]?(?:[.0-9\\(]|[A-Za-z](?![A-Za-z]))")
_NEGATIVE = re.compile(r"\b(?:minus|negative|минус)\s+[\\($*]*$", re.IGNORECASE)


def alone(number: re.Match) -> Fraction | None:
    """The value of a match of `NUMBER` in a `plain` text; None if it is a part of an expression."""
    before, text, end = number.string[: number.start()][-80:], number.string, number.end()
    if _GOES_ON.match(text, end) or _BEGINS.search(before):
        return None
    if _BOUND.search(before) and not _TAG.search(before):
        return None
    if (more := _SEVERAL.match(text, end)) and not (more["or"] and _repeats(number, more.end())):
        return None
    opens, goes_on = _PLACE
    if opens.search(before) and goes_on.match(text, end):
        return None  # the first of a pair
    signed = number["sign"] is not None or number["inner"] is not None
    negative = _NEGATIVE.search(before) is not None
    if signed and (negative or _TERM.search(before)):
        return None
    amount = value(number)
    return -amount if negative and amount is not None else amount


def last_alone(numbers: Sequence[re.Match]) -> Fraction | None:
    """The value of the last match of `NUMBER` in a text; None if it is a part of an expression, or
    the last of several values such as 3 or 5."""
    last = numbers[-1]
    if len(numbers) > 1:
        more = _SEVERAL.match(last.string, numbers[-2].end())
        joined = more is not None and more.end() == last.start() and more["or"] is not None
        if joined and value(numbers[-2]) != value(last):
            return None
    return alone(last)


def _repeats(number: re.Match, start: int) -> bool:
    """Whether the number at `start` has the same value, as in 1/2 or 0.5."""
    other = NUMBER.match(number.string, start)
    return other is not None and value(other) == value(number)
