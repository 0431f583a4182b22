"""A prompt as chat messages, checked against what every model can be given: roles and texts."""

import re
from collections.abc import Mapping, Sequence

from infalign import _check

ROLES = ("system", "developer", "user", "assistant", "tool")

UNREAD = ("tool_calls", "function_call", "images", "image", "videos", "video", "audio", "audios")
"""Keys of a message that say more than its text."""


class BadPrompt(ValueError):
    """Why a value is no prompt; goes after the column's name."""


def messages_of(value) -> list[dict]:
    """The messages of a prompt: a text of the user, or chat messages that end with the user's.

    Texts keep their white space. Of a message, `role` and `content` are read; other keys, such as a
    date, are left out. Raises BadPrompt for tool calls, images and content in parts, for an empty
    text, for token ids, and for a conversation in which nothing is left to be answered.

    >>> messages_of("How?")
    [{'role': 'user', 'content': 'How?'}]
    """
    if isinstance(value, str):
        if not value.strip():
            raise BadPrompt(f"is empty; got {value!r}. Leave such rows out")
        return [{"role": "user", "content": value}]
    if isinstance(value, bytes | Mapping) or not isinstance(value, Sequence) or not value:
        raise BadPrompt(
            f"must be a text or a list of messages with role and content; got {_check.short(value)}"
        )
    if all(isinstance(item, int | float) for item in value):
        raise BadPrompt(
            f"is a list of numbers, such as token ids; got {_check.short(value)}. Give the text"
        )
    messages = [_message(number, item) for number, item in enumerate(value)]
    last = messages[-1]["role"]
    if last != "user":
        remedy = {
            "assistant": "Remove the last reply, which the policy is to write",
            "tool": "Prompts with tools cannot be used; end with the user's turn",
        }.get(last, "Add the user's turn")
        raise BadPrompt(
            f"must end with a message of the user, to be answered; message {len(messages) - 1}, "
            f"the last, is of role {last!r}. {remedy}"
        )
    return messages


def _message(number: int, item) -> dict:
    if not isinstance(item, Mapping):
        raise BadPrompt(
            f"must be a text or a list of messages with role and content; entry {number} is "
            f"{_check.short(item)}"
        )
    if not {"role", "content"} <= item.keys():
        keys = ", ".join(map(str, item))
        raise BadPrompt(
            f"must have `role` and `content` in every message; message {number} has "
            f"{keys or 'nothing'}. Rename its keys"
        )
    role, content = item["role"], item["content"]
    if role not in ROLES:
        raise BadPrompt(
            f"must have messages of role {', '.join(ROLES)}; message {number} has the role "
            f"{_check.short(role)}"
        )
    more = [key for key in UNREAD if item.get(key)]
    if more:
        raise BadPrompt(
            f"must have messages of text alone; message {number} has {' and '.join(more)}. Write "
            "it into the text of the message, or leave such prompts out"
        )
    if isinstance(content, list):
        kinds = [p.get("type", p) if isinstance(p, Mapping) else p for p in content]
        kinds = [_check.short(kind) for kind in dict.fromkeys(map(str, kinds))]
        remedy = (
            "Join them to one text"
            if kinds == ["'text'"]
            else "Prompts with anything but text cannot be used"
        )
        raise BadPrompt(
            f"must have a text as content; that of message {number} is in parts of type "
            f"{', '.join(kinds) or 'none'}. {remedy}"
        )
    if not isinstance(content, str) or not content.strip():
        raise BadPrompt(
            f"must have a text as content; that of message {number}, of role {role!r}, is "
            f"{_check.short(content)}. Write it, or leave such prompts out"
        )
    return {"role": role, "content": content}


def opening(transcript: str) -> list[dict] | None:
    """The messages before the last reply of a `\\n\\nHuman: … \\n\\nAssistant: …` transcript; None
    for any other text."""
    parts = re.split(r"\n\n(Human|Assistant): ?", transcript)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = [
        {"role": roles[role], "content": content}
        for role, content in zip(parts[::2], parts[1::2], strict=True)
    ]
    return turns[:-1] if len(turns) > 1 else None
