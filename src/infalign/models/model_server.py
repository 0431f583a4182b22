"""Sampling from a server with the OpenAI API: vLLM, SGLang, llama.cpp, OpenAI, …

Servers differ in how they treat `n`, `temperature` and `seed`, and may silently ignore some of
them. If all responses to a prompt are copies, every estimate is invalid, so responses are checked
first. A reply without content is not a response: it is never scored.
"""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal, TypeVar

from infalign import _check, _progress
from infalign._thinking import THOUGHTS, begins_thinking
from infalign.errors import DataError, MissingExtraError, install
from infalign.seeds import prompt_keys, request_seed

from .interfaces import Conversation, Response
from .server_parameters import NEUTRAL
from .unanswered import ANSWERS, Place, with_answers

if TYPE_CHECKING:
    from .chat_server import ChatServer

__all__ = ["ServerModel"]

Item = TypeVar("Item")
Result = TypeVar("Result")

LOG = logging.getLogger(__name__)

COINCIDENCE = 1e-6
"""Probability below which identical responses do not count as a coincidence."""


class ServerModel:
    """A model behind an OpenAI-compatible server, as a `Sampler`.

    One request asks for all n responses to a prompt, so that they share its prefill. If the server
    returns a different number, or if no prompt's responses differ, each response gets its own
    request and seed. Requests run concurrently. Their seeds follow from the given seed, the
    prompt's key and the response's number, so a server that honors seeds returns the same responses
    again.

    - `url`: the URL up to and including the version, such as `http://127.0.0.1:8000/v1`.
    - `model`: the model's name on the server.
    - `api`: `chat` sends messages; `completions` sends the text of a single message as it is.
    - `threads`: concurrent requests; 1 for servers whose seeds work for single requests only.
    - `timeout`: seconds for a whole attempt.
    - `retries`: further attempts after a failed connection, a timeout or status 408, 409, 425, 429,
      500, 502, 503 or 504, with growing pauses.
    - `verify`: refuse responses that never differ. Turn it off for a deterministic policy.
    - `strip`: remove white space at both ends of the responses' texts.
    - `answer`: `whole` takes the content of a reply; `after-thinking` the part after the thought,
      where the content holds one. A thought that the server separates from the content, such as
      `reasoning_content`, is never part of a response.
    - `ask_again`: further requests, with other seeds, for a response that has no answer: a thought
      or content that was cut off or filtered, or no content at all. This draws from the policy
      under the condition that it answers, and a warning counts these responses. A refusal is an
      answer.
    - `unanswered`: "error" refuses a response that has no answer after all requests; "keep" returns
      it with the reason in `missing`.

    Tokens are drawn from the model's distribution at the given temperature and top-p: requests turn
    the server's own defaults for `top_k`, `min_p` and `repetition_penalty` off.

    A parameter that the server refuses is done without from then on, and a warning says what is
    lost: log-probabilities, `n`, seeds, the name of the maximum length, the settings that turn
    defaults off, and top-p or temperature if they are 1. Any other temperature or top-p must be
    accepted.

    The log-probability of a response is known only if the server reports it and tokens are drawn
    from the model's own distribution, at temperature 1 and top-p 1, because servers report it
    before applying either. Token ids are not known. The key is read from the environment variable
    `OPENAI_API_KEY`.

    Raises MissingExtraError without `urllib3`, and DataError if the URL is not one.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int = 128,
        api: Literal["chat", "completions"] = "chat",
        threads: int = 8,
        timeout: float = 600.0,
        retries: int = 5,
        verify: bool = True,
        strip: bool = False,
        answer: Literal["whole", "after-thinking"] = "whole",
        ask_again: int = 0,
        unanswered: Literal["error", "keep"] = "error",
    ):
        _check.one_of("api", api, ("chat", "completions"))
        _check.one_of("answer", answer, ANSWERS)
        _check.one_of("unanswered", unanswered, ("error", "keep"))
        self.url, self.model, self.verify = url, model, verify
        self.answer, self.unanswered = answer, unanswered
        self.temperature = _check.positive("temperature", temperature)
        self.top_p = _check.positive("top_p", top_p)
        self.max_new_tokens = _check.count("max_new_tokens", max_new_tokens)
        self.ask_again = _check.count("ask_again", ask_again, at_least=0)
        self.threads, self.strip = _check.count("threads", threads), _check.truth("strip", strip)
        self.chat = _chat_server(url, model, api, timeout=timeout, retries=retries, threads=threads)
        self._one_by_one = self._varied = self._warned = False

    def sample(
        self,
        conversations: Sequence[Conversation],
        n: int,
        *,
        seed: int,
        keys: Sequence[str] | None = None,
    ) -> list[list[Response]]:
        """`n` responses to each conversation.

        - `keys`: one name for each conversation, all different. Default: "0", "1", …

        Raises DataError if the server cannot be reached, refuses, returns no response, gives the
        same response to every request for every prompt, or gives no answer.
        """
        asks = [self.chat.request(c) for c in conversations]
        keys = prompt_keys(keys, conversations)
        rows = self._verified(asks, n, seed, keys)
        self._warn_of_thoughts(rows)

        def again(places: Sequence[Place], attempt: int) -> list[Response]:
            def one(place: Place) -> Response:
                i, k = place
                return self._single(asks[i], request_seed(seed, f"{keys[i]} again {attempt}", k))

            return self._each(one, places)

        return with_answers(
            rows,
            again,
            ask_again=self.ask_again,
            unanswered=self.unanswered,
            source=self.url,
            keys=keys,
            max_new_tokens=self.max_new_tokens,
        )

    def probe(self) -> str:
        """A short text that identifies the model behind the URL: how the server lists it, and its
        greedy answer to a fixed prompt, or what of these cannot be known.

        Raises DataError if the server cannot be reached or refuses.
        """
        from .server_probe import probe

        return probe(self.chat)

    def _warn_of_thoughts(self, rows: Sequence[Sequence[Response]]) -> None:
        """Warn once if responses hold thoughts that are scored with them. Whoever takes responses
        without an answer, such as a judge, reads thoughts by itself."""
        if self.answer == "whole" and self.unanswered == "error" and not self._warned:
            self._warned = any(begins_thinking(r.text) for row in rows for r in row)
            if self._warned:
                LOG.warning("Responses of %s begin with a thought. %s", self.url, THOUGHTS)

    def _verified(self, asks, n, seed, keys) -> list[list[Response]]:
        """The responses; DataError if they are copies of each other."""
        rows = self._rows(asks, n, seed, keys)
        if n == 1 or not self.verify or self._varied:
            return rows
        if not self._one_by_one and _copies(rows):
            # Single requests show whether these are copies of one draw or the model is
            # deterministic.
            self._one_by_one = True
            rows = self._rows(asks, n, seed, keys)
        if _copies(rows):
            self._one_by_one = False
            first = next(r for row in rows for r in row if not r.missing)
            raise DataError(
                f"{self.url} gave {n} identical responses to each of {len(rows)} prompts at "
                f"temperature {self.temperature:g}, to single requests with different seeds too; "
                f"the first is {first.text[:60]!r}. It decodes greedily whatever the request "
                "(transformers serve does, unless the model's generation_config.json has "
                '"do_sample": true), or it caches. Repair that; for a deterministic policy '
                "pass verify=False."
            )
        self._varied = _differ(rows)
        return rows

    def _rows(self, asks, n, seed, keys) -> list[list[Response]]:
        def row(place: int) -> list[Response]:
            ask, key = asks[place], keys[place]
            if n > 1 and not self._one_by_one:
                responses = self._send(ask, n, request_seed(seed, key))
                if len(responses) == n:
                    return responses
                self._one_by_one = True
            return [self._single(ask, request_seed(seed, key, k)) for k in range(n)]

        return self._each(row, range(len(asks)))

    def _each(self, act: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """The results for all items, in parallel requests."""
        pool, asked = ThreadPoolExecutor(self.threads), list(items)
        results: list[Result] = []
        try:
            for result in pool.map(act, asked):
                results.append(result)
                _progress.advance(len(results) / len(asked))
            return results
        finally:
            pool.shutdown(cancel_futures=True)  # after an error the other requests are not sent

    def _single(self, ask: dict, seed: int) -> Response:
        responses = self._send(ask, 1, seed)
        if len(responses) != 1:
            raise DataError(f"{self.url} returned {len(responses)} choices to a request for one.")
        return responses[0]

    def _send(self, ask: dict, n: int, seed: int) -> list[Response]:
        """The responses to one request; none if the server refuses to draw several."""
        wanted = {
            "n": n,
            "seed": seed,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_new_tokens,
            **NEUTRAL,
        }
        plain = self.temperature == self.top_p == 1
        if plain:
            wanted["logprobs"] = True if self.chat.api == "chat" else 1
        from .server_replies import response

        said = self.chat.ask(ask, wanted, self.chat.parameters)
        return [response(s, self.answer, strip=self.strip, plain=plain) for s in said]


def _chat_server(url: str, model: str, api: str, **options) -> "ChatServer":
    try:
        import urllib3  # noqa: F401

        from .chat_server import ChatServer
    except ImportError:
        raise MissingExtraError(
            f"Sampling from a server needs `urllib3`. Install it with: {install('openai')}"
        ) from None
    return ChatServer(url, model, api, **options)


def _differ(rows: Sequence[Sequence[Response]]) -> bool:
    """Whether the answers to any prompt differ."""
    return any(len({r.text for r in row if not r.missing}) > 1 for row in rows)


def _copies(rows: Sequence[Sequence[Response]]) -> bool:
    """Whether all prompts' answers are identical, and by their log-probabilities that is no
    coincidence."""
    answers = [[r for r in row if not r.missing] for row in rows]
    several = [row for row in answers if len(row) > 1]
    if not several or _differ(several):
        return False
    logprob = sum((len(row) - 1) * row[0].logprob for row in several)
    return not logprob > math.log(COINCIDENCE)  # nan if one is not known


def _response(text: str | None, logprobs: Sequence[float | None], plain: bool) -> Response:
    """What version 0.1 made of a server's choice; checks of older versions call it."""
    from .server_replies import Said, response

    known = tuple(p for p in logprobs if p is not None)
    complete = known if len(known) == len(logprobs) > 0 else None
    return response(Said(text, "", complete), "whole", strip=False, plain=plain)
