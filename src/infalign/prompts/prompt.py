"""A prompt: a conversation that is to be answered, its id, and what else rewards get with it."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infalign import storage
from infalign._look import Shown
from infalign.models.fingerprints import columns_read
from infalign.stores import prompt_sets

__all__ = ["Prompt", "checksum", "columns_fingerprint", "fingerprint", "read_by"]

CHECKSUM = "prompt_checksum"
"""The column of stored samples that tells whether a prompt still is what was asked."""


@dataclass(frozen=True)
class Prompt(Shown):
    """A prompt, and the id under which its samples and rewards are stored."""

    id: str
    messages: tuple[dict, ...]
    """The conversation so far, as chat messages; the last is the user's."""

    columns: Mapping[str, Any] = field(default_factory=dict)
    """The other columns of the prompt's row, such as an answer or tests: rewards get them by
    name."""

    plain: bool = False
    """Whether the row has a text, not messages. Rewards then get prompt and completion as texts."""

    @property
    def text(self) -> str:
        """The last message."""
        return self.messages[-1]["content"]

    @property
    def value(self) -> str | list[dict]:
        """The prompt as its row has it, and as rewards get it: a text, or messages."""
        return self.text if self.plain else [dict(message) for message in self.messages]


def fingerprint(prompts: Iterable[Prompt], reward: str | None = None) -> str:
    """Fingerprint of a set of prompts: their ids and messages, in any order.

    The fingerprint of a union follows from those of its parts, so a merged store has the
    fingerprint of all its prompts. Join rows to prompts by id, since their order may differ.

    - `reward`: a reward or judge whose scores belong to the prompts: the columns that it may read
      are then a part of every prompt, and so is the form of a prompt, a text or messages.
    """
    prompts = list(prompts)
    read = _read(prompts, reward)
    return prompt_sets.of_members((p.id, p.messages, *read(p)) for p in prompts)


def columns_fingerprint(prompts: Iterable[Prompt], reward: str) -> dict[str, str]:
    """What a reward or judge may read of the prompts beside their messages, as a part of its
    fingerprint; empty if that is nothing."""
    prompts = list(prompts)
    read = _read(prompts, reward)
    parts = [(p.id, *read(p)) for p in prompts]
    own = any(len(part) > 1 for part in parts)
    return {"columns of the prompts": prompt_sets.of_members(parts)} if own else {}


def checksum(prompt: Prompt) -> str:
    """Checksum of what a model is asked: the messages."""
    return storage.fingerprint(prompt.messages)


def read_by(prompts: Sequence[Prompt], reward: str | None) -> dict[str, str]:
    """Prompt id → checksum of what a reward may read of the prompt beside its messages; empty if
    that is nothing."""
    read = _read(prompts, reward)
    own = {p.id: read(p) for p in prompts}
    if not any(own.values()):
        return {}
    return {i: hashlib.sha256(repr(value).encode()).hexdigest()[:16] for i, value in own.items()}


def _read(prompts: Sequence[Prompt], reward: str | None) -> Callable[[Prompt], tuple[dict, ...]]:
    """What a reward may read of a prompt beside its messages; an empty tuple for nothing."""
    columns = sorted({name for p in prompts for name in p.columns})
    names = None if reward is None else columns_read(reward, columns)

    def read(prompt: Prompt) -> tuple[dict, ...]:
        own: dict[str, Any] = {name: prompt.columns.get(name) for name in names or ()}
        if len(prompt.messages) == 1 and not prompt.plain:
            own["prompt"] = "messages"  # and not a text, as which rewards would get it
        return (own,) if own else ()

    return read if names is not None else lambda prompt: ()
