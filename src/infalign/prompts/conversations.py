"""The prompt inside a conversation or a preference pair: what comes before the reply."""

import re
from itertools import takewhile

from infalign import _check

from .messages import BadPrompt, messages_of, turns_of

__all__ = ["common", "opening", "transcript", "without_reply"]

TURN = re.compile(r"\n\n(Human|Assistant): ?")


def opening(value) -> str | list[dict]:
    """A conversation without its last reply, which the policy is to write; a conversation that ends
    with the user's message as it is. A text that is no transcript is one message of the user.

    Raises BadPrompt for what is no conversation.
    """
    if isinstance(value, str):
        turns = transcript(value)
        return value if turns is None else messages_of(without_reply(turns))
    return messages_of(without_reply(turns_of(value)))


def without_reply(turns: list[dict]) -> list[dict]:
    """The turns before a reply at the end."""
    return turns[:-1] if len(turns) > 1 and turns[-1]["role"] == "assistant" else turns


def common(chosen, rejected) -> str | list[dict]:
    """The prompt of a preference pair: its common leading messages up to the user's last one, or
    the common beginning of two texts, whole words only.

    Raises BadPrompt if the two do not begin with a prompt.
    """
    if isinstance(chosen, str) and isinstance(rejected, str):
        a, b = transcript(chosen) or [], transcript(rejected) or []
        if not (a and b):
            return _common_text(chosen, rejected)
    else:
        a, b = turns_of(chosen), turns_of(rejected)
    same = [x for x, _ in takewhile(lambda p: p[0] == p[1], zip(a, b, strict=False))]
    while same and same[-1]["role"] != "user":
        same.pop()
    if not same:
        raise BadPrompt(
            "and its counterpart have no message in common that a reply follows; they begin with "
            f"{_check.short(a[0]['content'])} and {_check.short(b[0]['content'])}. Give the prompt "
            "in a column `prompt`"
        )
    return messages_of(same)


def _common_text(chosen: str, rejected: str) -> str:
    """The common beginning of two texts, up to the last white space in it."""
    end = sum(1 for _ in takewhile(lambda p: p[0] == p[1], zip(chosen, rejected, strict=False)))
    if not end == len(chosen) == len(rejected):
        end = max((i + 1 for i in range(end) if chosen[i].isspace()), default=0)
    text = chosen[:end].rstrip()
    if not text.strip() or not chosen[end:].strip() or not rejected[end:].strip():
        raise BadPrompt(
            f"and its counterpart do not begin with the same prompt, followed by two replies; they "
            f"are {_check.short(chosen)} and {_check.short(rejected)}. Give the prompt in a column "
            "`prompt`"
        )
    return text


def transcript(text: str) -> list[dict] | None:
    r"""The messages of a `\n\nHuman: … \n\nAssistant: …` transcript; None for any other text."""
    before, *parts = TURN.split(text)
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = [
        {"role": roles[role], "content": content}
        for role, content in zip(parts[::2], parts[1::2], strict=True)
    ]
    return turns if len(turns) > 1 and not before.strip() else None
