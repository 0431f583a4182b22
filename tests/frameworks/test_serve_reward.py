"""The reward server, asked by the package's own client and as OpenRLHF asks."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import framework_run as given
import pytest
import urllib3
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from infalign.errors import DataError, MissingExtraError
from infalign.frameworks import Asked, openrlhf
from infalign.frameworks.callback import TrainingStopped
from infalign.frameworks.opened import open_run, open_scorer, policy_text
from infalign.frameworks.serving import hosts_of, make_app, serve
from infalign.models.reward_server import ServerReward
from infalign.models.rewards import load_reward, score

REPLIES = [("a", "red"), ("b", "twenty-seven"), ("c", "Green, I think."), ("a", "x" * 40)]


@contextmanager
def serving(app):
    """The URL of `app`, served from a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, log_level="warning", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return given.make_run(tmp_path_factory.mktemp("served") / "run")


@pytest.fixture(scope="module")
def url(folder):
    app = make_app(open_scorer(folder), text=policy_text(open_run(folder)), largest=4096)
    with serving(app) as url:
        yield url


@pytest.fixture(scope="module")
def http():
    with urllib3.PoolManager(8, maxsize=80, retries=False) as pool:
        yield pool


@contextmanager
def client(url, **options):
    reward = ServerReward(url, **options)
    yield reward
    reward.server.close()


def asked(replies=REPLIES):
    """As TRL calls a reward function."""
    return {
        "prompts": [given.messages(i) for i, _ in replies],
        "completions": [[{"role": "assistant", "content": reply}] for _, reply in replies],
        "prompt_id": [i for i, _ in replies],
    }


def test_the_packages_own_client_gets_shaped_rewards(url):
    with client(url) as reward:
        wanted = [given.expected(*reply)["score"] for reply in REPLIES]
        assert reward(**asked()) == pytest.approx(wanted, abs=1e-12)


def test_a_server_of_raw_rewards_serves_a_run_by_its_url(folder):
    with serving(make_app(open_scorer(folder, raw=True))) as url:
        reward = load_reward(url)
        assert reward(**asked()) == [given.raw(*reply) for reply in REPLIES]
        # Held-out prompts too: their conversations come along.
        unknown = [{"role": "user", "content": "Why?"}]
        assert score(reward, [unknown], [["So.", "No"]], ["new"]).tolist() == [[7.0, 6.0]]
        reward.server.close()


@pytest.mark.parametrize("label", ["c", "", None])
def test_openrlhfs_request_is_answered_in_its_form(url, http, folder, label):
    prompt = policy_text(open_run(folder)).prompt(given.TURNS)
    body = {"query": [f"{prompt}Green<|end|>"], "prompts": [prompt], "labels": [label]}
    answer = http.request("POST", f"{url}/get_reward", json=body).json()
    wanted = given.expected("c", "Green")
    assert answer["rewards"] == pytest.approx([wanted.pop("score")])
    assert answer["scores"] == pytest.approx([wanted["quantile"]])
    assert answer["extra_logs"] == {name: pytest.approx([value]) for name, value in wanted.items()}


