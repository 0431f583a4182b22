"""Files of reference rewards in several formats."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infalign import _check, storage
from infalign.core import RawRewards
from infalign.errors import DataError
from infalign.json_lines import read_rows, read_text, value_of
from infalign.stores import CalibrationStore
from infalign.stores.ragged import rectangle

from .raw_reward import raw_rewards

__all__ = ["read_raw"]

COLUMNS = ("prompt_id", "reward", "rewards")
"""Names of columns, under which an object has no prompt's rewards."""

Rows = Sequence[tuple[str, Any]]
"""The place of each prompt in the file, as messages name it, and its rewards."""


def read_raw(path: Path | str) -> RawRewards:
    """The rewards of a calibration store's folder or of a file: one distribution, or one per
    prompt.

    - `.json`: a list of numbers, a list of lists, or an object with one list per prompt.
    - `.npy`: one or two dimensions, (prompts, K).
    - `.parquet`, or JSON Lines (`.jsonl`, `.jsonl.gz`): a column `rewards` with one list per
      prompt, or `reward` with one number per row and, for several prompts, `prompt_id`.
    - any other name is text: one number per line, or the rewards of one prompt per line, separated
      by spaces or commas.

    Raises a DataError that names the file and the place for other content. An object of columns,
    a name that occurs twice, a row without a value that other rows have, and lines that begin with
    the number or the id of their prompt are other content.
    """
    path, source = Path(path), str(path)
    if path.is_dir():
        return raw_rewards(CalibrationStore.open(path), source)
    if not path.is_file():
        raise DataError(f"{path} does not exist: give a calibration store or a file of rewards.")
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    read = READERS.get(suffix, _from_text)(path)
    rows = [_numbers(path, place, row) for place, row in read]
    if not any(map(len, rows)):
        raise _not_rewards(path, "nothing")
    missing = [i for i, row in enumerate(rows) if not np.isfinite(row).all()]
    if missing:
        raise DataError(
            f"{path}: rewards must be finite; {read[missing[0]][0]} holds one that is not "
            f"({len(missing)} of {len(rows)} rows). Score those samples again."
        )
    try:
        return RawRewards(rectangle(rows), source)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


def _numbers(path: Path, place: str, row: Any) -> np.ndarray:
    """The rewards of one prompt; DataError unless they are a list of numbers."""
    try:
        numbers = _check.numbers("rewards", row)
    except ValueError as error:
        raise DataError(f"{path}, {place}: {error} Write one list of numbers per prompt.") from None
    if numbers.ndim != 1:
        raise _not_rewards(path, "lists within lists")
    return numbers


def _not_rewards(path: Path, content: str) -> DataError:
    return DataError(
        f"{path} must hold rewards, as numbers or as one list of numbers per prompt; it holds "
        f"{content}."
    )


def _numbered(rows: Iterable) -> Rows:
    return [(f"row {number}", row) for number, row in enumerate(rows)]


def _from_json(path: Path) -> Rows:
    try:
        value = value_of(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}).") from None
    if isinstance(value, dict):
        _require_prompts(path, value)
        rows = [(f"prompt {_check.short(name)}", row) for name, row in value.items()]
    elif isinstance(value, list):
        rows = list(_numbered(value))
    else:
        raise _not_rewards(path, _check.short(value))
    several = any(isinstance(row, list) for _, row in rows)
    return rows if several else _numbered([[number for _, number in rows]])


def _require_prompts(path: Path, value: Mapping) -> None:
    """Refuse an object of columns, whose names are not ids of prompts."""
    column = next((name for name in value if name.lower() in COLUMNS), None)
    if column is not None and len(value) > 1:
        names = _check.short(", ".join(value)).strip("'")
        raise DataError(
            f"{path} must have one list of rewards under the id of each prompt; {column!r} is "
            f"the name of a column ({len(value)} names: {names}). Write the rewards alone: one "
            "list of numbers, or an object with one list per prompt id."
        )


