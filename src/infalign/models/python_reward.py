"""A reward that is a Python function: TRL's reward functions, as infalign calls them."""

import functools
from collections.abc import Sequence

from infalign.errors import DataError
from infalign.shaping import checked_output, reward_name

from .functions import PythonFunction

TRIES = 8
"""Constant batches after which a function is no longer suspected of reading messages as text."""


class PythonReward:
    """A TRL reward function, called with chat messages.

    A function that reads a completion as text, such as `len(completion)`, gets a list of messages,
    and then may score all completions alike. So when it gives several different completions the
    same reward, it is called once more with their texts. If these have different rewards, that is a
    DataError with the remedy.
    """

    def __init__(self, function: PythonFunction):
        self.function = function
        self.tries = TRIES
        functools.update_wrapper(self, function, updated=())
        self.__name__ = reward_name(function)

    def __call__(self, prompts: Sequence, completions: Sequence, **columns):
        """The function's rewards, one per completion, as it returns them."""
        values = self.function(prompts=prompts, completions=completions, **columns)
        texts = _texts(completions)
        if self.tries and texts is not None and len(set(texts)) > 1:
            if len(set(checked_output(values, texts, self.__name__).tolist())) > 1:
                self.tries = 0
            else:
                self.tries -= 1
                self._require_messages(prompts, texts, columns)
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
                f"The reward `{self.__name__}` reads completions as text, but it gets lists of "
                f"chat messages: it gives all {len(texts)} completions the same reward, and their "
                "texts different ones. Read the text of a completion c with c[-1]['content'], and "
                "that of a prompt p with p[-1]['content']."
            )


def _texts(completions: Sequence) -> list[str] | None:
    """The texts of completions that are lists of messages; None for any other."""
    try:
        texts = [completion[-1]["content"] for completion in completions]
    except (LookupError, TypeError):
        return None
    return texts if all(isinstance(text, str) for text in texts) else None
