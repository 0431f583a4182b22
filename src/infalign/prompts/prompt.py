"""A prompt: a conversation that is to be answered, its id, and what else rewards get with it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from infalign.stores import prompt_sets


@dataclass(frozen=True)
class Prompt:
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


def fingerprint(prompts: Iterable[Prompt]) -> str:
    """Fingerprint of a set of prompts: their ids and messages, in any order.

    The fingerprint of a union follows from those of its parts, so a merged store has the
    fingerprint of all its prompts. Join rows to prompts by id, since their order may differ.
    """
    return prompt_sets.of_members((p.id, p.messages) for p in prompts)


def columns_fingerprint(prompts: Iterable[Prompt]) -> str:
    """Fingerprint of the other columns of a set of prompts, in any order: what a reward function
    may read besides prompt and completion."""
    members = ((p.id, json.dumps(dict(p.columns), sort_keys=True, default=repr)) for p in prompts)
    return prompt_sets.of_members(members)
