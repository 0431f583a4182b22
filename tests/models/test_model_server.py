"""Sampling from servers, those that do as they are asked and those that do not; and from vLLM."""

import json
import math
import random
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from enumerable import EnumerableModel

from infalign.demo import bundled
from infalign.errors import DataError, MissingExtraError
from infalign.models.hf import LanguageModel
from infalign.models.model_server import ServerModel
from infalign.models.samplers import load_sampler

PROMPTS = [[{"role": "user", "content": text}] for text in ("Name a color.", "Name a number.")]
WORDS = ["red", "green", "blue", "one", "two"]
SAID = {f" {word}\n" for word in WORDS}  # white space is part of what a server says


def drawn(seed) -> tuple[str, float]:
    """A word by its seed, and the log-probability of each of its two tokens."""
    return f" {random.Random(str(seed)).choice(WORDS)}\n", math.log(0.5)


def conforming(body, number):
    return [drawn((body["seed"], k)) for k in range(body["n"])]


def ignores_n(body, number):
    return [drawn(body["seed"])]


def copies_one(body, number):
    return [drawn(body["seed"])] * body["n"]


def greedy(body, number):
    return [("red", None)] * body["n"]


def certain(body, number):
    return [("red", -1e-9)] * body["n"]


def greedy_and_single(body, number):
    return [("red", None)]


def fails_twice(body, number):
    return 500 if number < 2 else conforming(body, number)


class FakeServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, behave):
        self.behave, self.bodies, self.keys, self.stop = behave, [], [], threading.Event()
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.bodies)
            self.server.bodies.append({"path": self.path, **body})
            self.server.keys.append(self.headers["Authorization"])
        choices = self.server.behave(body, number)
        if choices is None:  # until the test is over
            self.server.stop.wait()
            return
        status = 200 if isinstance(choices, list) else choices
        if status == 422:
            answer = {"detail": "no luck here"}
        elif status == 200:
            answer = {"id": "1", "object": "x", "created": 0, "model": body["model"]}
            answer["choices"] = [self.choice(i, *c) for i, c in enumerate(choices)]
        else:
            answer = {"error": {"message": f"no [bold]luck[/bold] with {body['model']}"}}
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def choice(self, index, text, logprob):
        logprobs = None
        if self.path.endswith("/chat/completions"):
            if logprob is not None:
                logprobs = {"content": [{"token": "x", "logprob": logprob, "top_logprobs": []}] * 2}
            said = {"message": {"role": "assistant", "content": text}}
        else:
            if logprob is not None:
                logprobs = {"token_logprobs": [logprob] * 2}
            said = {"text": text}
        return {"index": index, "finish_reason": "stop", "logprobs": logprobs, **said}

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve():
    """Start a server that behaves like this; returns it and its model."""
    running = []

    def start(behave, **options):
        server = FakeServer(behave)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        model = ServerModel(server.url, "some/model", **{"retries": 0, **options})
        running.append((server, model))
        return server, model

    yield start
    for server, model in running:
        model.chat.server.close()
        server.stop.set()
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_one_request_per_prompt_brings_all_its_responses(serve, api):
    server, model = serve(conforming, api=api, max_new_tokens=7)
    rows = model.sample(PROMPTS, 6, seed=3)
    assert len(server.bodies) == 2 and [len(row) for row in rows] == [6, 6]
    for row in rows:
        assert {r.text for r in row} <= SAID and {r.tokens for r in row} == {()}
        assert [r.logprob for r in row] == pytest.approx([2 * math.log(0.5)] * 6)
    sent = sorted(server.bodies, key=lambda b: json.dumps(b))
    shared = {"model": "some/model", "n": 6, "temperature": 1.0, "top_p": 1.0, "max_tokens": 7}
    assert all(shared.items() <= body.items() for body in sent)
    assert sent[0]["seed"] != sent[1]["seed"] and max(b["seed"] for b in sent) < 2**31
    if api == "chat":
        assert {b["path"] for b in sent} == {"/v1/chat/completions"}
        assert [b["messages"] for b in sent] == PROMPTS and sent[0]["logprobs"] is True
    else:
        assert {b["path"] for b in sent} == {"/v1/completions"}
        assert [b["prompt"] for b in sent] == [p[0]["content"] for p in PROMPTS]
        assert sent[0]["logprobs"] == 1


