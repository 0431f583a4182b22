"""The parameters that one server takes: those that it refuses are found out once.

Servers with the OpenAI API take different parts of it, and say so in the errors of their own forms.
"""

import logging
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from .json_http import QUOTED, quoted

__all__ = ["LOST", "NEUTRAL", "ServerParameters", "words_of"]

LOG = logging.getLogger(__name__)

NEUTRAL: Mapping[str, float] = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""Settings that change nothing. They are sent because a server has defaults of its own: vLLM and
SGLang take them from the model's generation_config.json, and llama.cpp has top-k 40 and min-p .05.
"""

OWN_DEFAULT = "its own default applies if it has one, which should be {wanted:g}"

LOST = {
    **dict.fromkeys(NEUTRAL, OWN_DEFAULT),
    "logprobs": "the log-probabilities of responses are not known",
    "n": "every response has its own request",
    "seed": "the same seed gives other responses, so that samples cannot be drawn again",
    "max_tokens": "`max_completion_tokens` limits the length, thoughts included",
    "top_p": "its default applies, which should be 1",
    "temperature": "its default applies, which should be {wanted}",
}
"""Parameters that can be given up, in this order, and what is lost without them."""

WORDS = {
    "top_k": r"top[_-]k",
    "min_p": r"min[_-]p",
    "repetition_penalty": r"repetition[_ -]penalty",
    "logprobs": r"(top_)?logprobs|log[ -]probabilit(y|ies)",
    "n": r"n|best_of|multiple (choices|completions|responses)",
    "seed": r"seed",
    "max_tokens": r"max_tokens",
    "top_p": r"top[_-]p",
    "temperature": r"temperature",
}
"""What names each parameter in an error."""

RENAMED = {"max_tokens": "max_completion_tokens"}
ECHOES = ("input", "ctx", "url", "body", "request", "prompt", "messages")
"""Keys of an error that repeat the request."""


class ServerParameters:
    """What one server takes.

    - `url`: names the server in warnings.
    - `warn`: whether to warn about what is lost.
    """

    def __init__(self, url: str, *, warn: bool = True):
        self.url, self.warn = url, warn
        self.without: set[str] = set()
        """Parameters that the server has refused."""

        self._lock = threading.Lock()

    def body(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """The part of the `wanted` parameters that the server takes, under its names."""
        without = self.without
        taken = {k: v for k, v in wanted.items() if k not in without}
        renamed = {RENAMED[k]: v for k, v in wanted.items() if k in without and k in RENAMED}
        return taken | renamed

    def give_up(self, wanted: Mapping[str, Any], sent: Mapping[str, Any], error: Any) -> str:
        """Give up the parameter that an error refuses, with a warning that says what is lost.

        - `sent`: the `body` that was refused.
        - `error`: the server's answer: JSON, or a text.

        Returns what became of it: "again" if another request may succeed, otherwise the name of a
        parameter that cannot be given up because other responses would be drawn without it, or "".
        """
        refused = [name for name in LOST if name in sent and _names(name, error)]
        free = [name for name in refused if _dispensable(name, wanted[name])]
        if not free:
            return refused[0] if refused else ""
        with self._lock:
            if not self.without.intersection(free):  # else another request has found it out
                name = free[0]
                self.without = {*self.without, name}
                if self.warn:
                    lost = LOST[name].format(wanted=wanted[name])
                    LOG.warning(
                        '%s refuses `%s` ("%s") and is asked without it from now on: %s.',
                        quoted(self.url),
                        name,
                        words_of(error, 160),
                        lost,
                    )
        return "again"

    def give_up_neutral(self, error: Any) -> None:
        """Give up all neutral settings, with a warning, after an error that names none of them."""
        with self._lock:
            left = [name for name in NEUTRAL if name not in self.without]
            self.without = {*self.without, *left}
            if left and self.warn:
                LOG.warning(
                    '%s refuses requests with %s ("%s") and is asked without from now on: its own '
                    "defaults apply if it has some, which should be %s.",
                    quoted(self.url),
                    ", ".join(f"`{name}`" for name in left),
                    words_of(error, 160),
                    ", ".join(f"{NEUTRAL[name]:g}" for name in left),
                )


def words_of(error: Any, most: int = QUOTED) -> str:
    """What an error says, for a message: its `message` if it has one, or else all its texts."""
    inner = error.get("error", error) if isinstance(error, Mapping) else error
    said = inner.get("message") if isinstance(inner, Mapping) else None
    return quoted(said if isinstance(said, str) else " ".join(_said(error)), most)


def _dispensable(name: str, value: Any) -> bool:
    """Whether the server's default may stand in for a value: 1 is that of the API, and greedy
    decoding is wished for by judges, not needed."""
    return value == 1 if name == "top_p" else value in (0, 1) if name == "temperature" else True


def _names(name: str, error: Any) -> bool:
    """Whether an error is about a parameter: by its fields that name one, or else by its words."""
    pattern = re.compile(rf"(?<!\w)({WORDS[name]})(?!\w)", re.IGNORECASE)
    words = list(_fields(error)) or list(_said(error))
    return any(pattern.search(text) for text in words)


def _fields(error: Any) -> Iterator[str]:
    """The parameters that an error names in fields: `param` of OpenAI, `loc` of FastAPI."""
    if isinstance(error, Mapping):
        for key, value in error.items():
            if key == "param" and isinstance(value, str) and value:
                yield value
            elif key == "loc" and isinstance(value, list):
                yield from (x for x in value if isinstance(x, str))
            elif key not in ECHOES:
                yield from _fields(value)
    elif isinstance(error, list):
        for item in error:
            yield from _fields(item)


def _said(error: Any) -> Iterator[str]:
    """All texts of an error, except those that repeat the request."""
    if isinstance(error, str):
        yield error
    elif isinstance(error, Mapping):
        for key, value in error.items():
            if key not in ECHOES:
                yield from _said(value)
    elif isinstance(error, list):
        for item in error:
            yield from _said(item)
