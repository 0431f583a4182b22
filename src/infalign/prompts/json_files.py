"""Rows of a JSON file: a list of prompts, or an object that holds one."""

import json
from pathlib import Path

from infalign import _check
from infalign.errors import DataError
from infalign.json_lines import value_of, why_not

from .columns import CONVERSATIONS, NAMES
from .table import Row

__all__ = ["is_lines", "is_list", "json_rows"]

SPLITS = ("train", "test", "validation", "valid", "val", "dev", "eval", "holdout")
"""Names under which objects hold one list per split."""

NAMES_OF_TEXTS = ("prompt", *NAMES, "example", "item", "data", "row")
"""Names under which a list of texts is one of prompts, also in the plural."""


def json_rows(text: str, path: Path) -> list[Row]:
    """The rows of a list of objects or texts; of an object with such a list; of one list per split,
    as in {"train": […], "test": […]}; or of one list per column. They are numbered from 1.

    Raises DataError with file and row for anything else.
    """
    value = _value(text, path)
    if isinstance(value, list):
        return list(enumerate(_objects(value, path), 1))
    if not isinstance(value, dict):
        raise DataError(
            f'{path} must hold a list of prompts, such as [{{"prompt": "How?"}}]; got '
            f"{_check.short(value)}."
        )
    if any(_is_prompt(name, own) for name, own in value.items()):
        return [(1, value)]
    lists = {name: own for name, own in value.items() if _is_list_of_prompts(name, own)}
    if lists and all(name.lower().startswith(SPLITS) for name in lists):
        rows = [
            {**row, "split": name} for name, own in lists.items() for row in _objects(own, path)
        ]
        return list(enumerate(rows, 1))
    if columns := _columns(value, path):
        return list(enumerate(columns, 1))
    if len(lists) == 1:
        return list(enumerate(_objects(next(iter(lists.values())), path), 1))
    if lists:
        raise DataError(
            f"{path} is an object with {len(lists)} lists, {_names(lists)}, and it is not clear "
            "which of them holds the prompts. Write one list of objects."
        )
    if any(
        isinstance(own, dict) and own and all(k.isdigit() for k in own) for own in value.values()
    ):
        raise DataError(
            f"{path} holds one object per column, {_names(value)}, as pandas writes them. Write "
            'one object per row, with: to_json(FILE, orient="records", lines=True).'
        )
    return [(1, value)]


def is_list(text: str) -> bool:
    """Whether the text of a file is one JSON list, not JSON Lines."""
    return text.lstrip(" \t\r\n").startswith("[")


def is_lines(text: str) -> bool:
    """Whether the text of a file is JSON Lines: its first line is an object, with others below."""
    first, _, rest = text.strip(" \t\r\n").partition("\n")
    try:
        return bool(rest) and isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _value(text: str, path: Path):
    try:
        return value_of(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}: not JSON ({error.msg}, column {error.colno})."
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: {why_not(error)}.") from None


def _holds_rows(value) -> bool:
    """Whether a value is a list of texts or objects, and not one conversation."""
    if not isinstance(value, list) or not value or _is_conversation(value):
        return False
    return all(isinstance(i, dict) for i in value) or all(isinstance(i, str) for i in value)


def _is_list_of_prompts(name: str, value) -> bool:
    """Whether the value under a name is a list of rows; texts are, under a name of prompts."""
    return _holds_rows(value) and (
        isinstance(value[0], dict) or name.lower().rstrip("s") in (*NAMES_OF_TEXTS, *SPLITS)
    )


def _is_prompt(name: str, value) -> bool:
    """Whether an object has a prompt of its own, so that it is one row."""
    usual = name.lower() in ("prompt", *NAMES, *CONVERSATIONS)
    return usual and (
        isinstance(value, str) or (isinstance(value, list) and _is_conversation(value))
    )


def _is_conversation(value: list) -> bool:
    return bool(value) and all(
        isinstance(item, dict) and {"role", "content"} <= item.keys() for item in value
    )


def _objects(items: list, path: Path) -> list[dict]:
    rows = [{"prompt": item} if isinstance(item, str) else item for item in items]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(
                f"{path}, row {number}: neither an object nor a text: {_check.short(row)}. Each "
                'must be an object, such as {"prompt": "How?"}.'
            )
    return rows


def _columns(value: dict, path: Path) -> list[dict]:
    """The rows of an object with one list per column; none for others.

    Raises DataError if one of the lists holds the prompts, and others have another length.
    """
    lists = [own for own in value.values() if isinstance(own, list)]
    if not 1 < len(lists) == len(value) or any(map(_is_conversation, lists)):
        return []
    lengths = {name: len(own) for name, own in value.items()}
    if len(set(lengths.values())) != 1:
        if sum(_is_list_of_prompts(name, own) for name, own in value.items()) != 1:
            return []
        said = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        raise DataError(
            f"{path} has one list per column, of different lengths: {said[:100]}. "
            "Write lists of one length, or one object per prompt."
        )
    return [dict(zip(value, row, strict=True)) for row in zip(*lists, strict=True)]


def _names(values: dict) -> str:
    return _check.short(", ".join(values), 100).strip("'")
