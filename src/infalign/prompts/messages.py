"""A prompt as chat messages, checked against what every model can be given: roles and texts."""

from collections.abc import Mapping, Sequence

from infalign import _check

__all__ = ["BadPrompt", "messages_of", "turns_of"]

ROLES = ("system", "developer", "user", "assistant", "tool")

UNREAD = ("tool_calls", "function_call", "images", "image", "videos", "video", "audio", "audios")
"""Keys of a message that say more than its text."""

SHARE_GPT = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
SHARE_GPT |= {"chatgpt": "assistant", "bot": "assistant", "model": "assistant", "system": "system"}
"""Roles of messages in the form {"from": …, "value": …}, and their names elsewhere."""


class BadPrompt(ValueError):
    """Why a value is no prompt; goes after the column's name."""


def messages_of(value) -> list[dict]:
    """The messages of a prompt: a text of the user, or chat messages that end with the user's.

    Texts keep their white space. Of a message, `role` and `content` are read (or `from` and
    `value`, as ShareGPT names them); other keys, such as a date, are left out. Raises BadPrompt for
    tool calls, images and content in parts, for an empty text, for token ids, for messages that
    were written as one text, and for a conversation in which nothing is left to be answered.

    >>> messages_of("How?")
    [{'role': 'user', 'content': 'How?'}]
    """
    if isinstance(value, str):
        return [{"role": "user", "content": _text(value)}]
    messages = turns_of(value)
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


def turns_of(value) -> list[dict]:
    """The messages of a conversation, which may end with a reply; BadPrompt as `messages_of`."""
    if isinstance(value, bytes | str | Mapping) or not isinstance(value, Sequence) or not value:
        raise BadPrompt(
            f"must be a text or a list of messages with role and content; got {_check.short(value)}"
        )
    if all(isinstance(item, int | float) for item in value):
        raise BadPrompt(
            f"is a list of numbers, such as token ids; got {_check.short(value)}. Give the text"
        )
    return [_message(number, item) for number, item in enumerate(value)]


def _text(value: str) -> str:
    """A text that is a prompt as it is."""
    if not value.strip():
        raise BadPrompt(f"is empty; got {value!r}. Leave such rows out")
    start = "".join(value[:200].split()).replace("'", '"')
    if start.startswith(('[{"role":', '[{"content":', '[{"from":', '[{"value":')):
        raise BadPrompt(
            f"is a list of messages that was written as one text; got {_check.short(value)}. Write "
            "the list itself, as JSON Lines or Parquet do"
        )
    return value


def _message(number: int, item) -> dict:
    if not isinstance(item, Mapping):
        raise BadPrompt(
            f"must be a text or a list of messages with role and content; entry {number} is "
            f"{_check.short(item)}"
        )
    if item.get("from") in SHARE_GPT and "value" in item and "role" not in item:
        item = {**item, "role": SHARE_GPT[item["from"]], "content": item["value"]}
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
