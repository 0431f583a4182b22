"""Requests to a server with the OpenAI API: vLLM, SGLang, llama.cpp, OpenAI, …"""

import json
import os
from collections.abc import Mapping
from typing import Any

from infalign.errors import DataError

from .interfaces import Conversation
from .json_http import Answer, JSONServer, quoted
from .server_parameters import LOST, NEUTRAL, ServerParameters, words_of
from .server_replies import Said, UnreadableError, chat_choice, completion_choice

__all__ = ["ChatServer"]

KEY = "OPENAI_API_KEY"
"""The environment variable that holds the API key; a server without authentication needs none."""

REFUSED = (400, 422)
"""Status of a request whose parameters a server refuses."""

LARGEST = 256 * 2**20
"""Maximum size of an answer, in bytes; log-probabilities take some 150 bytes a token."""


class ChatServer:
    """One model of a server, asked for choices.

    - `url`: the URL up to and including the version, such as `http://127.0.0.1:8000/v1`.
    - `api`: `chat` or `completions`, as in `ServerModel`.
    - `options`: `timeout`, `retries` and `threads`, as in `JSONServer`.
    """

    def __init__(self, url: str, model: str, api: str, **options: Any):
        self.model, self.api = model, api
        self.server = JSONServer(
            url, "sampled from", headers=_authorization(), largest=LARGEST, **options
        )
        self.parameters = ServerParameters(url)

    def request(self, conversation: Conversation) -> dict:
        """The part of a request that holds the conversation."""
        if self.api == "chat":
            return {"messages": [dict(m) for m in conversation]}
        if len(conversation) > 1:
            raise DataError(
                'A request with api="completions" is one text; the prompt that begins '
                f"{conversation[0]['content'][:60]!r} has {len(conversation)} messages. Use "
                'api="chat", or prompts of one message.'
            )
        return {"prompt": conversation[0]["content"]}

    def ask(
        self, asked: Mapping[str, Any], wanted: Mapping[str, Any], parameters: ServerParameters
    ) -> list[Said]:
        """The choices that the server answers. A parameter that it refuses is given up. After
        an error that names none, the neutral settings are, if the server answers without them.

        - `asked`: the `request`.
        - `wanted`: the other parameters of the request.

        There are none if the server refuses to draw several. Raises DataError if it refuses the
        request, or answers in another form.
        """
        for _ in range(len(LOST) + 1):
            if wanted.get("n", 1) > 1 and "n" in parameters.without:
                return []
            sent = parameters.body(wanted)
            answer, said, choices = self._tried(asked, sent)
            if choices is not None:
                return choices
            refused = ""
            if answer.status in (200, *REFUSED):
                refused = parameters.give_up(wanted, sent, said)
            if refused != "again":
                break
        if not refused and answer.status in REFUSED and not NEUTRAL.keys().isdisjoint(sent):
            bare = {name: value for name, value in sent.items() if name not in NEUTRAL}
            _, _, choices = self._tried(asked, bare)
            if choices is not None:
                parameters.give_up_neutral(said)
                return choices
        raise self._refusal(answer, said, wanted, refused)

    def _tried(
        self, asked: Mapping[str, Any], sent: Mapping[str, Any]
    ) -> tuple[Answer, Any, list[Said] | None]:
        """The answer to one request, its JSON, and its choices; None if it has none to read."""
        path = "/chat/completions" if self.api == "chat" else "/completions"
        answer = self.server.ask({**asked, "model": self.model, **sent}, path)
        said = self._json(answer)
        choices = None
        if answer.status == 200 and isinstance(said, Mapping):
            if said.get("choices"):
                choices = self._choices(answer, said["choices"])
            elif said.get("choices") == []:
                choices = []
        return answer, said, choices

    def _json(self, answer: Answer) -> Any:
        """An answer's JSON; the text of an error in another form."""
        if answer.status == 200:
            return self.server.read(answer)
        try:
            return json.loads(answer.data)
        except (ValueError, RecursionError):
            return answer.data.decode(errors="replace")

    def _choices(self, answer: Answer, choices: Any) -> list[Said]:
        read = chat_choice if self.api == "chat" else completion_choice
        try:
            if not isinstance(choices, list):
                raise UnreadableError("`choices` must be a list")
            return [read(choice) for choice in choices]
        except UnreadableError as error:
            raise self.server.error(
                f"it must answer in the form of the OpenAI API, and {error} "
                f'(status {answer.status}, "{answer.words}")',
                "Is this the right path?",
            ) from None

    def _refusal(
        self, answer: Answer, said: Any, wanted: Mapping[str, Any], refused: str
    ) -> DataError:
        """The error about an answer without choices."""
        if refused:
            remedy = (
                f"It refuses `{refused}` {wanted[refused]:g}, without which responses would have "
                f"another distribution. Use {refused} 1, or another server."
            )
        elif answer.status in (401, 403):
            remedy = f"Put its key into the environment variable {KEY}."
        elif answer.status == 404:
            remedy = f"Check the model's name, {quoted(self.model)!r}, and the path."
        elif answer.status == 200:
            remedy = "It reports an error, or its answer is not in the form of the OpenAI API."
        else:
            remedy = "Its log may say more."
        words = words_of(said) or answer.words
        return self.server.error(f'status {answer.status}, "{words}"', remedy)


def _authorization() -> dict[str, str]:
    key = os.environ.get(KEY)
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()):
        raise DataError(
            f"The environment variable {KEY} must hold a key of printable ASCII characters. Does "
            "it end with a line break?"
        )
    return {"Authorization": f"Bearer {key}"}
