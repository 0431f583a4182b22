"""Rows of comma- and tab-separated files. Every value is a text; an empty cell has no value."""

import csv
import io
from collections import Counter
from pathlib import Path

from infalign import _check
from infalign.errors import DataError

from .table import Row

__all__ = ["csv_rows"]

LONGEST_CELL = 2**31 - 1
"""Largest number of characters of a cell; Python's default refuses long prompts."""


def csv_rows(text: str, path: Path, delimiter: str) -> list[Row]:
    """The rows of a table whose first line names the columns, each under the line it begins in.

    A first column without a name, such as the index that pandas writes, is left out. Raises
    DataError with file and line for a row of another length, for names that are empty or occur
    twice, and for quotes that are not closed.
    """
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    names: list[str] = []
    line = 1
    try:
        for cells in reader:
            begins, line = line, reader.line_num + 1
            if not cells:
                continue
            if not names:
                names = _header(cells, path, begins, delimiter)
                continue
            if len(cells) != len(names):
                raise DataError(
                    f"{path}, line {begins}: {len(cells)} cells for {len(names)} columns "
                    f"({_listed(names)}), first {_check.short(cells[0])}. Put texts with "
                    "separators, quotes or line breaks between double quotes."
                )
            row = {n: c or None for n, c in zip(names, cells, strict=True) if n}
            rows.append((begins, row))
    except csv.Error as error:
        raise DataError(
            f"{path}, line {line}: not a row of a table ({error}). A text with quotes goes between "
            'double quotes, and its own quotes are doubled: "She said ""no"".".'
        ) from None
    return rows


def _header(cells: list[str], path: Path, line: int, delimiter: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    unnamed = [number for number, name in enumerate(names, 1) if not name]
    if unnamed and unnamed != [1]:
        raise DataError(f"{path}, line {line}: column {unnamed[-1]} has no name. Name it.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"{path}, line {line}: the column {_check.short(twice[0])} occurs twice. Rename one."
        )
    other = next((c for c in ";\t,|" if c != delimiter and c in names[0]), None)
    if len(names) == 1 and other:
        raise DataError(
            f"{path}, line {line}: one column, {_check.short(names[0])}, with {other!r} in its "
            f"name. Are cells separated by {other!r}? "
            + ("Name the file .tsv." if other == "\t" else f"Separate them by {delimiter!r}.")
        )
    return names


def _listed(names: list[str]) -> str:
    return _check.short(", ".join(names)).strip("'")
