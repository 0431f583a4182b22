"""Stored samples: all of them, or those of given prompt ids."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from infalign._look import Shown
from infalign.errors import DataError

from .ids import HeldIds
from .manifest import read_manifest
from .shards import read_shard_samples

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PromptSamples", "by_prompt", "read_samples", "samples_of"]


def read_samples(path: Path | str, columns: Sequence[str] | None = None) -> "pa.Table":
    """All samples of a store: prompt_id, sample, completion, reward, and any further columns.

    - `columns`: names of the columns to read. Default: all.

    Raises DataError for damaged files and for stores without samples.
    """
    import pyarrow as pa

    path = Path(path)
    manifest = read_manifest(path)
    if not manifest["samples"]:
        raise DataError(f"{path} holds rewards only, no samples. Calibrate again to keep them.")
    names = None if columns is None else list(columns)
    return pa.concat_tables([read_shard_samples(path, s, names) for s in manifest["samples"]])


@dataclass(frozen=True)
class PromptSamples(Shown):
    """Samples of prompts, joined by id: in the order of the prompts, not of the files."""

    prompt_ids: Sequence[str]
    counts: np.ndarray
    """Number of samples of each prompt."""

    table: "pa.Table" = field(repr=False)
    """One row per sample: the first prompt's samples in the order drawn, then the second's, and so
    on."""

    def rows(self, column: str) -> list[list]:
        """The values of each prompt as a list; prompts may have different numbers of samples."""
        values, ends = self.table[column].to_pylist(), np.cumsum(self.counts)
        return [values[end - count : end] for count, end in zip(self.counts, ends, strict=True)]

    def matrix(self, column: str) -> np.ndarray:
        """The numbers of each prompt, shape (prompts, K), null as nan.

        Raises DataError if prompts have different numbers of samples.
        """
        other = np.flatnonzero(self.counts != self.counts[0])
        if other.size:
            raise DataError(
                f"The prompts must have equally many samples; got {self.counts[other[0]]} for "
                f"prompt_id {self.prompt_ids[other[0]]!r} and {self.counts[0]} for "
                f"{self.prompt_ids[0]!r} ({other.size} of {len(self.counts)} differ from it). "
                "Collect these prompts again."
            )
        values = self.table[column].to_numpy().astype(float)
        return values.reshape(len(self.counts), -1)


def samples_of(
    path: Path | str, prompt_ids: Sequence[str], columns: Sequence[str] | None = None
) -> PromptSamples:
    """The stored samples of these prompts, in this order.

    - `columns`: as in `read_samples`.

    Raises DataError like `read_samples`, and for prompts without samples.
    """
    needed = None if columns is None else list(dict.fromkeys(("prompt_id", "sample", *columns)))
    return by_prompt(read_samples(path, needed), prompt_ids, source=str(path))


def by_prompt(table: "pa.Table", prompt_ids: Sequence[str], *, source: str) -> PromptSamples:
    """The rows of a table, joined to prompts by `prompt_id`. A prompt's rows are in the order of
    `sample`, or in table order if there is no such column.

    - `source`: the table's name in errors.

    Raises DataError for prompts that have no rows, and for duplicate `prompt_ids`.
    """
    positions = HeldIds(prompt_ids).find(table["prompt_id"].to_pylist())
    numbers = table["sample"].to_numpy() if "sample" in table.column_names else positions
    order = np.lexsort((numbers, positions))
    order = order[np.searchsorted(positions[order], 0) :]  # rows of other prompts come first
    counts = np.bincount(positions[order], minlength=len(prompt_ids))
    missing = np.flatnonzero(counts == 0)
    if missing.size:
        raise DataError(
            f"{source} has no samples of prompt_id {prompt_ids[missing[0]]!r} ({missing.size} of "
            f"{len(prompt_ids)} prompts are missing). Collect samples of these prompts."
        )
    return PromptSamples(prompt_ids, counts, table.take(order))
