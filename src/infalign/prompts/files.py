"""The table of a prompts file or folder, read by its format."""

from pathlib import Path

from infalign import storage
from infalign.errors import DataError
from infalign.json_lines import read_text, rows_in

from .csv_files import csv_rows
from .json_files import is_lines, is_list, json_rows
from .saved import is_saved, read_arrow, saved_table
from .table import Table

__all__ = ["file_table"]

FORMS = (
    "JSON Lines (.jsonl), JSON (.json), CSV (.csv), TSV (.tsv), each also in gzip (.gz), Parquet "
    "(.parquet), Arrow (.arrow), or a folder that `datasets` saved with save_to_disk"
)
PROMPT_FILES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
"""Endings of files that usually hold rows; each may be followed by .gz."""

OTHERS = {
    ".xlsx": "Save it as CSV",
    ".xls": "Save it as CSV",
    ".ods": "Save it as CSV",
    ".pkl": "Write it as JSON Lines or Parquet; a pickle can run code, so none is loaded",
    ".pickle": "Write it as JSON Lines or Parquet; a pickle can run code, so none is loaded",
    ".feather": "Write it as Parquet",
    ".yaml": "Write it as JSON",
    ".yml": "Write it as JSON",
    ".zip": "Unpack it",
    ".tar": "Unpack it",
}
"""Formats that are not read, and what to do about them."""


def file_table(path: Path, name: str) -> Table:
    """The rows of a file, numbered from 1, or of a folder that `save_to_disk` wrote, from 0.

    - `name`: the source, as errors name it.

    Raises DataError for what is missing or cannot be read.
    """
    if not path.exists():
        hub = not path.suffix and name.count("/") == 1
        advice = " A data set of the Hub is named with `prompts.dataset`." if hub else ""
        raise DataError(f"Prompts file {name} does not exist.{advice}")
    if path.is_dir():
        return _folder_table(path, name)
    if not path.is_file():
        raise DataError(f"Prompts file {name} is not a file. Name a file: {FORMS}.")
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    kind = plain.suffix.lower()
    if kind in OTHERS:
        raise DataError(f"Prompts file {name} must be {FORMS}; got {kind}. {OTHERS[kind]}.")
    if kind in (".parquet", ".arrow"):
        if plain != path:
            raise DataError(f"Prompts file {name} is {kind} in gzip. Unpack it, with: gunzip.")
        table = storage.read_table(path) if kind == ".parquet" else read_arrow(path)
        return Table.of_rows(name, "row", list(enumerate(table.to_pylist(), 1)))
    text = read_text(path)
    if kind in (".csv", ".tsv"):
        delimiter = "," if kind == ".csv" else "\t"
        return Table.of_rows(name, "line", csv_rows(text, path, delimiter))
    if is_list(text) or (kind == ".json" and not is_lines(text)):
        return Table.of_rows(name, "row", json_rows(text, path))
    return Table.of_rows(name, "line", rows_in(text, path))


def _folder_table(path: Path, name: str) -> Table:
    if is_saved(path):
        return saved_table(path, name)
    inside = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
    shown = ", ".join(inside[:5]) + (", …" if len(inside) > 5 else "")
    raise DataError(
        f"Prompts file {name} is not a file, nor a folder that `datasets` saved with "
        f"save_to_disk; in it: {shown or 'nothing'}. Name a file: {FORMS}. A folder that "
        "`datasets.load_dataset` reads is named with `prompts.dataset`."
    )
