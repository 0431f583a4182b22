"""Serves the page over HTTP, to this machine only."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from infalign.errors import ArgumentError

from .page import build_page

__all__ = ["make_server", "serve"]

HOST = "127.0.0.1"
"""The loopback: no other machine can reach the page."""


def make_server(port: int = 0) -> ThreadingHTTPServer:
    """A server that serves the explorer at `/` and nothing else, bound to the loopback.

    - `port`: 0 takes a free port, which is in `server_address`.

    Raises ArgumentError if the port is not available.
    """
    body = build_page().encode()

    class Handler(BaseHTTPRequestHandler):
        """Answers GET and HEAD of `/`."""

        def do_GET(self):
            """The page, or 404."""
            if self.path != "/":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *arguments):
            """Log nothing."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise ArgumentError(
            "port",
            f"must be free and from 0 to 65535; got {port} ({error}). Leave it out to take a free "
            "one.",
        ) from error


def serve(port: int = 0, announce=print) -> None:
    """Serve the explorer until Ctrl-C; `announce` is called with its address first."""
    with make_server(port) as server:
        announce(f"http://{HOST}:{server.server_address[1]}/")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
