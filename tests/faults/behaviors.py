"""What a server may do: good answers in odd forms, and everything that is wrong."""

import gzip
import json
import socket
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from .hostile import PAYLOADS

if TYPE_CHECKING:
    from .loopback import Handler

MEGABYTE = 2**20
BOMB = 400
"""Megabytes that a compressed answer becomes."""

PATIENCE = 40
"""Seconds that a slow server takes: many times the client's limit in this campaign."""

Behavior = Callable[["Handler", str], object]
"""Called with the request's handler and the rest of the path."""


def choices(*texts, **more) -> bytes:
    """An answer in the format of OpenAI."""
    rows = [
        {"index": i, "message": {"role": "assistant", "content": t}, "finish_reason": "stop"} | more
        for i, t in enumerate(texts)
    ]
    return json.dumps({"id": "x", "object": "chat.completion", "choices": rows}).encode()


def _slow(handler: "Handler", _: str) -> None:
    time.sleep(PATIENCE)


def _drip(handler: "Handler", _: str) -> None:
    handler.begin(Content_Type="application/json", Content_Length="100000")
    for _i in range(4 * PATIENCE):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.25)


def _headers(handler: "Handler", _: str) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for i in range(4 * PATIENCE):
        handler.wfile.write(f"X-{i}: 1\r\n".encode())
        handler.wfile.flush()
        time.sleep(0.25)


def _huge(handler: "Handler", _: str) -> None:
    handler.begin(Content_Length=str(BOMB * MEGABYTE))
    for _i in range(BOMB):
        handler.wfile.write(b" " * MEGABYTE)


def _endless(handler: "Handler", _: str) -> None:
    handler.begin(Transfer_Encoding="chunked")
    for _i in range(BOMB):
        handler.wfile.write(f"{MEGABYTE:x}\r\n".encode() + b" " * MEGABYTE + b"\r\n")


@cache
def _bomb() -> bytes:
    return gzip.compress(b" " * (BOMB * MEGABYTE), compresslevel=9)


def _close(handler: "Handler", _: str) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def _short_body(handler: "Handler", _: str) -> None:
    handler.begin(Content_Length="100000")
    handler.wfile.write(handler.honest())
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def _garbage(handler: "Handler", _: str) -> None:
    handler.wfile.write(b"220 mail.example ESMTP\r\n\r\n")
    handler.connection.shutdown(socket.SHUT_RDWR)


def _many_headers(handler: "Handler", _: str) -> None:
    handler.begin(200, **{f"X_{i}": "a" * 100 for i in range(500)})


def _redirect(status: int, to: str) -> Behavior:
    def redirect(handler: "Handler", _: str) -> None:
        port = handler.server.other
        handler.send(b"", status, Location=to.format(port=port, path=handler.path))

    return redirect


def _said(handler: "Handler", detail: str) -> None:
    """A text of the campaign's hostile ones, as a response to every request."""
    content = PAYLOADS[detail]
    handler.send(
        choices(*(f"{content} {handler.reply(i)}" for i in range(handler.body.get("n") or 1)))
    )


def _complaint(handler: "Handler", detail: str) -> None:
    """The same as an error."""
    handler.send(json.dumps({"error": {"message": PAYLOADS[detail]}}).encode(), 400)


def _plain(content: bytes, status: int = 200, **headers: str) -> Behavior:
    return lambda handler, _: handler.send(content, status, **headers)


def _rewards(make: Callable[[int], object]) -> Behavior:
    """A reward server whose answer is made from the number of responses."""

    def answer(handler: "Handler", _: str) -> None:
        handler.send(json.dumps(make(len(handler.body.get("query") or ""))).encode())

    return answer


def _with(name: str, value) -> Behavior:
    """A chat server whose every choice has this value in its message or beside it."""

    def answer(handler: "Handler", _: str) -> None:
        whole = json.loads(handler.honest())
        for choice in whole["choices"]:
            place = choice["message"] if name in ("content", "refusal", "role") else choice
            place[name] = value
        handler.send(json.dumps(whole).encode())

    return answer


def _whole(change: Callable[[dict], object]) -> Behavior:
    """A chat server whose answer is changed."""
    return lambda h, _: h.send(json.dumps(change(json.loads(h.honest()))).encode())


def _message(finish: str, **more) -> Behavior:
    """A chat server whose every choice has no content, and something else instead."""
    message = {"role": "assistant", "content": None} | more
    choice = {"finish_reason": finish, "message": message}
    return _whole(
        lambda a: a | {"choices": [choice | {"index": i} for i in range(len(a["choices"]))]}
    )


OK = {
    "honest": lambda h, _: h.send(h.honest()),
    "gzip": lambda h, _: h.send(gzip.compress(h.honest()), Content_Encoding="gzip"),
    "text-plain": lambda h, _: h.send(h.honest(), Content_Type="text/plain"),
    "byte-order-mark": lambda h, _: h.send(b"\xef\xbb\xbf" + h.honest()),
    "extra-keys": lambda h, _: h.send(h.honest()[:-1] + b', "\xc3\xa9": {"a": [null]}}'),
    "chunked": lambda h, _: (
        h.begin(Transfer_Encoding="chunked", Content_Type="application/json"),
        h.wfile.write(f"{len(h.honest()):x}\r\n".encode() + h.honest() + b"\r\n0\r\n\r\n"),
    ),
}
"""Good answers, in a form that is not the usual one."""

