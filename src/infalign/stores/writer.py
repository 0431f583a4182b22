"""Writer of calibration stores, one durable shard at a time."""

import os
import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from infalign import _check, storage
from infalign.errors import DataError

from .manifest import (
    NAME,
    held,
    new_manifest,
    read_manifest,
    require_finished,
    write_manifest,
)
from .ragged import checked_rewards, sort_each
from .shards import (
    Block,
    open_rewards,
    read_shard_samples,
    smallest_type,
    write_rewards,
    write_samples,
)
from .sorted_rewards import stored_rewards

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["StoreWriter", "blocks_of", "widest"]

TOGETHER = 16
"""Number of shards of the same generation that are merged: after 100,000 shards a store has fewer
than 100."""

LARGEST = 2**28
"""Largest size of a merged shard, in bytes."""

SHARD = re.compile(r"(rewards|samples)-\d{5,}\.parquet")


class StoreWriter:
    """Adds shards to a store folder; each call of `add` is durable when it returns.

    A folder has one writer at a time: a second one is refused until the first is closed, its
    process ends, or all prompts are written. A killed writer does not block others; its unfinished
    shard is removed.

    - `provenance`: how the rewards are made; it must be the same when a collection is continued.
    - `varying`: dotted names of entries that may be others then; the store states every value that
      was used, as a list.
    - `prompts`: the final number of prompts; until it is reached the store does not open. None:
      open-ended; the store is complete after each call and accepts more.

    `len` is the number of calls of `add`. Raises DataError while another writer is active, and for
    a folder whose store is unreadable or has other settings.
    """

    def __init__(
        self,
        path: Path,
        provenance: Mapping[str, object],
        prompts: int | None = None,
        *,
        varying: Sequence[str] = (),
    ):
        self.path, self._varying = Path(path), varying
        self._open_ended = prompts is None
        fresh = new_manifest(provenance, 0 if prompts is None else _check.count("prompts", prompts))
        self.close = weakref.finalize(self, os.close, storage.lock(self.path))
        """Releases the folder to other writers."""
        try:
            self._manifest = self._continued(fresh) if (self.path / NAME).exists() else fresh
            self._known = stored_rewards(self.path, self._manifest) if self.prompts else None
            self._new: set[str] = set()
            _sweep(self.path, self._manifest)
            self._merge()  # a writer may have been killed before
        except BaseException:
            self.close()
            raise

    def _continued(self, fresh: dict) -> dict:
        """The stored manifest; DataError unless its collection may be continued."""
        manifest = read_manifest(self.path)
        stored, wanted = manifest["provenance"], fresh["provenance"]
        for name in self._varying:
            stored, wanted = _agreed(stored, wanted, name.split("."))
        manifest = {**manifest, "provenance": stored}  # written with the next shard
        if self._open_ended:
            require_finished(self.path, manifest)
        else:
            number = "number of prompts"
            stored = stored | {number: manifest["prompts"]}
            wanted = wanted | {number: fresh["prompts"]}
        storage.require_same(
            stored,
            wanted,
            f"{self.path} was collected with other settings:",
            "Remove it, or restore them.",
            error=DataError,
        )
        return manifest

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __len__(self) -> int:
        return self._manifest["adds"]

    def __bool__(self) -> bool:
        return True  # also before the first shard

    def __contains__(self, prompt_id: str) -> bool:
        """Whether a prompt has rewards."""
        return prompt_id in self._new or (self._known is not None and prompt_id in self._known)

    @property
    def prompts(self) -> int:
        """Number of prompts that have rewards."""
        return held(self._manifest)

    def add(self, prompt_ids: Sequence[str], completions, rewards, extra=None) -> None:
        """Append one shard.

        - `rewards`: raw, shape (prompts, K), or one list per prompt where K differs.
        - `completions`: strings of the same shape. None stores rewards only.
        - `extra`: further columns with one entry per response, in the order of the completions.

        Raises ValueError for shapes that disagree and rewards that are not finite, DataError for
        prompts that are in the store already, and for further columns that are not those of the
        samples before.
        """
        values, counts = checked_rewards("rewards", rewards)
        ids = self._checked_ids(list(prompt_ids), len(counts))
        samples = None
        if completions is not None:
            samples = _samples(prompt_ids, completions, values, counts, extra or {})
            samples = self._like_earlier(samples)
        elif extra:
            raise ValueError("`extra` must come with `completions`; got `extra` alone.")
        block = ids, counts, sort_each(values, counts)
        self._append([block], smallest_type(values), [] if samples is None else [samples])
        self._new |= set(prompt_ids)  # also if the merge fails
        self._settle()

    def add_sorted(
        self, blocks: Iterable[Block], dtype: np.dtype, samples: Iterable["pa.Table"] = ()
    ) -> None:
        """Append one shard of blocks. The caller guarantees that they are new, finite and
        sorted."""
        self._append(blocks, dtype, samples)
        self._settle()

    def _append(
        self, blocks: Iterable[Block], dtype: np.dtype, samples: Iterable["pa.Table"]
    ) -> None:
        if not self.close.alive:
            raise ValueError(f"The writer of {self.path} is closed. Make another `StoreWriter`.")
        change = {
            "next": self._manifest["next"] + 1,
            "adds": self._manifest["adds"] + 1,
            "rewards": [
                *self._manifest["rewards"],
                write_rewards(self._next_file("rewards"), blocks, dtype) | {"merged": 0},
            ],
        }
        if shard := write_samples(self._next_file("samples"), samples):
            change["samples"] = [*self._manifest["samples"], shard | {"merged": 0}]
        if self._open_ended:
            change["prompts"] = sum(shard["prompts"] for shard in change["rewards"])
        self._commit(change)

    def _settle(self) -> None:
        """After a shard: merge, and close a store that has all its prompts."""
        self._merge()
        if self.prompts == self._manifest["prompts"] and not self._open_ended:
            self.close()

    def _like_earlier(self, samples: "pa.Table") -> "pa.Table":
        """Samples with the columns of those before, in their order and types; DataError if they
        have others."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._manifest["samples"]:
            return samples
        earlier = pq.read_schema(self.path / self._manifest["samples"][-1]["file"])
        names, known = set(samples.column_names), set(earlier.names)
        if names != known:
            changed = ", ".join(map(repr, sorted(names ^ known)))
            raise DataError(
                f"`extra` must have the same columns in every call; only some samples of "
                f"{self.path} would have {changed}. Nothing was written. Fill in what is missing."
            )
        for field in earlier:
            own, before = samples.schema.field(field.name).type, field.type
            widened = pa.types.is_floating(before) and pa.types.is_integer(own)
            if own != before and not pa.types.is_null(own) and not widened:
                raise DataError(
                    f"`extra` must have the same types in every call; {field.name!r} has {own}, "
                    f"and {before} in the samples of {self.path} before. Nothing was written."
                )
        return samples.select(earlier.names).cast(earlier)

    def _commit(self, change: dict) -> None:
        manifest = self._manifest | change
        write_manifest(self.path, manifest)
        self._manifest = manifest

    def _next_file(self, kind: str) -> Path:
        return self.path / f"{kind}-{self._manifest['next']:05d}.parquet"

    def _merge(self) -> None:
        self._merge_last("rewards", _merged_rewards)
        self._merge_last("samples", _merged_samples)

    def _merge_last(self, kind: str, merged: Callable[[Path, Path, list[dict]], dict]) -> None:
        """Merge the last `TOGETHER` shards as long as they belong to the same generation."""
        while True:
            shards = self._manifest[kind]
            last = shards[-TOGETHER:]
            ages = {shard["merged"] for shard in last}
            if len(last) < TOGETHER or len(ages) > 1 or sum(s["bytes"] for s in last) > LARGEST:
                return
            one = merged(self.path, self._next_file(kind), last) | {"merged": ages.pop() + 1}
            self._commit({"next": self._manifest["next"] + 1, kind: [*shards[:-TOGETHER], one]})
            for shard in last:
                (self.path / shard["file"]).unlink()

    def _checked_ids(self, prompt_ids: list[str], rows: int) -> "pa.Array":
        """Ids as an array: new, unique, one per row."""
        import pyarrow as pa

        if len(prompt_ids) != rows or len(set(prompt_ids)) != rows:
            raise ValueError(
                f"`prompt_ids` must be unique, one per row of `rewards`; got {len(prompt_ids)} ids "
                f"({len(set(prompt_ids))} distinct) for {rows} rows."
            )
        try:
            ids = pa.array(prompt_ids, pa.large_string())
        except (TypeError, ValueError):
            ids = None
        if ids is None or ids.null_count:
            wrong = next(p for p in prompt_ids if not isinstance(p, str) or not p.isprintable())
            raise ValueError(f"`prompt_ids` must be strings; got {wrong!r}. Use str(…) of them.")
        again = [p for p in prompt_ids if p in self._new]
        if self._known is not None:
            again += [prompt_ids[i] for i in np.flatnonzero(self._known.find(prompt_ids) >= 0)]
        if again:
            raise DataError(
                f"{self.path} has prompt_id {again[0]!r} already ({len(again)} of {rows} are "
                "duplicates). Add each prompt once."
            )
        left = self._manifest["prompts"] - self.prompts
        if not self._open_ended and rows > left:
            raise ValueError(
                f"`prompt_ids` must have at most {left} entries, the rest of `prompts="
                f"{self._manifest['prompts']}`; got {rows}. Make the writer with the final number "
                "of prompts, or with `prompts=None`."
            )
        return ids


def _agreed(stored: dict, wanted: dict, name: list[str]) -> tuple[dict, dict]:
    """Both provenances with every value that either states under a name, in the order of use."""
    first, rest = name[0], name[1:]
    if first not in stored or first not in wanted:
        return stored, wanted
    before, now = stored[first], wanted[first]
    if rest:
        if not (isinstance(before, dict) and isinstance(now, dict)):
            return stored, wanted
        before, now = _agreed(before, now, rest)
    elif before != now:
        every = before if isinstance(before, list) else [before]
        before = now = every if now in every else [*every, now]
    return {**stored, first: before}, {**wanted, first: now}


def _samples(prompt_ids, completions, values, counts, extra) -> "pa.Table":
    """One row per response."""
    import pyarrow as pa

    texts = [len(row) for row in completions]
    if texts != counts.tolist():
        raise ValueError(
            f"`completions` must have one text per reward; got {sum(texts)} in {len(texts)} rows "
            f"for {counts.sum()} rewards in {len(counts)} rows."
        )
    for name, column in extra.items():
        if len(column) != len(values):
            raise ValueError(
                f"`extra` must have one entry per response; got {len(column)} in {name!r} for "
                f"{len(values)} responses."
            )
    before = np.cumsum(counts) - counts
    return pa.table(
        {
            "prompt_id": [p for p, k in zip(prompt_ids, counts, strict=True) for _ in range(k)],
            "sample": np.arange(len(values)) - np.repeat(before, counts),
            "completion": [text for row in completions for text in row],
            "reward": values,
        }
        | dict(extra)
    )


def blocks_of(path: Path, shards: list[dict]) -> Iterator[Block]:
    """Prompts and verified rewards of shards, one row group at a time."""
    for shard in shards:
        ids, rows = open_rewards(path, shard)
        for number, (first, end) in enumerate(zip(rows.blocks, rows.blocks[1:], strict=False)):
            values, counts = rows.block(number)
            yield ids[int(first) : int(end)], counts, values


def widest(shards: list[dict]) -> np.dtype:
    """The type that holds the rewards of all shards."""
    return max((np.dtype(shard["dtype"]) for shard in shards), key=lambda dtype: dtype.itemsize)


def _merged_rewards(path: Path, file: Path, shards: list[dict]) -> dict:
    return write_rewards(file, blocks_of(path, shards), widest(shards))


def _merged_samples(path: Path, file: Path, shards: list[dict]) -> dict:
    return write_samples(file, (read_shard_samples(path, shard) for shard in shards))


def _sweep(path: Path, manifest: dict) -> None:
    """Remove the files of a killed writer, which the manifest does not name."""
    storage.sweep(path)
    named = {shard["file"] for kind in ("rewards", "samples") for shard in manifest[kind]}
    for file in path.iterdir():
        if SHARD.fullmatch(file.name) and file.name not in named:
            file.unlink()