@pytest.mark.parametrize("behave", [conforming, ignores_n])
def test_white_space_is_removed_if_asked(serve, behave):
    plain, stripped = (
        serve(behave, strip=strip)[1].sample(PROMPTS, 4, seed=0) for strip in (False, True)
    )
    assert {r.text for row in plain for r in row} <= SAID
    assert [[r.text.strip() for r in row] for row in plain] == [
        [r.text for r in x] for x in stripped
    ]


@pytest.mark.parametrize("behave", [conforming, ignores_n, copies_one])
def test_the_same_seed_gives_the_same_responses_however_many_threads(serve, behave):
    prompts = PROMPTS * 3
    first = serve(behave, threads=8)[1].sample(prompts, 5, seed=1)
    texts = [[r.text for r in row] for row in first]
    again = serve(behave, threads=1)[1].sample(prompts, 5, seed=1)
    assert [[r.text for r in row] for row in again] == texts
    other = serve(behave)[1].sample(prompts, 5, seed=2)
    assert [[r.text for r in row] for row in other] != texts
    assert len({tuple(row) for row in texts}) > 1, "prompts draw independently"


@pytest.mark.parametrize("behave", [conforming, ignores_n])
def test_a_prompts_responses_follow_from_its_key(serve, behave):
    _, model = serve(behave)
    rows = model.sample(PROMPTS, 4, seed=1, keys=["color", "number"])
    turned = model.sample(PROMPTS[::-1], 6, seed=1, keys=["number", "color"])[::-1]
    assert [[r.text for r in row[:4]] for row in turned] == [[r.text for r in row] for row in rows]
    with pytest.raises(ValueError, match="`keys` must be one per conversation"):
        model.sample(PROMPTS, 4, seed=1, keys=["color", "color"])


@pytest.mark.parametrize("behave", [ignores_n, copies_one])
def test_a_server_that_does_not_draw_n_is_asked_n_times(serve, behave):
    server, model = serve(behave, threads=1)
    rows = model.sample(PROMPTS, 8, seed=0)
    assert all(len(row) == 8 and len({r.text for r in row}) > 1 for row in rows)
    singles = [b["seed"] for b in server.bodies if b["n"] == 1]
    assert len(singles) == len(set(singles)) == 16
    before = len(server.bodies)
    model.sample(PROMPTS, 8, seed=1)  # it is known by now
    assert len(server.bodies) - before == 16


@pytest.mark.parametrize("behave", [greedy, greedy_and_single])
def test_answers_that_never_differ_are_refused(serve, behave):
    server, model = serve(behave)
    with pytest.raises(DataError, match=r"gave 4 identical responses to each of 2 prompts") as told:
        model.sample(PROMPTS, 4, seed=0)
    for part in (server.url, "'red'", "do_sample", "temperature 1", "verify=False"):
        assert part in str(told.value)
    assert len({b["seed"] for b in server.bodies if b["n"] == 1}) == 8
    trusting = serve(behave, verify=False)[1].sample(PROMPTS, 4, seed=0)
    assert {r.text for row in trusting for r in row} == {"red"}
    assert len(serve(behave)[1].sample(PROMPTS, 1, seed=0)) == 2  # one response tells nothing


def test_answers_alike_are_believed_where_their_probability_explains_it(serve):
    server, model = serve(certain)
    assert {r.text for row in model.sample(PROMPTS, 4, seed=0) for r in row} == {"red"}
    assert len(server.bodies) == 2


def test_away_from_temperature_1_the_log_probability_is_not_known(serve):
    for options in ({"temperature": 0.7}, {"top_p": 0.9}):
        server, model = serve(conforming, **options)
        rows = model.sample(PROMPTS, 6, seed=0)
        assert all(math.isnan(r.logprob) for row in rows for r in row)
        assert "logprobs" not in server.bodies[0]
    silent = serve(lambda body, number: [(w, None) for w in WORDS])[1].sample(PROMPTS, 5, seed=0)
    assert all(math.isnan(r.logprob) for row in silent for r in row)


