"""Responses that have no answer: they are drawn again as configured, counted and never scored."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from infalign import _check
from infalign.errors import DataError

from .interfaces import Response

__all__ = ["with_answers"]

LOG = logging.getLogger(__name__)

ANSWERS = ("whole", "after-thinking")
"""What of a response is its answer: all of it, or the part after the thought."""

Place = tuple[int, int]
"""A prompt's index and its response's."""


def with_answers(
    rows: list[list[Response]],
    again: Callable[[Sequence[Place], int], Sequence[Response]],
    *,
    ask_again: int,
    unanswered: Literal["error", "keep"],
    source: str,
    keys: Sequence[str],
    max_new_tokens: int,
) -> list[list[Response]]:
    """`rows`, with the responses that have no answer replaced.

    - `again`: draws the responses at these places once more, given the number of the attempt, from
      1.
    - `ask_again`: attempts at most.
    - `unanswered`: "error" refuses responses without an answer after all attempts; "keep" returns
      them.
    - `source`, `keys`: what gave the responses, and the prompts' names, for messages.
    """
    empty = _empty(rows)
    if not empty:
        return rows
    first, total = len(empty), sum(map(len, rows))
    for attempt in range(1, ask_again + 1):
        if not empty:
            break
        for (i, k), response in zip(empty, again(empty, attempt), strict=True):
            rows[i][k] = response
        empty = _empty(rows)
    if empty and unanswered == "error":
        reasons = Counter(rows[i][k].missing for i, k in empty)
        raise DataError(
            f"{source} gave no answer in {len(empty)} of {total} responses"
            f"{f', after {ask_again} more requests for each' if ask_again else ''}: "
            f"{_counted(reasons)}. The first is response {empty[0][1]} to prompt "
            f"{_check.short(keys[empty[0][0]])}. A response without an answer is not scored. "
            f"{_remedy(reasons, max_new_tokens)}"
        )
    if first > len(empty):
        LOG.warning(
            "%s gave no answer in %d of %d responses, and %d were replaced by later ones with "
            "other seeds. Estimates are for the policy under the condition that it answers.",
            source,
            first,
            total,
            first - len(empty),
        )
    return rows


def _empty(rows: Sequence[Sequence[Response]]) -> list[Place]:
    return [(i, k) for i, row in enumerate(rows) for k, r in enumerate(row) if r.missing]


def _counted(reasons: Counter[str]) -> str:
    return ", ".join(f"{_check.short(reason)} ({n})" for reason, n in reasons.most_common())


def _remedy(reasons: Counter[str], max_new_tokens: int) -> str:
    remedies = []
    if "length" in reasons:
        remedies.append(
            f"raise `max_new_tokens`, now {max_new_tokens}, so that thoughts are not cut off"
        )
    if "content_filter" in reasons:
        remedies.append("switch the server's filter off, or leave these prompts out")
    remedies.append("set `ask_again`, which samples under the condition of an answer")
    words = "; or ".join(remedies)
    return f"{words[0].upper()}{words[1:]}."
