"""Tables that sort by a click, and become cards where the page is narrow."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from .document import environment, read

__all__ = ["Column", "table"]

INTERVAL = re.compile(r"([-+\d.%]+) (\[[-+\d., ]+\][†‡]?)")
"""A number with its interval."""

COLORS = 6
"""Number of colors of policies, after which they repeat."""


@dataclass(frozen=True)
class Column:
    """A column's name, and what its cells hold."""

    name: str
    words: bool = False
    """Whether it holds words, which are aligned at the left; otherwise numbers."""

    mark: bool = False
    """Whether its cells name policies, which get the colors that they have in figures."""


def table(
    title: str,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    policies: Sequence[str] = (),
    *,
    sortable: bool = True,
) -> Markup:
    """A table as markup; every cell is escaped.

    A cell such as `86.0 [83.0, 88.0]` shows its interval in small type. Rows stand alone, since
    they can be sorted: no cell may be left empty for "as above".

    - `title`: what the table shows, for those who hear it.
    - `sortable`: whether columns sort by the first number in their cells, or by words.
    - `policies`: names of policies in the order of their colors.
    """
    template = environment().from_string(read(__package__, "table.html"))
    return Markup(
        template.render(
            title=title,
            sortable=sortable,
            columns=columns,
            rows=[list(zip(columns, row, strict=True)) for row in rows],
            marks={name: index % COLORS for index, name in enumerate(policies)},
            parts=_parts,
        )
    )


def _parts(cell: str) -> tuple[str, str]:
    """A value and its interval, which is empty if there is none."""
    matched = INTERVAL.fullmatch(cell)
    return (matched[1], matched[2]) if matched else (cell, "")
