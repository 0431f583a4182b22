"""Sorted rewards of many prompts in one buffer, and ranks of other rewards among them.

The buffer may be a mapped file: values are read in place, at any alignment, and a binary search
reads only those that it compares.
"""

from collections.abc import Callable

import numpy as np

__all__ = ["Rows", "held_rows"]

TOGETHER = 2**13
"""Look-ups per batch: their arrays fit the processor's cache."""


class Rows:
    """The sorted rewards of prompts, in blocks that are contiguous in `buffer`.

    - `buffer`: bytes, either mapped from a file or the memory of an array.
    - `dtype`: float32 or float64, little endian.
    - `starts`: byte at which each prompt's rewards begin; `counts`: their number.
    - `blocks`: position of the first prompt of each block, followed by the number of prompts.
    - `verify`: called with a block's number before the first use of its values; raises DataError if
      they have changed since they were written.
    - `unchanged`: called before every use; raises DataError if the mapped file has changed since it
      was mapped. Reading beyond the new end of a file would kill the process.
    """

    def __init__(
        self,
        buffer,
        dtype,
        starts: np.ndarray,
        counts: np.ndarray,
        blocks: np.ndarray,
        verify: Callable[[int], None] | None = None,
        unchanged: Callable[[], None] | None = None,
    ):
        self.dtype, self.starts, self.counts, self.blocks = np.dtype(dtype), starts, counts, blocks
        self._buffer, self._verify, self._unchanged = buffer, verify, unchanged
        self._unverified = np.full(len(blocks) - 1, verify is not None)
        size = self.dtype.itemsize
        # A window of one number starting at every byte, since rewards may have any alignment.
        self._windows = np.ndarray(
            (memoryview(buffer).nbytes - size + 1,), f"V{size}", buffer, strides=(1,)
        )

    def __len__(self) -> int:
        return len(self.counts)

    def row(self, position: int) -> np.ndarray:
        """One prompt's rewards, as float64."""
        self._verified(np.array([position]))
        start, count = int(self.starts[position]), int(self.counts[position])
        return np.frombuffer(self._buffer, self.dtype, count, start).astype(float)

    def block(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The values of a block, one prompt after another, and the reward count of each prompt."""
        first, end = self.blocks[number], self.blocks[number + 1]
        self._verified(np.array([first]))
        counts = self.counts[first:end]
        start = int(self.starts[first])
        return np.frombuffer(self._buffer, self.dtype, int(counts.sum()), start), counts

    def ranks(self, positions: np.ndarray, rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many of a prompt's rewards lie below each of `rewards`, and how many at or below it.

        - `positions`: prompts, shape (n,); `rewards`: shape (n, m), float64.

        Both results have the shape of `rewards`, and equal `infalign.core.ranks` prompt by prompt.
        """
        self._verified(positions)
        below, up_to = np.empty(rewards.shape, np.int64), np.empty(rewards.shape, np.int64)
        step = max(1, TOGETHER // max(rewards.shape[1], 1))
        for i in range(0, len(positions), step):
            part, some = slice(i, i + step), positions[i : i + step]
            shape = rewards[part].shape
            starts = np.broadcast_to(self.starts[some][:, None], shape).ravel()
            sizes = np.broadcast_to(self.counts[some][:, None], shape).ravel()
            low, high = self._bisect(starts, sizes, rewards[part].ravel())
            below[part], up_to[part] = low.reshape(shape), high.reshape(shape)
        return below, up_to

    def _bisect(self, starts, sizes, rewards):
        """Ranks from below and from above, for one reward per row."""
        size = self.dtype.itemsize
        ends = starts + sizes.astype(np.int64) * size
        low = self._search(starts, ends, sizes, rewards, np.less)
        high = low.copy()
        # The rank from above differs only for rewards that tie with the value at their rank.
        inside = np.flatnonzero(low < ends)
        tied = inside[self._values(low[inside]) == rewards[inside]]
        left = (ends[tied] - low[tied]) // size
        high[tied] = self._search(low[tied], ends[tied], left, rewards[tied], np.less_equal)
        return (low - starts) // size, (high - starts) // size

    def _search(self, starts, ends, sizes, rewards, before) -> np.ndarray:
        """Offset of the first byte after the last value that is `before` the reward."""
        size, reached = self.dtype.itemsize, starts
        step = 1 << int(sizes.max(initial=0)).bit_length() >> 1
        while step:
            # Clipped to the end: if the last value is before the reward, all of them are.
            further = np.minimum(reached + step * size, ends)
            reached = np.where(before(self._values(further - size), rewards), further, reached)
            step >>= 1
        return reached

    def _values(self, at: np.ndarray) -> np.ndarray:
        return self._windows[at].view(self.dtype)

    def _verified(self, positions: np.ndarray) -> None:
        if self._unchanged is not None:
            self._unchanged()
        if self._verify is None or not self._unverified.any():
            return
        blocks = np.unique(np.searchsorted(self.blocks, positions, "right") - 1)
        for number in blocks[self._unverified[blocks]]:
            self._verify(int(number))
            self._unverified[number] = False


def held_rows(values: np.ndarray, counts: np.ndarray) -> Rows:
    """Rows in memory: `values` are those of one prompt after another, sorted within each."""
    values = np.ascontiguousarray(values)
    starts = (np.cumsum(counts) - counts) * values.itemsize
    blocks = np.append(np.arange(0, len(counts), 4096), len(counts))
    return Rows(values.view(np.uint8), values.dtype, starts, counts, blocks)
