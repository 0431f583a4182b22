"""A server on this machine that is slow, huge or lying, in the place of a reward, policy or judge.

It runs in a process of its own, which ends with the one that started it. The first part of a path
names how it behaves: /drip is a reward, /drip/v1/chat/completions a policy or judge.
"""

import json
import os
import threading
import time
from collections.abc import Sequence
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .behaviors import BEHAVIORS, choices


class Handler(BaseHTTPRequestHandler):
    """Answers as the path says."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.do_POST()

    def do_POST(self):
        """Read the request, then behave."""
        asked = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            self.body = json.loads(asked or b"{}")
        except ValueError:
            self.body = {}
        self.chat = self.path.endswith("/chat/completions")
        behavior, _, detail = self.path.lstrip("/").partition("/")
        detail = detail.removesuffix("v1/chat/completions").strip("/")
        try:
            BEHAVIORS[behavior](self, detail)
        except (OSError, KeyError):
            self.close_connection = True

    def send(self, content: bytes, status: int = 200, **headers: str) -> None:
        """An answer with this content."""
        headers = {
            "Content_Type": "application/json",
            "Content_Length": str(len(content)),
        } | headers
        self.begin(status, **headers)
        self.wfile.write(content)

    def begin(self, status: int = 200, **headers: str) -> None:
        """Status and headers."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def honest(self) -> bytes:
        """What a good server answers."""
        if not self.chat:
            size = len(self.body.get("query") or self.body.get("messages") or "")
            return json.dumps({"rewards": [1.5] * size}).encode()
        return choices(*(self.reply(i) for i in range(self.body.get("n") or 1)))

    def reply(self, i: int) -> str:
        """A response that differs with the seed, or a verdict."""
        words = json.dumps(self.body.get("messages", ""))
        if "RESPONSE A" in words or "tie" in words:
            return "A"
        return f"answer {self.body.get('seed', 0)} {i}"


class Server(ThreadingHTTPServer):
    """One thread a connection; connections that break are none of its business."""

    daemon_threads = True
    request_queue_size = 64
    other = 9
    """The port of a second server, which redirects lead to."""

    def handle_error(self, *_):
        pass


@cache
def port() -> int:
    """The port of the server, started by the first call in a process."""
    here, there = os.pipe()
    parent = os.getpid()
    if not os.fork():
        try:
            _serve(there, parent)
        finally:
            os._exit(0)
    os.close(there)
    with os.fdopen(here) as told:
        return int(told.readline())


def _serve(told: int, parent: int) -> None:
    servers: Sequence[Server] = [Server(("127.0.0.1", 0), Handler) for _ in range(2)]
    first, second = (server.server_address[1] for server in servers)
    for server in servers:
        server.other = second
        threading.Thread(target=server.serve_forever, daemon=True).start()
    os.write(told, f"{first}\n".encode())
    while os.getppid() == parent:
        time.sleep(0.5)
