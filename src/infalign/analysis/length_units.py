"""Lengths that are compared have one unit: tokens are never compared with characters."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from infalign import _check

__all__ = [
    *("CHARACTERS", "NOTHING", "Differences", "Length", "Lengths"),
    *("differences_in_one_unit", "length_of", "lengths_in_one_unit", "unit_words"),
]

CHARACTERS = "characters"
"""Unit of the lengths of texts."""

TOKENS = "tokens"

NOTHING = frozenset(("", "none", "null", "nan", "na", "n/a"))
"""Words for a missing value, in lower case."""

COUNTS = re.compile(r"token|char|length|(^|_)len(_|$)", re.I)
"""Names of columns whose texts may be numbers, as a CSV file has them."""


class Lengths(NamedTuple):
    """The lengths of all samples in one unit; none if some sample has none."""

    rows: Sequence[Sequence[float]] | None
    """A row for each prompt."""

    unit: str | None
    note: str | None = None
    """What a reader should know of the choice."""


def lengths_in_one_unit(
    column: str | None,
    in_column: Sequence[Sequence[float]],
    of_texts: Sequence[Sequence[float]],
    invalid: str | None = None,
) -> Lengths:
    """The lengths in a column if all samples have one there, or else those of all responses, in
    characters, or else none.

    - `column`: its name, if there is one.
    - `in_column`, `of_texts`: the two lengths of each sample; nan where there is none.
    - `invalid`: a value in the column that is no length, and its place, for the note.
    """
    total = sum(map(len, in_column))
    missing, without_text = (int(sum(np.isnan(r).sum() for r in x)) for x in (in_column, of_texts))
    if column is not None and total and not missing:
        return Lengths(in_column, _unit(column))
    lacking = []
    if column is not None:
        such = "" if invalid is None else f", such as {invalid}"
        lacking.append(f"`{column}` gives none for {missing:,} of {total:,} samples{such}")
    if total and not without_text:
        chosen = "lengths are those of the responses, in characters: "
        return Lengths(of_texts, CHARACTERS, chosen + lacking[0] if lacking else None)
    if without_text < total:
        lacking.append(f"{without_text:,} of {total:,} samples have no response")
    note = f"lengths are left out: {', and '.join(lacking)}" if lacking else None
    return Lengths(None, None, note)


def _unit(column: str) -> str:
    """The unit that a column's name says, or the name itself."""
    known = {"token": TOKENS, "char": CHARACTERS}
    return next((unit for part, unit in known.items() if part in column.lower()), column)


def unit_words(unit: str | None) -> str:
    """A unit in a sentence; one that is the name of a column is marked as such."""
    if unit is None:
        return "a unit without a name"
    return unit if unit in (TOKENS, CHARACTERS) else f"the unit of `{_check.visible(unit)}`"


class Length(NamedTuple):
    """The length of a response."""

    size: float
    """nan if it is unknown."""

    unit: str


class Differences(NamedTuple):
    """Lengths of first responses minus those of second ones, in one unit."""

    values: np.ndarray
    """nan where a length is unknown, and everywhere if the units differ."""

    unit: str | None
    note: str | None = None
    """Why the lengths are left out, for the user."""


def length_of(value: Any, column: str) -> Length:
    """The length of a response by a value of a column: a text, or a number that is a length.

    In a column whose name says a count, such as `tokens_a`, a text that is a number is one too.
    """
    if isinstance(value, str) and COUNTS.search(column):
        try:
            value = float(value)
        except ValueError:
            value = None if value.strip().lower() in NOTHING else value
    if isinstance(value, str):
        return Length(float(len(value)), CHARACTERS)
    size = math.nan
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            size = float(value)
        except OverflowError:
            size = math.inf
    return Length(size if 0 <= size < math.inf else math.nan, _unit(column))


def differences_in_one_unit(pairs: Sequence[tuple[Length, Length]]) -> Differences:
    """The difference of the lengths of each pair; all are left out, with a note, if two lengths
    have different units. Columns of numbers whose names say no unit have the same one."""
    values = np.array([first.size - second.size for first, second in pairs], float)
    units = [
        _pair_unit(first.unit, second.unit)
        for (first, second), value in zip(pairs, values, strict=True)
        if not math.isnan(value)
    ]
    counted = Counter(units)
    if len(counted) <= 1 and all(own.one for own in counted):
        return Differences(values, units[0].words if units else None)
    shown = ", ".join(f"in {own.words} for {count:,}" for own, count in counted.most_common(4))
    return Differences(
        np.full(len(pairs), math.nan),
        None,
        f"lengths are left out: those of {len(units):,} verdicts are {shown}. The responses of all "
        "verdicts must be texts, or counts in one unit",
    )


class _PairUnit(NamedTuple):
    """The unit of the two lengths of a pair."""

    words: str
    one: bool
    """Whether it is the same on both sides."""


def _pair_unit(first: str, second: str) -> _PairUnit:
    if first == second:
        return _PairUnit(first, True)
    if {first, second} & {TOKENS, CHARACTERS}:
        return _PairUnit(f"{unit_words(first)} against {unit_words(second)}", False)
    return _PairUnit(f"{first} and {second}", True)