def test_errors_of_the_server_are_tried_again_by_the_client(serve):
    server, model = serve(fails_twice, retries=2, threads=1)
    assert len(model.sample(PROMPTS[:1], 3, seed=0)[0]) == 3 and len(server.bodies) == 3


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(500, "Its log may say more"), (401, "OPENAI_API_KEY"), (404, "Check the model's name")],
)
def test_the_error_of_a_refusal_quotes_the_server(serve, status, remedy):
    server, model = serve(lambda body, number: status)
    with pytest.raises(DataError, match=f"{server.url} cannot be sampled from: ") as told:
        model.sample(PROMPTS, 2, seed=0)
    assert "no [bold]luck[/bold] with some/model" in str(told.value) and remedy in str(told.value)


def test_a_refusal_in_another_form_is_quoted_as_it_came(serve):
    _, model = serve(lambda body, number: 422)
    with pytest.raises(DataError, match=r'status 422, "no luck here"\. Its log may say more'):
        model.sample(PROMPTS, 2, seed=0)


def test_a_server_that_is_silent_or_gone_is_given_up(serve):
    _, model = serve(lambda body, number: None, timeout=0.2)
    with pytest.raises(DataError, match=r"no answer within 0.2 seconds\. Raise `timeout`"):
        model.sample(PROMPTS, 2, seed=0)
    gone = ServerModel("http://127.0.0.1:9/v1", "m", retries=0)
    with pytest.raises(DataError, match=r"http://127.0.0.1:9/v1 cannot be .* the URL right\?"):
        gone.sample(PROMPTS, 2, seed=0)
    gone.chat.server.close()
    _, empty = serve(lambda body, number: [])
    with pytest.raises(DataError, match="returned 0 choices to a request for one"):
        empty.sample(PROMPTS, 2, seed=0)


