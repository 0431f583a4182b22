"""The number that a response gives as its answer, and where in a response its answer is."""

import re
from fractions import Fraction

from .alone import alone, last_alone
from .numerals import NUMBER, plain

__all__ = ["choice", "last_box", "marked_line", "numeric_answer", "only_number"]

_NOUN = "answer|respuesta|réponse|reponse|antwort|risposta|resposta|ответ|الجواب|الإجابة|उत्तर"
_VERB = "is|es|est|ist|lautet|è|é|هو|هي|है"
_MARKER = re.compile(
    rf"(?:\b(?:{_NOUN})\b\W{{0,4}}(?:(?:{_VERB})\b|:|=)|(?:答案|答え|答|정답)\W{{0,4}}(?:是|为|為|は|은|는|:|=)|####)",
    re.IGNORECASE,
)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_CHOICE = re.compile(
    r"[\s*$:]{0,6}(?:\\(?:text|textbf|mathrm|mbox)\s*\{)?(?:[Oo]ption |[Cc]hoice )?"
    r"(?:\((?P<inside>[A-Ja-j])\)|(?P<bare>[A-J])(?=\s*(?:[).:*$}\]]|$)))"
)
_UNIT = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mbox|operatorname)\s*\{([^{}0-9]*)\}(?:\^\{?[0-9]\}?)?"
)
_WRAPPED = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_LOOSE_SIGN = re.compile(r"^([\s*:($]{0,8})([+-])\s+(?=[0-9.\\$])")
_AGAIN = re.compile(r"[0-9].*?(?:\b(?:or|and)|,)\s*\$?[A-Za-z]\s*=\s*[\\($-]*[.0-9]")
"""A second equation for a letter: x = 3 or x = 5."""

_EQUALS = re.compile("(?<![<>!])=")
_AROUND = re.compile(
    r"(?:\s|[.,;:(){}\[\]$°*]|\\(?:left|right|quad|qquad|displaystyle|degree)\b|\^?\{?\\circ\}?"
    r"|[^\W\d_]{2,}+(?:\^\{?[0-9]\}?)?)*+"
)


def numeric_answer(text: str) -> Fraction | None:
    r"""The exact number in a response's answer; None if there is none.

    The answer is the number in the last `\boxed{…}`; without a box, the first number after the last
    "answer is", "answer:" or "####" on the same line; without these, the last number in the text.
    In an equation such as "3 + 4 = 7" the number after the last equals sign counts. Numbers are
    read in any script: signs, grouped digits, decimals, exponents, fractions (1/2, \frac{1}{2},
    2 1/2, ½) and percent, so that 20 % is 1/5. Currencies and units are ignored. `numerals` states
    the rules where notations contradict each other, and `alone` which numbers are parts of an
    expression, such as 10:30 and 3x + 2, or one of several: a response has no numeric answer then.

    None is not 0 and not an empty text: such a response does not vote. A box that holds more than
    one number, a variable or a root has no numeric answer; `math_answer` compares those.

    >>> str(numeric_answer("6 boxes of 200 eggs, so the answer is 1,200."))
    '1200'
    >>> numeric_answer(r"Thus \boxed{\frac{1}{2}}, not 3.") == numeric_answer("0.50")
    True
    """
    text = plain(text)
    box = last_box(text)
    if box is not None:
        return only_number(box)
    line = marked_line(text)
    if line is not None:
        if choice(line) or _AGAIN.search(line):
            return None
        number = _first(line)
        if number is not None:
            return alone(number)
    numbers = list(NUMBER.finditer(text))
    return last_alone(numbers) if numbers else None


def only_number(text: str) -> Fraction | None:
    """The number that is all there is in a `plain` text, apart from units; else None."""
    if _AGAIN.search(text):
        return None
    text = _WRAPPED.sub(r" \1 ", _UNIT.sub(" ", _right_side(text)))
    text = _LOOSE_SIGN.sub(r"\1\2", text)
    numbers = list(NUMBER.finditer(text))
    if len(numbers) != 1:
        return None
    rest = (text[: numbers[0].start()], text[numbers[0].end() :])
    return alone(numbers[0]) if all(map(_AROUND.fullmatch, rest)) else None


def choice(text: str) -> str | None:
    """The letter of a choice that a text begins with, such as (B), B. or B); else None."""
    letter = _CHOICE.match(text)
    return (letter["inside"] or letter["bare"]).upper() if letter else None


def marked_line(text: str) -> str | None:
    """What follows the last "answer is" on its line; None without such a mark."""
    marks = list(_MARKER.finditer(text))
    return text[marks[-1].end() :].partition("\n")[0] if marks else None


def last_box(text: str) -> str | None:
    """The text inside the last complete box."""
    boxes = {m.end() for m in _BOX.finditer(text)}
    last: tuple[int, int] | None = None
    opened: list[int] = []
    for brace in re.finditer(r"(?<!\\)[{}]", text):
        if brace[0] == "{":
            opened.append(brace.end())
        elif opened and (start := opened.pop()) in boxes and (last is None or start > last[0]):
            last = start, brace.start()
    return None if last is None else text[slice(*last)]


def _right_side(text: str) -> str:
    """What follows the last equals sign that is no part of a comparison, as <= and != are."""
    return _EQUALS.split(text)[-1]


def _first(text: str) -> re.Match | None:
    last = _LOOSE_SIGN.sub(r"\1\2", _right_side(text))
    return NUMBER.search(last) or NUMBER.search(text)
