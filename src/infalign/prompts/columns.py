"""Which columns of a table make the prompt: as configured, or by the names that people use."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from infalign import _check
from infalign._look import Shown
from infalign.config import Prompts
from infalign.errors import DataError
from infalign.shaping.signature import PASSED

from .conversations import common, opening
from .messages import BadPrompt, messages_of
from .table import Row, Table

__all__ = ["Reader", "UnclearColumnError", "other_columns", "reader_of"]

CONVERSATIONS = ("messages", "conversation", "conversations", "chosen")
"""Columns that usually hold whole conversations, with the reply that is to be written anew."""

NAMES = ("question", "instruction", "query", "problem", "input", "text", "goal", "behavior")
"""Names of prompts, after `prompt` itself."""

SYSTEM = ("system", "system_prompt", "system_message")
"""Names of columns with a system message."""

OWN = ("split", *PASSED)
"""Columns that rewards do not get, or get in another way, or that an argument of TRL hides."""

REMEDY = (
    "Name it with `prompts.column` in a configuration, or --column of a command with --prompts."
)


@dataclass(frozen=True)
class Reader(Shown):
    """Makes the messages of a row."""

    column: str
    """The column of the prompt; of a preference pair, the chosen response."""

    read: Callable[[dict], Any]
    """The text or the messages of a row; raises BadPrompt."""

    how: str
    """What is read, for a note: `column "question"`."""

    system_column: str | None = None
    system: str | None = None
    """The system message of all rows."""

    def messages(self, row: dict) -> tuple[list[dict], bool]:
        """The messages of a row, and whether they are one text. Raises BadPrompt."""
        value = self.read(row)
        messages = messages_of(value)
        words = row.get(self.system_column) if self.system_column else self.system
        if words is None or words == "":
            return messages, isinstance(value, str)
        if not isinstance(words, str) or not words.strip():
            raise BadPrompt(
                f"has a system message, `{self.system_column}`, that must be a text; got "
                f"{_check.short(words)}"
            )
        if messages[0]["role"] == "system":
            raise BadPrompt(
                f"begins with a system message of its own, {_check.short(messages[0]['content'])}; "
                "give one of the two (`prompts.system`, `prompts.system_column`)"
            )
        return [{"role": "system", "content": words}, *messages], False

    @property
    def notes(self) -> list[str]:
        """What was decided by names."""
        system = f", system messages in `{self.system_column}`" if self.system_column else ""
        return [f"{self.how}{system}"] if system or self.column != "prompt" else []


class UnclearColumnError(DataError):
    """No column, or several, can hold the prompt by name; a column must be stated."""

    def __init__(self, message: str, rows: Sequence[Row], filled: dict[str, int]) -> None:
        super().__init__(message)
        self.rows = len(rows)

        self.examples: dict[str, Any] = {
            name: next((r[name] for _, r in rows if r.get(name) not in (None, "", [])), "")
            for name in filled
        }
        """Each column's first value."""


def reader_of(table: Table, rows: Sequence[Row], source: Prompts) -> Reader:
    """How the rows of a table are read.

    Raises DataError if a configured column is missing, and if names leave several columns open or
    none.
    """
    filled = _filled(table, rows)
    system_column = _system_column(table, rows, filled, source)
    of_csv = table.name.removesuffix(".gz").endswith((".csv", ".tsv"))
    column, read, how = _column(table, rows, filled, source.column, of_csv)
    return Reader(column, read, how, system_column, source.system)


def _filled(table: Table, rows: Sequence[Row]) -> dict[str, int]:
    """The columns, and in how many rows each has a value."""
    counts = dict.fromkeys(table.columns, 0)
    for _, row in rows:
        for name, value in row.items():
            counts[name] += value is not None and value != "" and value != []
    return counts


def _column(
    table: Table, rows: Sequence[Row], filled: dict[str, int], stated: str | None, of_csv: bool
) -> tuple[str, Callable[[dict], Any], str]:
    if stated is not None and stated not in filled:
        raise UnclearColumnError(
            f"{_at(table, rows)}: there is no column `{stated}`. {_columns(filled)}", rows, filled
        )
    name = stated if stated is not None else _by_name(table, rows, filled)
    rejected = next((c for c in filled if c.lower() == "rejected"), None)
    if name.lower() == "chosen" and rejected is not None:
        return (
            name,
            lambda row: common(row.get(name), row.get(rejected)),
            f"the common beginning of `{name}` and `{rejected}`",
        )
    value = (lambda row: _unpacked(row.get(name))) if of_csv else (lambda row: row.get(name))
    if name.lower() in CONVERSATIONS:
        return name, lambda row: opening(value(row)), f"column `{name}`, without a reply at the end"
    return name, value, f"column `{name}`"


def _by_name(table: Table, rows: Sequence[Row], filled: dict[str, int]) -> str:
    """The column that holds the prompt by its name."""
    if "prompt" in filled:
        return "prompt"
    usual = [c for c in filled if filled[c] and c.lower() in ("prompt", *NAMES, *CONVERSATIONS[:3])]
    if not usual:
        usual = [c for c in filled if filled[c] and c.lower() == "chosen"]
    if not usual:
        raise UnclearColumnError(
            f"{_at(table, rows)}: no column has the name of a prompt (prompt, "
            f"{', '.join((*NAMES, *CONVERSATIONS))}). {_columns(filled)}",
            rows,
            filled,
        )
    if len(usual) > 1:
        raise UnclearColumnError(
            f"{_at(table, rows)}: several columns have the name of a prompt: "
            f"{', '.join(f'`{c}`' for c in usual)}. {REMEDY} If the prompt is in several, write "
            "them into one.",
            rows,
            filled,
        )
    return usual[0]


def _system_column(
    table: Table, rows: Sequence[Row], filled: dict[str, int], source: Prompts
) -> str | None:
    if source.system_column is not None:
        if source.system_column and source.system_column not in filled:
            raise DataError(
                f"{_at(table, rows)}: there is no column `{source.system_column}`, which "
                f"`prompts.system_column` names. Its columns are {_listed(filled)}."
            )
        return source.system_column or None
    if source.system is not None:
        return None
    usual = [c for c in filled if filled[c] and c.lower() in SYSTEM]
    if len(usual) > 1:
        raise DataError(
            f"{_at(table, rows)}: several columns have the name of a system message: "
            f"{', '.join(f'`{c}`' for c in usual)}. Name one with `prompts.system_column`."
        )
    return usual[0] if usual else None


def other_columns(table: Table, column: str) -> list[str]:
    """The columns that travel with the prompts: all but those that make the prompt itself."""
    return [n for n in table.columns if n not in OWN and not n == column == "prompt"]


def _unpacked(value):
    """The messages in a cell of a table, written as JSON; any other text as it is."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            items = json.loads(value)
        except (ValueError, RecursionError):
            return value
        if all(
            isinstance(i, dict) and ({"role", "content"} <= i.keys() or "from" in i) for i in items
        ):
            return items
    return value


def _at(table: Table, rows: Sequence[Row]) -> str:
    return f"{table.name}, {table.place} {rows[0][0]}"


def _columns(filled: dict[str, int]) -> str:
    return f"Its columns are {_listed(filled)}. {REMEDY}"


def _listed(filled: dict[str, int]) -> str:
    return _check.short(", ".join(sorted(map(str, filled))), 200).strip("'\"")
