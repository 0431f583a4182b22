"""Sampling from a server with the OpenAI API: vLLM, SGLang, llama.cpp, OpenAI, …

Servers differ in how they treat `n`, `temperature` and `seed`, and may silently ignore some of
them. If all responses to a prompt are copies, every estimate is invalid, so responses are checked
first.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

from infalign import _check
from infalign.errors import DataError, MissingExtraError
from infalign.seeds import prompt_keys, request_seed
from infalign.text import finished

from .interfaces import Conversation, Response

KEY = "OPENAI_API_KEY"
"""The environment variable that holds the API key; a server without authentication needs none."""

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
    - `timeout`: seconds until a request fails.
    - `retries`: further attempts after a timeout or status 408, 409, 429 or 5xx, with growing
      pauses.
    - `verify`: refuse responses that never differ. Turn it off for a deterministic policy.
    - `strip`: remove white space at both ends of the responses' texts.

    The log-probability of a response is known only if the server reports it and tokens are drawn
    from the model's own distribution, at temperature 1 and top-p 1, because servers report it
    before applying either. Token ids are not known. The key is read from the environment variable
    `OPENAI_API_KEY`.

    Raises MissingExtraError without `openai`.
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
    ):
        _check.one_of("api", api, ("chat", "completions"))
        self.url, self.model, self.api, self.verify = url, model, api, verify
        self.temperature = _check.positive("temperature", temperature)
        self.top_p = _check.positive("top_p", top_p)
        self.max_new_tokens = _check.count("max_new_tokens", max_new_tokens)
        self.threads, self.strip = _check.count("threads", threads), _check.truth("strip", strip)
        self._client = _client(url, timeout, retries)
        self._one_by_one = self._varied = False

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

        Raises DataError if the server cannot be reached, refuses, returns no response, or gives the
        same response to every request for every prompt.
        """
        asks = [self._request(c) for c in conversations]
        keys = prompt_keys(keys, conversations)
        rows = self._rows(asks, n, seed, keys)
        if n == 1 or not self.verify or self._varied:
            return rows
        if not _differ(rows) and not self._one_by_one and not _likely(rows):
            # Single requests show whether these are copies of one draw or the model is
            # deterministic.
            self._one_by_one = True
            rows = self._rows(asks, n, seed, keys)
        if not _differ(rows) and not _likely(rows):
            self._one_by_one = False
            raise DataError(
                f"{self.url} gave {n} identical responses to each of {len(rows)} prompts at "
                f"temperature {self.temperature:g}, to single requests with different seeds too; "
                f"the first is {rows[0][0].text[:60]!r}. It decodes greedily whatever the request "
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

        pool = ThreadPoolExecutor(self.threads)
        try:
            return list(pool.map(row, range(len(asks))))
        finally:
            pool.shutdown(cancel_futures=True)  # after an error the other requests are not sent

    def _single(self, ask: dict, seed: int) -> Response:
        responses = self._send(ask, 1, seed)
        if len(responses) != 1:
            raise DataError(f"{self.url} returned {len(responses)} choices to a request for one.")
        return responses[0]

    def _request(self, conversation: Conversation) -> dict:
        if self.api == "chat":
            return {"messages": [dict(m) for m in conversation]}
        if len(conversation) > 1:
            raise DataError(
                'A request with api="completions" is one text; the prompt that begins '
                f"{conversation[0]['content'][:60]!r} has {len(conversation)} messages. Use "
                'api="chat", or prompts of one message.'
            )
        return {"prompt": conversation[0]["content"]}

    def _send(self, ask: dict, n: int, seed: int) -> list[Response]:
        chat, plain = self.api == "chat", self.temperature == self.top_p == 1
        create = (self._client.chat if chat else self._client).completions.create
        options = {"logprobs": True if chat else 1} if plain else {}
        answer = self._answer(
            lambda: create(
                **ask,
                **options,
                model=self.model,
                n=n,
                seed=seed,
                temperature=self.temperature,
                top_p=self.top_p,
                max_tokens=self.max_new_tokens,
            )
        )
        read = _chat_choice if chat else _completion_choice
        responses = [read(choice, plain) for choice in answer.choices or ()]
        return [replace(r, text=finished(r.text, strip=self.strip)) for r in responses]

    def _answer(self, send: Callable):
        """The result of `send`; DataError in place of the client's errors."""
        import openai

        try:
            return send()
        except openai.AuthenticationError as error:
            wrong, remedy = error.message, f"Put its key into the environment variable {KEY}."
        except openai.NotFoundError as error:
            wrong, remedy = error.message, f"Check the model's name, {self.model!r}, and the path."
        except openai.APIStatusError as error:
            wrong, remedy = error.message, "Its log may say more."
            if not (isinstance(error.body, Mapping) and error.body.get("message")):
                wrong += f" - {str(error.body)[:300]}"  # not in the API's format
        except openai.APITimeoutError:
            wrong, remedy = "no answer in time", "Raise `timeout`, or ask for fewer tokens."
        except openai.APIError as error:
            cause = error.__cause__ or error
            wrong, remedy = f"{type(cause).__name__}: {cause}", "Is it running, and the URL right?"
        words = " ".join(wrong.split()).rstrip(".")
        raise DataError(f"{self.url} cannot be sampled from: {words}. {remedy}")


def _client(url: str, timeout: float, retries: int):
    try:
        import openai
    except ImportError:
        raise MissingExtraError(
            'Sampling from a server needs `openai`. Install it with: pip install "infalign[openai]"'
        ) from None
    return openai.OpenAI(
        base_url=url,
        api_key=os.environ.get(KEY) or "none",  # the client requires a key, local servers do not
        timeout=_check.positive("timeout", timeout),
        max_retries=_check.count("retries", retries, at_least=0),
    )


def _chat_choice(choice, plain: bool) -> Response:
    tokens = getattr(choice.logprobs, "content", None) or ()
    return _response(choice.message.content, [t.logprob for t in tokens], plain)


def _completion_choice(choice, plain: bool) -> Response:
    logprobs = getattr(choice.logprobs, "token_logprobs", None) or ()
    return _response(choice.text, logprobs, plain)


def _response(text: str | None, logprobs: Sequence[float | None], plain: bool) -> Response:
    known = [p for p in logprobs if p is not None]
    complete = plain and len(known) == len(logprobs) > 0
    return Response(text or "", (), math.fsum(known) if complete else math.nan)


def _differ(rows: Sequence[Sequence[Response]]) -> bool:
    """Whether the responses to any prompt differ."""
    return any(len({r.text for r in row}) > 1 for row in rows)


def _likely(rows: Sequence[Sequence[Response]]) -> bool:
    """Whether identical responses may be a coincidence, by their log-probabilities."""
    return sum((len(row) - 1) * row[0].logprob for row in rows) > math.log(COINCIDENCE)
