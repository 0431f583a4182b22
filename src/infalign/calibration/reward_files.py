"""Files of reference rewards in several formats."""

import io
import json
from pathlib import Path

import numpy as np

from infalign import storage
from infalign.core import RawRewards
from infalign.errors import DataError
from infalign.json_lines import read_rows, read_text
from infalign.stores import CalibrationStore
from infalign.stores.ragged import rectangle

from .raw_reward import raw_rewards

__all__ = ["read_raw"]


def read_raw(path: Path | str) -> RawRewards:
    """The rewards of a calibration store's folder or of a file: one distribution, or one per
    prompt.

    - `.json`: a list of numbers, a list of lists, or an object of lists, one per prompt.
    - `.npy`: one or two dimensions, (prompts, K).
    - `.parquet`, or JSON Lines (`.jsonl`, `.jsonl.gz`): a column `rewards` of lists, or `reward`
      with one number per row and, for several prompts, `prompt_id`.
    - any other name is text: one number per line, or the rewards of one prompt per line, separated
      by spaces or commas.

    For other content, raises a DataError that names the file.
    """
    path, source = Path(path), str(path)
    if path.is_dir():
        return raw_rewards(CalibrationStore.open(path), source)
    if not path.is_file():
        raise DataError(f"{path} does not exist: give a calibration store or a file of rewards.")
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    rows = READERS.get(suffix, _from_text)(path)
    try:
        rows = [np.asarray(row, float) for row in rows]
        flat = [i for i, row in enumerate(rows) if row.ndim != 1]
        missing = [i for i, row in enumerate(rows) if not np.isfinite(row).all()]
    except (TypeError, ValueError):
        raise _not_rewards(path, "something else") from None
    if flat or not any(map(len, rows)):
        raise _not_rewards(path, "lists within lists" if flat else "nothing")
    if missing:
        raise DataError(
            f"{path}: rewards must be finite; row {missing[0]} holds one that is not "
            f"({len(missing)} of {len(rows)} rows). Score those samples again."
        )
    try:
        return RawRewards(rectangle(rows), source)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


def _not_rewards(path: Path, content: str) -> DataError:
    return DataError(
        f"{path} must hold rewards, as numbers or as one list of numbers per prompt; it holds "
        f"{content}."
    )


def _from_json(path: Path) -> list:
    try:
        value = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}).") from None
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        raise _not_rewards(path, repr(value)[:40])
    return value if any(isinstance(row, list) for row in value) else [value]


def _from_npy(path: Path) -> list:
    try:
        return list(np.atleast_2d(np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)))
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} is not an array that can be read ({error}).") from None


def _from_parquet(path: Path) -> list:
    return _of_columns(path, storage.read_table(path).to_pydict())


def _from_lines(path: Path) -> list:
    rows = [row for _, row in read_rows(path)]
    names = dict.fromkeys(name for row in rows for name in row)
    return _of_columns(path, {name: [row.get(name) for row in rows] for name in names})


def _of_columns(path: Path, columns: dict[str, list]) -> list:
    if "rewards" in columns:
        return columns["rewards"]
    if "reward" not in columns:
        raise DataError(
            f"{path} needs a column `reward` (one number per row) or `rewards` (lists); its "
            f"columns are {list(columns)}."
        )
    if "prompt_id" not in columns:
        return [columns["reward"]]
    rows: dict = {}
    for prompt, reward in zip(columns["prompt_id"], columns["reward"], strict=True):
        rows.setdefault(prompt, []).append(reward)
    return list(rows.values())


def _from_text(path: Path) -> list:
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.replace(",", " ").split()
        try:
            rows.append([float(word) for word in words])
        except ValueError:
            raise DataError(f"{path}, line {number}: not numbers: {line[:60]!r}.") from None
    rows = [row for row in rows if row]
    if all(len(row) == 1 for row in rows):
        return [[number for (number,) in rows]]
    return rows


READERS = {
    ".json": _from_json,
    ".jsonl": _from_lines,
    ".jsonl.gz": _from_lines,
    ".npy": _from_npy,
    ".parquet": _from_parquet,
}
