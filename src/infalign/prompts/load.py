"""The prompts of one source, checked."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from infalign import _check
from infalign.config import Prompts
from infalign.demo import bundled
from infalign.errors import DataError

from .files import file_rows
from .hub import hub_rows
from .messages import BadPrompt, messages_of, opening
from .prompt import Prompt

OWN = ("prompt_id", "split")
"""Columns that rewards do not get, or get in another way."""

COLUMN = "Name another column with --column, or `prompts.column` in the configuration."


def load_prompts(source: Prompts) -> list[Prompt]:
    """The prompts of one source.

    A prompt is a text, which is one message of the user, or a list of chat messages that ends with
    the user's. The texts keep their white space. Rows without a `split`, or with null there, belong
    to every split. The other columns of the source become the prompts' `columns`, in every prompt
    the same; a row without one has None there.

    Raises DataError with file and row for a source that is missing, empty or unreadable, for a
    prompt that is neither, and for duplicate ids.
    """
    if source.file:
        path = bundled(source.file, "prompts") or Path(source.file)
        name, (place, rows) = source.file, file_rows(path)
    else:
        place, (name, rows) = "row", hub_rows(source)
    splits = [_split(name, place, i, row) for i, row in rows]
    chosen = [row for row, split in zip(rows, splits, strict=True) if split in (None, source.split)]
    if not chosen:
        others = ", ".join(f"{split} ({n})" for split, n in Counter(splits).items())
        raise DataError(
            f"{name} holds no prompts with split {source.split!r}"
            + (f"; its splits are {others}. Name one of them with `split`." if others else ".")
        )
    columns = _other_columns((row for _, row in rows), source.column)
    prompts = [
        _prompt(name, place, i, row, source.column, columns) for i, row in chosen[: source.limit]
    ]
    ids = [p.id for p in prompts]
    if len(set(ids)) < len(ids):
        duplicate = next(i for i, count in Counter(ids).items() if count > 1)
        raise DataError(
            f"{name} has prompt_id {duplicate!r} more than once ({len(ids) - len(set(ids))} of "
            f"{len(ids)} ids are duplicates). Give every prompt an id of its own."
        )
    return prompts


def _split(name: str, place: str, number: int, row: Mapping) -> str | None:
    split = row.get("split")
    if split is not None and not isinstance(split, str):
        raise DataError(
            f'{name}, {place} {number}: `split` must be a text, such as "train"; got '
            f"{_check.short(split)}."
        )
    return split


def _other_columns(rows: Iterable[Mapping], column: str) -> list[str]:
    """The columns of all rows but those that make the prompt itself."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [n for n in names if n not in OWN and not n == column == "prompt"]


def _prompt(
    name: str, place: str, number: int, row: Mapping, column: str, columns: Sequence[str]
) -> Prompt:
    value = row.get(column)
    if value is None and isinstance(row.get("chosen"), str):
        value = opening(row["chosen"])  # preference pairs contain the prompt
    try:
        messages = messages_of(value)
    except BadPrompt as error:
        advice = f" Its columns are {', '.join(sorted(row))}. {COLUMN}" if value is None else ""
        raise DataError(f"{name}, {place} {number}: `{column}` {error}.{advice}") from None
    return Prompt(
        _id(name, place, number, row),
        tuple(messages),
        {name: row.get(name) for name in columns},
        plain=isinstance(value, str),
    )


def _id(name: str, place: str, number: int, row: Mapping) -> str:
    own = row.get("prompt_id")
    if own is None:  # also where another split of the data set has ids
        return f"{Path(name.removesuffix('.gz')).stem}-{number}"
    if isinstance(own, bool) or not isinstance(own, str | int) or own == "":
        raise DataError(
            f"{name}, {place} {number}: `prompt_id` must be a text or a whole number; got "
            f"{_check.short(own)}."
        )
    return str(own)
