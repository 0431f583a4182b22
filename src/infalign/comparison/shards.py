"""A table that takes hours: made in shards, so that a kill costs one of them at most."""

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from infalign import storage

Report = Callable[[str, int, int], None]
"""Progress: what is being done, how much of it is done, and how much there is."""

BATCHES = 4
"""Batches of generation in a shard: what a killed evaluation repeats at most."""


def in_shards(
    path: Path, rows: int, size: int, make: Callable[[int, int], pa.Table], report
) -> None:
    """Write `path`, a Parquet file, from the tables of all `rows`, `size` of them at a time.

    - `make`: called with the first row of a shard and the row behind its last.
    - `report`: called with how many rows are done, and how many there are.
    """
    starts = range(0, rows, size)
    shards = [_parts(path) / f"{path.stem}-{index:05d}.parquet" for index in range(len(starts))]
    for index, start in enumerate(starts):
        report(start, rows)
        if not shards[index].exists():
            storage.write_table(shards[index], make(start, min(start + size, rows)))
    storage.write_table(path, pa.concat_tables([storage.read_table(s) for s in shards]))
    drop_shards(path)
    report(rows, rows)


def drop_shards(path: Path) -> None:
    """Remove the shards of a table that is there: a kill right after its writing leaves them."""
    parts = _parts(path)
    if not parts.exists():
        return
    for shard in parts.iterdir():
        if re.fullmatch(rf"{re.escape(path.stem)}-\d{{5,}}\.parquet", shard.name):
            shard.unlink()
    if not any(parts.iterdir()):
        parts.rmdir()


def _parts(path: Path) -> Path:
    return path.parent / "parts"
