"""Rows of a prompts file: JSON Lines, also in gzip, or Parquet."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from infalign import storage
from infalign.errors import DataError
from infalign.json_lines import read_rows

Rows = Sequence[tuple[int, Mapping]]
"""Row number in the source, and the row's columns."""

TABLES = (".csv", ".tsv", ".xlsx", ".arrow", ".pkl")
FORMS = "JSON Lines (.jsonl, .jsonl.gz) or Parquet (.parquet)"


def file_rows(path: Path) -> tuple[str, Rows]:
    """The noun of a row, `line` or `row`, and the numbered rows of a file, from 1.

    Raises DataError for a file that is missing or cannot be read.
    """
    if not path.exists():
        raise DataError(f"Prompts file {path} does not exist.")
    if not path.is_file():
        raise DataError(f"Prompts file {path} is not a file. Name a file: {FORMS}.")
    if path.suffix.lower() == ".parquet":
        return "row", list(enumerate(storage.read_table(path).to_pylist(), 1))
    if path.suffix.lower() in TABLES:
        raise DataError(
            f"Prompts file {path} must be {FORMS}; got {path.suffix}. Convert it first."
        )
    return "line", list(read_rows(path))