def test_requests_at_one_time_share_calls(folder, http):
    given.CALLS.clear()
    app = make_app(open_scorer(folder), window=60, batch=64)
    bodies = [{"labels": [i], "responses": [reply]} for i, reply in REPLIES * 16]
    with serving(app) as url, ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda body: http.request("POST", url, json=body).json(), bodies))
    assert sorted(given.CALLS) == [16, 48]  # of one form each
    wanted = [given.expected(*reply)["score"] for reply in REPLIES * 16]
    assert [f["rewards"][0] for f in answers] == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(
    ("body", "status", "message", "prompt_id"),
    [
        (
            {"labels": ["a", "nobody"], "responses": ["x", "y"]},
            422,
            "Response 1 of 2: prompt_id 'nobody' is not one of the 5 prompts of the run",
            "nobody",
        ),
        ({"query": ["ab"], "prompts": ["a"], "labels": ["zz"]}, 422, "prompt_id 'zz'", "zz"),
        ({"query": ["x"], "labels": ["a"]}, 422, "send `prompts` too", "a"),
        ({"responses": ["x"]}, 422, "without a prompt_id", None),
        ({"messages": [[]], "labels": ["a"]}, 422, "`messages.0`: must end with the response", ...),
        ({"messages": [[{}, {"content": ""}]]}, 422, "`messages.0.0`: `content` must be text", ...),
        ({"messages": [[{"content": ""}] * 2]}, 422, "response must have a `role`", ...),
        *(
            (
                {"messages": [[{"role": "assistant", "content": c}]]},
                422,
                "`content` must be text",
                ...,
            )
            for c in (None, 7, ["x"], [{"type": "text", "text": "x"}], {"text": "x"})
        ),
        *(
            ({"responses": ["x"], "labels": [label]}, 422, "`labels.0", ...)
            for label in (["a"], {"prompt_id": "a"}, True)
        ),
        *(
            (f'{{"responses": ["x"], "labels": [{label}]}}'.encode(), 422, "", ...)
            for label in ("NaN", "-Infinity", "1e999", '"\\ud800"')
        ),
        *(
            (json.dumps({name: [text], "labels": ["a"]}).encode(), 422, "half of a surrogate", ...)
            for name, text in [
                ("responses", "a\ud800"),
                ("query", "\udc00"),
                ("messages", [{"role": "user", "content": "a\ud800"}]),
            ]
        ),
        ({"responses": [1] * 9, "labels": ["a"] * 9}, 422, "; and 4 more", ...),
        (b"[" * 4000, 422, "nested too deeply", ...),
        (b'{"responses": [' + b"[" * 4000, 422, "nested too deeply", ...),
        (b'"text"', 422, "cannot be read", ...),
        (b"", 422, "is not JSON", ...),
        ({"labels": ["a"]}, 422, "it needs `query`, `messages` or `responses`", ...),
        ({"query": ["a"], "prompts": []}, 422, "one length; got {'query': 1, 'prompts': 0}", ...),
        ({"query": [1]}, 422, "`query.0`: Input should be a valid string", ...),
        (b"<html>", 422, "is not JSON", ...),
        (b"\xff", 422, "is not JSON", ...),
        (b"x" * 5000, 413, "may have 4096 bytes", ...),
    ],
)
def test_errors_are_answered_as_json(url, http, body, status, message, prompt_id):
    sent = {"body": body} if isinstance(body, bytes) else {"json": body}
    answer = http.request("POST", url, **sent)
    error = answer.json()
    assert answer.status == status and message in error["error"]
    assert answer.data.isascii() and len(answer.data) < 1000
    assert error.get("prompt_id", ...) == prompt_id


def test_other_paths_and_methods_are_refused_as_json(url, http):
    assert http.request("GET", f"{url}/x").json() == {"error": "/x: Not Found"}
    answer = http.request("PUT", url)
    assert answer.status == 405 and answer.json() == {"error": "/: Method Not Allowed"}


def test_an_unknown_prompt_is_refused_at_once_with_the_servers_message(url):
    with client(url, retries=5) as reward:
        with pytest.raises(
            DataError, match=r"status 422, .*Response 0 of 1: prompt_id .*'q.* is not one"
        ):
            reward(prompts=["?"], completions=["x"], prompt_id=["q"])


class Gate:
    """A reward that waits until it is let through."""

    def __init__(self):
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self, prompts, completions, **columns):
        self.begun.set()
        self.open.wait()
        return [float(len(c[-1]["content"])) for c in completions]


