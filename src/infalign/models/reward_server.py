"""Rewards from a server, in the protocol of OpenRLHF's remote rewards."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from infalign import _check
from infalign.errors import DataError, MissingExtraError
from infalign.shaping import checked_output
from infalign.text import completion_of, conversation_of, text_of

AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""Statuses after which a request is sent again."""


class ServerReward:
    """A reward behind a URL, as a TRL reward function.

    It posts JSON with `batch_size` completions at a time: `query` holds the texts of prompt and
    completion, `prompts` the texts of the prompts, `labels` the prompt ids (null without the column
    `prompt_id`) and `messages` the conversations with their completions. A prompt of one message is
    sent as its text; several messages become paragraphs that each begin with the role. The answer
    is `{"rewards": [...]}`, one finite number per query, in order.

    - `batch_size`: completions in a request.
    - `threads`: concurrent requests.
    - `timeout`: seconds until a request fails.
    - `retries`: further attempts after a timeout, a failed connection, or a status 408, 425, 429,
      500, 502, 503 or 504; after 0.5, 1, 2, … seconds, at most a minute, or after the time in the
      server's `Retry-After`.

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
        self.threads = _check.count("threads", threads)
        self.timeout = _check.positive("timeout", timeout)
        self.retries = _check.count("retries", retries, at_least=0)
        self._pool = _pool(self.threads)

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "_pool"}

    def __setstate__(self, state):
        self.__dict__.update(state, _pool=_pool(state["threads"]))

    def __call__(self, prompts, completions, *, prompt_id=None, **columns) -> list[float]:
        """One raw reward per completion."""
        labels = [None] * len(prompts) if prompt_id is None else prompt_id
        items = [_item(*parts) for parts in zip(prompts, completions, labels, strict=True)]
        batches = [items[i : i + self.batch_size] for i in range(0, len(items), self.batch_size)]
        pool = ThreadPoolExecutor(self.threads)
        try:
            return [reward for batch in pool.map(self._post, batches) for reward in batch]
        finally:
            pool.shutdown(cancel_futures=True)  # after an error the other requests are not sent

    def _post(self, items: Sequence[dict]) -> list[float]:
        body = {key: [item[key] for item in items] for key in items[0]}
        answer = self.ask(body)
        rewards = answer.get("rewards") if isinstance(answer, dict) else None
        if not isinstance(rewards, list):
            raise self._error(
                f'it must answer {{"rewards": [...]}}, and answered {str(answer)[:120]}',
                "Is this the reward's path?",
            )
        return checked_output(rewards, body["query"], self.url).tolist()

    def ask(self, body: dict):
        """The server's answer to `body`, both JSON; DataError when there is none."""
        import urllib3

        again = urllib3.Retry(
            self.retries,
            status_forcelist=AGAIN,
            allowed_methods=None,  # scoring twice is harmless
            backoff_factor=0.5,
            backoff_max=60,
            raise_on_status=False,  # the error quotes the last answer
        )
        try:
            answer = self._pool.request(
                "POST", self.url, json=body, retries=again, timeout=self.timeout
            )
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, urllib3.exceptions.ReadTimeoutError):
                raise self._error(
                    f"no answer within {self.timeout:g} seconds",
                    "Raise `timeout`, or send less with a smaller `batch_size`.",
                ) from error
            raise self._error(
                f"{type(reason).__name__}: {reason}", "Is it running, and the URL right?"
            ) from error
        if answer.status != 200:
            said = " ".join(answer.data.decode(errors="replace").split())[:200]
            raise self._error(f"status {answer.status}, {said!r}", "Its log may say more.")
        try:
            return json.loads(answer.data)
        except ValueError as error:
            raise self._error(
                f"it must answer with JSON, and answered {answer.data[:120]!r}",
                "Is this the reward's path?",
            ) from error

    def _error(self, wrong: str, remedy: str) -> DataError:
        return DataError(f"{self.url} cannot be scored with: {wrong.rstrip('.')}. {remedy}")


def _item(prompt, completion, label) -> dict:
    """The fields of one completion in a request."""
    messages, reply = conversation_of(prompt), text_of(completion)
    asked = conversation_text(messages)
    answered = [*messages, *completion_of(reply)]
    return {
        "query": conversation_text(answered) if len(messages) > 1 else f"{asked}\n{reply}",
        "prompts": asked,
        "labels": label,
        "messages": answered,
    }


def conversation_text(messages) -> str:
    """The text of a single message; several messages become paragraphs that each begin with the
    role."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)


def _pool(threads: int):
    try:
        import urllib3
    except ImportError:
        raise MissingExtraError(
            'A reward behind a URL needs `urllib3`. Install it with: pip install "infalign[http]"'
        ) from None
    return urllib3.PoolManager(maxsize=threads)
