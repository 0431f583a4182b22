"""A reward behind a URL, in the protocol of OpenRLHF's remote rewards.

`POST /` takes `{"query": […], "prompts": […], "labels": […]}`, lists with one entry per response:
the prompt with its response, the prompt, and the prompt's id. Two more keys take precedence over
`query`: `messages`, conversations that end with the response, as `ServerReward` sends them; and
`responses`, the plain texts. The answer is `{"rewards": […], "scores": […], "extra_logs": {…}}`.

An error is answered as `{"error": …}`, with the `prompt_id` if it concerns one prompt. The status
is 422 for a request that can never be answered, 413 for a request that is too large, 503 with
`Retry-After` while the queue is full, and 500 if the reward fails.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from infalign import _check
from infalign.errors import DataError, MissingExtraError

from .microbatch import BusyError, MicroBatcher
from .prompt_text import PolicyText
from .scorer import Asked, Scored, Scorer

PATHS = ("/", "/score", "/get_reward")
"""Paths that serve rewards; the last two are customary elsewhere."""

RETRY_AFTER = 1
"""Seconds after which a client should retry when the queue is full."""

LARGEST = 32 * 2**20
"""Default size limit of a request, in bytes."""

WAITING = 16384
"""Default maximum number of responses in the queue."""


class Body(pydantic.BaseModel):
    """An OpenRLHF request, with two more keys."""

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

    def __len__(self) -> int:
        """The number of responses."""
        return len(self.responses or self.messages or self.query or ())

    def asked(self, i: int, text: PolicyText | None) -> Asked:
        """Response `i` and its prompt; DataError if the request does not contain them."""
        label = self.labels[i] if self.labels else None
        prompt = self.prompts[i] if self.prompts else None
        unnamed = label is None or label == ""
        key, by_text = (prompt, True) if unnamed else (str(label), False)
        *conversation, reply = self.messages[i] if self.messages else [{}]
        messages = tuple(conversation) or None
        if self.responses:
            return Asked(key, self.responses[i], messages, by_text)
        if self.messages:
            return Asked(key, reply["content"], messages, by_text)
        if prompt is None:
            raise DataError("`query` does not say where its response begins: send `prompts` too.")
        if text is None:
            raise DataError(
                "`query` cannot be read without the policy's tokenizer, which this server does not "
                "have. Send `responses` or `messages`."
            )
        return Asked(key, text.response((self.query or [])[i], prompt), messages, by_text)


def make_app(
    scorer: Scorer,
    *,
    text: PolicyText | None = None,
    about: Mapping[str, object] | None = None,
    window: float = 0.005,
    batch: int = 256,
    waiting: int = WAITING,
    largest: int = LARGEST,
):
    """The server as an ASGI application.

    - `text`: the policy's tokenizer, which extracts responses from queries.
    - `about`: entries of the answer to `GET /health`, besides the length of the queue.
    - `window`, `batch`, `waiting`: as in `MicroBatcher`, over all requests.
    - `largest`: maximum size of a request, in bytes.

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
    batcher: MicroBatcher[Asked, Scored] = MicroBatcher(
        scorer, window=window, batch=batch, waiting=waiting
    )

    def refusal(status: int, error, **more):
        headers = {"Retry-After": str(RETRY_AFTER)} if status == 503 else None
        return JSONResponse({"error": str(error), **more}, status, headers=headers)

    async def score(request):
        raw = bytearray()
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > largest:
                return refusal(
                    413, f"A request may have {largest} bytes. Send fewer responses at once."
                )
        try:
            body = Body.model_validate(json.loads(raw))
        except pydantic.ValidationError as error:
            problems = "; ".join(_problem(e) for e in error.errors())
            return refusal(422, f"The request cannot be read: {problems}.")
        except ValueError as error:
            return refusal(422, f"The request is not JSON: {error}.")
        try:
            asked = await asyncio.to_thread(_resolved, scorer, body, text)
        except _Unresolved as error:
            return refusal(422, error, prompt_id=error.prompt_id)
        try:
            scored = await asyncio.wrap_future(batcher.submit(asked))
        except BusyError as error:
            return refusal(503, error)
        except Exception as error:
            return refusal(500, f"The reward failed: {type(error).__name__}: {error}")
        return JSONResponse(answer(scored))

    async def health(request):
        return JSONResponse({"status": "ok", "waiting": batcher.queued, **(about or {})})

    async def http_error(request, error):
        return refusal(error.status_code, f"{request.url.path}: {error.detail}")

    routes = [Route(path, score, methods=["POST"]) for path in PATHS]
    return Starlette(
        routes=[*routes, Route("/health", health)], exception_handlers={HTTPException: http_error}
    )


def answer(scored: Sequence[Scored]) -> dict[str, object]:
    """The JSON of these scores. OpenRLHF filters prompts by `scores` and logs `extra_logs`."""
    columns = {name: [dict(s)[name] for s in scored] for name in (scored[0] if scored else ())}
    rewards = columns.pop("score", [])
    return {"rewards": rewards, "scores": columns.get("quantile", rewards), "extra_logs": columns}


class _Unresolved(Exception):
    """A response whose prompt or text cannot be read, with the prompt's label from the request."""

    def __init__(self, message: str, prompt_id: Any):
        super().__init__(message)
        self.prompt_id = prompt_id


def _resolved(scorer: Scorer, body: Body, text: PolicyText | None) -> list[Asked]:
    """The responses of a request with their prompts; raises _Unresolved for the first without
    one."""
    resolved = []
    for i in range(len(body)):
        try:
            resolved.append(scorer.resolve(body.asked(i, text)))
        except (DataError, LookupError, TypeError, ValueError) as error:
            own = isinstance(error, DataError)
            problem = str(error) if own else f"{type(error).__name__}: {error}"
            label = body.labels[i] if body.labels else None
            raise _Unresolved(f"Response {i} of {len(body)}: {problem}", label) from error
    return resolved


def _problem(error) -> str:
    where = ".".join(map(str, error["loc"]))
    words = error["msg"].removeprefix("Value error, ")
    return f"`{where}`: {words}" if where else words


def serve(app, host: str, port: int, announce) -> None:
    """Call `announce` with the address of `app`, then serve `app` until Ctrl-C.

    - `port`: 0 takes a free port.

    Raises ValueError if the host and port are not available.
    """
    import socket

    import uvicorn

    try:
        listening = socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"`host` and `port` must be free and of this machine; got {host}:{port} ({error}). "
            "Port 0 takes a free one."
        ) from error
    with listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="none"))
        announce(f"http://{host}:{listening.getsockname()[1]}")
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:
            pass
