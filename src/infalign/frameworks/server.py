"""A reward behind a URL, in the protocol that OpenRLHF's remote rewards speak.

`POST /` takes `{"query": […], "prompts": […], "labels": […]}`: prompt and response, prompt, and the
prompt's id, a list each with an entry per response. Two more keys are understood and win over
`query`: `messages`, conversations that end with the response, as `ServerReward` sends them; and
`responses`, the plain texts. The answer is `{"rewards": […], "scores": […], "extra_logs": {…}}`.

What is wrong is told as `{"error": …}`, with the `prompt_id` where it is one prompt's: status 422
for a request that will never do, 413 for one that is too large, 503 with `Retry-After` while too
many wait, 500 when the reward fails.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pydantic

from infalign import _check
from infalign.errors import DataError, MissingExtraError

from .microbatch import BusyError, MicroBatcher
from .policy_text import PolicyText
from .scorer import Asked, Scorer

PATHS = ("/", "/score", "/get_reward")
"""Where rewards are asked for; the last two are customs of others."""

RETRY_AFTER = 1
"""Seconds that a server with a full queue asks for."""

LARGEST = 32 * 2**20
"""Bytes of a request, unless told otherwise."""

WAITING = 16384
"""Responses that may wait, unless told otherwise."""


class Body(pydantic.BaseModel):
    """A request, as OpenRLHF sends it and more."""

    query: list[str] | None = None
    prompts: list[str] | None = None
    labels: list[Any] | None = None
    messages: list[list[dict]] | None = None
    responses: list[str] | None = None

    @pydantic.model_validator(mode="after")
    def _one_entry_per_response(self):
        lengths = {name: len(value) for name, value in self if value is not None}
        if not {"query", "messages", "responses"} & lengths.keys():
            raise ValueError("it needs `query`, `messages` or `responses`")
        if len(set(lengths.values())) > 1:
            raise ValueError(f"its lists must be of one length; got {lengths}")
        return self

    def asked(self, i: int, text: PolicyText | None) -> Asked:
        """Response `i` and whose it is; DataError when it cannot be read out."""
        label = self.labels[i] if self.labels else None
        prompt = self.prompts[i] if self.prompts else None
        key = prompt if label is None or label == "" else str(label)
        messages = None
        if self.messages:
            *conversation, reply = self.messages[i]
            messages = tuple(conversation) or None
        if self.responses:
            response = self.responses[i]
        elif self.messages:
            response = reply["content"]
        elif prompt is None or text is None:
            raise DataError(
                "`query` cannot be told from its prompt: "
                + (
                    "send `prompts` too."
                    if prompt is None
                    else "the policy's tokenizer is not at hand. Send `responses` or `messages`."
                )
            )
        else:
            response = text.response(self.query[i], prompt)
        return Asked(key, response, messages)


def make_app(
    scorer: Scorer,
    *,
    text: PolicyText | None = None,
    about: dict | None = None,
    window: float = 0.005,
    batch: int = 256,
    waiting: int = WAITING,
    largest: int = LARGEST,
):
    """The server as an ASGI application.

    - `text`: the policy's tokenizer, which reads responses out of queries.
    - `about`: what `GET /health` tells beside the length of the queue.
    - `window`, `batch`, `waiting`: as of `MicroBatcher`, over all requests.
    - `largest`: bytes of a request.

    Raises MissingExtraError without starlette.
    """
    try:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.responses import JSONResponse
        from starlette.routing import Route
    except ImportError:
        raise MissingExtraError(
            "Serving a reward needs `starlette` and `uvicorn`. Install them with: "
            'pip install "infalign[serve]"'
        ) from None
    _check.count("largest", largest)
    batcher = MicroBatcher(scorer, window=window, batch=batch, waiting=waiting)

    def refused(status: int, error, **more):
        headers = {"Retry-After": str(RETRY_AFTER)} if status == 503 else None
        return JSONResponse({"error": str(error), **more}, status, headers=headers)

    async def score(request):
        raw = bytearray()
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > largest:
                return refused(
                    413, f"A request may have {largest} bytes. Send fewer responses at once."
                )
        try:
            body = Body.model_validate(json.loads(raw))
        except pydantic.ValidationError as error:
            told = "; ".join(_told(e) for e in error.errors())
            return refused(422, f"The request cannot be read: {told}.")
        except ValueError as error:
            return refused(422, f"The request is not JSON: {error}.")
        found = await asyncio.to_thread(_resolved, scorer, body, text)
        if isinstance(found, dict):
            return refused(422, **found)
        try:
            scored = await asyncio.wrap_future(batcher.submit(found))
        except BusyError as error:
            return refused(503, error)
        except Exception as error:
            return refused(500, f"The reward failed: {type(error).__name__}: {error}")
        return JSONResponse(answer(scored))

    async def health(request):
        return JSONResponse({"status": "ok", "waiting": batcher.queued, **(about or {})})

    async def told(request, error):
        return refused(error.status_code, f"{request.url.path}: {error.detail}")

    routes = [Route(path, score, methods=["POST"]) for path in PATHS]
    return Starlette(
        routes=[*routes, Route("/health", health)], exception_handlers={HTTPException: told}
    )


def answer(scored: Sequence[dict]) -> dict:
    """What is answered for these scores: OpenRLHF filters by `scores` and logs `extra_logs`."""
    rewards = [s["score"] for s in scored]
    logs = {name: [s[name] for s in scored] for name in (scored[0] if scored else ())}
    logs.pop("score", None)
    return {"rewards": rewards, "scores": logs.get("quantile", rewards), "extra_logs": logs}


def _resolved(scorer: Scorer, body: Body, text: PolicyText | None) -> list[Asked] | dict:
    """What is asked for, or what is wrong with it and with whose."""
    found = []
    count = len(next(v for v in (body.responses, body.messages, body.query) if v is not None))
    for i in range(count):
        try:
            found.append(scorer.resolve(body.asked(i, text)))
        except (DataError, LookupError, TypeError, ValueError) as error:
            told = error if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
            label = body.labels[i] if body.labels else None
            return {"error": f"Response {i} of {count}: {told}", "prompt_id": label}
    return found


def _told(error) -> str:
    where = ".".join(map(str, error["loc"]))
    words = error["msg"].removeprefix("Value error, ")
    return f"`{where}`: {words}" if where else words


def serve(app, host: str, port: int, announce) -> None:
    """Serve `app` until Ctrl-C, after telling `announce` its address.

    - `port`: 0 takes a free one.

    Raises ValueError if host and port cannot be had.
    """
    import socket

    import uvicorn

    try:
        listening = socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"`host` and `port` must be free and of this machine; got {host}:{port} ({error}). "
            "With port 0 a free one is taken."
        ) from error
    with listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="none"))
        announce(f"http://{host}:{listening.getsockname()[1]}")
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:
            pass
