"""Requests to servers that are slow, huge or hostile: what ends them, and what the error says."""

import gzip
import json
import pickle
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from infalign.errors import DataError, UnreachableError
from infalign.models.json_http import JSONServer, quoted
from infalign.models.reward_server import ServerReward
from infalign.models.rewards import load_reward
from infalign.models.specs import ModelSpec

LARGEST = 4096
BOMB = gzip.compress(b" " * 2**24)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.command, self.path, len(body)))
        name, _, rest = self.path.strip("/").partition("/")
        try:
            getattr(self, name)(rest)
        except OSError:  # the client has left
            self.close_connection = True

    def send(self, status, data=b"{}", **headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def fine(self, rest):
        self.send(200, b'{"fine": true}')

    def goes(self, where):
        status, _, place = where.partition("/")
        to = {"own": "/fine", "loop": self.path, "other": f"{self.server.other}/fine"}
        self.send(int(status), Location=to.get(place, f"{place}:///etc/passwd"))

    def drips_headers(self, rest):
        for _ in self.server.drops():
            self.wfile.write(b"H")

    def drips(self, rest):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        for _ in self.server.drops():
            self.wfile.write(b" ")

    def hangs(self, rest):
        self.server.ended.wait()

    def bomb(self, rest):
        self.send(200, BOMB, Content_Encoding="gzip")

    def giant(self, rest):
        self.send(200, b" " * (LARGEST + 1))

    def endless(self, rest):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(10**6):
            self.wfile.write(b" " * 2**16)

    def breaks(self, rest):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        self.connection.shutdown(socket.SHUT_RDWR)

    def waits(self, header):
        self.send(429, Retry_After=header)

    def steers(self, rest):
        self.send(200, "\x1b[2J\u202e\x9b31m<html>".encode(), Content_Type="text/\x1b[31m")

    def log_message(self, *arguments):
        pass


def started():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.asked, server.ended = True, [], threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"

    def drops():
        while not server.ended.wait(0.02):
            yield

    server.drops = drops
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


@pytest.fixture(scope="module")
def running():
    server, other = started(), started()
    server.other, server.elsewhere = other.url, other.asked
    yield server
    for each in (server, other):
        each.ended.set()
        each.shutdown()
        each.server_close()


@pytest.fixture
def client(running):
    made = []
    running.asked.clear()

    def make(path, **options):
        given = {"timeout": 20.0, "retries": 0, "threads": 1, "largest": LARGEST, **options}
        made.append(JSONServer(f"{running.url}/{path}", "used", **given))
        return made[-1]

    yield make
    for each in made:
        each.close()


def refused(client, kind=UnreachableError):
    with pytest.raises(kind) as caught:
        client.read(client.ask({"a": 1}))
    message = str(caught.value)
    assert message.startswith(f"{client.url} cannot be used: ") and message.isprintable()
    return message


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("place", ["other", "file", "http"])
def test_prompts_go_to_the_named_server_only(client, running, status, place):
    message = refused(client(f"goes/{status}/{place}", retries=3))
    target = f"{running.other}/fine" if place == "other" else place
    assert f"it redirects to {target}" in message and "give its URL" in message
    assert len(running.asked) == 1 and not running.elsewhere


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_server_may_redirect_to_itself(client, running, status):
    server = client(f"goes/{status}/own", retries=1)
    assert server.read(server.ask({"a": 1})) == {"fine": True}
    assert running.asked[-1] == ("POST", "/fine", len(b'{"a": 1}'))
    assert "too many redirects" in refused(client(f"goes/{status}/loop", retries=2))


@pytest.mark.parametrize("path", ["drips_headers", "drips", "hangs"])
def test_a_slow_drip_does_not_extend_the_timeout(client, running, path):
    message = refused(client(path, timeout=0.3, retries=1))
    assert "no answer within 0.3 seconds. Raise `timeout`" in message
    assert len(running.asked) == 2  # each attempt has the whole time


@pytest.mark.parametrize("path", ["bomb", "giant", "endless"])
def test_an_answer_has_a_maximum_size_after_decompression(client, running, path):
    message = refused(client(path, retries=3))
    assert "its answer has more than 4,096 bytes" in message and len(running.asked) == 1


def test_an_answer_that_breaks_off_is_asked_for_again(client, running):
    assert "IncompleteRead" in refused(client("breaks", retries=1)) and len(running.asked) == 2


def test_a_server_decides_how_long_to_wait_within_limits(client, running):
    message = refused(client("waits/100000", retries=3))
    assert "longer than 600 seconds, `Retry-After: 100000`" in message and len(running.asked) == 1
    assert "Invalid Retry-After header: soon" in refused(client("waits/soon", retries=3))
    server = client("waits/0", retries=1)
    assert server.ask({}).status == 429 and len(running.asked) == 4


def test_what_a_server_says_does_not_steer_the_terminal(client):
    message = refused(client("steers"), DataError)
    assert r"\x1b[2J\u202e\x9b31m<html>" in message and "status 200" in message
    assert quoted("a\n b" + "c" * 400) == "a b" + "c" * 297 + "…"


def test_a_server_is_picklable_and_opens_its_connections_again(client):
    server = pickle.loads(pickle.dumps(client("fine")))
    assert server.read(server.ask({})) == {"fine": True}
    server.close()
    assert server.read(server.ask({})) == {"fine": True}
    server.close()


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "http://",
        "http://[::1",
        "http://127.0.0.1:99999/",
        "http://user:secret@127.0.0.1/",
        "http://127.0.0.1:1/\r\nX: y",
        "http://\x00/",
        "http://exa mple/",
        "http:///path",
        "http://127.0.0.1/\u202e",
    ],
)
def test_what_is_no_url_of_a_server_is_refused_before_any_request(url):
    with pytest.raises(DataError, match="is not the URL of a server") as caught:
        ServerReward(url)
    assert str(caught.value).isprintable() and "secret" not in str(caught.value)


def test_schemes_have_no_case_and_other_urls_are_named():
    assert ModelSpec.parse("HTTP://127.0.0.1:1/v1#m").kind == "server"
    assert load_reward("Https://127.0.0.1:1/").url == "Https://127.0.0.1:1/"
    for text in ("ftp://x", "file:///etc/passwd", "http:127.0.0.1", "s3://bucket/model"):
        with pytest.raises(DataError, match=r"a server's begins with http:// or https://"):
            load_reward(text)


def scored(rewards):
    """A reward server that answers these lists in turn, or a status."""
    answers = iter(rewards)

    class Reward(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            answer = next(answers)
            status = answer if isinstance(answer, int) else 200
            data = json.dumps({"rewards": answer}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Reward)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


@pytest.mark.parametrize(
    ("rewards", "text"),
    [
        ([[0.12345, -7.0], [0.12349, -7.0]], "rewards 0.123 -7"),
        ([[1.0, 2.0], [1.1, 2.0]], "rewards that differ between calls"),
        ([422], "no rewards of other prompts (status 422)"),
        ([500], None),
        ([[1.0]], None),
    ],
)
def test_a_probe_identifies_a_reward(rewards, text):
    server = scored(rewards)
    reward = ServerReward(f"http://127.0.0.1:{server.server_port}/", retries=0)
    if text is None:
        with pytest.raises(DataError):
            reward.probe()
    else:
        assert reward.probe() == text
    reward.server.close()
    server.shutdown()
    server.server_close()
