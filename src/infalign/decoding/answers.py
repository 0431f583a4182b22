r"""Extraction of answers from responses, for majority votes: by default the final number of a text.

Responses agree if their answers are equal, however they are written: 1,000 equals 1000 and 1000.0;
0.5 equals 1/2 and \frac{1}{2}.
"""

import re
from collections.abc import Callable, Hashable
from fractions import Fraction

from infalign.models.functions import python_function

Answers = Callable[[str], Hashable]
"""Response text → answer, any hashable value; None or nan if there is no answer."""

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,130}(?![0-9])|[0-9]{1,400}(?![0-9]))"
_WHOLE_OR_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]{{1,400}})?|\.[0-9]{{1,400}})"
_NUMBER = re.compile(
    # A hyphen between words or digits is not a sign: 3-5 ends in 5.
    r"(?<![\w.])(?P<sign>(?<![)\]}])[+-])?(?:\\?[$€£] ?(?P<inner>-)?)?"
    r"(?:"
    rf"(?:(?P<mixed>{_DIGITS}) *)?\\[dt]?frac\{{(?P<latex_up>-?{_DIGITS})\}}"
    r"\{(?P<latex_down>0*[1-9][0-9]{0,400})\}"
    rf"|(?<!/)(?:(?P<units>{_DIGITS}) +)?(?P<up>{_DIGITS}) ?/ ?"
    r"(?P<down>0*[1-9][0-9]{0,400})(?![0-9/])"
    rf"|(?P<plain>{_WHOLE_OR_DECIMAL})"
    r"(?:(?P<exponent>[eE][+-]?[0-9]{1,3}(?![0-9]))|(?![eE][+-]?[0-9]))"
    r")"
)
_MARKER = re.compile(r"(?:\banswer\b\W{0,4}(?:is\b|:|=)|####)", re.IGNORECASE)
_SPACING = re.compile(r"\\[,!;: ]|\{,\}|(?<=[0-9])[\u00a0\u202f\u2009](?=[0-9]{3})")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_SHORT_FRACTION = re.compile(r"\\[dt]?frac([0-9])([0-9])")


def numeric_answer(text: str) -> Fraction | None:
    r"""The exact number in a response's answer; None if there is none.

    The answer is the number in the last `\boxed{…}`; without a box, the first number after the last
    "answer is", "answer:" or "####" on the same line; without these, the last number in the text.
    In an equation such as "3 + 4 = 7" the number after the last equals sign counts. Commas group
    thousands; signs, decimals, exponents and fractions (1/2, \frac{1}{2}, 2 1/2) are read.
    Currencies, units and percent signs are ignored: 20 and 20% are the same answer. A box without a
    number gives None.

    >>> str(numeric_answer("6 boxes of 200 eggs, so the answer is 1,200."))
    '1200'
    >>> numeric_answer(r"Thus \boxed{\frac{1}{2}}, not 3.") == numeric_answer("0.50")
    True
    """
    text = _SPACING.sub(lambda m: "," if m[0] == "{,}" else "", text.replace("\u2212", "-"))
    text = _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text)
    box = _last_box(text)
    if box is not None:
        return _first(box)
    marks = list(_MARKER.finditer(text))
    marked = _first(text[marks[-1].end() :].partition("\n")[0]) if marks else None
    if marked is not None:
        return marked
    numbers = list(_NUMBER.finditer(text))
    return _value(numbers[-1]) if numbers else None


def load_answers(spec: str) -> Answers:
    """The answer extraction that `spec` names: `numeric`, or `python:package.module:function`.

    Raises DataError when there is no such function.
    """
    return numeric_answer if spec == "numeric" else python_function(spec, "answers")


def _first(text: str) -> Fraction | None:
    number = _NUMBER.search(text.rpartition("=")[2]) or _NUMBER.search(text)
    return _value(number) if number else None


def _last_box(text: str) -> str | None:
    """The text inside the last complete box."""
    boxes = {m.end() for m in _BOX.finditer(text)}
    last: tuple[int, int] | None = None
    opened: list[int] = []
    for brace in re.finditer("[{}]", text):
        if brace[0] == "{":
            opened.append(brace.end())
        elif opened and (start := opened.pop()) in boxes and (last is None or start > last[0]):
            last = start, brace.start()
    return None if last is None else text[slice(*last)]


def _value(match: re.Match) -> Fraction:
    part = {k: v.replace(",", "") for k, v in match.groupdict().items() if v}
    if "plain" in part:
        value = Fraction(part["plain"] + part.get("exponent", ""))
    else:
        up, down = (part.get(f"latex_{k}") or part[k] for k in ("up", "down"))
        value = Fraction(int(up), int(down)) + int(part.get("mixed") or part.get("units") or 0)
    return -value if (part.get("sign") == "-") != ("inner" in part) else value