def test_the_key_comes_from_the_environment_only(serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    server, model = serve(conforming)
    model.sample(PROMPTS, 2, seed=0)
    assert set(server.keys) == {"Bearer sesame"}
    monkeypatch.delenv("OPENAI_API_KEY")
    server, model = serve(conforming)
    model.sample(PROMPTS, 2, seed=0)
    assert set(server.keys) == {None}


def test_completions_take_single_messages_only(serve):
    _, model = serve(conforming, api="completions")
    turns = [*PROMPTS[0], {"role": "assistant", "content": "Red."}, *PROMPTS[0]]
    with pytest.raises(DataError, match=r"begins 'Name a color\.' has 3 messages"):
        model.sample([turns], 2, seed=0)


def test_arguments_are_checked_and_a_missing_client_is_named(monkeypatch):
    for wrong in ({"temperature": 0.0}, {"threads": 0}, {"retries": -1}, {"timeout": 0}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be"):
            ServerModel("http://127.0.0.1:9/v1", "m", **wrong)
    with pytest.raises(ValueError, match="`api` must be one of chat, completions"):
        ServerModel("http://127.0.0.1:9/v1", "m", api="responses")
    monkeypatch.setitem(sys.modules, "urllib3", None)
    with pytest.raises(MissingExtraError, match=r'pip install "infalign\[openai\]"'):
        ServerModel("http://127.0.0.1:9/v1", "m")


def test_the_command_line_samples_from_a_server(serve, cli):
    server, _ = serve(conforming)
    command = ["--model", f"{server.url}#a/b", "--procedure", "majority-vote:5", "--json", "--all"]
    code, out, errors = cli("sample", *command, "How many?")
    assert code == 0, errors
    record = json.loads(out)
    assert {c["text"] for c in record["candidates"]} <= SAID and record["votes"] == 0
    assert [(b["model"], b["n"]) for b in server.bodies] == [("a/b", 5)]


@pytest.fixture
def vllm(monkeypatch, tmp_path):
    """A stand-in for vLLM that samples from an enumerable model's exact law."""
    tiny = EnumerableModel.make(tmp_path / "tiny", seed=5, max_new_tokens=2)
    seen = {}

    class SamplingParams:
        def __init__(self, **given):
            self.__dict__.update(given)

    class LLM:
        def __init__(self, **given):
            seen["engine"] = given

        def generate(self, prompts, params, use_tqdm):
            seen["prompts"], seen["params"], seen["bar"] = prompts, params, use_tqdm
            return [self.one(p, q) for p, q in zip(prompts, params, strict=True)]

        def one(self, prompt, params):
            text = "".join(tiny.letters[i - 1] for i in prompt["prompt_token_ids"])
            law = tiny.law(text)
            outputs = []
            for k in range(params.n):
                rng = np.random.default_rng(params.seed + k)
                said = str(rng.choice(list(law), p=np.array(list(law.values()))))
                outputs.append(
                    types.SimpleNamespace(
                        index=k,
                        text=said,
                        token_ids=list(tiny.tokens(said)),
                        cumulative_logprob=math.log(law[said]),
                    )
                )
            return types.SimpleNamespace(outputs=outputs[::-1])

    module = types.ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    return tiny, seen


def test_vllm_draws_what_the_language_model_would(vllm):
    tiny, seen = vllm
    model = load_sampler(f"vllm:{tiny.path}", max_new_tokens=2)
    conversations = [tiny.conversation("ab"), tiny.conversation("c")]
    rows = model.sample(conversations, 200, seed=4)
    assert model.sample(conversations, 200, seed=4) == rows
    assert seen["engine"]["logprobs_mode"] == "processed_logprobs"
    assert [p["prompt_token_ids"] for p in seen["prompts"]] == [[1, 2], [3]]
    first, second = seen["params"]
    assert (first.n, first.max_tokens, first.temperature, first.top_p) == (200, 2, 1.0, 1.0)
    before = {"ab": first.seed, "c": second.seed}
    keys = dict(zip("01", ("ab", "c"), strict=True))
    model.sample(conversations[::-1], 3, seed=4, keys=["1", "0"])
    assert [p.seed for p in seen["params"]] == [before[keys["1"]], before[keys["0"]]]
    assert abs(first.seed - second.seed) > 1000 and max(first.seed, second.seed) + 200 < 2**63
    for prompt, row in zip(("ab", "c"), rows, strict=True):
        law = tiny.law(prompt)
        for r in row:
            assert r.tokens == tiny.tokens(r.text)
            assert r.logprob == pytest.approx(math.log(law[r.text]))
    assert "gpu_memory_utilization" not in seen["engine"]
    half = load_sampler(f"vllm:{tiny.path}#gpu_memory_utilization=0.5", max_new_tokens=2)
    assert seen["engine"]["gpu_memory_utilization"] == 0.5 and half.path == model.path
    own = tiny.language_model().sample(conversations, 2, seed=0)
    assert {type(r.tokens) for r in own[0]} == {type(r.tokens) for r in rows[0]}


def test_without_vllm_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match=r'pip install "infalign\[vllm\]"'):
        load_sampler("vllm:bundled:language-model")


def test_samplers_are_loaded_by_name():
    model = load_sampler("bundled:language-model", temperature=0.5, top_p=0.8, max_new_tokens=3)
    assert isinstance(model, LanguageModel) and model.path == bundled(
        "bundled:language-model", "model"
    )
    assert (model.temperature, model.top_p, model.max_new_tokens) == (0.5, 0.8, 3)
    server = load_sampler("http://127.0.0.1:9/v1#org/name", temperature=0.5, top_p=0.8)
    assert (server.url, server.model) == ("http://127.0.0.1:9/v1", "org/name")
    assert (server.temperature, server.top_p) == (0.5, 0.8)
    server.chat.server.close()
    with pytest.raises(DataError, match=r"after a #: https://host/v1#NAME\."):
        load_sampler("https://host/v1/")
    with pytest.raises(DataError, match="no bundled model 'nothing'"):
        load_sampler("bundled:nothing")
