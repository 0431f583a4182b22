"""The lengths of a source have one unit: tokens and characters are never compared."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["CHARACTERS", "Lengths", "lengths_in_one_unit"]

CHARACTERS = "characters"
"""Unit of the lengths of texts."""


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
    known = {"token": "tokens", "char": CHARACTERS}
    return next((unit for part, unit in known.items() if part in column.lower()), column)
