"""Rows of the files that people have: tables, and logs of evaluation harnesses.

A source is a file, a folder, a pattern such as `logs/*.jsonl`, or `-` for standard input. A format
is known by what is in a file, not by its name alone.
"""

import glob
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infalign import _check, storage
from infalign._look import Shown
from infalign.errors import DataError
from infalign.json_lines import read_text, rows_in, value_of, why_not
from infalign.prompts.csv_files import csv_rows

from .logs import LOGS, inspect_archive

__all__ = ["Row", "files_of", "rows_of"]

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".eval")
"""Endings of the files that are read, each but the last two perhaps with .gz behind it."""

FORMS = "JSON Lines, JSON, CSV, TSV (each also in gzip), Parquet, or a log of inspect_ai (.eval)"


@dataclass(frozen=True)
class Row(Shown):
    """One row, and where it stands."""

    values: Mapping[str, Any]
    file: str
    place: str
    """The noun and the number of the row in its file, such as `line 3`."""

    def __str__(self) -> str:
        return f"{self.file}, {self.place}"


def files_of(source: str) -> list[Path]:
    """The files of a source in alphabetical order; `-` is standard input.

    Raises DataError if there are none.
    """
    path = Path(source)
    if source == "-" or path.is_file():
        return [path]
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and _readable(p))
        if not files:
            raise DataError(f"{source} is a folder without a file to read: {FORMS}.")
        return files
    files = sorted(Path(p) for p in glob.glob(source, recursive=True) if Path(p).is_file())
    if not files:
        what = "matches no file" if glob.has_magic(source) else "does not exist"
        raise DataError(f"{source} {what}. Name a file, a folder or a pattern: {FORMS}.")
    return files


def rows_of(source: str) -> Iterator[Row]:
    """The rows of all files of a source.

    Raises DataError with file and line for what cannot be read.
    """
    for path in files_of(source):
        name = "standard input" if source == "-" else str(path)
        for place, values in _rows(path, name):
            yield Row(values, name, place)


def _readable(path: Path) -> bool:
    name = path.name.lower().removesuffix(".gz")
    return name.endswith(ENDINGS) and not path.name.startswith(".")


def _rows(path: Path, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    kind = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix
    kind = kind.lower()
    if kind == ".parquet":
        rows = storage.read_table(path).to_pylist()
        yield from ((f"row {number}", row) for number, row in enumerate(rows, 1))
        return
    if kind == ".eval" or (name != "standard input" and zipfile.is_zipfile(path)):
        yield from inspect_archive(path)
        return
    text = _standard_input() if name == "standard input" else read_text(path)
    if kind in (".csv", ".tsv") or (name == "standard input" and text.lstrip()[:1] not in "{["):
        delimiter = "\t" if kind == ".tsv" else ","
        yield from ((f"line {n}", row) for n, row in csv_rows(text, Path(name), delimiter))
        return
    value = None
    if kind == ".json" or text.lstrip()[:1] == "[":
        value = _whole(text, name)
    if value is None:
        yield from ((f"line {number}", row) for number, row in rows_in(text, Path(name)))
        return
    for fits, read in LOGS:
        if fits(value):
            yield from read(value, path)
            return
    yield from ((f"row {number}", row) for number, row in enumerate(_objects(value, name), 1))


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"Standard input is not UTF-8 ({error.reason}).") from None


def _whole(text: str, name: str) -> Any:
    """The value of a JSON text, or None if it is one object a line."""
    first, _, rest = text.strip().partition("\n")
    try:
        return value_of(text)
    except (ValueError, RecursionError) as error:
        try:
            lines = bool(rest) and isinstance(value_of(first), dict)
        except (ValueError, RecursionError):
            lines = False
        if lines:
            return None
        raise DataError(f"{name}: {why_not(error)}.") from None


def _objects(value: Any, name: str) -> list[Mapping[str, Any]]:
    """The rows of a list of objects, or of an object with one list per column."""
    if isinstance(value, dict):
        columns = list(value.values())
        lengths = {len(c) if isinstance(c, list) else None for c in columns}
        if len(lengths) == 1 and None not in lengths and len(columns) > 1:
            return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
        return [value]
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise DataError(
            f'{name} must hold objects, such as [{{"prompt_id": "a", "reward": 1.5}}]; got '
            f"{_check.short(value)}."
        )
    return value
