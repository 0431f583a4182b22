"""A table that takes hours: made in shards, so that a kill costs one of them at most."""

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
    parts = path.parent / "parts"
    starts = range(0, rows, size)
    shards = [parts / f"{path.stem}-{index:05d}.parquet" for index in range(len(starts))]
    for index, start in enumerate(starts):
        report(start, rows)
        if not shards[index].exists():
            storage.write_table(shards[index], make(start, min(start + size, rows)))
    storage.write_table(path, pa.concat_tables([storage.read_table(s) for s in shards]))
    for shard in shards:
        shard.unlink()
    if not any(parts.iterdir()):
        parts.rmdir()
    report(rows, rows)
