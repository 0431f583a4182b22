"""Reference rewards as a dataset column: one list of rewards per prompt id.

Tables are Arrow's, which `datasets`, pandas, polars and DuckDB exchange; none of them is imported
here.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from infalign import storage
from infalign.errors import ArgumentError, DataError

from .ragged import sort_each
from .shards import Block
from .sorted_rewards import SortedRewards

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["agreed", "as_lists", "blocks", "read", "require_columns", "stated_provenance", "tables"]

LOG = logging.getLogger(__name__)

REWARDS, KEY = "reference_rewards", "prompt_id"
"""Default names of the columns."""

MADE_WITH = b"infalign_provenance"
"""Key of the provenance, as JSON, in the metadata of a table."""

ROWS = 2**14
"""Number of dataset rows read at once."""

LOOKED_AT = 1000
"""Number of rewards that tell whether a column was rounded."""


def tables(
    store_rewards: SortedRewards, provenance: Mapping[str, object], rewards: str, key: str
) -> tuple["pa.Schema", Iterator["pa.Table"]]:
    """Schema and rows of a store's table, a few thousand prompts at a time."""
    import pyarrow as pa

    number = pa.from_numpy_dtype(store_rewards.dtype)
    schema = pa.schema(
        [pa.field(key, pa.string()), pa.field(rewards, pa.list_(number))],
        {MADE_WITH: json.dumps(provenance).encode()},
    )

    def rows() -> Iterator["pa.Table"]:
        ids = iter(store_rewards)
        for values, counts in store_rewards.blocks():
            own = pa.array(list(islice(ids, len(counts))), pa.string())
            lists = as_lists(values.astype(store_rewards.dtype, copy=False), counts)
            yield pa.Table.from_arrays([own, lists], schema=schema)

    return schema, rows()


def as_lists(values: np.ndarray, counts: np.ndarray) -> "pa.ListArray":
    """The rewards of one prompt after another, as an array of lists."""
    import pyarrow as pa

    ends = np.append(0, np.cumsum(counts))
    if ends[-1] > np.iinfo(np.int32).max:
        raise DataError(
            f"{ends[-1]:,} rewards are too many for one array of lists. Take fewer prompts at once."
        )
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), pa.array(values))


def read(dataset, rewards: str, key: str) -> tuple[Iterator["pa.Table"], dict | None]:
    """Both columns of a dataset, a batch of rows at a time, and the provenance in its metadata.

    - `dataset`: a `datasets.Dataset` or `IterableDataset`, an Arrow table, or anything that
      converts to one (pandas, polars, DuckDB).
    """
    import pyarrow as pa

    if hasattr(dataset, "with_format"):
        # A stream may not know its columns before its first row.
        require_columns(dataset.column_names or next(iter(dataset), {}), rewards, key)
        chosen = dataset.select_columns([key, rewards]).with_format("arrow")
        return chosen.iter(ROWS), None
    if not isinstance(dataset, pa.Table):
        if not hasattr(dataset, "__arrow_c_stream__"):
            raise ArgumentError(
                "dataset",
                "must be a data set of `datasets` or a table that Arrow can read; got "
                f"{type(dataset).__name__}. Make one with `pyarrow.table`.",
            )
        try:
            dataset = pa.table(dataset)
        except pa.ArrowException as error:  # a single column, such as a pandas series
            raise ArgumentError(
                "dataset", f"must be a table with columns; got {type(dataset).__name__} ({error})."
            ) from None
    require_columns(dataset.column_names, rewards, key)
    return iter([dataset.select([key, rewards])]), stated_provenance(dataset.schema)


def stated_provenance(schema: "pa.Schema") -> dict | None:
    """The provenance of an exported table; None for other tables."""
    text = (schema.metadata or {}).get(MADE_WITH)
    return None if text is None else json.loads(text)


def agreed(stated: dict | None, given: Mapping[str, object] | None) -> dict:
    """The provenance of a table: its own, or the given one if it has none."""
    if stated is None or given is None:
        return dict(given if stated is None and given is not None else stated or {})
    storage.require_same(
        stated,
        given,
        "`provenance` must agree with the table, which has",
        "Leave it out, or use the right table.",
        error=DataError,
    )
    return dict(stated)