def test_a_full_queue_answers_503_and_goes_on_when_it_has_room(http):
    gate = Gate()
    app = make_app(open_scorer(reward=gate, raw=True), window=1e-6, waiting=2)
    statuses = []

    async def noted(scope, receive, send):
        async def note(message):
            statuses.append(message.get("status"))
            await send(message)

        await app(scope, receive, note)

    body = {"messages": [[{"role": "user", "content": "?"}, {"content": "four"}]]}
    with serving(noted) as url, ThreadPoolExecutor(4) as pool:
        first = pool.submit(http.request, "POST", url, json=body)
        gate.begun.wait()
        second = pool.submit(http.request, "POST", url, json={"messages": body["messages"] * 2})
        while http.request("GET", f"{url}/health").json()["waiting"] < 2:
            time.sleep(0.01)
        refused = http.request("POST", url, json=body)
        assert refused.status == 503 and refused.headers["Retry-After"] == "1"
        assert "2 responses wait to be scored, and 1 more" in refused.json()["error"]
        with client(url, retries=0) as reward, pytest.raises(DataError, match="status 503"):
            reward(prompts=["?"], completions=["four"])
        with client(url, retries=99) as reward:  # comes again after a second, and is served
            patient = pool.submit(reward, prompts=["?"], completions=["fives"])
            while statuses.count(503) < 3:
                time.sleep(0.01)
            gate.open.set()
            assert patient.result() == [5.0]
        assert first.result().json()["rewards"] == [4.0]
        assert second.result().json()["rewards"] == [4.0, 4.0]
        assert http.request("POST", url, json=body).json()["rewards"] == [4.0]
        assert http.request("GET", f"{url}/health").json() == {"status": "ok", "waiting": 0}


def test_a_reward_that_fails_is_reported_and_the_server_goes_on(http):
    def fails(prompts, completions, **columns):
        if completions[0][0]["content"] == "bad":
            raise ZeroDivisionError("no luck")
        return [float("nan")] if completions[0][0]["content"] == "nan" else [1.0]

    def ask(reply):
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": reply}]
        return http.request("POST", url, json={"messages": [turns]})

    with serving(make_app(open_scorer(reward=fails, raw=True))) as url:
        answer = ask("bad")
        assert answer.status == 500
        assert answer.json() == {"error": "The reward failed: ZeroDivisionError: no luck"}
        assert ask("nan").status == 500 and "finite numbers; got nan" in ask("nan").json()["error"]
        assert ask("good").json()["rewards"] == [1.0]


def test_a_response_that_the_reward_refuses_fails_alone(http):
    def long_refused(prompts, completions, **columns):
        if any(len(c[-1]["content"]) > 100 for c in completions):
            raise IndexError("index out of range in self")
        return [float(len(c[-1]["content"])) for c in completions]

    def ask(reply):
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": reply}]
        return http.request("POST", url, body=json.dumps({"messages": [turns]}))

    app = make_app(open_scorer(reward=long_refused, raw=True), window=60, batch=24)
    replies = ["x" * (i + 1) for i in range(20)] + ["y" * 1000, [None], "z" * 101, "\ud800"]
    replies += ["ab", "abc"]
    with serving(app) as url, ThreadPoolExecutor(len(replies)) as pool:
        answers = dict(zip(map(str, replies), pool.map(ask, replies), strict=True))
    for reply, answer in answers.items():
        if reply.isascii() and len(reply) < 30 and reply.isalpha():
            assert answer.json()["rewards"] == [float(len(reply))]
        elif len(reply) > 100:
            assert (
                answer.status == 500 and "IndexError: index out of range" in answer.json()["error"]
            )
        else:
            assert answer.status == 422


def raw_socket(url):
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


