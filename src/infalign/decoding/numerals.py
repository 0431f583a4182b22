r"""Numbers in texts: any script, sign and grouping, percent, fractions and powers of ten.

Rules where notations contradict each other:

- A comma groups digits, as in 1,234 and 12,34,567; it is no decimal comma, except after groups in
  another form: 1.234,5 and 1 234,5. Any other comma between digits, as in 3,5, makes the number
  unclear.
- A single point is a decimal point: 1.234 is 1 + 234/1000. Several points group: 1.234.567.
- Apostrophes, underscores and narrow or no-break spaces group digits in threes. A plain space does
  if a group begins with 0, as in 10 000; two numbers side by side do not look like that.
- 20 % is 1/5, not 20, and 1.5 million is 1,500,000.

An unclear number is no number: it is never read as one of its parts.
"""

import re
import unicodedata
from fractions import Fraction

__all__ = ["plain", "value"]

DIGITS = 400
"""Digits of the longest number that is read."""

SCALES = {"hundred": 10**2, "thousand": 10**3, "lakh": 10**5, "million": 10**6}
SCALES |= {"crore": 10**7, "billion": 10**9, "trillion": 10**12}

UNCLEAR = "\ue000"
"""Stands for digits and separators that can be read in several ways."""

_MINUS = "\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d"
_SIGNS = str.maketrans(
    {**dict.fromkeys(_MINUS, "-"), **dict.fromkeys("\uff0b\ufe62", "+")}
    | dict.fromkeys("\uff05\ufe6a\u066a", "%")
    | dict.fromkeys("\u2044\u2215\uff0f", "/")
    | dict.fromkeys("\u00a0\u2007\u2009\u202f", "\u2009")
    | dict.fromkeys("\u2019\u02bc\uff07", "'")
    | {"\u066b": ".", "\uff0e": ".", "\u066c": ",", "\uff0c": ",", "\uff1d": "=", "\uff1a": ":"}
    | {"\u0609": "\u2030", "\u066d": "*", "\u00d7": "*", "\u22c5": "*", "\u00b7": "*"}
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_RAISED = re.compile(r"(?<=[0-9])[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")

_TOKEN = re.compile(
    r"(?<![0-9])(?<![0-9][.,])[0-9]+"
    r"(?:[.,][0-9]+|['_\u2009 ][0-9]{3}(?![0-9]))+(?:[.,][0-9]+)*"
)
_LETTERS = "A-Za-z\u00c0-\u024f\u0370-\u052f"
_WHOLE = rf"[0-9]{{1,{DIGITS}}}(?![0-9])"
_DOWN = rf"0*[1-9][0-9]{{0,{DIGITS}}}(?![0-9])"
_DECIMAL = rf"(?:{_WHOLE}(?:\.[0-9]{{1,{DIGITS}}}(?![0-9]))?|\.[0-9]{{1,{DIGITS}}}(?![0-9]))"
NUMBER = re.compile(
    # A hyphen between words or digits is not a sign: 3-5 ends in 5.
    rf"(?<![{_LETTERS}0-9_.^])(?<!\^[{{+-])(?<!_\{{)"
    r"(?P<sign>(?<![)\]}])[+-])?(?:\\?\$ ?(?P<inner>-)?)?"
    r"(?:"
    rf"(?P<unclear>{UNCLEAR})"
    rf"|(?:(?P<mixed>{_WHOLE}) *)?\\[dt]?frac\{{(?P<latex_up>-?{_WHOLE})\}}"
    rf"\{{(?P<latex_down>{_DOWN})\}}"
    rf"|(?<!/)(?:(?P<units>{_WHOLE}) +)?(?P<up>{_WHOLE}) ?/ ?(?P<down>{_DOWN})(?!/)"
    rf"|(?P<plain>{_DECIMAL})(?:"
    r"(?P<exponent>[eE][+-]?[0-9]{1,3}(?![0-9]))"
    r"|\s*(?:[*x]|\\times|\\cdot)\s*10\s*\^\s*\{?(?P<ten>[+-]?[0-9]{1,3}(?![0-9]))\}?"
    r"|\^\{?(?P<power>[+-]?[0-9]{1,3}(?![0-9]))\}?"
    r"|(?![eE][+-]?[0-9]))"
    r")"
    r"(?P<share>\s?\\?%|\s?\u2030|\s?per\s?cent\b)?"
    r"(?i:\s(?P<scale>hundred|thousand|lakh|million|crore|billion|trillion)\b)?"
)
_ATTACHED = re.compile(r"\s*(?:π|√|∞|\\(?:pi|sqrt|infty)\b)|\s?\^(?!\s*\{?\\circ)")
_INSIDE = re.compile(
    r"(?:√|∛|\\(?:sqrt|log|ln|sin|cos|tan)(?:\[[0-9]+\])?)[\s({]*$|\}\s*\{$|\}\s*/\s*$"
)


def plain(text: str, *, keep: bool = False) -> str:
    r"""`text` with ASCII digits, signs and separators, and without groups of digits.

    - `keep`: leave what is no number that can be read, such as (3,5), as it is written.

    >>> plain("−١٢٬٣٤٥ and 2½ and 1'000")
    '-12345 and 2 1/2 and 1000'
    """
    text = text.translate(_SIGNS)
    text = text.replace("{,}", ",").replace("\\!", "").replace("\\$", "$").replace("~", " ")
    text = re.sub(r"\\[,;: ]", "\u2009", text)
    text = _RAISED.sub(lambda m: f"^{{{m[0].translate(_SUPERSCRIPTS)}}}", text)
    if not text.isascii():
        text = "".join(map(_ascii, text))
    # 2½ is two and a half.
    text = re.sub(r"(?<=[0-9])\ue001", " ", text).replace("\ue001", "")
    text = re.sub(r"\\([dt]?)frac([0-9])([0-9])", r"\\\1frac{\2}{\3}", text)

    def ungrouped(token: re.Match) -> str:
        number = _ungrouped(token)
        return token[0] if keep and number == UNCLEAR else number

    return _TOKEN.sub(ungrouped, text).replace("\u2009", " ")


def _ascii(character: str) -> str:
    if character.isascii():
        return character
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return str(digit)
    if unicodedata.category(character) == "Sc":
        return "$"
    decomposed = unicodedata.decomposition(character)
    if decomposed.startswith("<fraction>"):
        part = unicodedata.normalize("NFKC", character).replace("\u2044", "/")
        return f"\ue001{part}" if part[-1].isdigit() else character
    return character


def _ungrouped(token: re.Match) -> str:
    """Digits with separators as one number, or `UNCLEAR`."""
    text = token[0]
    parts, marks = re.split(r"[^0-9]", text), re.sub(r"[0-9]", "", text)
    if marks == ".":
        return text
    if " " in marks and not any(part[0] == "0" for part in parts[1:]):
        return text if not re.search(r"[,'_\u2009]|\..*\.", marks) else UNCLEAR
    *groups, last = list(marks)
    decimal = last in ".," and last not in groups and bool(groups)
    whole = parts[:-1] if decimal else parts
    kind = set(groups if decimal else marks)
    if len(kind) != 1 or not _groups(whole, comma=kind == {","}):
        return UNCLEAR
    return "".join(whole) + (f".{parts[-1]}" if decimal else "")


def _groups(parts: list[str], *, comma: bool) -> bool:
    """Whether digits are grouped as anyone groups them: 12,345,678 or, in India, 1,23,45,678."""
    first, *middle, last = parts
    if len(last) != 3 or first[0] == "0":
        return False
    if len(first) <= 3 and all(len(part) == 3 for part in middle):
        return True
    return comma and len(first) <= 2 and all(len(part) == 2 for part in middle)


def value(number: re.Match) -> Fraction | None:
    """The value of a match of `NUMBER` in a `plain` text; None if it is unclear, or a part of an
    expression such as 2π or √2."""
    part = {k: v for k, v in number.groupdict().items() if v}
    before, after = number.string[: number.start()], number.string
    if "unclear" in part or _ATTACHED.match(after, number.end()) or _INSIDE.search(before[-20:]):
        return None
    if "plain" in part:
        amount = Fraction(part["plain"] + part.get("exponent", ""))
        if "ten" in part:
            amount *= Fraction(10) ** int(part["ten"])
        power = int(part.get("power", 1))
        if abs(power) * len(part["plain"]) > DIGITS or (power < 0 and amount == 0):
            return None
        amount **= power
    else:
        up, down = (part.get(f"latex_{k}") or part[k] for k in ("up", "down"))
        amount = Fraction(int(up), int(down)) + int(part.get("mixed") or part.get("units") or 0)
    if "share" in part:
        amount /= 1000 if "\u2030" in part["share"] else 100
    amount *= SCALES[part["scale"].lower()] if "scale" in part else 1
    return -amount if (part.get("sign") == "-") != ("inner" in part) else amount