def require_columns(names: Iterable[str], rewards: str, key: str) -> None:
    """Raise DataError unless both columns are among the names."""
    names = list(names)
    for argument, name in (("key", key), ("rewards", rewards)):
        if name not in names:
            raise DataError(
                f"`{argument}` must be a column of the data set; got {name!r}. Its columns are "
                f"{', '.join(names)}."
            )


def blocks(parts: Iterable["pa.Table"], rewards: str, key: str) -> Iterator[Block]:
    """Prompt ids, reward counts, and sorted float64 rewards from the rows of tables.

    Raises DataError for rows without an id or rewards, and for rewards that are not finite.
    """
    before, said = 0, False
    for part in parts:
        if not len(part):
            continue
        ids = _texts(part[key], key, before)
        values, counts = _numbers(part[rewards], rewards, ids)
        if not said and (said := _is_rounded(values, part[rewards].type.value_type)):
            LOG.warning(
                "%r holds rewards such as %s that were rounded to %s. A reward that computes them "
                "in double precision does not tie with them, so that quantiles are wrong. Write "
                "the column as float64.",
                rewards,
                f"{values[0]:.6g}",
                part[rewards].type.value_type,
            )
        yield ids, counts, sort_each(values, counts)
        before += len(part)


def _is_rounded(values: np.ndarray, number: "pa.DataType") -> bool:
    """Whether most of the rewards are short decimals that a narrow type has rounded, such as 0.1 in
    float32. Scores of a model in that type have more digits, and are exact."""
    import pyarrow as pa

    if not pa.types.is_floating(number) or number.bit_width >= 64:
        return False
    narrow, digits = (np.float32, 6) if number.bit_width == 32 else (np.float16, 3)
    some = values[:LOOKED_AT]
    short = np.array([float(f"{value:.{digits}g}") for value in some])
    return bool(((short != some) & (short.astype(narrow) == some)).mean() > 0.5)


def _texts(column: "pa.ChunkedArray", key: str, before: int) -> "pa.Array":
    """Ids as strings; integers become strings, as in a run's prompts.

    - `before`: number of rows read earlier, for error messages.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if not any(fits(kind) for fits in (*texts, pa.types.is_integer)):
        raise DataError(f"{key!r} must be a column of strings or whole numbers; it holds {kind}.")
    missing = column.null_count
    if missing:
        row = before + pc.index(column.is_null(), True).as_py()
        raise DataError(f"{key!r} has no value in row {row} ({missing} such rows near it).")
    return pa.concat_arrays(column.cast(pa.large_string()).chunks)


def _numbers(column: "pa.ChunkedArray", name: str, ids) -> tuple[np.ndarray, np.ndarray]:
    """All rewards as float64, one prompt after another, and the number of rewards of each
    prompt."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    number = kind.value_type if any(fits(kind) for fits in lists) else pa.null()
    if not (pa.types.is_floating(number) or pa.types.is_integer(number)):
        raise DataError(f"{name!r} must be a column of lists of numbers; it holds {kind}.")
    rows = pa.concat_arrays(column.chunks)
    counts = pc.list_value_length(rows).fill_null(0).to_numpy(zero_copy_only=False).astype(int)
    empty = np.flatnonzero(counts == 0)
    if empty.size:
        raise DataError(
            f"{name!r} must hold at least one reward per prompt; it has none for prompt_id "
            f"{ids[int(empty[0])].as_py()!r} ({empty.size} of {len(counts)} rows). Leave those "
            "prompts out, or score them."
        )
    flat = pc.list_flatten(rows)
    try:
        values = flat.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid as error:  # whole numbers beyond 2⁵³
        raise DataError(f"{name!r} holds a number that float64 cannot represent: {error}") from None
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        prompt = int(np.searchsorted(np.cumsum(counts), wrong[0], "right"))
        raise DataError(
            f"{name!r} must hold finite rewards; it has {values[wrong[0]]:g} for prompt_id "
            f"{ids[prompt].as_py()!r} ({wrong.size} of {values.size} near it). Score those samples "
            "again, or leave their prompts out."
        )
    return values, counts
