"""Ragged rewards: one array for all prompts, and the sample count of each prompt."""

from collections.abc import Sequence

import numpy as np

from infalign import _check
from infalign.core import finite_rewards

__all__ = ["checked_rewards", "rectangle", "sort_each", "tied_pairs"]


def checked_rewards(name: str, value) -> tuple[np.ndarray, np.ndarray]:
    """All rewards, one prompt after another, and the reward count of each prompt.

    - `value`: shape (prompts, K), or one list per prompt; finite, with at least one reward per
      prompt.

    Otherwise raises a ValueError that names the prompt.
    """
    if not isinstance(value, np.ndarray):
        value = [_check.numbers(name, row) for row in _check.entries(name, value)]
    sizes = set() if isinstance(value, np.ndarray) else {row.size for row in value}
    if len(sizes) < 2:
        value = finite_rewards(name, value)
        return value.ravel(), np.full(len(value), value.shape[1])
    rows = value
    for number, row in enumerate(rows):
        if row.ndim != 1 or not row.size:
            raise ValueError(
                f"`{name}` must hold a list of rewards per prompt, none of them empty; got shape "
                f"{row.shape} at prompt {number}."
            )
    values = np.concatenate(rows)
    counts = np.array([row.size for row in rows])
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        prompt = int(np.searchsorted(np.cumsum(counts), bad[0], "right"))
        raise ValueError(
            f"`{name}` must hold finite rewards; got {values[bad[0]]:g} at prompt {prompt}, sample "
            f"{bad[0] - counts[:prompt].sum()} ({bad.size} of {values.size} entries). "
            "Score those samples again, or leave their prompts out on purpose."
        )
    return values, counts


def sort_each(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The rewards, sorted within each prompt."""
    if (counts == counts[0]).all():
        return np.sort(values.reshape(len(counts), -1), axis=1).ravel()
    return values[np.lexsort((values, np.repeat(np.arange(len(counts)), counts)))]


def tied_pairs(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Share of tied pairs among each prompt's sorted rewards; 0 for a single reward."""
    prompt = np.repeat(np.arange(len(counts)), counts)
    new = np.append(True, (values[1:] != values[:-1]) | (prompt[1:] != prompt[:-1]))
    first = np.flatnonzero(new)
    runs = np.diff(np.append(first, len(values))).astype(float)
    pairs = np.bincount(prompt[first], runs * (runs - 1), len(counts))
    counts = counts.astype(float)
    return pairs / np.maximum(counts * (counts - 1), 1)


def rectangle(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows as a matrix; shorter rows are padded with nan."""
    filled = np.full((len(rows), max(map(len, rows))), np.nan)
    for own, row in zip(filled, rows, strict=True):
        own[: len(row)] = row
    return filled
