"""What a server with the OpenAI API says in its choices: an answer, or why there is none."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infalign import _check
from infalign._look import Shown
from infalign._thinking import answer_after_thinking
from infalign.text import finished

from .interfaces import Response

__all__ = ["Said", "UnreadableError", "chat_choice", "completion_choice", "response"]

THOUGHTS = ("reasoning_content", "reasoning")
"""Fields of a message that hold a thought apart from the answer."""

THOUGHT_PARTS = ("thinking", "reasoning", "redacted_thinking")
TEXT_PARTS = ("text", "output_text")
"""Types of the parts of a content."""


class UnreadableError(ValueError):
    """A choice that is not in the API's form."""


@dataclass(frozen=True)
class Said(Shown):
    """The content of one choice."""

    text: str | None
    """None if there is no content."""

    finish: str
    """Why it ended, such as `stop` or `length`; empty if the server does not say."""

    logprobs: tuple[float, ...] | None
    """Log-probabilities of the tokens; None if they are not all known."""

    thought: str = ""
    """A thought that the server separated from the text."""


def response(said: Said, answer: str, *, strip: bool, plain: bool) -> Response:
    """The response of a choice. Without an answer its `missing` says why.

    - `answer`, `strip`: as in `ServerModel`.
    - `plain`: whether tokens were drawn from the model's own distribution, to which reported
      log-probabilities apply.
    """
    text, finish = said.text, said.finish
    # A provider's filter replaces or ends what the model says.
    if finish == "content_filter" or text is None or (text == "" and finish == "length"):
        silent = "no content" if finish in ("", "stop") else finish
        return Response("", missing=silent)
    if answer == "after-thinking" and not said.thought:
        text = answer_after_thinking(text, complete=finish != "length")
        if text is None:
            return Response("", missing=finish if finish == "length" else "a thought without end")
    # With a separate thought, the probability of the text alone is not known.
    known = plain and said.logprobs is not None and not said.thought
    return Response(
        finished(text, strip=strip), (), math.fsum(said.logprobs or ()) if known else math.nan
    )


def chat_choice(choice: Any) -> Said:
    """The content of a choice of `chat/completions`; UnreadableError for another form."""
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(message, Mapping):
        raise UnreadableError(f"a choice must have a `message`; got {_check.short(choice)}")
    text, thought = _content(message.get("content"))
    thought += "".join(message[k] for k in THOUGHTS if isinstance(message.get(k), str))
    field, refusal = "content", message.get("refusal")
    if text is None and isinstance(refusal, str) and refusal:
        text, field = refusal, "refusal"  # the model's own words
    return Said(text, _finish(choice), _chat_logprobs(choice, field), thought)


def completion_choice(choice: Any) -> Said:
    """The content of a choice of `completions`; UnreadableError for another form."""
    if not isinstance(choice, Mapping) or not isinstance(choice.get("text"), str | None):
        raise UnreadableError(f"a choice must have a `text`; got {_check.short(choice)}")
    reported = choice.get("logprobs")
    logprobs = reported.get("token_logprobs") if isinstance(reported, Mapping) else None
    return Said(choice.get("text"), _finish(choice), _known(logprobs))


def _content(content: Any) -> tuple[str | None, str]:
    """The text and the thought of a message's content, which may come in parts."""
    if content is None or isinstance(content, str):
        return content, ""
    if not isinstance(content, list):
        raise UnreadableError(f"a content must be text or parts; got {_check.short(content)}")
    texts, thought = [], ""
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(part, str):
            texts.append(part)
        elif kind in TEXT_PARTS and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "refusal" and isinstance(part.get("refusal"), str):
            texts.append(part["refusal"])
        elif kind in THOUGHT_PARTS:
            thought += str(part.get(kind) or " ")
        else:
            raise UnreadableError(f"a part of a content must be text; got {_check.short(part)}")
    return ("".join(texts) if texts else None), thought


def _finish(choice: Mapping) -> str:
    """Why a choice ended, with the server's words if it failed."""
    finish = choice.get("finish_reason")
    error = choice.get("error")
    words = error.get("message") if isinstance(error, Mapping) else error
    return ", ".join(str(x) for x in (finish, words) if x)


def _chat_logprobs(choice: Mapping, field: str) -> tuple[float, ...] | None:
    reported = choice.get("logprobs")
    tokens = reported.get(field) if isinstance(reported, Mapping) else None
    if not isinstance(tokens, list):
        return None
    return _known([t.get("logprob") if isinstance(t, Mapping) else None for t in tokens])


def _known(logprobs: Any) -> tuple[float, ...] | None:
    """Log-probabilities; None if any is missing or none is one."""
    if not isinstance(logprobs, list) or not logprobs:
        return None
    return tuple(map(float, logprobs)) if all(map(_is_logprob, logprobs)) else None


def _is_logprob(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)
