"""Indexes from prompt ids to positions, for a few ids and for millions.

Ids that come from Python are held in a dict. Ids read from a store stay in Arrow's memory, sorted
by hash. For a million strings this takes a tenth of the memory of a dict, and opens in a third of
the time.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from infalign.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["HeldIds", "StoredIds", "stored_ids"]

UNKNOWN = -1
"""Position of an id that is not in the index."""

TOGETHER = 2**14
"""Number of ids looked up at once, so that their arrays fit the processor's cache."""


class HeldIds:
    """In-memory index of prompt ids. Raises DataError on duplicates."""

    def __init__(self, prompt_ids: Sequence[str]):
        self._position = {p: i for i, p in enumerate(prompt_ids)}
        if len(self._position) != len(prompt_ids):
            twice = next(p for i, p in enumerate(prompt_ids) if self._position[p] != i)
            raise DataError(f"prompt_id {twice!r} occurs more than once. Keep one of them.")

    def __len__(self) -> int:
        return len(self._position)

    def __iter__(self) -> Iterator[str]:
        return iter(self._position)

    def find(self, prompt_ids: Sequence[str]) -> np.ndarray:
        """Positions of ids; `UNKNOWN` for ids that are not in the index."""
        known = (self._position.get(p, UNKNOWN) for p in prompt_ids)
        return np.fromiter(known, np.int64, len(prompt_ids))


class StoredIds:
    """Ids in an Arrow array, looked up by hash and then compared; made by `stored_ids`."""

    def __init__(self, ids: "pa.Array", hashes: np.ndarray, order: np.ndarray):
        self._ids, self._order = ids, np.append(order, 0)
        self._hashes = np.append(hashes, np.uint64(2**64 - 1))  # ends every search
        bits = len(ids).bit_length() + 1  # buckets of half an id
        self._shift = np.uint64(64 - bits)
        sizes = np.bincount((hashes >> self._shift).astype(np.int64), minlength=2**bits)
        self._first = np.concatenate([[0], np.cumsum(sizes[:-1])]).astype(order.dtype)

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self._ids), TOGETHER):
            yield from self._ids.slice(start, TOGETHER).to_pylist()

    def find(self, prompt_ids: Sequence[str]) -> np.ndarray:
        """Positions of ids; `UNKNOWN` for ids that are not in the index."""
        import pyarrow as pa
        import pyarrow.compute as pc

        prompt_ids = list(prompt_ids)
        if len(prompt_ids) > TOGETHER:
            parts = range(0, len(prompt_ids), TOGETHER)
            return np.concatenate([self.find(prompt_ids[i : i + TOGETHER]) for i in parts])
        try:
            asked = pa.array(prompt_ids, pa.large_string())
        except (TypeError, ValueError):  # numbers, or strings that no file can hold
            sparse = np.full(len(prompt_ids), UNKNOWN)
            texts = [i for i, p in enumerate(prompt_ids) if _is_text(p)]
            sparse[texts] = self.find([prompt_ids[i] for i in texts])
            return sparse
        wanted = _hashes(prompt_ids)
        slot = self._first[(wanted >> self._shift).astype(np.int64)].astype(np.int64)
        # Buckets hold half an id on average, so a search passes few slots before it reaches the
        # hash.
        behind = np.flatnonzero(self._hashes[slot] < wanted)
        while behind.size:
            slot[behind] += 1
            behind = behind[self._hashes[slot[behind]] < wanted[behind]]
        positions = self._order[slot].astype(np.int64)
        same = pc.equal(self._ids.take(pa.array(positions)), asked).fill_null(False)
        positions[~same.to_numpy(zero_copy_only=False)] = UNKNOWN
        return positions


def stored_ids(ids: "pa.Array") -> HeldIds | StoredIds:
    """An index of ids read from a store; DataError on duplicates."""
    parts = [ids.slice(i, TOGETHER) for i in range(0, len(ids), TOGETHER)]
    hashes = np.concatenate([_hashes(p.to_numpy(zero_copy_only=False)) for p in parts])
    order = np.argsort(hashes).astype(np.int32 if len(ids) < 2**31 else np.int64)
    hashes = hashes[order]
    if (hashes[1:] == hashes[:-1]).any():  # a duplicate or, rarely, two ids with the same hash
        return HeldIds(ids.to_pylist())
    return StoredIds(ids, hashes, order)


def _hashes(prompt_ids) -> np.ndarray:
    # Python's hashes are fast and differ between processes: never store or pickle them.
    return np.fromiter(map(hash, prompt_ids), np.int64, len(prompt_ids)).view(np.uint64)


def _is_text(value) -> bool:
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False
