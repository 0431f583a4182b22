"""Rewards from a server: what is sent, what is tried again, and what is refused."""

import json
import pickle
import sys
import threading
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from infalign.errors import DataError, MissingExtraError
from infalign.models.reward_server import ServerReward
from infalign.models.rewards import load_reward, score

PROMPTS = [[{"role": "user", "content": text}] for text in ("Name a color.", "Name a number.")]
TEXTS = [["red", "green", "blue"], ["one", "fifteen", ""]]


def lengths(body, number):
    """The reward is the length of the completion, which only the query shows."""
    pairs = zip(body["query"], body["prompts"], strict=True)
    return {"rewards": [float(len(q) - len(p) - 1) for q, p in pairs]}


class FakeReward(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, behave):
        self.behave, self.bodies, self.stop = behave, [], threading.Event()
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/score"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.bodies)
            self.server.bodies.append({"path": self.path, **body})
        answer = self.server.behave(body, number)
        if answer is None:  # until the test is over
            self.server.stop.wait()
            return
        status = answer if isinstance(answer, int) else 200
        said = {"detail": "no luck"} if status != 200 else answer
        data = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve():
    """Start a server that behaves like this; returns it and its reward."""
    running = []

    def start(behave, **options):
        server = FakeReward(behave)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        reward = ServerReward(server.url, **{"retries": 0, **options})
        running.append((server, reward))
        return server, reward

    yield start
    for server, reward in running:
        reward.server.close()
        server.stop.set()
        server.shutdown()
        server.server_close()


def test_rewards_come_back_in_order_whatever_the_batches(serve):
    expected = [[3, 5, 4], [3, 7, 0]]
    for batch_size, requests in [(64, 1), (4, 2), (1, 6)]:
        server, reward = serve(lengths, batch_size=batch_size)
        assert score(reward, PROMPTS, TEXTS, ["a", "b"]).tolist() == expected
        assert len(server.bodies) == requests
        assert all(len(b["query"]) <= batch_size for b in server.bodies)


def test_what_is_sent_is_openrlhfs_protocol_with_ids_as_labels(serve):
    server, reward = serve(lengths)
    turns = [*PROMPTS[0], {"role": "assistant", "content": "Red."}, *PROMPTS[1]]
    reward(
        prompts=[PROMPTS[0], turns, "How?"],
        completions=[[{"role": "assistant", "content": "red"}], "one", "So."],
        prompt_id=["a", "b", "c"],
    )
    (body,) = server.bodies
    together = "user: Name a color.\n\nassistant: Red.\n\nuser: Name a number."
    assert body == {
        "path": "/score",
        "query": ["Name a color.\nred", f"{together}\n\nassistant: one", "How?\nSo."],
        "prompts": ["Name a color.", together, "How?"],
        "labels": ["a", "b", "c"],
        "messages": [
            [*PROMPTS[0], {"role": "assistant", "content": "red"}],
            [*turns, {"role": "assistant", "content": "one"}],
            [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."}],
        ],
        "plain": [False, False, True],
    }
    reward(prompts=["How?"], completions=["So."])
    assert server.bodies[1]["labels"] == [None]


def test_columns_and_the_form_of_prompts_are_sent_where_there_are_any(serve):
    server, reward = serve(lengths)
    passed = {"answer": [4, None], "tests": [["a"], []], "trainer_state": object()}
    reply = [{"role": "assistant", "content": "one"}]
    reward(prompts=["How?", PROMPTS[0]], completions=["So.", reply], **passed)
    (body,) = server.bodies
    assert body["columns"] == {"answer": [4, None], "tests": [["a"], []]}
    assert body["plain"] == [True, False]


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, date(2026, 1, 1), b"x"], ids=str)
def test_a_column_that_json_does_not_have_is_named(serve, value):
    server, reward = serve(lengths)
    words = f"column `when` cannot be sent to a reward server: .* of type {type(value).__name__}"
    with pytest.raises(DataError, match=words):
        reward(prompts=["How?"], completions=["So."], when=[value])
    assert not server.bodies


def test_a_busy_server_is_asked_again(serve):
    server, reward = serve(
        lambda body, number: (503, 429)[number] if number < 2 else lengths(body, number), retries=2
    )
    assert reward(prompts=["a"], completions=["bcd"]) == [3.0] and len(server.bodies) == 3


