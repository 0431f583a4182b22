"""A reward that is a Python function: TRL's reward functions, as infalign calls them."""

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from infalign.errors import DataError
from infalign.shaping import call, checked_output, reward_name
from infalign.shaping.signature import LOGGERS, REQUIRED

from .functions import PythonFunction

__all__ = ["PythonReward"]

TRIES = 8
"""Constant batches after which a function is no longer suspected of reading messages as text."""


class PythonReward:
    """A TRL reward function.

    It gets texts for prompts that are texts, and messages for prompts that are messages. TRL never
    mixes the two, so the function is called once for each if there are both.

    A function that reads a completion as text, such as `len(completion)`, may score lists of
    messages all alike. So when it gives several different completions the same reward, it is called
    once more with their texts. If these have different rewards, that is a DataError with the
    remedy.
    """

    def __init__(self, function: PythonFunction):
        self.function = function
        self.tries = TRIES
        functools.update_wrapper(self, function, updated=())
        self.__name__ = reward_name(function)

    def require_columns(self, columns: Collection[str]) -> None:
        """Raise DataError if the function needs a column that is not among these."""
        self.function.require_columns({*columns, *REQUIRED, *LOGGERS})

    def __call__(self, prompts: Sequence, completions: Sequence, **columns):
        """The function's rewards, one per completion, as it returns them."""
        plain = np.array([isinstance(prompt, str) for prompt in prompts], bool)
        if plain.all() or not plain.any():
            return self._called(prompts, completions, columns)
        values = np.empty(len(plain))
        for index in (np.flatnonzero(plain).tolist(), np.flatnonzero(~plain).tolist()):
            part = {name: _picked(value, index, len(plain)) for name, value in columns.items()}
            some = [completions[i] for i in index]
            values[index] = checked_output(
                self._called([prompts[i] for i in index], some, part), some, self.__name__
            )
        return values

    def _called(self, prompts: Sequence, completions: Sequence, columns: Mapping[str, Any]):
        """The rewards of completions that are all texts or all messages."""
        named = self.function.parameters.names
        given = {name: _unlogged for name in LOGGERS if name in named} | dict(columns)
        values = call(self.function, {"prompts": prompts, "completions": completions, **given})
        texts = _texts(completions)
        if self.tries and texts is not None and len(set(texts)) > 1:
            if len(set(checked_output(values, texts, self.__name__).tolist())) > 1:
                self.tries = 0
            else:
                self.tries -= 1
                self._require_messages(prompts, texts, given)
        return values

    def _require_messages(self, prompts: Sequence, texts: Sequence[str], columns: dict) -> None:
        """Raise DataError if the function tells texts apart whose messages it scores alike."""
        try:
            asked = [prompt[-1]["content"] for prompt in prompts]
            values = self.function(prompts=asked, completions=texts, **columns)
            rewards = set(checked_output(values, texts, self.__name__).tolist())
        except (DataError, LookupError, TypeError):
            return  # it needs messages, or other columns with them
        if len(rewards) > 1:
            raise DataError(
                f"The reward `{self.__name__}` reads completions as text, but the prompts are "
                f"lists of chat messages, so completions are too: it gives all {len(texts)} "
                "completions the same reward, and their texts different ones. Read the text of a "
                "completion c with c[-1]['content'], and that of a prompt p with p[-1]['content'] "
                "(or write the prompts as texts)."
            )


def _picked(value, index: Sequence[int], size: int):
    """The entries of a column at these indices; what is no column stays as it is."""
    return [value[i] for i in index] if isinstance(value, list) and len(value) == size else value


def _unlogged(*names, **values) -> None:
    """Stands for TRL's functions for logging where nothing is logged."""


def _texts(completions: Sequence) -> list[str] | None:
    """The texts of completions that are lists of messages; None for any other."""
    try:
        texts = [completion[-1]["content"] for completion in completions]
    except (LookupError, TypeError):
        return None
    return texts if all(isinstance(text, str) for text in texts) else None
