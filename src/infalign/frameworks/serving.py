"""A reward behind a URL, in the protocol of OpenRLHF's remote rewards.

`POST /` takes `{"query": […], "prompts": […], "labels": […]}`, lists with one entry per response:
the prompt with its response, the prompt, and the prompt's id. Two more keys take precedence over
`query`: `messages`, conversations that end with the response, as `ServerReward` sends them; and
`responses`, the plain texts. The answer is `{"rewards": […], "scores": […], "extra_logs": {…}}`.

An error is answered as `{"error": …}`, with the `prompt_id` if it concerns one prompt. The status
is 422 for a request that can never be answered, 413 for a request that is too large, 408 for one
that does not arrive in time, 400 for one to another host, 503 with `Retry-After` while the queue is
full, and 500 if the reward fails. A request fails alone: those that share its batch are scored.
"""

import asyncio
import ipaddress
import json
import math
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from infalign import _check
from infalign.errors import DataError, MissingExtraError, install

from .microbatch import BusyError, MicroBatcher
from .prompt_text import PolicyText
from .score_request import UnresolvedError, read_body, resolved
from .scorer import Asked, Scored, Scorer

__all__ = ["answer", "hosts_of", "make_app", "serve"]

PATHS = ("/", "/score", "/get_reward")
"""Paths that serve rewards; the last two are customary elsewhere."""

RETRY_AFTER = 1
"""Seconds after which a client should retry when the queue is full."""

LARGEST = 32 * 2**20
"""Default size limit of a request, in bytes."""

WAITING = 16384
"""Default maximum number of responses in the queue."""

ARRIVAL = 30.0
"""Default time for the body of a request to arrive, in seconds."""

GRACE = 5
"""Seconds in which requests are still answered after a signal to end."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names and addresses of this machine."""


def make_app(
    scorer: Scorer,
    *,
    text: PolicyText | None = None,
    about: Mapping[str, object] | None = None,
    window: float = 0.005,
    batch: int = 256,
    waiting: int = WAITING,
    largest: int = LARGEST,
    arrival: float = ARRIVAL,
    hosts: Sequence[str] | None = None,
):
    """The server as an ASGI application.

    - `text`: the policy's tokenizer, which extracts responses from queries.
    - `about`: entries of the answer to `GET /health`, besides the length of the queue.
    - `window`, `batch`, `waiting`: as in `MicroBatcher`, over all requests.
    - `largest`: maximum size of a request, in bytes.
    - `arrival`: maximum time for the body of a request to arrive, in seconds.
    - `hosts`: names under which requests are answered, without port. Default: any. On a machine of
      one's own it should be given: otherwise a web page that is open there can reach the server
      under the page's own name (DNS rebinding).

    Raises MissingExtraError without starlette.
    """
    try:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.requests import ClientDisconnect
        from starlette.responses import Response
        from starlette.routing import Route
    except ImportError:
        raise MissingExtraError(
            "Serving a reward needs `starlette` and `uvicorn`. Install them with: "
            f"{install('serve')}"
        ) from None
    _check.count("largest", largest)
    _check.positive("arrival", arrival)
    batcher: MicroBatcher[Asked, Scored] = MicroBatcher(
        scorer, window=window, batch=batch, waiting=waiting
    )

    class JSON(Response):
        media_type = "application/json"

        def render(self, content) -> bytes:
            return json.dumps(content, allow_nan=False).encode()  # ASCII: surrogates are escaped

    def refusal(status: int, error: object, **more):
        headers = {"Retry-After": str(RETRY_AFTER)} if status == 503 else {}
        if status in (408, 413):
            headers["Connection"] = "close"  # the rest of the request is not read
        return JSON({"error": str(error), **more}, status, headers=headers)

    async def score(request):
        raw = bytearray()
        try:
            async with asyncio.timeout(arrival):
                async for chunk in request.stream():
                    raw += chunk
                    if len(raw) > largest:
                        return refusal(
                            413,
                            f"A request may have {largest} bytes. Send fewer responses at once.",
                        )
        except TimeoutError:
            return refusal(408, f"The request did not arrive within {arrival:g} seconds.")
        try:
            body = read_body(raw)
            asked = await asyncio.to_thread(resolved, scorer, body, text)
        except DataError as error:
            return refusal(422, error)
        except UnresolvedError as error:
            return refusal(422, error, prompt_id=error.prompt_id)
        try:
            scored = await asyncio.wrap_future(batcher.submit(asked))
        except BusyError as error:
            return refusal(503, error)
        except Exception as error:
            return refusal(500, f"The reward failed: {type(error).__name__}: {error}")
        if not all(math.isfinite(one["score"]) for one in scored):
            return refusal(500, "The reward failed: the shaped reward is not finite.")
        return JSON(answer(scored))

    async def answered(request):
        """The answer of `score`, also to clients that leave and while the server ends."""
        try:
            return await score(request)
        except ClientDisconnect:
            return refusal(400, "The client left.")
        except asyncio.CancelledError:
            return refusal(503, "The server ends.")

    async def health(request):
        return JSON({"status": "ok", "waiting": batcher.queued, **(about or {})})

    async def http_error(request, error):
        return refusal(error.status_code, f"{request.url.path}: {error.detail}")

    routes = [Route(path, answered, methods=["POST"]) for path in PATHS]
    app = Starlette(
        routes=[*routes, Route("/health", health)], exception_handlers={HTTPException: http_error}
    )
    if hosts is None:
        return app
    named = {host.lower().strip("[]") for host in _check.texts("hosts", hosts)}

    async def for_its_hosts(scope, receive, send):
        headers = dict(scope.get("headers", ()))
        host = _host(headers.get(b"host", b"").decode("latin-1"))
        own = scope["type"] != "http" or host in named
        await (app if own else refusal(400, _other_host(host, named)))(scope, receive, send)

    return for_its_hosts


def _host(header: str) -> str | None:
    """The name in a `Host` header, without port; None if there is none."""
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None


def _other_host(host: str | None, named: set[str]) -> str:
    return (
        f"This server does not answer for the host {_check.short(host)}, but for "
        f"{', '.join(sorted(named))}. `infalign serve-reward --allow-host` names others."
    )


def hosts_of(host: str, allowed: Sequence[str]) -> list[str] | None:
    """The `hosts` of a server that listens on `host`: this machine's names if others cannot reach
    it, and else any. `allowed` names more, or the only ones.

    >>> hosts_of("127.0.0.1", [])
    ['127.0.0.1', '::1', 'localhost']
    >>> hosts_of("0.0.0.0", []), hosts_of("0.0.0.0", ["gpu7"])
    (None, ['gpu7'])
    """
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if local:
        return sorted({host, *LOOPBACK, *allowed})
    return list(allowed) or None


def answer(scored: Sequence[Scored]) -> dict[str, object]:
    """The JSON of these scores. OpenRLHF filters prompts by `scores` and logs `extra_logs`."""
    columns = {name: [dict(s)[name] for s in scored] for name in (scored[0] if scored else ())}
    rewards = columns.pop("score", [])
    return {"rewards": rewards, "scores": columns.get("quantile", rewards), "extra_logs": columns}


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
        config = uvicorn.Config(
            app,
            log_level="warning",
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=GRACE,
            server_header=False,
        )
        server = uvicorn.Server(config)
        announce(f"http://{host}:{listening.getsockname()[1]}")
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:
            pass