def test_a_server_that_is_silent_once_is_asked_again(serve):
    # With tries to spare for a machine so busy that an answer takes longer than that.
    server, reward = serve(
        lambda body, number: lengths(body, number) if number else None, retries=20, timeout=0.2
    )
    assert reward(prompts=["a"], completions=["bcd"]) == [3.0] and len(server.bodies) >= 2


def test_a_server_that_stays_silent_is_given_up_after_the_timeout(serve):
    server, reward = serve(lambda body, number: None, timeout=0.2)
    told = rf"{server.url} cannot be scored with: .*no answer within 0.2 seconds\. Raise `timeout`"
    with pytest.raises(DataError, match=told):
        reward(prompts=["a"], completions=["b"])


@pytest.mark.parametrize(
    ("behave", "told"),
    [
        (lambda body, number: 503, r'status 503, "\{"detail": "no luck"\}"\. Its log may say'),
        (lambda body, number: 404, r"status 404"),
        (
            lambda body, number: "<html>",
            r'must answer with JSON, and answered "<html>" \(status 200, app',
        ),
        (
            lambda body, number: [1.0],
            r'answer \{"rewards": \[\.\.\.\]\}, and answered \[1\.0\]',
        ),
        (lambda body, number: {"rewards": 1.0}, r"and answered \{'rewards': 1\.0\}"),
    ],
)
def test_errors_name_the_url_and_a_remedy(serve, behave, told):
    server, reward = serve(behave)
    with pytest.raises(DataError, match=rf"{server.url} cannot be scored with: .*{told}"):
        reward(prompts=["a"], completions=["b"])
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("rewards", "told"),
    [
        ([1.0], "one number per completion; got 1 for 2 completions"),
        ([1.0, 2.0, 3.0], "one number per completion; got 3 for 2 completions"),
        ([1.0, float("nan")], "finite numbers; got nan for completion 1"),
        ([1.0, None], "finite numbers; got None for completion 1"),
        ([float("inf"), 1.0], "finite numbers; got inf for completion 0"),
    ],
)
def test_rewards_that_are_missing_or_not_finite_are_refused(serve, rewards, told):
    server, reward = serve(lambda body, number: {"rewards": rewards})
    with pytest.raises(DataError, match=f"`{server.url}` must return {told}"):
        reward(prompts=["a", "b"], completions=["c", "d"])


@pytest.mark.parametrize("rewards", [[True, 1.5], [False, True]])
def test_truth_values_are_not_rewards(serve, rewards):
    _, reward = serve(lambda body, number: {"rewards": rewards})
    with pytest.raises(DataError, match=r"must be numbers, and \d of 2 are (True|False)"):
        reward(prompts=["a", "b"], completions=["c", "d"])


def test_a_batch_that_is_short_does_not_shift_the_next(serve):
    # Two short answers and two long ones have the right count together.
    _, reward = serve(
        lambda body, number: {"rewards": [0.0] * (1 if number % 2 else 3)}, batch_size=2, threads=1
    )
    with pytest.raises(DataError, match="got 3 for 2"):
        reward(prompts=["a"] * 4, completions=["b"] * 4)


def test_a_server_that_is_not_running_is_named():
    with pytest.raises(DataError, match=r"127.0.0.1:9/x cannot be .* the URL right\?"):
        ServerReward("http://127.0.0.1:9/x", retries=0)(prompts=["a"], completions=["b"])


def test_it_is_loaded_by_its_url_and_survives_pickling(serve, monkeypatch):
    server, _ = serve(lengths)
    reward = pickle.loads(pickle.dumps(load_reward(server.url)))
    assert reward(prompts=["a"], completions=["bcd"]) == [3.0]
    reward.server.close()
    for wrong in ({"batch_size": 0}, {"threads": 0}, {"timeout": 0}, {"retries": -1}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be"):
            ServerReward(server.url, **wrong)
    monkeypatch.setitem(sys.modules, "urllib3", None)
    with pytest.raises(MissingExtraError, match=r'pip install "infalign\[http\]"'):
        load_reward(server.url)
