"""The page over HTTP, for this machine alone."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .page import build_page

HOST = "127.0.0.1"
"""Never another: the page is for whoever sits at this machine."""


def make_server(port: int = 0) -> ThreadingHTTPServer:
    """A server of the explorer at `/`, and of nothing else, bound to the loopback.

    - `port`: 0 takes a free one; `server_address` says which.

    Raises ValueError if the port cannot be had.
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
            """Nothing: a page that is loaded is no news."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"`port` must be free and from 0 to 65535; got {port} ({error}). "
            "Leave it out, and a free one is taken."
        ) from error


def serve(port: int = 0, announce=print) -> None:
    """Serve the explorer until Ctrl-C, after telling `announce` its address."""
    with make_server(port) as server:
        announce(f"http://{HOST}:{server.server_address[1]}/")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