HALF = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{"


def test_a_request_that_does_not_arrive_is_ended(folder):
    app = make_app(open_scorer(folder), arrival=0.05)
    with serving(app) as url, raw_socket(url) as client:
        client.sendall(HALF)
        answer = b"".join(iter(lambda: client.recv(4096), b""))  # until the server closes it
    assert answer.startswith(b"HTTP/1.1 408") and b"did not arrive within 0.05 seconds" in answer


def test_a_client_that_leaves_is_not_logged(folder, caplog):
    left = threading.Event()

    async def noted(scope, receive, send):
        await app(scope, receive, send)
        left.set()

    app = make_app(open_scorer(folder))
    caplog.clear()
    with serving(noted) as url:
        with raw_socket(url) as client:
            client.sendall(HALF)
        assert left.wait(60)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("gpu7", 200),
        ("evil.example:8000", 400),
        ("localhost.evil.example", 400),
        ("[::1", 400),
        ("", 400),
    ],
)
def test_other_hosts_are_refused(folder, http, host, status):
    app = make_app(open_scorer(folder), hosts=hosts_of("127.0.0.1", ["gpu7"]))
    with serving(app) as url:
        answer = http.request("GET", f"{url}/health", headers={"Host": host})
        assert answer.status == status
        if status == 400:
            assert "localhost" in answer.json()["error"]


def test_frameworks_ask_the_server_instead_of_loading_the_reward(url, folder):
    scorer = open_scorer(server=url)
    scores = scorer([scorer.resolve(Asked(*reply)) for reply in REPLIES])
    for f, reply in zip(scores, REPLIES, strict=True):
        assert f == pytest.approx(given.expected(*reply), abs=1e-12)
    with pytest.raises(DataError, match=r"prompt_id .*'nobody.* is not one"):
        scorer([Asked("nobody", "x")])
    scorer._server.server.close()
    text = policy_text(open_run(folder))
    reward_func = openrlhf.reward_function(server=url, model=text.path)
    prompt = text.prompt(given.messages("a"))
    answer = reward_func([prompt + "red<|end|>"], [prompt], ["a"])
    assert answer["rewards"].item() == pytest.approx(given.expected("a", "red")["score"])
    with pytest.raises(TrainingStopped, match=r"prompt_id .*'nobody.* is not one"):
        reward_func([prompt + "red<|end|>"], [prompt], ["nobody"])


def test_another_server_is_recognized():
    async def answer(request):
        return JSONResponse({"rewards": [1.0]})

    with serving(Starlette(routes=[Route("/", answer, methods=["POST"])])) as url:
        scorer = open_scorer(server=url)
        with pytest.raises(DataError, match="not an answer of `infalign serve-reward RUN`"):
            scorer([Asked("a", "x")])
        scorer._server.server.close()


def test_the_command_serves_until_it_is_interrupted(folder):
    command = [Path(sys.executable).with_name("infalign"), "serve-reward", folder, "--port", "0"]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as server:
        said = json.loads(server.stdout.readline())
        url = said.pop("url")
        assert url.startswith("http://127.0.0.1:")
        assert said == {
            "reward": given.REWARD,
            "answers": "shaped",
            "prompts": 5,
            "beta": given.BETA,
            "kl": given.KL,
        }
        with urllib3.PoolManager(retries=3) as pool:
            assert pool.request("GET", f"{url}/health").json()["beta"] == given.BETA
            body = {"labels": ["a"], "responses": ["red"]}
            rewards = pool.request("POST", url, json=body).json()["rewards"]
        assert rewards == pytest.approx([given.expected("a", "red")["score"]], abs=1e-12)
        # A request of which half was sent does not keep the server from ending.
        with raw_socket(url) as half:
            half.sendall(HALF)
            server.send_signal(signal.SIGINT)
            assert half.recv(4096).startswith(b"HTTP/1.1 503")
        assert server.wait() == 0 and "Traceback" not in server.stderr.read()


def test_a_port_in_use_is_refused(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"must be free .* 127.0.0.1:{port} .*Port 0"):
            serve(None, "127.0.0.1", port, print)


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    with pytest.raises(MissingExtraError, match=r'pip install "infalign\[serve\]"'):
        make_app(None)
