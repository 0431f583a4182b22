"""Win rates of many prompts at once, from sorting the samples of both sides together.

Go through a prompt's rewards in increasing order. Each sample of the policy moves A, the chance
that the policy's selected response is no better, from one value of its law to the next; each sample
of the reference moves B likewise. The win rate is the area under the path of (A, B) from (0, 0) to
(1, 1), W = ∫ B dA.
"""

import numpy as np

__all__ = ["wins_between"]

BLOCK = 2**14
"""Number of rewards that are merged at once, so that they fit into a core's cache."""


def wins_between(a: np.ndarray, b: np.ndarray, law_a: np.ndarray, law_b: np.ndarray) -> np.ndarray:
    """Chance that the sample selected from `a` beats the one selected from `b`; ties count one
    half; (rows,).

    - `a`, `b`: rewards, shape (rows, m) and (rows, k), no nan, in any order.
    - `law_a`: chance that the selected sample is among the j lowest, for j = 0 … m; shape (m + 1,)
      for all prompts, or (rows, m + 1); `law_b` likewise.
    """
    m, n = a.shape[1], a.shape[1] + b.shape[1]
    rows = max(1, BLOCK // n)
    starts = np.arange(rows)[:, None] * n + np.arange(m)
    blocks = [slice(i, i + rows) for i in range(0, len(a), rows)]
    return np.concatenate(
        [_block(a[r], b[r], _of(law_a, r), _of(law_b, r), starts) for r in blocks]
    )


def _block(
    a: np.ndarray, b: np.ndarray, law_a: np.ndarray, law_b: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    """`starts`: flat index of the i-th of m samples of each row in a table of both, (rows, m)."""
    # One sort of numbers, since sorting indices takes three times as long: the lowest bit of each
    # reward marks its side. Rows with rewards that differ in no other bit are redone below.
    both = np.concatenate([a, b], axis=1)
    both += 0.0  # -0.0 becomes 0.0, whose bits differ
    bits = both.view(np.uint64)
    bits &= ~np.uint64(1)
    bits |= (np.arange(both.shape[1]) < a.shape[1]).astype(np.uint64)
    both.sort(axis=1)
    # At the i-th lowest sample of the policy, with p samples below it, p - i are the reference's.
    ours = np.flatnonzero((bits.astype(np.uint8) & np.uint8(1)).view(bool))
    below = ours.reshape(a.shape) - starts[: len(a)]
    if law_a.ndim == law_b.ndim == 1:
        wins = law_b.take(below) @ np.diff(law_a)
    else:
        wins = (np.take_along_axis(_each(law_b, b), below, axis=1) * np.diff(law_a)).sum(1)
    flat = bits.ravel()
    close = (flat[1:] ^ flat[:-1]) < 2
    if close.any():
        close = np.append(close, False).reshape(both.shape)
        close[:, -1] = False  # the highest of a row does not tie with the lowest of the next
        tied = close.any(1)
        a, b, laws = a[tied], b[tied], (_each(law_a, a)[tied], _each(law_b, b)[tied])
        if _even(a) and _even(b):  # the order is right, as for 32-bit rewards and integers
            wins[tied] = _with_ties((bits[tied] & np.uint64(1)) == 1, ~close[tied], *laws)
        else:
            wins[tied] = _with_ties(*_climb(a, b), *laws)
    return wins


def _even(rewards) -> bool:
    """Whether the lowest bit of every reward is 0."""
    return not (rewards.view(np.uint64) & np.uint64(1)).any()


def _climb(a, b) -> tuple[np.ndarray, np.ndarray]:
    """Both sides in increasing order: which samples are from `a`, and which are the last of a
    tie."""
    both = np.concatenate([a, b], axis=1)
    order = np.argsort(both, axis=1)
    ranked = np.take_along_axis(both, order, axis=1)
    last = np.ones(both.shape, bool)
    last[:, :-1] = ranked[:, 1:] != ranked[:, :-1]
    return order < a.shape[1], last


def _with_ties(ours, last, law_a, law_b) -> np.ndarray:
    """The win rate with tied rewards. A tie moves A and B together and counts one half, so each
    distinct value adds a trapezoid to the area.

    - `ours`, `last`: as from `_climb`, (rows, m + k).
    """
    ends = np.flatnonzero(last)
    row, place = np.divmod(ends, last.shape[1])
    i = np.cumsum(ours, axis=1).ravel()[ends]  # policy samples up to each value
    A, B = law_a[row, i], law_b[row, place + 1 - i]
    first = np.diff(row, prepend=-1) > 0
    A_before, B_before = (np.where(first, 0, np.roll(x, 1)) for x in (A, B))
    return np.bincount(row, (A - A_before) * (B + B_before) / 2)


def _of(law, rows):
    """The law of some prompts, or the law that all share."""
    return law if law.ndim == 1 else law[rows]


def _each(law, rewards):
    """The law of every prompt, (rows, m + 1)."""
    return np.broadcast_to(law, (len(rewards), rewards.shape[1] + 1))
