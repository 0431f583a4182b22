r"""Answers compared as mathematics, through the library math-verify.

An answer is reduced to a canonical value, so that "the same answer" is an equivalence: pairwise
checks are not transitive (20 % like 20 and like 0.2), and votes for one answer would depend on the
order of the responses. An expression is reduced to its values at fixed points, to 25 digits: equal
expressions have equal values everywhere, and different ones differ at a point chosen blindly.
"""

import hashlib
import logging
import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

from infalign.errors import MissingExtraError, install

from .numerals import plain
from .numeric import choice, last_box, marked_line, numeric_answer, only_number

__all__ = ["Expression", "math_answer", "require_library"]

POINTS = 3
"""Points at which expressions with variables are compared."""

PRECISION = 40
SHOWN = 25
"""Digits with which values are computed, and those that count."""

LONGEST = 400
"""Characters of the longest expression that is read as mathematics."""

_ENDLESS = re.compile(
    r"\^\s*(?:\{[^{}]*\^|[0-9{]*[0-9]{4})|[0-9]\s*\^\s*[^{]\s*\^|(?:[0-9]{4,}|[})\]!])\s*!"
    r"|\\[dt]?binom\s*\{[^{}]*[0-9]{4}|\\(?:sum|prod|int|lim)\b"
)
"""What could take forever to evaluate: towers of powers, large exponents, factorials and sums."""

_WORDS = re.compile(r"\\(?:text|textbf|textit|mathrm|mbox)\s*\{([^{}]*)\}")
_CHOICE = re.compile(r"\(?([A-J])\)?\.?|\(([a-j])\)\.?")


@dataclass(frozen=True)
class Expression:
    """An answer that is neither a rational number nor words."""

    value: Hashable
    """What equal expressions share."""

    written: str = field(compare=False)
    """How a response writes it."""

    def __str__(self):
        return self.written


def require_library() -> None:
    """Raise MissingExtraError without math-verify."""
    try:
        import math_verify  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            f'The answers "math" need math-verify. Install it with: {install("answers")}'
        ) from None


def math_answer(text: str) -> Hashable:
    r"""The answer of a response as a value that equal answers share; None if there is none.

    The answer is what is in the last `\boxed{…}`; without a box, the text after the last "answer
    is", "answer:" or "####" on the same line; without these, the last number. A number is a
    Fraction, as in `numeric_answer`; a choice such as (B) is its letter; words are compared without
    case and punctuation. Everything else is compared as mathematics: expressions, intervals, sets,
    matrices, equations and inequalities. Of x = 7 the right side counts.
    """
    given = plain(text, keep=True)
    slot = last_box(given)
    if slot is None:
        line = marked_line(given)
        if line is None:
            return numeric_answer(text)
        slot = choice(line) or line.strip("*$.: \t\r")
    slot = slot.strip()
    return _meaning(slot) if slot else None


@lru_cache(maxsize=4096)
def _meaning(slot: str) -> Hashable:
    """The canonical value of what a box holds."""
    number = only_number(plain(slot))
    if number is not None:
        return number
    letter = _CHOICE.fullmatch(_WORDS.sub(r"\1", slot))
    if letter:
        return (letter[1] or letter[2]).upper()
    if not re.search(r"[0-9=^_<>+*/|]|\\(?!text|mathrm|mbox)", slot) and re.search(r"\w{3}", slot):
        return " ".join(re.findall(r"\w+", _WORDS.sub(r" \1 ", slot).casefold()))
    as_written = re.sub(r"\s+", "", slot)
    if len(slot) > LONGEST or _ENDLESS.search(slot) or (parsed := _parsed(slot)) is None:
        return Expression(as_written, slot)
    try:
        value = _canonical(parsed)
    except Exception:  # what sympy cannot evaluate is compared as it is written
        return Expression(as_written, slot)
    return value if isinstance(value, Fraction) else Expression(value, slot)


