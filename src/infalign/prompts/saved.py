"""Rows of Arrow files, and of folders that `Dataset.save_to_disk` wrote. Needs no `datasets`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infalign import _check, disk, storage
from infalign.errors import DataError

from .table import Row, Table

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["is_saved", "read_arrow", "saved_table"]

STATE, SPLITS = "state.json", "dataset_dict.json"
"""What a saved data set and a saved set of splits hold."""


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return (folder / STATE).is_file() or (folder / SPLITS).is_file()


def saved_table(folder: Path, name: str) -> Table:
    """The rows of a saved data set, numbered from 0, with the splits that it was saved with.

    Raises DataError for files that are missing or damaged.
    """
    if not (folder / SPLITS).is_file():
        table = _read(folder)
        if "split" in table.column_names:
            return Table.of_rows(name, "row", _numbered(table))
        split = storage.read_json(folder / STATE).get("_split")
        # A part of a split, such as train[:100], is the user's own choice.
        own = split if isinstance(split, str) and split.isidentifier() else None
        return Table(name, "row", {own: _numbered(table)}, table.column_names)
    splits = storage.read_json(folder / SPLITS).get("splits")
    if not isinstance(splits, list) or not all(isinstance(s, str) for s in splits):
        raise DataError(f"{folder / SPLITS} must list `splits`; got {_check.short(splits)}.")
    tables = {split: _read(folder / split) for split in splits}
    columns = dict.fromkeys(n for table in tables.values() for n in table.column_names)
    parts = {split: _numbered(table) for split, table in tables.items()}
    return Table(name, "row", parts, list(columns))


def _read(folder: Path) -> "pa.Table":
    import pyarrow as pa

    files = storage.read_json(folder / STATE).get("_data_files")
    if not isinstance(files, list) or not all(isinstance(f, dict) for f in files):
        raise DataError(f"{folder / STATE} must list `_data_files`; got {_check.short(files)}.")
    tables = [read_arrow(folder / str(file.get("filename"))) for file in files]
    return pa.concat_tables(tables) if tables else pa.table({})


def _numbered(table: "pa.Table") -> Sequence[Row]:
    return list(enumerate(table.to_pylist()))


def read_arrow(path: Path) -> "pa.Table":
    """The table of an Arrow file, in the streaming format of `datasets` or the file format.

    Raises DataError if it is missing or damaged.
    """
    import pyarrow as pa

    try:
        with disk.reading(path), pa.memory_map(str(path)) as source:
            try:
                return pa.ipc.open_file(source).read_all()
            except pa.ArrowInvalid:
                source.seek(0)
                return pa.ipc.open_stream(source).read_all()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Arrow file ({error}).") from None
