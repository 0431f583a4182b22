"""Export of calibration stores to Parquet files that any tool reads, and import of such files.

Both stream a few thousand prompts at a time, and leave nothing behind when killed.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from infalign import storage
from infalign.errors import DataError

from . import columns
from .columns import KEY, REWARDS
from .folders import new_folder, require_free
from .manifest import read_manifest, require_finished
from .row_digest import RowDigest
from .shards import Block, read_schema, sample_groups, smallest_type
from .sorted_rewards import stored_rewards
from .writer import LARGEST, StoreWriter

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["export_rewards", "export_samples", "import_rewards"]

LOG = logging.getLogger(__name__)

SHARD_VALUES = 2**23
"""Rewards that an import holds in memory at once."""


def export_rewards(
    store: Path | str, out: Path | str, *, rewards: str = REWARDS, key: str = KEY
) -> None:
    """Write a store's prompts as a table: ids in column `key`, sorted rewards as lists in
    `rewards`.

    - `out`: a file that ends in .parquet, or a folder, which gets as many files as needed. Existing
      files are not replaced. `datasets.load_dataset` and `Dataset.from_parquet` read both.

    The schema's metadata holds the provenance. Raises DataError if the store cannot be opened.
    """
    store = Path(store)
    manifest = read_manifest(store)
    require_finished(store, manifest)
    sorted_rewards = stored_rewards(store, manifest)
    schema, tables = columns.tables(sorted_rewards, manifest["provenance"], rewards, key)

    def finished(written: RowDigest) -> Mapping[bytes, bytes]:
        return written.metadata(schema.metadata, len(sorted_rewards))

    _write(Path(out), schema, tables, partial(RowDigest, key, rewards), finished)


def export_samples(store: Path | str, out: Path | str) -> None:
    """Write a store's samples as a table with one row per response.

    Columns: prompt_id, sample, completion, reward, and others such as logprob and tokens. `out` is
    as in `export_rewards`. Raises DataError if the store holds rewards only.
    """
    store = Path(store)
    manifest = read_manifest(store)
    require_finished(store, manifest)
    shards = manifest["samples"]
    if not shards:
        raise DataError(f"{store} holds rewards only, no samples. Calibrate again to keep them.")
    rows = (table for shard in shards for table in sample_groups(store, shard))
    _write(Path(out), read_schema(store, shards[0]), rows)


def _write(
    out: Path,
    schema: "pa.Schema",
    tables: Iterable["pa.Table"],
    digest: Callable[[], RowDigest] | None = None,
    metadata: Callable[[RowDigest], Mapping[bytes, bytes]] = lambda digest: {},
) -> None:
    """A Parquet file, or a folder of files of a few hundred megabytes each.

    - `digest`, `metadata`: make a checksum of the rows of a file, and the entries that carry it.
    """
    require_free(out)
    tables = iter(tables)
    if out.suffix == ".parquet":
        _write_file(out, schema, tables, digest, metadata)
        return
    with new_folder(out) as folder:
        number = 0
        while (table := next(tables, None)) is not None:
            part = _up_to(LARGEST, table, tables)
            _write_file(folder / f"part-{number:05d}.parquet", schema, part, digest, metadata)
            number += 1


def _up_to(size: int, first: "pa.Table", rest: Iterator["pa.Table"]) -> Iterator["pa.Table"]:
    """This table and the following ones, up to `size` bytes in total."""
    yield first
    taken = first.nbytes
    while taken < size and (table := next(rest, None)) is not None:
        yield table
        taken += table.nbytes


def _write_file(file, schema, tables, digest, metadata) -> None:
    import pyarrow.parquet as pq

    written = digest() if digest else None

    with (
        storage.replacing(file) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        for table in tables:
            writer.write_table(table)
            if written:
                written.add(table)
        if written:
            writer.add_key_value_metadata(metadata(written))


def import_rewards(
    source: Path | str,
    out: Path | str,
    *,
    rewards: str = REWARDS,
    key: str = KEY,
    provenance: Mapping[str, object] | None = None,
) -> None:
    """Make a store from a column of lists of rewards, in any order, with one prompt per row.

    - `source`: a Parquet file or a folder of them, written by `export_rewards` or any other tool.
    - `key`: the column of prompt ids; integers become strings, as in the prompts of a run.
    - `provenance`: how the rewards were made, for files that do not record it.

    Files that `export_rewards` wrote carry a checksum, which is verified; that others carry none is
    logged as a warning. Raises DataError for files that have changed or are missing, missing
    columns, rows without rewards, rewards that are not finite, and duplicate ids.
    """
    import pyarrow as pa

    source, out = Path(source), Path(out)
    files = _parquet_files(source)
    made_with = columns.agreed(_stated(files), provenance)
    with new_folder(out) as folder, StoreWriter(folder, made_with) as writer:
        try:
            for blocks in _shards(columns.blocks(_rows(files, rewards, key), rewards, key)):
                dtype = max((smallest_type(values) for *_, values in blocks), key=lambda d: d.num)
                writer.add_sorted(blocks, dtype)
            if not writer.prompts:
                raise DataError("it has no rows.")
            stored_rewards(folder, read_manifest(folder))  # raises for duplicate ids
        except DataError as error:
            raise DataError(f"{source}: {str(error).removeprefix(f'{folder}: ')}") from None
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            raise DataError(f"{source} is not a readable Parquet file ({error}).") from None


def _stated(files: list[Path]) -> dict | None:
    """The provenance that all files state; None if they state none."""
    import pyarrow.parquet as pq

    stated = []
    for file in files:
        try:
            stated.append(columns.stated_provenance(pq.read_schema(file)))
        except ValueError as error:
            raise DataError(f"{file} has a provenance that cannot be read ({error}).") from None
        if stated[-1] != stated[0]:
            raise DataError(
                f"{file} and {files[0]} state different provenances. Import them one by one."
            )
    return stated[0]


def _parquet_files(source: Path) -> list[Path]:
    """The file, or the files in the folder; DataError unless all are Parquet files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not source.exists():
        raise DataError(f"{source} does not exist: give a Parquet file, or a folder of them.")
    files = sorted(source.glob("*.parquet")) if source.is_dir() else [source]
    if not files:
        raise DataError(f"{source} holds no file that ends in .parquet.")
    for file in files:
        try:
            pq.read_schema(file)
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            raise DataError(f"{file} is not a readable Parquet file ({error}).") from None
    return files