def _parsed(slot: str):
    """The expression of a text, not evaluated; None if it is no mathematics."""
    from math_verify import LatexExtractionConfig, parse

    for name in ("math_verify.parser", "math_verify.grader"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # it warns of the missing time limit
    try:
        # Its time limit is an alarm of the process, which threads do not have and others may use.
        readings = parse(
            f"\\boxed{{{slot}}}",
            extraction_config=[LatexExtractionConfig()],
            fallback_mode="no_fallback",
            parsing_timeout=None,
        )
    except Exception:  # the parser raises errors of every kind; what it cannot read is no answer
        return None
    return readings[0] if readings and not isinstance(readings[0], str) else None


def _canonical(value) -> Hashable:
    import sympy

    if isinstance(value, sympy.Equality):
        if value.lhs.is_Symbol:
            return _canonical(value.rhs)  # x = 7
        return ("=", frozenset({_canonical(value.lhs), _canonical(value.rhs)}))
    if isinstance(value, sympy.core.relational.Relational):
        order = value.reversed if value.rel_op in (">", ">=") else value
        return (order.rel_op, _canonical(order.lhs), _canonical(order.rhs))
    if isinstance(value, sympy.FiniteSet):
        parts = frozenset(map(_canonical, value.args))
        return next(iter(parts)) if len(parts) == 1 else ("set", parts)
    if isinstance(value, sympy.Interval):
        ends = (_canonical(value.start), _canonical(value.end))
        return ("interval", *ends, bool(value.left_open), bool(value.right_open))
    if isinstance(value, sympy.Union | sympy.And | sympy.Or):
        return (type(value).__name__, frozenset(map(_canonical, value.args)))
    if isinstance(value, sympy.Tuple | tuple):
        return ("tuple", *map(_canonical, value))
    if isinstance(value, sympy.MatrixBase):
        return ("matrix", value.shape, *map(_canonical, value))
    if isinstance(value, sympy.Expr):
        return _values(value)
    return str(value)


def _values(expression) -> Hashable:
    """A rational number, or the values of an expression at fixed points."""
    symbols = sorted(expression.free_symbols, key=str)
    if not symbols:
        number = expression.doit()
        if number.is_Rational:
            return Fraction(int(number.p), int(number.q))
        return _digits(number.evalf(PRECISION))
    points = [{s: _coordinate(str(s), i) for s in symbols} for i in range(POINTS)]
    values = tuple(_digits(expression.evalf(PRECISION, subs=point)) for point in points)
    return values[0] if len(set(values)) == 1 else values  # one value: x - x + 2 is 2


def _coordinate(symbol: str, point: int):
    """A fixed number between 1/2 and 5/2, of either sign, that belongs to the variable."""
    import sympy

    seed = int.from_bytes(hashlib.sha256(f"{symbol} {point}".encode()).digest()[:8])
    size = sympy.Rational(1, 2) + sympy.Rational(seed, 2**63)
    return -size if point == 1 else size


def _digits(number) -> Hashable:
    """A number to `SHOWN` digits, as a fraction if it is one of small parts. Raises ValueError for
    what is no number."""
    import mpmath
    import sympy

    if number in (sympy.oo, -sympy.oo):
        return str(number)
    with mpmath.workdps(PRECISION):
        value = mpmath.mpmathify(number)
        parts = [value.real, value.imag]
        if not all(map(mpmath.isfinite, parts)):
            raise ValueError(f"no number: {number}")
        tiny = mpmath.mpf(10) ** -SHOWN * max(1, abs(value))
        real, imaginary = (0 if abs(part) < tiny else part for part in parts)
        if imaginary:
            return mpmath.nstr(real, SHOWN), mpmath.nstr(imaginary, SHOWN)
        shown = mpmath.nstr(real, SHOWN)
        near = Fraction(shown).limit_denominator(10**6)
        close = abs(mpmath.mpf(near.numerator) / near.denominator - real) < tiny
    return near if close else shown
