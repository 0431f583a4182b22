"""JSON over HTTP: requests to one server, bounded in time and size whatever the server does.

A server may be slow, huge or hostile. It gets one deadline for its whole answer, so that a slow
drip does not extend it, and a maximum size after decompression. A redirect is followed on the
server itself only, because prompts are for the server that the user named.
"""

import json
import threading
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any

import urllib3
from urllib3.exceptions import HostChangedError, HTTPError, LocationParseError
from urllib3.util import Timeout, parse_url

from infalign import _check
from infalign.errors import DataError, UnreachableError

__all__ = ["Answer", "JSONServer", "quoted"]

AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)
"""Statuses after which a request is sent again."""

LONGEST_WAIT = 600
"""Longest `Retry-After` that is waited for, in seconds. A longer one is an error."""

BUSY = (429, 502, 503, 504)
"""Statuses of a server that answers no request now."""

QUOTED = 300
"""Characters of a server's answer that a message quotes."""


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    kind: str
    """Its content type; may be empty."""

    data: bytes

    @property
    def words(self) -> str:
        """The beginning of the answer, for a message."""
        return quoted(self.data[: 8 * QUOTED].decode(errors="replace"))


class JSONServer:
    """A server that takes and returns JSON.

    - `url`: the base of all requests; http or https, without user and password.
    - `use`: what the server is for, as an error says it: "URL cannot be …".
    - `timeout`: seconds for a whole attempt, up to the last byte of the answer.
    - `retries`: further attempts after a failed connection, a timeout or a status in `AGAIN`; after
      0.5, 1, 2, … seconds, at most a minute, or after the time in the server's `Retry-After`.
    - `threads`: concurrent requests.
    - `largest`: maximum size of an answer, in bytes.
    - `headers`: sent with every request.

    The environment variables HTTPS_PROXY and NO_PROXY apply to https URLs. Picklable. Raises
    ArgumentError for other numbers, and DataError for another URL.
    """

    def __init__(
        self,
        url: str,
        use: str,
        *,
        timeout: float,
        retries: int,
        threads: int,
        largest: int,
        headers: Mapping[str, str] | None = None,
    ):
        self.url, self.use, self.largest = url, use, largest
        self.threads = _check.count("threads", threads)
        self.timeout = _check.positive("timeout", timeout)
        self.retries = _check.count("retries", retries, at_least=0)
        self.headers = {"Content-Type": "application/json", **(headers or {})}
        self._pool = _pool(url, self.threads, largest)

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "_pool"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._pool = _pool(self.url, self.threads, self.largest)

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        self._pool.close()
        self._pool = _pool(self.url, self.threads, self.largest)

    def ask(self, body: object = None, path: str = "") -> Answer:
        """The answer to `body`, posted as JSON, whatever its status. Without a body it is a GET.

        - `path`: follows the path of the URL.

        Raises UnreachableError if there is no answer.
        """
        try:
            answer = self._pool.urlopen(
                "GET" if body is None else "POST",
                _target(self.url, path),
                body=None if body is None else json.dumps(body).encode(),
                headers=self.headers,
                retries=_Patience(
                    self.retries,
                    status_forcelist=AGAIN,
                    allowed_methods=None,  # asking twice is harmless
                    backoff_factor=0.5,
                    backoff_max=60,
                    raise_on_status=False,  # the error quotes the last answer
                ),
                timeout=Timeout(connect=self.timeout, read=self.timeout),
                preload_content=False,
                release_conn=True,  # the connection has read the whole body
            )
        except _EndedError as error:
            raise self.error(str(error), error.remedy, UnreachableError) from None
        except HostChangedError as error:
            raise self.error(
                f"it redirects to {quoted(error.url or 'nowhere')}, and requests go to the named "
                "server only",
                "If that is the right server, give its URL.",
                UnreachableError,
            ) from None
        except HTTPError as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, urllib3.exceptions.ReadTimeoutError):
                raise self.error(
                    f"no answer within {self.timeout:g} seconds",
                    "Raise `timeout`, or ask for less at once.",
                    UnreachableError,
                ) from error
            raise self.error(
                f"{type(reason).__name__}: {quoted(str(reason))}",
                "Is it running, and the URL right?",
                UnreachableError,
            ) from error
        return Answer(answer.status, answer.headers.get("Content-Type", ""), answer.data)

    def read(self, answer: Answer, **how: Any) -> Any:
        """The JSON of an answer; DataError for anything else.

        - `how`: arguments of `json.loads`.
        """
        try:
            return json.loads(answer.data, **how)
        except (ValueError, RecursionError) as error:
            said = f"status {answer.status}" + (f", {quoted(answer.kind)}" if answer.kind else "")
            streams = answer.data.lstrip().startswith((b"data:", b"event:"))
            raise self.error(
                f'it must answer with JSON, and answered "{answer.words}" ({said})',
                "It streams its answer although that was not requested."
                if streams
                else "Is this the right path?",
            ) from error

    def refusal(self, answer: Answer, remedy: str = "Its log may say more.") -> DataError:
        """The error about an answer with another status than 200."""
        kind = UnreachableError if answer.status in BUSY else DataError
        return self.error(f'status {answer.status}, "{answer.words}"', remedy, kind)

    def error(self, problem: str, remedy: str, kind: type[DataError] = DataError) -> DataError:
        """An error about this server."""
        words = problem.rstrip(".")
        return kind(f"{quoted(self.url)} cannot be {self.use}: {words}. {remedy}")


