"""Tables that take hours, written in parts: a killed evaluation repeats at most one part."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from infalign import storage

Report = Callable[[str, int, int], None]
"""Progress: the step, the amount done, and the total."""

BATCHES = 4
"""Number of generation batches in a part."""


def write_in_parts(
    path: Path,
    prompt_ids: Sequence[str],
    size: int,
    make: Callable[[list[int]], pa.Table],
    report: Callable[[int, int], None],
) -> None:
    """Write `path`, a Parquet file with rows for every prompt, `size` prompts at a time.

    - `make`: a function from indices into `prompt_ids` to the rows of those prompts, with the
      column `prompt_id`. Prompts in a stored part are not requested again.
    - `report`: called with the number of prompts done and the total.
    """
    parts = _parts(path)
    known = {i for part in parts for i in storage.read_table(part)["prompt_id"].to_pylist()}
    missing = [place for place, i in enumerate(prompt_ids) if i not in known]
    for start in range(0, len(missing), size):
        report(len(prompt_ids) - len(missing) + start, len(prompt_ids))
        parts.append(_folder(path) / f"{path.stem}-{len(parts):05d}.parquet")
        storage.write_table(parts[-1], make(missing[start : start + size]))
    storage.write_table(path, pa.concat_tables([storage.read_table(part) for part in parts]))
    drop_parts(path)
    report(len(prompt_ids), len(prompt_ids))


def drop_parts(path: Path) -> None:
    """Remove the parts of a finished table; a kill right after the table is written leaves them
    behind."""
    for part in _parts(path):
        part.unlink()
    folder = _folder(path)
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()


def _parts(path: Path) -> list[Path]:
    """The stored parts of a table, in the order in which they were written."""
    name = re.compile(rf"{re.escape(path.stem)}-\d{{5,}}\.parquet")
    folder = _folder(path)
    return sorted(p for p in folder.iterdir() if name.fullmatch(p.name)) if folder.exists() else []


def _folder(path: Path) -> Path:
    return path.parent / "parts"
