"""Rewards from a server, in the protocol of OpenRLHF's remote rewards."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from infalign import _check
from infalign.errors import DataError, MissingExtraError, install
from infalign.shaping import checked_output
from infalign.shaping.signature import PASSED
from infalign.text import completion_of, conversation_of, text_of

__all__ = ["ServerReward", "conversation_text", "json_server", "more_keys"]

LARGEST = 16 * 2**20
"""Maximum size of an answer, in bytes."""

KEYS = ("query", "prompts", "labels", "messages")
"""The keys that every request has."""

PROBE = (
    ("Name a color.", "Blue, like the sky."),
    ("How do I sharpen a knife?", "Hold it at 20 degrees and draw it along a wet stone."),
)
"""Prompts and responses whose rewards identify a reward."""


class ServerReward:
    """A reward behind a URL, as a TRL reward function.

    It posts JSON with `batch_size` completions at a time: `query` holds the texts of prompt and
    completion, `prompts` the texts of the prompts, `labels` the prompt ids (null without the column
    `prompt_id`) and `messages` the conversations with their completions. A prompt of one message is
    sent as its text; several messages become paragraphs that each begin with the role. If the
    prompts have other columns, `columns` holds them, name → values; if prompts are texts instead of
    messages, `plain` says which. The answer is `{"rewards": [...]}`, one finite number per query,
    in order.

    - `batch_size`: completions in a request.
    - `threads`: concurrent requests.
    - `timeout`: seconds for a whole attempt, up to the last byte of the answer.
    - `retries`: further attempts after a timeout, a failed connection, or a status 408, 409, 425,
      429, 500, 502, 503 or 504; after 0.5, 1, 2, … seconds, at most a minute, or after the time in
      the server's `Retry-After`, at most ten minutes.

    Redirects are followed on the server itself only. An answer may have 16 MiB.

    Picklable. Raises MissingExtraError without `urllib3`. A call raises DataError if the server
    cannot be reached, refuses, or answers in another format.
    """

    def __init__(
        self,
        url: str,
        *,
        batch_size: int = 64,
        threads: int = 4,
        timeout: float = 180.0,
        retries: int = 5,
    ):
        self.url, self.__name__ = url, "reward_server"
        self.batch_size = _check.count("batch_size", batch_size)
        self.server = json_server(url, timeout=timeout, retries=retries, threads=threads)

    def __call__(self, prompts, completions, *, prompt_id=None, **columns) -> list[float]:
        """One raw reward per completion."""
        labels = [None] * len(prompts) if prompt_id is None else prompt_id
        named = {k: v for k, v in columns.items() if k not in PASSED}
        rows = [{k: v[i] for k, v in named.items()} for i in range(len(prompts))]
        items = [_item(*parts) for parts in zip(prompts, completions, labels, rows, strict=True)]
        batches = [items[i : i + self.batch_size] for i in range(0, len(items), self.batch_size)]
        pool = ThreadPoolExecutor(self.server.threads)
        try:
            return [reward for batch in pool.map(self._post, batches) for reward in batch]
        finally:
            pool.shutdown(cancel_futures=True)  # after an error the other requests are not sent

    def _post(self, items: Sequence[dict]) -> list[float]:
        body = _body(items)
        return self._rewards(self.ask(body), body)

    def _rewards(self, answer, body: dict) -> list[float]:
        rewards = answer.get("rewards") if isinstance(answer, dict) else None
        if not isinstance(rewards, list):
            raise self.server.error(
                f'it must answer {{"rewards": [...]}}, and answered {_check.short(answer)}',
                "Is this the reward's path?",
            )
        truths = [r for r in rewards if isinstance(r, bool)]
        if truths:
            raise self.server.error(
                f"rewards must be numbers, and {len(truths)} of {len(rewards)} are {truths[0]!r}",
                "Answer 1 for true and 0 for false.",
            )
        return checked_output(rewards, body["query"], self.url).tolist()

    def ask(self, body: dict):
        """The server's answer to `body`, both JSON; DataError when there is none."""
        return self._read(self.server.ask(body))

    def probe(self) -> str:
        """A short text that identifies the reward behind the URL: its rewards of two fixed
        responses, to three digits, or what cannot be known.

        Raises DataError if the server cannot be reached or fails.
        """
        items = [_item(conversation_of(p), response, None, {}) for p, response in PROBE]
        body, seen = _body(items), []
        for _ in range(2):
            answer = self.server.ask(body)
            if 400 <= answer.status < 500:  # such as a reward that knows its own prompts only
                return f"no rewards of other prompts (status {answer.status})"
            seen.append(" ".join(f"{r:.3g}" for r in self._rewards(self._read(answer), body)))
        return f"rewards {seen[0]}" if seen[0] == seen[1] else "rewards that differ between calls"

    def _read(self, answer):
        if answer.status != 200:
            raise self.server.refusal(answer)
        # No float holds JSON's largest whole numbers, and no int their digits.
        return self.server.read(answer, parse_int=float)


def json_server(url: str, *, timeout: float, retries: int, threads: int):
    """The server of a reward; MissingExtraError without `urllib3`."""
    try:
        import urllib3  # noqa: F401

        from .json_http import JSONServer
    except ImportError:
        raise MissingExtraError(
            f"A reward behind a URL needs `urllib3`. Install it with: {install('http')}"
        ) from None
    return JSONServer(
        url, "scored with", timeout=timeout, retries=retries, threads=threads, largest=LARGEST
    )


def _body(items: Sequence[dict]) -> dict[str, list]:
    body = {key: [item[key] for item in items] for key in KEYS}
    return body | more_keys([i["columns"] for i in items], [i["plain"] for i in items])


def more_keys(rows: Sequence[Mapping[str, Any]], plain: Sequence[bool]) -> dict[str, Any]:
    """The keys of a request that only some have: `columns`, name → one value per completion, and
    `plain`, whether each prompt is a text.

    Raises DataError for a value that JSON does not have.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    for name, values in columns.items():
        for value in values:
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError):
                raise DataError(
                    f"The prompts' column `{name}` cannot be sent to a reward server: JSON has no "
                    f"value such as {_check.short(value)}, of type {type(value).__name__}. Write "
                    "it as a text or a number."
                ) from None
    more: dict[str, Any] = {"columns": columns} if columns else {}
    return more | ({"plain": list(plain)} if any(plain) else {})


def _item(prompt, completion, label, columns: Mapping[str, Any]) -> dict:
    """The fields of one completion in a request."""
    messages, reply = conversation_of(prompt), text_of(completion)
    asked = conversation_text(messages)
    answered = [*messages, *completion_of(reply)]
    return {
        "query": conversation_text(answered) if len(messages) > 1 else f"{asked}\n{reply}",
        "prompts": asked,
        "labels": label,
        "messages": answered,
        "columns": columns,
        "plain": isinstance(prompt, str),
    }


def conversation_text(messages) -> str:
    """The text of a single message; several messages become paragraphs that each begin with the
    role."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)
