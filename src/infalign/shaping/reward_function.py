"""Calls of reward functions, checks of their output, and their names."""

import asyncio
import inspect
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import cache
from numbers import Real
from typing import Any

import numpy as np

from infalign import _check
from infalign.errors import DataError
from infalign.text import completion_of, conversation_of

from .signature import Parameters, lacks

__all__ = ["awaited", "call", "checked_output", "constant", "reward_name"]

LOG = logging.getLogger(__name__)


def call(reward: Callable, arguments: Mapping[str, Any]):
    """What a reward function returns, called with those of the arguments that its signature takes.

    A function that fails on texts as one does that reads chat messages is called with messages; a
    warning says so. It fails on every text, so it gets messages wherever it is called.

    - `arguments`: prompts, completions, columns, and whatever else TRL passes.

    Raises DataError if the function needs a parameter that is not among them.
    """
    takes, name = Parameters.of(reward), reward_name(reward)
    if missing := takes.missing(arguments):
        raise DataError(lacks(f"The reward function `{name}`", missing, arguments))
    try:
        return awaited(reward(**takes.taken(arguments)))
    except Exception as error:
        texts = [arguments["prompts"], arguments["completions"]]
        if not (
            isinstance(error.__cause__ or error, TypeError | AttributeError | LookupError)
            and all(isinstance(text, str) for column in texts for text in column)
        ):
            raise
        prompts, completions = map(conversation_of, texts[0]), map(completion_of, texts[1])
        again = {**arguments, "prompts": list(prompts), "completions": list(completions)}
        try:
            values = awaited(reward(**takes.taken(again)))
        except Exception:
            raise error from error.__cause__
        _warn_of_messages(name)
        return values


@cache
def _warn_of_messages(name: str) -> None:
    LOG.warning(
        "The reward %s cannot read texts, so it gets chat messages, although the prompts are "
        "texts. A trainer passes such prompts and completions as texts: read a completion c as the "
        "text itself, not with c[-1]['content'].",
        name,
    )


def checked_output(
    values, completions: Sequence, name: str, prompt_ids: Sequence[str] | None = None
) -> np.ndarray:
    """`values`, the output of the reward function `name`, as one finite float per completion.

    As in TRL: a list, a tuple, or an array or tensor with one number per completion, also as a
    column of shape (completions, 1). The entries of a list may be numbers of any library. The
    output of an async function is awaited.

    Raises a DataError that names the problem and the completion.
    """
    values = awaited(values)
    shape = getattr(values, "shape", None)
    column = isinstance(shape, tuple) and shape[1:] == (1,)
    if hasattr(values, "tolist"):  # arrays and tensors
        values = values.tolist()
    if not isinstance(values, list | tuple):
        raise DataError(
            f"The reward function `{name}` must return a list of one number per completion; "
            f"got a {type(values).__name__}."
        )
    if column:
        values = [row[0] for row in values]
    if len(values) != len(completions):
        raise DataError(
            f"The reward function `{name}` must return one number per completion; got "
            f"{len(values)} for {len(completions)} completions."
        )
    numbers = [_number(value) for value in values]
    bad = [i for i, number in enumerate(numbers) if not math.isfinite(number)]
    if bad:
        none = values[bad[0]] is None
        why = " None means 'not applicable' in TRL; here every response needs a rank." * none
        prompt = f" of prompt {prompt_ids[bad[0]]!r}" if prompt_ids is not None else ""
        raise DataError(
            f"The reward function `{name}` must return finite numbers; got "
            f"{_check.short(values[bad[0]])} for "
            f"completion {bad[0]}{prompt} ({len(bad)} of {len(values)} are not): "
            f"{str(completions[bad[0]])[:80]!r}.{why} Repair the reward, or filter such "
            "completions."
        )
    return np.array(numbers, dtype=float)


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


def constant(name: str, rewards, texts: Iterable[str]) -> str | None:
    """A warning about a reward that gives the same value to all of several different texts; None
    for any other.

    - `name`: the reward, as its user names it.
    - `rewards`, `texts`: of every response; nan marks a response without a reward.
    """
    values = np.asarray(rewards, dtype=float)
    values = values[~np.isnan(values)]
    if not values.size or values.min() < values.max() or len(different := set(texts)) < 2:
        return None
    return (
        f"The reward {name} gives {values.flat[0]:g} to all {values.size} responses, of which "
        f"{len(different)} are different: it ranks none of them above another. Check the reward."
    )


def reward_name(reward) -> str:
    """The name of a reward function in logs and messages."""
    return getattr(reward, "__name__", type(reward).__name__)


def _number(value) -> float:
    """One reward as a float; nan if it is not a real number."""
    shape = getattr(value, "shape", None)
    if not isinstance(value, Real | Decimal) and isinstance(shape, tuple) and math.prod(shape) == 1:
        try:
            value = value.item()  # NumPy's and torch's scalars
        except (AttributeError, TypeError, ValueError, RuntimeError):
            return math.nan
    try:
        return float(value) if isinstance(value, Real | Decimal) else math.nan
    except (OverflowError, ValueError):
        return math.nan
