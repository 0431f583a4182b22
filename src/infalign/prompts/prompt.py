"""A prompt: a conversation that is to be answered, and its id."""

from collections.abc import Iterable
from dataclasses import dataclass

from infalign.stores import prompt_sets


@dataclass(frozen=True)
class Prompt:
    """A prompt, and the id under which its samples and rewards are stored."""

    id: str
    messages: tuple[dict, ...]
    """The conversation so far, as chat messages; the last is the user's."""

    @property
    def text(self) -> str:
        """The last message."""
        return self.messages[-1]["content"]


def fingerprint(prompts: Iterable[Prompt]) -> str:
    """Fingerprint of a set of prompts: their ids and messages, in any order.

    The fingerprint of a union follows from those of its parts, so a merged store has the
    fingerprint of all its prompts. Join rows to prompts by id, since their order may differ.
    """
    return prompt_sets.of_members((p.id, p.messages) for p in prompts)
