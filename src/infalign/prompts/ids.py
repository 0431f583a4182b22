"""Ids of prompts: those of the source, or made from what a prompt says."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from infalign import _check
from infalign.errors import DataError

from .table import Row, Table

__all__ = ["content_key", "ids_of", "share_of"]

LENGTH = 16
"""Hexadecimal digits of an id: among a million prompts, two share one with chance 3e-8."""


def content_key(messages: Sequence[dict]) -> str:
    """A name for what a prompt says: the same in every file and in every row.

    >>> content_key([{"role": "user", "content": "How?"}])
    'p0319ec73cb5b998d'
    """
    return f"p{_digest(messages)[:LENGTH]}"


def share_of(messages: Sequence[dict]) -> float:
    """A number in [0, 1) that follows from what a prompt says, for dividing prompts in two."""
    return int(_digest(["test split", *messages])[:13], 16) / 16**13


def ids_of(
    table: Table,
    rows: Sequence[Row],
    messages: Sequence[Sequence[dict]],
    columns: Sequence[Mapping],
    id_column: str,
) -> tuple[list[str], list[str]]:
    """The ids of prompts, and notes on how they were made.

    A row without an id goes by what its prompt says. Rows with the same prompt get a suffix: their
    number if the rows are equal, or else a checksum of their other columns. So neither the name of
    the file nor the order of its rows matters. Raises DataError for ids that are no ids.
    """
    own = [_given(table, row, id_column) for row in rows]
    alike: dict[str, list[int]] = defaultdict(list)
    for i, given in enumerate(own):
        if given is None:
            alike[content_key(messages[i])].append(i)
    ids: list[str] = [given or "" for given in own]
    for key, places in alike.items():
        for i, suffix in zip(places, _suffixes([columns[i] for i in places]), strict=True):
            ids[i] = key + suffix
    made, different = sum(map(len, alike.values())), len(alike)
    notes = []
    if made:
        notes.append(f"ids follow from the prompts' text (there is no `{id_column}`)")
    if made > different:
        example = next(ids[places[1]] for places in alike.values() if len(places) > 1)
        notes.append(
            f"{made - different} of {made} prompts repeat another one; their ids have a suffix, "
            f"such as {example}"
        )
    return ids, notes


def _suffixes(columns: Sequence[Mapping]) -> list[str]:
    """What tells rows with one prompt apart."""
    sums = [_digest(dict(c))[:6] for c in columns]
    same, rank, suffixes = Counter(sums), Counter[str](), []
    for checksum in sums:
        rank[checksum] += 1
        own = f"-{checksum}" if len(same) > 1 else ""
        suffixes.append(own + (f"-{rank[checksum]}" if rank[checksum] > 1 else ""))
    return suffixes


def _given(table: Table, numbered: Row, id_column: str) -> str | None:
    number, row = numbered
    own = row.get(id_column)
    if own is None:  # also where another split of the data set has ids
        return None
    if isinstance(own, bool) or not isinstance(own, str | int) or own == "":
        raise DataError(
            f"{table.name}, {table.place} {number}: `{id_column}` must be a text or a whole "
            f"number; got {_check.short(own)}."
        )
    return str(own)


def _digest(value) -> str:
    text = json.dumps(value, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()