def quoted(text: str, most: int = QUOTED) -> str:
    """A server's words for a message: one line, at most this long, with characters that do not
    print escaped.

    >>> print(quoted("no\\n luck \\x1b[31m"))
    no luck \\x1b[31m
    """
    line = " ".join(text[: 2 * most].split())
    line = line[:most] + ("…" if len(line) > most or len(text) > 2 * most else "")
    return _check.visible(line)


def _parsed(url: str):
    """The parts of an http or https URL; DataError for any other text."""
    shown = f"{url[:77]}…" if len(url) > 80 else url
    if not url.isprintable() or " " in url:
        problem = "it holds white space or characters that do not print"
    else:
        try:
            parts = parse_url(url)
        except LocationParseError:
            problem = "host or port cannot be read"
        else:
            if parts.auth is None and parts.scheme in ("http", "https") and parts.host:
                return parts
            problem = "it must read http://HOST:PORT/PATH, or https"
            if parts.auth is not None:
                problem = "it must not hold a user or a password"
                shown = parts._replace(auth="…").url
    raise DataError(f"{shown!r} is not the URL of a server: {problem}.")


def _target(url: str, path: str) -> str:
    """The path and query of a request."""
    parts = _parsed(url)
    base = parts.path or "/"
    return parts._replace(path=base.rstrip("/") + path if path else base).request_uri


def _pool(url: str, threads: int, largest: int):
    """The connections to the server of a URL."""
    parts = _parsed(url)
    host, proxy = parts.host.strip("[]"), urllib.request.getproxies().get("https")
    # Without https, a proxy would have to be asked instead of the server.
    if parts.scheme == "https" and proxy and not urllib.request.proxy_bypass(host):
        pool = urllib3.ProxyManager(proxy, maxsize=threads).connection_from_url(url)
    else:
        pool = urllib3.PoolManager(maxsize=threads).connection_from_url(url)
    pool.ConnectionCls = _bounded(type(pool).ConnectionCls, largest)
    return pool


class _EndedError(Exception):
    """A request that was ended on our side and is not sent again."""

    def __init__(self, problem: str, remedy: str):
        super().__init__(problem)
        self.remedy = remedy


class _Patience(urllib3.Retry):
    """Retries that refuse to wait longer than `LONGEST_WAIT`."""

    def parse_retry_after(self, retry_after: str) -> float:
        seconds = super().parse_retry_after(retry_after)
        if seconds > LONGEST_WAIT:
            raise _EndedError(
                f"it asks to wait longer than {LONGEST_WAIT} seconds, `Retry-After: "
                f"{quoted(retry_after)}`",
                "Continue later.",
            )
        return seconds


@cache
def _bounded(kind: type, largest: int) -> type:
    """A class of connections whose answers are complete within the timeout and below a size."""

    class Bounded(kind):
        def getresponse(self):
            sock, late = self.sock, threading.Event()

            def end() -> None:
                late.set()
                with suppress(OSError):  # it may have been closed in the meantime
                    sock.shutdown(2)  # ends reads that wait for the next byte of a slow drip

            timer = threading.Timer(self.timeout, end)
            timer.daemon = True
            timer.start()
            answer, data = None, bytearray()
            try:
                answer = super().getresponse()
                for part in answer.stream(2**16):
                    data += part
                    if len(data) > largest:
                        raise _EndedError(
                            f"its answer has more than {largest:,} bytes",
                            "Is this the right path?",
                        )
            except Exception as error:
                if answer is not None:
                    answer.close()
                if late.is_set():
                    raise TimeoutError from error
                raise
            finally:
                timer.cancel()
            if late.is_set():
                raise TimeoutError
            return urllib3.HTTPResponse(
                BytesIO(data),
                {k: v for k, v in answer.headers.items() if k.lower() not in _OF_THE_BODY},
                answer.status,
                preload_content=False,
                reason=answer.reason,
                version=answer.version,
                request_url=answer.url,
            )

    Bounded.__name__ = kind.__name__  # as errors name it
    return Bounded


_OF_THE_BODY = {"content-encoding", "content-length", "transfer-encoding"}
"""Headers that are no longer true of a body that was read."""
