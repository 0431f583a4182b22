"""Calls of reward functions, checks of their output, and their names."""

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from numbers import Real

import numpy as np

from infalign import _check
from infalign.errors import DataError

from .reward_call import awaited, call, reward_name

__all__ = ["awaited", "call", "checked_output", "constant", "reward_name"]


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
