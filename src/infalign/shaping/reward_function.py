"""Checks of a reward function's output, and the function's name."""

import math
from collections.abc import Sequence
from numbers import Real

import numpy as np

from infalign.errors import DataError


def checked_output(
    values, completions: Sequence, name: str, prompt_ids: Sequence[str] | None = None
) -> np.ndarray:
    """`values`, the output of the reward function `name`, as one finite float per completion.

    Raises a DataError that names the problem and the completion.
    """
    values = values.tolist() if hasattr(values, "tolist") else values  # arrays and tensors
    if not isinstance(values, list | tuple):
        raise DataError(
            f"The reward function `{name}` must return a list of one number per completion; "
            f"got a {type(values).__name__}."
        )
    if len(values) != len(completions):
        raise DataError(
            f"The reward function `{name}` must return one number per completion; got "
            f"{len(values)} for {len(completions)} completions."
        )
    bad = [i for i, v in enumerate(values) if not (isinstance(v, Real) and math.isfinite(v))]
    if bad:
        prompt = f" of prompt {prompt_ids[bad[0]]!r}" if prompt_ids is not None else ""
        raise DataError(
            f"The reward function `{name}` must return finite numbers; got {values[bad[0]]!r} for "
            f"completion {bad[0]}{prompt} ({len(bad)} of {len(values)} are not): "
            f"{str(completions[bad[0]])[:80]!r}. Repair the reward, or filter such completions."
        )
    return np.array(values, dtype=float)


def reward_name(reward) -> str:
    """The name of a reward function in logs and messages."""
    return getattr(reward, "__name__", type(reward).__name__)