def _rows(files: list[Path], rewards: str, key: str) -> Iterator["pa.Table"]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    exported, foreign, rows = set(), [], 0
    for file in files:
        with pq.ParquetFile(file, page_checksum_verification=True) as opened:
            columns.require_columns(opened.schema_arrow.names, rewards, key)
            read = RowDigest(key, rewards)
            batches = opened.iter_batches(columns.ROWS, columns=[key, rewards])
            while True:
                try:
                    batch = next(batches, None)
                except (pa.ArrowException, OSError, ValueError) as error:
                    raise DataError(f"{file.name} cannot be read ({error}).") from None
                if batch is None:
                    break
                table = pa.Table.from_batches([batch])
                yield table  # which is checked before it is added
                read.add(table)
            own, used = opened.metadata.metadata, opened.schema_arrow.metadata
            prompts = read.require(own or {}, used or {}, file)
        if prompts is None:
            foreign.append(file)
        else:
            exported.add(prompts)
        rows += read.prompts
    if exported and (foreign or exported != {rows}):
        counts = " or ".join(map(str, sorted(exported)))
        raise DataError(
            f"it holds {rows} prompts in {len(files)} files, of an export of {counts}"
            f"{f', and {foreign[0].name} is of another tool' if foreign else ''}. Restore the "
            "files of one export, and no others."
        )
    if foreign:
        LOG.warning(
            "%s has no checksum of an export, so nothing shows whether it is what was written.",
            foreign[0].parent if len(foreign) > 1 else foreign[0],
        )


def _shards(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    """Blocks, grouped into shards."""
    together: list[Block] = []
    held = 0
    for block in blocks:
        together.append(block)
        held += len(block[2])
        if held >= SHARD_VALUES:
            yield together
            together, held = [], 0
    if together:
        yield together
