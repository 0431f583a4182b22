"""The prompts of one source, checked."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infalign._look import Shown
from infalign.config import Prompts
from infalign.demo import bundled
from infalign.errors import DataError

from .columns import other_columns, reader_of
from .conversations import TURN
from .files import file_table
from .hub import hub_table
from .ids import ids_of
from .messages import BadPrompt
from .prompt import Prompt
from .table import Row, Table

__all__ = ["Loaded", "load_prompts", "read_table", "require_readable", "say", "table_of"]

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded(Shown):
    """Prompts, and what a user should know about how they were read."""

    prompts: list[Prompt]
    notes: list[str]


def load_prompts(source: Prompts, folder: Path | None = None) -> list[Prompt]:
    """The prompts of one source.

    A prompt is a text, which is one message of the user, or a list of chat messages that ends with
    the user's. The texts keep their white space. Rows without a `split`, or with null there, belong
    to every split. The other columns of the source become the prompts' `columns`, in every prompt
    the same; a row without one has None there. What was decided by names is logged.

    - `folder`: where a relative file is looked for first, before the working directory.

    Raises DataError with file and row for a source that is missing, empty or unreadable, for a
    prompt that is neither, and for duplicate ids.
    """
    table = table_of(source, folder)
    loaded = read_table(table, table.rows(source.split, source.limit), source)
    whole = [] if table.parts.keys() != {None} else ["no row has a split, so all are used"]
    say(table.name, [*loaded.notes, *whole])
    return loaded.prompts


def require_readable(source: Prompts, folder: Path | None = None) -> None:
    """Raise DataError unless a source has rows and a column that can be read as prompts. The rows
    themselves are not checked."""
    table = table_of(source, folder)
    reader_of(table, table.rows(source.split, source.limit), source)


def say(name: str, notes: Sequence[str]) -> None:
    """Log what was decided about the prompts of a source."""
    if notes:
        LOG.info("Prompts of %s: %s.", name, "; ".join(notes))


def table_of(source: Prompts, folder: Path | None = None) -> Table:
    """The rows of a source, not yet read as prompts. Raises DataError."""
    if not source.file:
        return hub_table(source)
    own = bundled(source.file, "prompts")
    if own is None:
        places = [Path(source.file)]
        if folder is not None:
            places.insert(0, folder / source.file)
        own = next((place for place in places if place.exists()), places[-1])
    return file_table(own, source.file)


def read_table(table: Table, rows: Sequence[Row], source: Prompts) -> Loaded:
    """Rows of a table as prompts. Raises DataError as `load_prompts`."""
    reader = reader_of(table, rows, source)
    if source.id_column not in ("prompt_id", *table.columns):
        raise DataError(
            f"{table.name}, {table.place} {rows[0][0]}: there is no column `{source.id_column}`, "
            "which `prompts.id_column` names."
        )
    names = other_columns(table, reader.column)
    columns = [{name: row.get(name) for name in names} for _, row in rows]
    read, bad = [], []
    for number, row in rows:
        try:
            read.append(reader.messages(dict(row)))
        except BadPrompt as error:
            bad.append((number, error))
    if bad:
        number, why = bad[0]
        more = f" ({len(bad)} of {len(rows)} rows cannot be used)" if len(bad) > 1 else ""
        raise DataError(f"{table.name}, {table.place} {number}: `{reader.column}` {why}{more}.")
    ids, notes = ids_of(table, rows, [m for m, _ in read], columns, source.id_column)
    if len(set(ids)) < len(ids):
        duplicate = next(i for i, count in Counter(ids).items() if count > 1)
        raise DataError(
            f"{table.name} has {source.id_column} {duplicate!r} more than once "
            f"({len(ids) - len(set(ids))} of {len(ids)} ids are duplicates). Give every prompt an "
            "id of its own."
        )
    prompts = [
        Prompt(i, tuple(messages), own, plain)
        for i, (messages, plain), own in zip(ids, read, columns, strict=True)
    ]
    return Loaded(prompts, [*reader.notes, *notes, *_transcripts(prompts)])


def _transcripts(prompts: Sequence[Prompt]) -> list[str]:
    """A note on prompts that are conversations in one text."""
    written = sum(p.plain and TURN.match(p.text) is not None for p in prompts)
    if not written:
        return []
    return [
        f"{written} of {len(prompts)} prompts are transcripts (Human: … Assistant: …) in one text; "
        "the policy gets each as one message of the user"
    ]
