"""Parquet shards of a calibration store: rewards are memory-mapped, samples are read.

`rewards-*.parquet` has one row per prompt: `prompt_id`, `samples` (K) and sorted `rewards`. Any
Parquet reader can read it. The rewards are plain and uncompressed, without a dictionary or
statistics, with one page per row group. They therefore lie at the end of the row group's column
chunk exactly as in memory, and can be mapped. The writer verifies this and records the offset in
the manifest.

`samples-*.parquet` has one row per response: `prompt_id`, `sample`, `completion`, `reward` and
further columns. Look-ups do not need it.
"""

import hashlib
import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from infalign import storage
from infalign.errors import DataError

from .rows import Rows

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "MappedState",
    "damaged",
    "open_rewards",
    "read_columns",
    "read_schema",
    "read_shard_samples",
    "require_file",
    "sample_groups",
    "smallest_type",
    "write_rewards",
    "write_samples",
]

GROUP_VALUES, GROUP_PROMPTS = 2**18, 2**14
"""Maximum number of rewards in a row group, unless one prompt has more, and of prompts: fewer than
Arrow puts on one page. One checksum covers a row group; verifying it takes a millisecond."""

ONE_PAGE = 2**30

Block = tuple["pa.Array", np.ndarray, np.ndarray]
"""A block of prompts: their ids, the reward count of each, and the rewards, sorted within each
prompt."""


def smallest_type(values: np.ndarray) -> np.dtype:
    """float32 if it represents every value exactly, else float64, since rounding would create
    ties."""
    with np.errstate(over="ignore"):
        exact = values.dtype == np.float32 or np.array_equal(values, values.astype(np.float32))
    return np.dtype("<f4" if exact else "<f8")


def write_rewards(file: Path, blocks: Iterable[Block], dtype: np.dtype) -> dict:
    """Write a shard of rewards, a few row groups at a time; returns its entry in the manifest."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = pa.from_numpy_dtype(dtype)
    # No value is ever null; the levels that mark nulls would take as much space as the ids.
    rewards = pa.list_(pa.field("element", number, nullable=False))
    schema = pa.schema(
        [
            pa.field("prompt_id", pa.large_string(), nullable=False),
            pa.field("samples", pa.int32(), nullable=False),
            pa.field("rewards", rewards, nullable=False),
        ]
    )
    groups = []
    with storage.replacing(file) as temporary:
        with pq.ParquetWriter(
            temporary,
            schema,
            compression={"prompt_id": "zstd", "samples": "zstd", "rewards.list.element": "none"},
            use_dictionary=["samples"],
            write_statistics=False,
            write_page_checksum=True,
            data_page_size=ONE_PAGE,
        ) as writer:
            for ids, counts, values in _row_groups(blocks):
                values = np.ascontiguousarray(values, dtype)
                ends = np.append(0, np.cumsum(counts)).astype(np.int32)
                lists = pa.ListArray.from_arrays(pa.array(ends), pa.array(values), type=rewards)
                columns = [ids, pa.array(counts.astype(np.int32)), lists]
                table = pa.Table.from_arrays(columns, schema=schema)
                writer.write_table(table, row_group_size=len(ids))
                groups.append(
                    {
                        "prompts": len(ids),
                        "values": len(values),
                        "sha256": hashlib.sha256(values.data).hexdigest(),
                    }
                )
        mapped = _find_values(temporary, groups, dtype)
        frame = _frame_checksum(_map(temporary), groups, dtype) if mapped else None
        checksum, size = storage.sha256(temporary), temporary.stat().st_size
    return {
        "file": file.name,
        "bytes": size,
        "sha256": checksum,
        "frame_sha256": frame,
        "prompts": sum(g["prompts"] for g in groups),
        "values": sum(g["values"] for g in groups),
        "dtype": dtype.name,
        "mapped": mapped,
        "groups": groups,
    }


def _row_groups(blocks: Iterable[Block]) -> Iterator[Block]:
    """The prompts in blocks of the size of row groups."""
    import pyarrow as pa

    waiting: list[Block] = []

    def joined() -> Block:
        ids, counts, values = zip(*waiting, strict=True)
        return pa.concat_arrays(ids), np.concatenate(counts), np.concatenate(values)

    def cut(block: Block, last: bool) -> Iterator[Block]:
        """Full groups. The remainder waits for the next block, unless this is the `last` one."""
        ids, counts, values = block
        ends = np.append(0, np.cumsum(counts))
        first = 0
        while first < len(counts):
            fits = np.searchsorted(ends, ends[first] + GROUP_VALUES, "right") - 1
            end = int(max(first + 1, min(fits, first + GROUP_PROMPTS)))
            part = ids[first:end], counts[first:end], values[ends[first] : ends[end]]
            if end == len(counts) and not last:
                waiting[:] = [part]
                return
            yield part
            first = end
        waiting.clear()

    for block in blocks:
        waiting.append(block)
        full = sum(len(v) for _, _, v in waiting) >= GROUP_VALUES
        if full or sum(len(c) for _, c, _ in waiting) >= GROUP_PROMPTS:
            yield from cut(joined(), False)
    if waiting:
        yield from cut(joined(), True)


def _find_values(file: Path, groups: list[dict], dtype: np.dtype) -> bool:
    """Record the offset of each row group's values; return whether all values are stored as
    expected."""
    import pyarrow.parquet as pq

    metadata, data = pq.read_metadata(file), _map(file)
    for number, group in enumerate(groups):
        chunk = metadata.row_group(number).column(2)
        size = group["values"] * dtype.itemsize
        group["offset"] = chunk.data_page_offset + chunk.total_compressed_size - size
    return all(_checksum(data, group, dtype) == group["sha256"] for group in groups)


def _checksum(buffer, group: dict, dtype: np.dtype) -> str:
    start, size = group["offset"], group["values"] * dtype.itemsize
    return hashlib.sha256(memoryview(buffer)[start : start + size]).hexdigest()


def _frame_checksum(buffer, groups: list[dict], dtype: np.dtype) -> str:
    """Checksum of everything but the rewards: ids, counts, page headers and Parquet's own
    metadata."""
    data, digest, end = memoryview(buffer), hashlib.sha256(), 0
    for group in groups:
        digest.update(data[end : group["offset"]])
        end = group["offset"] + group["values"] * dtype.itemsize
    digest.update(data[end:])
    return digest.hexdigest()


def _map(file: Path) -> mmap.mmap:
    with file.open("rb") as opened:
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)


class MappedState:
    """The size and the time of modification of a file when it was mapped."""

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_RDONLY)
        self._state = self._now()

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def same(self) -> bool:
        """Whether the file is still as it was. It may have been removed or replaced: what is mapped
        then stays as it was."""
        return self._now() == self._state

    def _now(self) -> tuple[int, int]:
        state = os.fstat(self._descriptor)
        return state.st_size, state.st_mtime_ns


def open_rewards(folder: Path, shard: dict) -> tuple["pa.Array", Rows]:
    """Ids and rewards of one shard: ids are verified now, rewards where they are used.

    Raises DataError if the file is missing or is not what was written.
    """
    import pyarrow as pa

    file = require_file(folder, shard)
    dtype = np.dtype(shard["dtype"])
    groups = [dict(group) for group in shard["groups"]]
    state = None
    if shard["mapped"]:
        state = MappedState(file)
        buffer = _map(file)
        intact = _frame_checksum(buffer, groups, dtype) == shard["frame_sha256"]
    else:  # another Parquet writer used a different layout, so everything is read
        intact = storage.sha256(file) == shard["sha256"]
    if not intact:
        raise damaged(folder, file)
    table = read_columns(file, ["prompt_id", "samples"])
    ids = pa.concat_arrays(table["prompt_id"].cast(pa.large_string()).chunks)
    # Not on the chunked array: that would import pandas if installed, which takes a third of a
    # second.
    counts = pa.concat_arrays(table["samples"].chunks).to_numpy()
    blocks = np.append(0, np.cumsum([group["prompts"] for group in groups]))
    before = (np.cumsum(counts, dtype=np.int64) - counts) * dtype.itemsize
    if not shard["mapped"]:
        values = read_columns(file, ["rewards"])["rewards"].combine_chunks().flatten()
        buffer = values.to_numpy().view(np.uint8)
        for group, first in zip(groups, blocks, strict=False):
            group["offset"] = int(before[first])
    offsets = np.array([group["offset"] for group in groups]) - before[blocks[:-1]]
    starts = before + np.repeat(offsets, np.diff(blocks))

    def verify(number: int) -> None:
        if _checksum(buffer, groups[number], dtype) != groups[number]["sha256"]:
            raise damaged(folder, file)

    def unchanged() -> None:
        if state is not None and not state.same():
            raise DataError(
                f"{file} was overwritten while it was open. Restore it, or remove {folder} and "
                "calibrate again."
            )

    return ids, Rows(buffer, dtype, starts, counts, blocks, verify, unchanged)


def require_file(folder: Path, shard: dict) -> Path:
    """The shard's file; DataError if it is missing or its size has changed."""
    file = folder / shard["file"]
    if not file.exists():
        raise DataError(f"{file} is missing. Remove {folder} and calibrate again.")
    if file.stat().st_size != shard["bytes"]:
        raise DataError(
            f"{file} has {file.stat().st_size} bytes of {shard['bytes']} that were written. "
            f"Remove {folder} and calibrate again."
        )
    return file


