"""Prompt id → sorted reference rewards, as a mapping that reads them in place."""

from collections.abc import ItemsView, Iterator, Mapping, Sequence, ValuesView
from pathlib import Path

import numpy as np

from infalign.errors import DataError

from .ids import UNKNOWN, HeldIds, stored_ids
from .manifest import read_manifest
from .rows import Rows, held_rows
from .shards import open_rewards

__all__ = ["SortedRewards", "held_rewards", "held_values", "reopened", "stored_rewards"]


class SortedRewards(Mapping):
    """Sorted reference rewards of prompts, in memory or mapped from the shards of a store.

    A mapping from prompt id to a float64 array; `find` and `ranks` serve many prompts at once.
    Picklable: rewards in memory are included; a store on disk is reopened and must be unchanged.
    """

    def __init__(self, index, parts: Sequence[Rows], source: tuple[Path, str] | None = None):
        self._index, self._parts, self._source = index, parts, source
        self._ends = np.cumsum([len(part) for part in parts])

    @property
    def folder(self) -> Path | None:
        """The folder of the store; None in memory."""
        return None if self._source is None else self._source[0]

    @property
    def counts(self) -> np.ndarray:
        """K of each prompt."""
        return np.concatenate([part.counts for part in self._parts])

    @property
    def dtype(self) -> np.dtype:
        """The widest type of the rewards: float32 or float64."""
        return max((part.dtype for part in self._parts), key=lambda dtype: dtype.itemsize)

    def find(self, prompt_ids: Sequence[str]) -> np.ndarray:
        """Positions of prompts, -1 for those that are unknown."""
        return self._index.find(prompt_ids)

    def ranks(
        self, positions: np.ndarray, rewards: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How many of the prompt's rewards lie below each reward, how many at or below it, and the
        prompt's K.

        - `positions`: positions of prompts, from `find`, shape (n,); `rewards`: shape (n, m),
          float64.

        Returns arrays of shapes (n, m), (n, m) and (n,).
        """
        if len(self._parts) == 1:
            (part,) = self._parts
            return *part.ranks(positions, rewards), part.counts[positions]
        below, up_to = np.empty(rewards.shape, np.int64), np.empty(rewards.shape, np.int64)
        counts = np.empty(len(positions), np.int64)
        where = np.searchsorted(self._ends, positions, "right")
        for number in np.unique(where):
            part, rows = self._parts[number], np.flatnonzero(where == number)
            own = positions[rows] - (self._ends[number] - len(part))
            below[rows], up_to[rows] = part.ranks(own, rewards[rows])
            counts[rows] = part.counts[own]
        return below, up_to, counts

    def row(self, position: int) -> np.ndarray:
        """The rewards of the prompt at a position."""
        number = int(np.searchsorted(self._ends, position, "right"))
        part = self._parts[number]
        return part.row(position - int(self._ends[number] - len(part)))

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All rewards, a few thousand prompts at a time: the values of one prompt after another,
        and the count of each prompt."""
        for part in self._parts:
            for number in range(len(part.blocks) - 1):
                yield part.block(number)

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __contains__(self, prompt_id) -> bool:
        return bool(self.find([prompt_id])[0] != UNKNOWN)

    def __getitem__(self, prompt_id: str) -> np.ndarray:
        position = int(self.find([prompt_id])[0])
        if position == UNKNOWN:
            raise KeyError(prompt_id)
        return self.row(position)

    def values(self) -> ValuesView:
        """The rows, in the order of the prompts."""
        return _Rows(self)

    def items(self) -> ItemsView:
        """Prompt ids and their rows."""
        return _Items(self)

    def __repr__(self) -> str:
        return f"SortedRewards({len(self)} prompts)"

    def __reduce__(self):
        if self._source is not None:
            return reopened, self._source
        (part,) = self._parts
        values = np.concatenate([values for values, _ in self.blocks()])
        return held_values, (list(self), values, part.counts)


class _Rows(ValuesView):
    def __init__(self, rewards: SortedRewards):
        super().__init__(rewards)
        self._rewards = rewards

    def __iter__(self):
        for values, counts in self._rewards.blocks():
            yield from np.split(values.astype(float), np.cumsum(counts)[:-1])


class _Items(ItemsView):
    def __init__(self, rewards: SortedRewards):
        super().__init__(rewards)
        self._rewards = rewards

    def __iter__(self):
        return zip(self._rewards, self._rewards.values(), strict=True)


def held_rewards(prompt_ids: Sequence[str], rows: Sequence[np.ndarray]) -> SortedRewards:
    """Sorted rewards in memory, one array per prompt id."""
    empty = [p for p, row in zip(prompt_ids, rows, strict=True) if not len(row)]
    if empty or not len(rows):
        what = f"no rewards for prompt_id {empty[0]!r}" if empty else "no prompts"
        raise DataError(f"`rewards` holds {what}. Give at least one reward to each.")
    counts = np.fromiter(map(len, rows), np.int64, len(rows))
    return held_values(prompt_ids, np.concatenate(rows).astype(float), counts)


def held_values(prompt_ids: Sequence[str], values: np.ndarray, counts: np.ndarray) -> SortedRewards:
    """Sorted rewards in memory, from the values of one prompt after another, and their counts."""
    return SortedRewards(HeldIds(prompt_ids), [held_rows(values, counts)])


def stored_rewards(path: Path, manifest: dict) -> SortedRewards:
    """The rewards of the store in folder `path`; none are read yet."""
    import pyarrow as pa

    from infalign import storage

    opened = [open_rewards(path, shard) for shard in manifest["rewards"]]
    ids = pa.concat_arrays([ids for ids, _ in opened])
    try:
        index = stored_ids(ids)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    source = path.absolute(), storage.fingerprint(manifest)
    return SortedRewards(index, [rows for _, rows in opened], source)


def reopened(path: Path, checksum: str) -> SortedRewards:
    """The rewards of a pickled store on disk; DataError if the folder holds another store now."""
    from infalign import storage

    manifest = read_manifest(path)
    if storage.fingerprint(manifest) != checksum:
        raise DataError(
            f"{path} is not the store that was pickled: its manifest differs. Open it again, and "
            "pickle that."
        )
    return stored_rewards(path, manifest)