HTTP = {
    "slow": _slow,
    "drip": _drip,
    "slow-headers": _headers,
    "huge": _huge,
    "endless": _endless,
    "gzip-bomb": lambda h, _: h.send(_bomb(), Content_Encoding="gzip"),
    "bad-gzip": _plain(b"no gzip", Content_Encoding="gzip"),
    "short-body": _short_body,
    "bad-chunk": lambda h, _: (
        h.begin(Transfer_Encoding="chunked"),
        h.wfile.write(b"ZZZ\r\nabc\r\n"),
        h.connection.shutdown(socket.SHUT_RDWR),
    ),
    "close": _close,
    "garbage": _garbage,
    "many-headers": _many_headers,
    "empty": _plain(b""),
    "no-content": _plain(b"", 204),
    "html": _plain(b"<html><h1>It works!</h1></html>", Content_Type="text/html"),
    "event-stream": _plain(b'data: {"a": 1}\n\ndata: [DONE]\n\n', Content_Type="text/event-stream"),
    "cut-off-json": _plain(b'{"rewards": [1.5, 1.'),
    "list": _plain(b"[1, 2]"),
    "text": _plain(b'"hello"'),
    "null": _plain(b"null"),
    "number": _plain(b"7"),
    "nan": _plain(b"NaN"),
    "deep": _plain(b"[" * 200_000),
    "long-number": _plain(b'{"rewards": [' + b"9" * 5000 + b"]}"),
    "latin-1": _plain('{"rewards": [1, 1], "é": 1}'.encode("latin-1")),
    "utf-16": _plain('{"rewards": [1, 1]}'.encode("utf-16")),
    "error-in-200": _plain(b'{"error": {"message": "out of memory", "type": "x"}}'),
    "detail-in-200": _plain(b'{"detail": "not ready"}'),
    "bad-request": _plain(b"x" * MEGABYTE, 400),
    "who-are-you": _plain(b'{"error": "who are you"}', 401),
    "not-found": _plain(b"no such thing", 404),
    "unprocessable": _plain(b'{"detail": [{"loc": ["body"], "msg": "no"}]}', 422),
    "too-many": _plain(b"slow down", 429, Retry_After="100000"),
    "too-many-negative": _plain(b"slow down", 429, Retry_After="-5"),
    "too-many-unreadable": _plain(b"slow down", 429, Retry_After="soon"),
    "internal": _plain(b"Internal Server Error", 500),
    "unavailable": _plain(b"no", 503, Retry_After="0"),
    "status-999": _plain(b"no", 999),
    "redirect-301": _redirect(301, "http://127.0.0.1:{port}/stolen"),
    "redirect-302": _redirect(302, "http://127.0.0.1:{port}/stolen"),
    "redirect-307": _redirect(307, "http://127.0.0.1:{port}/stolen"),
    "redirect-308": _redirect(308, "http://127.0.0.1:{port}/stolen/v1/chat/completions"),
    "redirect-loop": _redirect(307, "{path}"),
    "redirect-file": _redirect(307, "file:///etc/passwd"),
}
"""What any server may do wrong."""

REWARDS = {
    "too-few": _rewards(lambda n: {"rewards": [1.5] * (n - 1)}),
    "too-many-rewards": _rewards(lambda n: {"rewards": [1.5] * (n + 1)}),
    "none-at-all": _rewards(lambda n: {"rewards": []}),
    "with-nan": _rewards(lambda n: {"rewards": [float("nan")] + [1.5] * (n - 1)}),
    "with-infinity": _rewards(lambda n: {"rewards": [float("inf")] + [1.5] * (n - 1)}),
    "with-null": _rewards(lambda n: {"rewards": [None] + [1.5] * (n - 1)}),
    "with-text": _rewards(lambda n: {"rewards": ["1"] + [1.5] * (n - 1)}),
    "with-truth": _rewards(lambda n: {"rewards": [True] + [1.5] * (n - 1)}),
    "nested": _rewards(lambda n: {"rewards": [[1.5]] * n}),
    "by-number": _rewards(lambda n: {"rewards": {str(i): 1.5 for i in range(n)}}),
    "one-number": _rewards(lambda n: {"rewards": 1.5}),
    "other-key": _rewards(lambda n: {"scores": [1.5] * n}),
    "too-large": _rewards(lambda n: {"rewards": [10**400] * n}),
}
"""What a reward server may do wrong."""

CHATS = {
    "no-choices": _whole(lambda a: a | {"choices": []}),
    "null-choices": _whole(lambda a: a | {"choices": None}),
    "without-choices": _whole(lambda a: {"id": "x"}),
    "more-choices": _whole(lambda a: a | {"choices": a["choices"] * 2}),
    "choices-by-number": _whole(lambda a: a | {"choices": {"0": a["choices"][0]}}),
    "null-choice": _whole(lambda a: a | {"choices": [None] * len(a["choices"])}),
    "null-message": _with("message", None),
    "text-message": _with("message", "hello"),
    "null-content": _with("content", None),
    "number-content": _with("content", 7),
    "object-content": _with("content", {"text": "hello"}),
    "refusal": _message("stop", refusal="No"),
    "filtered": _message("content_filter"),
    "only-thought": _message("length", reasoning_content="hm"),
    "tool-call": _message("tool_calls", tool_calls=[{"id": "x"}]),
    "always-the-same": _with("content", "the same"),
}
"""What a chat server may do wrong."""

BEHAVIORS = OK | HTTP | REWARDS | CHATS | {"say": _said, "complain": _complaint}
BEHAVIORS["stolen"] = BEHAVIORS["honest"]
