"""Calls of reward functions: with texts, or with chat messages where a function reads only these.

A function takes either, and one odd text does not change which: an error on one text among others
that the function scores is an error, never a reason to call it with something else.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

from infalign import _check
from infalign.errors import DataError, InfalignError
from infalign.text import completion_of, conversation_of

from .signature import LOGGERS, Parameters, lacks

__all__ = ["awaited", "call", "reward_name"]

LOG = logging.getLogger(__name__)

PROBES = (
    "The sea is calm today.",
    "<think>\n6 times 7 is 42.\n</think>\n\n<answer>42</answer>\nSo x = \\boxed{42}.\n#### 42",
)
"""Texts that a function which reads texts can score: a sentence, and an answer in common forms."""

OF_ANOTHER_KIND = (TypeError, AttributeError)
"""What a function that reads messages raises on any text."""

ODD = (*OF_ANOTHER_KIND, LookupError)
"""What functions raise on a text that they do not expect; a function of messages on an empty one
too."""

SINGLE = 64
"""Maximum number of responses that are tried one by one."""

SETTLED = "_infalign_settled"
"""Attribute of an error after which no other call is tried, by whoever called the function."""

_READS: WeakKeyDictionary[Callable, str] = WeakKeyDictionary()
"""What each function was found to read: "texts" or "messages"."""


def call(reward: Callable, arguments: Mapping[str, Any]):
    """What a reward function returns, called with those of the arguments that its signature takes.

    A function that fails on every text as one does that reads chat messages is called with
    messages, then and later; a warning says so. Known texts and the responses themselves decide
    that, once for each function.

    - `arguments`: prompts, completions, columns, and whatever else TRL passes.

    Raises DataError if the function needs a parameter that is not among them, or fails on some
    texts and scores others; the error names the first that fails. Any other error of the function
    passes.
    """
    takes, name = Parameters.of(reward), reward_name(reward)
    if missing := takes.missing(arguments):
        raise DataError(lacks(f"The reward function `{name}`", missing, arguments))

    def values(given: Mapping[str, Any]):
        return awaited(reward(**takes.taken(given)))

    if not (_are_texts(arguments["prompts"]) and _are_texts(arguments["completions"])):
        return values(arguments)
    if _read_by(reward) == "messages":
        return values(_as_messages(arguments))
    try:
        scored = values(arguments)
    except Exception as error:
        if not _is_odd(error) or getattr(error, SETTLED, False):
            raise
        return _after(error, reward, arguments, values)
    if any(arguments["completions"]):  # a function of messages may score empty texts
        _remember(reward, "texts")
    return scored


def _after(error: Exception, reward: Callable, arguments: Mapping[str, Any], values: Callable):
    """The rewards of messages if the function reads only these; otherwise the error is raised."""
    reads = _read_by(reward) or _found_out(arguments, values)
    if reads == "texts":
        _remember(reward, reads)
        failing = _failing(arguments, values)
        if failing is not None:
            raise _named(error, reward_name(reward), arguments, failing) from error
    elif reads == "perhaps messages":
        try:
            scored = values(_as_messages(arguments))
        except Exception:
            pass  # the first error says more
        else:
            _remember(reward, "messages")
            _warn_of_messages(reward_name(reward))
            return scored
    setattr(error, SETTLED, True)
    raise error from error.__cause__


def _found_out(arguments: Mapping[str, Any], values: Callable) -> str:
    """What a function reads that has failed on texts: "texts" if it scores any text that is not
    empty, "perhaps messages" if it fails on all as a function of messages does, "" otherwise."""
    of_messages = True
    for probe in PROBES:
        asked = {
            **_silent(arguments),
            "prompts": [prompt or PROBES[0] for prompt in arguments["prompts"]],
            "completions": [probe] * len(arguments["completions"]),
        }
        try:
            values(asked)
        except Exception as error:
            of_messages = of_messages and isinstance(error.__cause__ or error, OF_ANOTHER_KIND)
        else:
            return "texts"
    texts = [i for i, text in enumerate(arguments["completions"]) if text]
    if any(not _fails([i], arguments, values) for i in texts[:SINGLE]):
        return "texts"
    return "perhaps messages" if of_messages else ""


def _failing(arguments: Mapping[str, Any], values: Callable) -> int | None:
    """The first response that fails by itself; None if none is found by halving."""
    rows: Sequence[int] = range(len(arguments["completions"]))
    while len(rows) > 1:
        half = rows[: len(rows) // 2]
        rows = half if _fails(half, arguments, values) else rows[len(half) :]
    return rows[0] if rows and _fails(rows, arguments, values) else None


def _fails(rows: Sequence[int], arguments: Mapping[str, Any], values: Callable) -> bool:
    """Whether the function fails on these responses alone."""
    size = len(arguments["completions"])
    some = {
        name: [value[i] for i in rows]
        if isinstance(value, list | tuple) and len(value) == size
        else value
        for name, value in _silent(arguments).items()
    }
    try:
        values(some)
    except Exception:
        return True
    return False


def _named(error: Exception, name: str, arguments: Mapping[str, Any], failing: int) -> DataError:
    """The error of one text among others that the function scores."""
    said = str(error)
    if not isinstance(error, InfalignError):
        said = f"The reward function `{name}` failed: {type(error).__name__}: {said}."
    text, ids = arguments["completions"][failing], arguments.get("prompt_id")
    of_prompt = ""
    if isinstance(ids, Sequence) and len(ids) > failing and ids[failing] is not None:
        of_prompt = f" of prompt {ids[failing]!r}"
    odd = "such texts" if text.strip() else "empty responses"
    return DataError(
        f"{said} It scores other texts, and fails on completion {failing}{of_prompt}, "
        f"{_check.short(text)}. Let the reward function handle {odd}."
    )


def _are_texts(column: Any) -> bool:
    """Whether a column is a list of texts; what else is given belongs to the function."""
    listed = isinstance(column, Sequence) and not isinstance(column, str)
    return listed and all(isinstance(text, str) for text in column)


def _is_odd(error: Exception) -> bool:
    """Whether a text of another kind than expected may have raised an error, or have caused it."""
    cause = error.__cause__ or error
    return isinstance(cause, ODD) and not isinstance(cause, InfalignError)


def _as_messages(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **arguments,
        "prompts": [conversation_of(prompt) for prompt in arguments["prompts"]],
        "completions": [completion_of(text) for text in arguments["completions"]],
    }


def _silent(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments for a trial, which logs nothing."""
    return {k: _unlogged if k in LOGGERS else v for k, v in arguments.items()}


def _unlogged(*names, **values) -> None:
    """Stands for TRL's functions for logging."""


def _read_by(reward: Callable) -> str | None:
    """What a function was found to read, if that could be kept."""
    try:
        return _READS.get(reward)
    except TypeError:  # it has no hash, or nothing can refer to it weakly
        return None


def _remember(reward: Callable, reads: str) -> None:
    try:
        _READS.setdefault(reward, reads)
    except TypeError:
        pass  # the next error settles it again


@cache
def _warn_of_messages(name: str) -> None:
    LOG.warning(
        "The reward %s cannot read texts, so it gets chat messages, although the prompts are "
        "texts. A trainer passes such prompts and completions as texts: read a completion c as the "
        "text itself, not with c[-1]['content'].",
        name,
    )


def awaited(value):
    """The result of an async function if `value` is a call of one; otherwise `value`."""
    if not inspect.isawaitable(value):
        return value

    async def result():
        return await value

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(result())
    # A notebook runs a loop of its own in this thread.
    with ThreadPoolExecutor(1) as other_thread:
        return other_thread.submit(asyncio.run, result()).result()


def reward_name(reward) -> str:
    """The name of a reward function in logs and messages."""
    return getattr(reward, "__name__", type(reward).__name__)
