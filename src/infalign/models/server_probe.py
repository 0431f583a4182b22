"""A short text that identifies the model behind a server's URL, by what it answers."""

from collections.abc import Mapping

from infalign.errors import DataError

from .chat_server import ChatServer
from .json_http import JSONServer, quoted
from .server_parameters import NEUTRAL, ServerParameters

__all__ = ["probe"]

PROMPT = "Write one sentence about the sea."
TOKENS = 24
"""The prompt of the greedy answer, and its maximum length."""

LISTED = ("root", "parent", "max_model_len", "meta")
"""Fields of a server's listing that describe the model. Others change between calls: vLLM's
`created` is the time of the request, and its `permission` has a random id."""


def probe(chat: ChatServer) -> str:
    """The listing and the greedy answer of the server's model, or what of these is not known.

    The settings that turn the server's own defaults off are listed if it takes them, since its
    responses are then others than without.
    """
    parameters = ServerParameters(chat.server.url, warn=False)
    answer = _greedy_answer(chat, parameters)
    taken = [f"{k} {v:g}" for k, v in NEUTRAL.items() if k not in parameters.without]
    return "; ".join([_listing(chat), answer, *([f"takes {', '.join(taken)}"] if taken else [])])


def _listing(chat: ChatServer) -> str:
    unknown = "not listed"
    own = chat.server
    server = JSONServer(
        own.url, own.use, timeout=own.timeout, retries=0, threads=1, largest=own.largest,
        headers=own.headers,
    )  # fmt: skip
    try:
        answer = server.ask(path="/models")
        listed = server.read(answer) if answer.status == 200 else None
    except DataError:
        return unknown
    finally:
        server.close()
    models = listed.get("data") if isinstance(listed, Mapping) else None
    for model in models if isinstance(models, list) else ():
        if isinstance(model, Mapping) and model.get("id") == chat.model:
            fields = [f"{k} {quoted(str(model[k]), 80)}" for k in LISTED if model.get(k)]
            return " ".join(("listed", *fields))
    return unknown


def _greedy_answer(chat: ChatServer, parameters: ServerParameters) -> str:
    """The answer if two requests agree on it."""
    request = chat.request([{"role": "user", "content": PROMPT}])
    wanted = {"n": 1, "seed": 0, "temperature": 0.0, "top_p": 1.0, "max_tokens": TOKENS, **NEUTRAL}
    answers = []
    for _ in range(2):
        said = chat.ask(request, wanted, parameters)
        texts = [s.thought + (s.text or "") for s in said[:1]]
        answers.append("".join(texts))
    if answers[0] != answers[1]:
        return "greedy answers that differ"
    if not answers[0]:
        return "no greedy answer"
    return f"greedy answer {quoted(answers[0])!r}"