def _from_npy(path: Path) -> Rows:
    try:
        array = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} is not an array that can be read ({error}).") from None
    return _numbered(np.atleast_2d(array))


def _from_parquet(path: Path) -> Rows:
    rows = storage.read_table(path).to_pylist()
    return _of_table(path, [(f"row {number}", row) for number, row in enumerate(rows, 1)])


def _from_lines(path: Path) -> Rows:
    return _of_table(path, [(f"line {number}", row) for number, row in read_rows(path)])


def _of_table(path: Path, rows: Rows) -> Rows:
    """The rewards of rows that are objects: one prompt each, or one reward each."""
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    column = "rewards" if "rewards" in names else "reward"
    if column not in names:
        raise DataError(
            f"{path} needs a column `reward` (one number per row) or `rewards` (lists); its "
            f"columns are {names}."
        )
    for name in (column, *(["prompt_id"] if "prompt_id" in names else [])):
        _require_everywhere(path, name, rows)
    if "prompt_id" not in names:
        values = [(place, row[column]) for place, row in rows]
        return values if column == "rewards" else _numbered([[value for _, value in values]])
    prompts: dict[object, list] = {}
    for place, row in rows:
        own = prompts.setdefault(row["prompt_id"], [])
        if own and column == "rewards":
            raise DataError(
                f"{path}, {place}: `prompt_id` {_check.short(row['prompt_id'])} occurs twice. "
                "Write all rewards of a prompt in one list."
            )
        own.append(row[column])
    rewards = (own[0] if column == "rewards" else own for own in prompts.values())
    return [
        (f"prompt {_check.short(name)}", own) for name, own in zip(prompts, rewards, strict=True)
    ]


def _require_everywhere(path: Path, name: str, rows: Rows) -> None:
    """Refuse rows without a column that other rows have."""
    without = [place for place, row in rows if row.get(name) is None]
    if without:
        raise DataError(
            f"{path}, {without[0]}: `{name}` must have a value in every row or in none; it has "
            f"none here ({len(without)} of {len(rows)} rows). Add it, or leave those rows out."
        )


def _from_text(path: Path) -> Rows:
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.replace(",", " ").split()
        try:
            own = [float(word) for word in words]
        except ValueError:
            raise DataError(
                f"{path}, line {number}: not numbers: {line[:60]!r}. Write rewards alone, without "
                "names of columns; a table with columns can be JSON Lines or Parquet."
            ) from None
        if own:
            rows.append((number, words, own))
    if all(len(own) == 1 for _, _, own in rows):
        return _numbered([[reward for _, _, own in rows for reward in own]])
    if _begin_with_ids([words for _, words, _ in rows]):
        number, words, _ = rows[0]
        raise DataError(
            f"{path}, line {number}: the first number must be a reward; got {words[0]}, which "
            f"looks like the number or id of a prompt (on each of {len(rows)} lines). Remove the "
            "first column, or, if it has rewards, write one list per prompt in a file named .json."
        )
    return [(f"line {number}", own) for number, _, own in rows]


def _begin_with_ids(lines: Sequence[Sequence[str]]) -> bool:
    """Whether each of several lines begins with a whole number that counts the lines, or that is
    different on each and stands before fractions only. Two lines that count 0, 1 may be rewards
    that are 0 or 1."""
    first = [line[0] for line in lines]
    if len(lines) < 2 or min(map(len, lines)) < 2 or not all(map(str.isdecimal, first)):
        return False
    counts = [[str(start + place) for place in range(len(lines))] for start in (0, 1)]
    fractions = not any(word.lstrip("+-").isdecimal() for line in lines for word in line[1:])
    return (first in counts and len(lines) > 2) or (fractions and len(set(first)) == len(first))


READERS = {
    ".json": _from_json,
    ".jsonl": _from_lines,
    ".jsonl.gz": _from_lines,
    ".npy": _from_npy,
    ".parquet": _from_parquet,
}