def damaged(folder: Path, file: Path) -> DataError:
    """The error for a file that has changed."""
    return DataError(
        f"{file} is not the file that was written: its checksum differs from the manifest's. "
        f"Remove {folder} and calibrate again."
    )


def read_columns(file: Path, columns: list[str] | None) -> "pa.Table":
    """Columns of a Parquet file, in file order. None reads all columns."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        return opened.read(columns=columns)


def write_samples(file: Path, tables: Iterable["pa.Table"]) -> dict:
    """Write a shard of samples, one table after another; returns its entry in the manifest.

    If there are no tables, no file is written and the entry is empty.
    """
    import pyarrow.parquet as pq

    tables = iter(tables)
    table, rows = next(tables, None), 0
    if table is None:
        return {}
    with storage.replacing(file) as temporary:
        with pq.ParquetWriter(temporary, table.schema, compression="zstd") as writer:
            while table is not None:
                writer.write_table(table)
                rows += len(table)
                table = next(tables, None)
        checksum, size = storage.sha256(temporary), temporary.stat().st_size
    return {"file": file.name, "bytes": size, "sha256": checksum, "samples": rows}


def read_shard_samples(folder: Path, shard: dict, columns: list[str] | None = None) -> "pa.Table":
    """One shard of samples; DataError if it has changed since it was written."""
    return read_columns(_intact(folder, shard), columns)


def sample_groups(folder: Path, shard: dict) -> Iterator["pa.Table"]:
    """The samples of a shard, one row group after another; DataError as in `read_shard_samples`."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(_intact(folder, shard)) as opened:
        for number in range(opened.num_row_groups):
            yield opened.read_row_group(number)


def read_schema(folder: Path, shard: dict) -> "pa.Schema":
    """Columns of a shard and their types."""
    import pyarrow.parquet as pq

    return pq.read_schema(require_file(folder, shard))


def _intact(folder: Path, shard: dict) -> Path:
    file = require_file(folder, shard)
    if storage.sha256(file) != shard["sha256"]:
        raise damaged(folder, file)
    return file
