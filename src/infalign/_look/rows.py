"""Lists of results that are shown as one table."""

from dataclasses import fields
from typing import Any, TypeVar

from infalign import _check

from .pictured import Pictured, table
from .shown import SCREEN, brief

T = TypeVar("T")

MOST = 30
"""Largest number of rows that are shown."""

WIDE = 40
"""Largest number of characters of a cell."""


class Rows(list[T], Pictured):
    """A list of dataclasses of one kind, one row each."""

    __slots__ = ()

    def _columns(self) -> dict[str, list[Any]]:
        names = [field.name for field in fields(self[0])] if self else []  # type: ignore[arg-type]
        return {name: [getattr(row, name) for row in self] for name in names}

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """The head, and the first rows as texts."""
        columns = self._columns()
        shown = [[_text(value) for value in column[:MOST]] for column in columns.values()]
        return list(columns), [list(cells) for cells in zip(*shown, strict=True)]

    def __repr__(self) -> str:
        head, rows = self._cells()
        if not rows:
            return "[]"
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in (head, *rows)
        ]
        while sum(len(line) + 1 for line in lines) > SCREEN:
            lines.pop()
        rest = len(self) - len(lines) + 1
        return "\n".join([*lines, *([f"… {len(self):,} rows in all"] if rest else [])])

    def _table(self) -> str:
        head, rows = self._cells()
        if len(self) > len(rows):
            rows.append([f"… {len(self):,} rows in all", *[""] * (len(head) - 1)])
        return table(head, rows)


def _text(value: object) -> str:
    if not isinstance(value, str):
        return brief(value, WIDE)
    text = _check.visible(value[:WIDE])
    return text if len(text) <= WIDE and len(value) <= WIDE else f"{text[: WIDE - 1]}…"
