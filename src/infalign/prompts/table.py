"""A source of prompts as a table: numbered rows, by split."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from operator import itemgetter

from infalign import _check
from infalign._look import Shown
from infalign.errors import DataError

__all__ = ["Table"]

Row = tuple[int, Mapping]
"""Row number in the source, and the row's columns."""

Rows = Sequence[Row]


@dataclass(frozen=True)
class Table(Shown):
    """The rows of a file, a folder or a data set."""

    name: str
    """The source, as errors name it."""

    place: str
    """The noun of a row: line or row."""

    parts: Mapping[str | None, Rows]
    """The rows of each split; under None those that belong to every split."""

    columns: Sequence[str]
    """The columns of all rows together."""

    @classmethod
    def of_rows(cls, name: str, place: str, rows: Iterable[Row]) -> "Table":
        """A table whose rows have their split in the column `split`, or belong to every split.

        Raises DataError for a split that is not a text.
        """
        parts: dict[str | None, list[Row]] = {}
        columns: dict[str, None] = {}
        for number, row in rows:
            columns.update(dict.fromkeys(row))
            split = row.get("split")
            if split is not None and not isinstance(split, str):
                raise DataError(
                    f'{name}, {place} {number}: `split` must be a text, such as "train"; got '
                    f"{_check.short(split)}."
                )
            parts.setdefault(split, []).append((number, row))
        return cls(name, place, parts, list(columns))

    def has(self, split: str) -> bool:
        """Whether the source has a split of its own by that name."""
        return split in self.parts

    def rows(self, split: str, limit: int | None = None) -> list[Row]:
        """The first rows of a split, in the order of the source.

        Raises DataError if there are none, with the splits that there are.
        """
        own = [self.parts[name] for name in (split, None) if name in self.parts]
        rows = list(islice(merge(*own, key=itemgetter(0)), limit))
        if not rows:
            others = self.described_splits()
            raise DataError(
                f"{self.name} holds no prompts with split {split!r}"
                + (f"; its splits are {others}. Name one of them with `split`." if others else ".")
            )
        return rows

    def described_splits(self) -> str:
        """The splits with their sizes, for messages."""
        return ", ".join(f"{split} ({len(rows)})" for split, rows in self.parts.items())
