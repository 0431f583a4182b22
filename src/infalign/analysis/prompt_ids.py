"""Ids of prompts: one id is one prompt, in however many files it occurs."""

import json
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from infalign import _check
from infalign.errors import DataError

from .columns import CONTENTS, Columns
from .rows import Row

__all__ = ["prompt_id", "prompt_ids"]

Place = tuple[tuple[Any, ...], Row]
"""The texts of a prompt, and a row that has them."""


def prompt_ids(
    rows: Sequence[Row], columns: Columns, *, by_task: bool = False
) -> tuple[list[str], list[str]]:
    """The id of each row's prompt, and notes for the user.

    The id is task/id if some id occurs in several tasks, as where each of them counts from 1.

    - `by_task`: always put the task before the id.

    Raises DataError for an id with different texts.
    """
    ids = [prompt_id(row, columns.prompt) for row in rows]
    notes = []
    if columns.task is not None:
        shared = 0 if columns.prompt in CONTENTS else _in_several_tasks(rows, ids, columns.task)
        if shared:
            notes.append(
                f"{shared:,} ids occur in several tasks, so prompts are "
                f"`{columns.task}`/`{columns.prompt}`"
            )
        if shared or by_task:
            ids = [
                f"{prompt_id(row, columns.task)}/{own}" for row, own in zip(rows, ids, strict=True)
            ]
    texts = [_texts(row, columns.texts) for row in rows]
    _require_one_text(rows, ids, texts, columns)
    if columns.prompt not in CONTENTS and not any(texts):
        notes += _in_several_files(rows, ids)
    return ids, [*notes, *_repeated(ids, texts, columns)]


def prompt_id(row: Row, column: str) -> str:
    """The id of a row's prompt; a text or messages are their own id."""
    value = row.values.get(column)
    if value is None or value == "":
        raise DataError(f"{row}: no value in `{column}`, which says what the prompt is.")
    if isinstance(value, str):
        return value
    if isinstance(value, Integral):
        return str(int(value))  # not by way of a float, which has 53 bits
    if isinstance(value, Real):
        number = float(value)
        return str(int(number)) if number.is_integer() else str(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _in_several_tasks(rows: Sequence[Row], ids: Sequence[str], column: str) -> int:
    """Number of ids that several tasks have."""
    tasks: dict[str, set[str]] = {}
    for row, own in zip(rows, ids, strict=True):
        tasks.setdefault(own, set()).add(str(row.values.get(column)))
    return sum(len(own) > 1 for own in tasks.values())


def _in_several_files(rows: Sequence[Row], ids: Sequence[str]) -> list[str]:
    """A note of the ids that several files have, if there are any."""
    files: dict[str, set[str]] = {}
    for row, own in zip(rows, ids, strict=True):
        files.setdefault(own, set()).add(row.file)
    shared = sum(len(own) > 1 for own in files.values())
    if not shared:
        return []
    return [
        f"{shared:,} of {len(files):,} ids occur in several of {len(set.union(*files.values())):,} "
        "files and are taken as the same prompts there; no column has the prompts' texts"
    ]


def _repeated(ids: Sequence[str], texts: Sequence[tuple[Any, ...]], columns: Columns) -> list[str]:
    """A note of ids that share a text, if there are any; other columns may tell them apart."""
    own = {i: json.dumps(text, default=str) for i, text in zip(ids, texts, strict=True) if text}
    if not (again := len(own) - len(set(own.values()))):
        return []
    named = " and ".join(f"`{_check.visible(name)}`" for name in columns.texts)
    return [
        f"{again:,} of {len(own):,} ids have {named} of another id; if they are the same prompts, "
        "intervals are too narrow"
    ]


def _texts(row: Row, columns: Sequence[str]) -> tuple[Any, ...]:
    """What a row says of its prompt; empty if nothing."""
    values = tuple(row.values.get(column) for column in columns)
    return () if all(value is None or value == "" for value in values) else values


def _require_one_text(
    rows: Sequence[Row], ids: Sequence[str], texts: Sequence[tuple[Any, ...]], columns: Columns
) -> None:
    first: dict[str, Place] = {}
    other: dict[str, Place] = {}
    for row, own, text in zip(rows, ids, texts, strict=True):
        if text and first.setdefault(own, (text, row))[0] != text:
            other.setdefault(own, (text, row))
    if other:
        raise DataError(_different_texts(first, other, len(set(ids)), columns))


def _different_texts(
    first: Mapping[str, Place], other: Mapping[str, Place], total: int, columns: Columns
) -> str:
    """What is wrong with ids that have different texts, and what to do."""
    own, (text, row) = next(iter(other.items()))
    before, place = first[own]
    column = next(name for name, a, b in zip(columns.texts, before, text, strict=True) if a != b)
    one, another = (_check.short(r.values.get(column)) for r in (place, row))
    return (
        f"{len(other):,} of {total:,} ids in `{columns.prompt}` have different prompts in "
        f"`{column}`: {_check.short(own)} is {one} ({place}) and {another} ({row}). Take the text "
        f"as the id (--column prompt={_check.visible(column)}), name the column that tells them "
        "apart (--column task=NAME) or, if the id is right, one that is the same: --column "
        f"prompt-text={_check.visible(columns.prompt)}"
    )
