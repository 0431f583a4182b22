r"""JSON Lines as people have them: UTF-8, one object a line, lines end at \n, perhaps in gzip.

Only \n ends a line. The separators U+2028, U+2029 and U+0085 may be part of a string.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from . import _check, disk
from .errors import DataError

__all__ = ["read_rows", "read_text", "rows_in", "value_of", "why_not"]

GZIP = b"\x1f\x8b"
MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
"""What files in other encodings begin with."""

OTHERS = {
    b"PAR1": "a Parquet file. Name it .parquet",
    b"PK\x03\x04": "a ZIP file. Unpack it",
    b"(\xb5/\xfd": "compressed with zstd. Unpack it, or use gzip",
    b"BZh": "compressed with bzip2. Unpack it, or use gzip",
    b"\xfd7zXZ": "compressed with xz. Unpack it, or use gzip",
    b"ARROW1": "an Arrow file. Write it as Parquet or JSON Lines",
}
"""What other files begin with, what they are, and what to do about it."""


def read_rows(path: Path) -> Iterator[tuple[int, dict]]:
    """The number of each line, from 1, and its object. Blank lines are left out.

    Raises DataError with file, line and remedy for a file that is missing, in another encoding or
    damaged, and for a line that is not a JSON object: NaN and Infinity, which JSON does not have, a
    name that occurs twice in one object, and half of a surrogate pair count as errors too.
    """
    return rows_in(read_text(path), path)


def rows_in(text: str, path: Path) -> Iterator[tuple[int, dict]]:
    """The rows of the text of a file, as `read_rows` gives them.

    - `path`: the file, for errors.
    """
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip(" \t\r")
        if not line:
            continue
        try:
            row = value_of(line)
        except (ValueError, RecursionError) as error:
            if number == 1 and line.startswith("["):
                raise _no_array(path) from None
            raise DataError(
                f"{path}, line {number}: {why_not(error)}: {_check.short(line)}."
            ) from None
        if isinstance(row, list) and number == 1:
            raise _no_array(path)
        if not isinstance(row, dict):
            raise DataError(
                f"{path}, line {number}: not a JSON object: {_check.short(line)}. Each line must "
                'be an object, such as {"prompt": "How?"}.'
            )
        yield number, row


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, unpacked if it is in gzip, without a byte order mark.

    Raises DataError for a file that is missing, damaged or in another encoding.
    """
    with disk.reading(path):
        data = path.read_bytes()
    if data.startswith(GZIP):
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{path} is damaged: gzip cannot unpack it ({error}).") from None
    for mark, name in MARKS.items():
        if data.startswith(mark):
            raise DataError(f"{path}, line 1: the file is in {name}. {_remedy(name)}")
    for mark, what in OTHERS.items():
        if data.startswith(mark):
            raise DataError(f"{path} is {what}.")
    if b"\0" in data[:4]:
        raise DataError(f"{path}, line 1: the file is no text in UTF-8. {_remedy('UTF-16LE')}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise DataError(
            f"{path}, line {number}: byte 0x{byte:02x} is not UTF-8. {_remedy('LATIN1')} Replace "
            "LATIN1 by the encoding of the file, such as WINDOWS-1252."
        ) from None


def value_of(text: str):
    """The JSON value of a text. `why_not` words the ValueError or RecursionError for what is not
    one, or breaks a rule of `read_rows`."""
    row = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_once)
    if "\\u" in text:
        json.dumps(row, ensure_ascii=False).encode()  # a UnicodeError is a ValueError
    return row


def _no_constant(word: str):
    raise ValueError(f"JSON has no {word}; write null")


def _once(pairs: list[tuple[str, object]]) -> dict:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r} occurs twice in one object; remove one")
    return row


def why_not(error: ValueError | RecursionError) -> str:
    """What is wrong with a text that `value_of` refuses."""
    if isinstance(error, RecursionError):
        return "its values are nested too deep"
    if isinstance(error, UnicodeEncodeError):
        half = error.object[error.start]
        return f"{half!r} is half of a surrogate pair and no character; remove it"
    if isinstance(error, json.JSONDecodeError):
        return f"not a JSON object ({error.msg}, column {error.colno})"
    return f"not a JSON object ({error})"


def _no_array(path: Path) -> DataError:
    return DataError(
        f"{path} is one JSON array, not JSON Lines. Write one object per line, with: "
        f"jq -c '.[]' {path.name} > {path.stem}.jsonl"
    )


def _remedy(encoding: str) -> str:
    return f"Convert it to UTF-8, with: iconv -f {encoding} -t UTF-8 OLD > NEW."
