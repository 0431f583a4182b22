"""Servers with the OpenAI API as they answer in the wild: what counts as an answer, what is done
without, and what the error says."""

import json
import math
import random
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from infalign.errors import DataError
from infalign.models.model_server import ServerModel
from infalign.models.server_parameters import NEUTRAL, ServerParameters

ASKED = [[{"role": "user", "content": f"Question {i}?"}] for i in range(3)]
HOSTILE = "\x1b]0;PWNED\x07\x1b[31m \u202e ok"


def choice(content, finish="stop", **message):
    return {"index": 0, "message": {"content": content, **message}, "finish_reason": finish}


def cut_off(text, chance):
    thought = {"reasoning_content": "The user asks"}
    return choice(None, "length", **thought) if chance.random() < 0.5 else choice(text)


ANSWERS = {
    "plain": lambda text, chance: choice(text),
    "cut-off": cut_off,
    "all-cut-off": lambda text, chance: choice(None, "length", reasoning="The user asks"),
    "empty-cut-off": lambda text, chance: choice("", "length"),
    "filtered": lambda text, chance: choice(text, "content_filter"),
    "tools": lambda text, chance: choice(None, "tool_calls", tool_calls=[{}]),
    "null": lambda text, chance: choice(None),
    "failed": lambda text, chance: {**choice(None, "error"), "error": {"message": "lost GPU"}},
    "empty": lambda text, chance: choice(""),
    "refusal": lambda text, chance: choice(None, refusal="I cannot help " + text),
    "refusal-part": lambda text, chance: choice(
        [{"type": "refusal", "refusal": "I cannot " + text}]
    ),
    "parts": lambda text, chance: choice(
        [{"type": "thinking", "thinking": []}, {"type": "text", "text": text}]
    ),
    "thought": lambda text, chance: {
        **choice(text, reasoning_content="Hm."),
        "logprobs": {"content": [{"token": "x", "logprob": -1.0}] * 3},
    },
    "tags": lambda text, chance: choice(f"<think>\nWhy?\n</think>\n\n{text}"),
    "half-tag": lambda text, chance: choice(f"Why?</think>{text}"),
    "no-thought": lambda text, chance: choice(text),
    "cut-off-tags": lambda text, chance: choice("<think> Why", "length"),
    "cut-off-half": lambda text, chance: choice("Why, and " + text, "length"),
    "no-message": lambda text, chance: {"index": 0, "finish_reason": "stop"},
    "number": lambda text, chance: choice(7),
    "image": lambda text, chance: choice([{"type": "image_url", "image_url": {}}]),
}
"""Choices of each mode, given a text and a source of chance that follow from the seed."""


def openai(words, **fields):
    return 400, {"error": {"message": words, "type": "invalid_request_error", **fields}}


def fastapi(name):
    detail = {"loc": ["body", name], "msg": "Extra inputs are not permitted", "input": {"seed": 1}}
    return 422, {"detail": [detail]}


REFUSALS = {
    "logprobs": ("logprobs", openai("'logprobs' is not supported with this model")),
    "log probabilities": ("logprobs", (400, {"message": "No log probabilities here."})),
    "n": ("n", openai("'n' : number must be at most 1")),
    "n in a field": ("n", openai("Only one choice, please.", param="n")),
    "max_tokens": ("max_tokens", openai("Use 'max_completion_tokens' instead of 'max_tokens'.")),
    "seed": ("seed", (422, {"message": fastapi("seed")[1]})),
    "seed as text": ("seed", (400, "unknown field: seed")),
    "top_p": ("top_p", openai("temperature and top_p cannot both be specified")),
    "temperature": ("temperature", fastapi("temperature")),
    "top_k": ("top_k", openai("Unrecognized request argument supplied: top_k")),
    "min_p": ("min_p", fastapi("min_p")),
    "penalty": ("repetition_penalty", (400, 'Unknown name "repetition_penalty": no such field.')),
    "in 200": ("seed", (200, {"error": {"code": 400, "message": "seed is not supported"}})),
}
"""The parameter that each mode refuses, and its answer."""

WHOLE = {
    "html": ("text/html", "<html>a page</html>"),
    "stream": ("text/event-stream", 'data: {"choices": []}\n\ndata: [DONE]\n'),
    "list": ("application/json", "[1, 2]"),
    "text": ("application/json", '"hello"'),
    "deep": ("application/json", "[" * 100_000),
    "error": ("application/json", '{"choices": null, "error": {"message": "too many requests"}}'),
    "object": ("application/json", '{"choices": {"0": 1}}'),
    "hostile": ("application/json", json.dumps({"error": {"message": HOSTILE + "y" * 5000}})),
}
"""Whole answers with status 200."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        mode, chance = body["model"], random.Random(f"{body.get('seed')}{body['messages']}")
        refused = REFUSALS.get(mode)
        if mode == "strict" and (unknown := sorted(NEUTRAL.keys() & body.keys())):
            return self.send(*openai(f"Unknown parameter: '{unknown[0]}'.", param=unknown[0]))
        if (mode == "silent" and NEUTRAL.keys() & body.keys()) or "refuse" in mode + str(body):
            return self.send(400, {"error": {"message": "Bad request"}})
        if refused and (body.get("n", 1) > 1 if refused[0] == "n" else refused[0] in body):
            return self.send(refused[1][0], refused[1][1])
        if mode in WHOLE:
            return self.send(200, WHOLE[mode][1], WHOLE[mode][0])
        texts = [f"reply {chance.randrange(10**6)}" for _ in range(body.get("n", 1))]
        say = ANSWERS.get(mode, ANSWERS["plain"])
        self.send(200, {"choices": [say(text, chance) for text in texts]})

    def do_GET(self):
        if self.server.models is None:
            return self.send(404, {"detail": "Not Found"})
        self.send(200, {"data": self.server.models()})

    def send(self, status, body, kind="application/json"):
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def running():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.bodies, server.models = True, [], None
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def ask(running):
    """A model of the server, by its mode."""
    models = []
    running.bodies.clear()

    def make(mode, **options):
        models.append(ServerModel(running.url, mode, retries=0, **options))
        return models[-1]

    yield make
    for model in models:
        model.chat.server.close()


def texts(rows):
    return [r.text for row in rows for r in row]


@pytest.mark.parametrize("mode", ["plain", "refusal", "refusal-part", "parts", "thought"])
def test_what_the_model_says_is_its_answer(ask, mode):
    said = texts(ask(mode).sample(ASKED, 4, seed=0))
    assert len(set(said)) == 12 and all("reply" in text for text in said)
    assert not any("Hm" in text for text in said)


def test_an_empty_content_that_ended_by_itself_is_an_answer(ask):
    assert texts(ask("empty", verify=False).sample(ASKED, 2, seed=0)) == [""] * 6


@pytest.mark.parametrize(
    ("mode", "answer", "reason"),
    [
        ("cut-off", "whole", "length"),
        ("all-cut-off", "whole", "length"),
        ("empty-cut-off", "whole", "length"),
        ("filtered", "whole", "content_filter"),
        ("tools", "whole", "tool_calls"),
        ("null", "whole", "no content"),
        ("failed", "whole", "error, lost GPU"),
        ("cut-off-tags", "after-thinking", "length"),
        ("cut-off-half", "after-thinking", "length"),
    ],
)
def test_a_response_without_an_answer_is_counted_and_refused(ask, running, mode, answer, reason):
    model = ask(mode, answer=answer, max_new_tokens=9)
    with pytest.raises(DataError) as caught:
        model.sample(ASKED, 4, seed=0, keys=["a", "b", "c"])
    message = str(caught.value)
    count = 9 if mode == "cut-off" else 12
    assert message.startswith(f"{running.url} gave no answer in {count} of 12 responses: ")
    assert f"{reason!r} ({count})" in message and "to prompt 'a'. " in message
    assert ("`max_new_tokens`, now 9" in message) == (reason == "length")
    assert "`ask_again`" in message
    model = ask(mode, answer=answer, unanswered="keep")
    kept = model.sample(ASKED, 4, seed=0, keys=["a", "b", "c"])
    assert [r.missing for row in kept for r in row].count(reason) == count
    assert all(r.text == "" and math.isnan(r.logprob) for row in kept for r in row if r.missing)


def test_responses_without_an_answer_are_drawn_again_with_other_seeds(ask, running, caplog):
    first = ask("cut-off", unanswered="keep").sample(ASKED, 4, seed=0)
    before = len(running.bodies)
    rows = ask("cut-off", ask_again=20).sample(ASKED, 4, seed=0)
    assert "in 7 of 12 responses, and 7 were replaced by later ones" in caplog.text
    for old, new in zip(first, rows, strict=True):
        assert all(o.missing or o == n for o, n in zip(old, new, strict=True))
    assert all(text.startswith("reply") for text in texts(rows))
    seeds = [body["seed"] for body in running.bodies[before:]]
    assert len(set(seeds)) == len(seeds) > 3 + 7 - 1
    assert ask("cut-off", ask_again=20).sample(ASKED, 4, seed=0) == rows
    with pytest.raises(DataError, match=r"in 12 of 12 responses, after 2 more requests for each"):
        ask("all-cut-off", ask_again=2).sample(ASKED, 4, seed=0)


@pytest.mark.parametrize("mode", ["tags", "half-tag", "no-thought", "thought"])
def test_the_answer_after_a_thought_is_the_response(ask, mode):
    said = texts(ask(mode, answer="after-thinking").sample(ASKED, 2, seed=0))
    assert said == texts(ask("plain").sample(ASKED, 2, seed=0))
    assert all(
        math.isnan(r.logprob) for row in ask("thought").sample(ASKED, 2, seed=0) for r in row
    )


def test_thoughts_that_are_scored_as_responses_are_named_once(ask, running, caplog):
    model = ask("tags")
    for seed in (0, 1):
        assert all(text.startswith("<think>") for text in texts(model.sample(ASKED, 2, seed=seed)))
    (warning,) = caplog.messages
    assert warning.startswith(
        f"Responses of {running.url} begin with a thought. Rewards and judges"
    )
    ask("half-tag").sample(ASKED, 2, seed=0)
    ask("tags", answer="after-thinking").sample(ASKED, 2, seed=0)
    ask("tags", unanswered="keep").sample(ASKED, 2, seed=0)
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("mode", REFUSALS)
def test_a_refused_parameter_is_given_up_once_with_a_warning(ask, running, caplog, mode):
    name = REFUSALS[mode][0]
    model = ask(mode, threads=1, max_new_tokens=9)
    rows = model.sample(ASKED, 4, seed=0)
    assert len(set(texts(rows))) == 12
    sent = len(running.bodies)
    model.sample(ASKED, 4, seed=1)
    (warning,) = caplog.messages
    assert warning.startswith(f"{running.url} refuses `{name}` (")
    later = running.bodies[sent:]
    assert len(later) == (12 if name == "n" else 3) and not any(name in body for body in later)
    if name == "max_tokens":
        assert {body["max_completion_tokens"] for body in later} == {9}
    kept = {"n", "seed", "temperature", "top_p", "max_tokens", "logprobs", *NEUTRAL} - {name}
    assert all(kept <= body.keys() for body in later)


def of_neutral(bodies):
    return [{name: body[name] for name in NEUTRAL if name in body} for body in bodies]


def test_a_servers_own_sampling_defaults_are_turned_off(ask, running, caplog):
    ask("plain", temperature=0.7, top_p=0.9, ask_again=1).sample(ASKED, 2, seed=0)
    off = {"top_k": -1, "min_p": 0, "repetition_penalty": 1}
    assert of_neutral(running.bodies) == [off] * 3 and not caplog.messages


@pytest.mark.parametrize("mode", ["strict", "silent"])
def test_a_server_without_these_settings_is_asked_without(ask, running, caplog, mode):
    model = ask(mode, threads=1)
    rows = model.sample(ASKED, 2, seed=0)
    assert texts(rows) == texts(ask("plain").sample(ASKED, 2, seed=0))
    sent = len(running.bodies)
    model.sample(ASKED, 2, seed=0)
    assert of_neutral(running.bodies[sent:]) == [{}] * 3
    # Strict servers name one parameter at a time; the error of silent ones names none.
    assert len(caplog.messages) == (3 if mode == "strict" else 1)
    told = "\n".join(caplog.messages)
    assert all(f"`{name}`" in told for name in NEUTRAL) and "-1" in told


def test_a_refused_prompt_takes_no_setting_away(ask, running, caplog):
    model = ask("plain", threads=1)
    bad = [[{"role": "user", "content": "refuse me"}]]
    with pytest.raises(DataError, match='status 400, "Bad request"'):
        model.sample(bad, 2, seed=0)
    assert [bool(own) for own in of_neutral(running.bodies)] == [True, False]
    model.sample(ASKED, 2, seed=0)
    assert all(of_neutral(running.bodies[2:])) and not caplog.messages


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("temperature", {"temperature": 0.7}),
        ("top_p", {"temperature": 0.7, "top_p": 0.9}),
    ],
)
def test_a_distribution_that_the_server_refuses_is_an_error(ask, mode, options):
    with pytest.raises(DataError, match=rf"refuses `{mode}` {options[mode]}, without which"):
        ask(mode, **options).sample(ASKED, 2, seed=0)


def test_of_temperature_and_top_p_the_one_that_is_1_is_given_up(ask, running):
    def refuses(wanted):
        parameters = ServerParameters("http://x", warn=False)
        error = REFUSALS["top_p"][1][1]
        return parameters.give_up(wanted, wanted, error), parameters.without

    assert refuses({"temperature": 0.7, "top_p": 1.0}) == ("again", {"top_p"})
    assert refuses({"temperature": 1.0, "top_p": 0.9}) == ("again", {"temperature"})
    assert refuses({"temperature": 0.7, "top_p": 0.9}) == ("top_p", set())


def test_an_error_about_something_else_gives_nothing_up(ask):
    parameters = ServerParameters("http://x")
    wanted = {"n": 2, "seed": 1, "max_tokens": 9}
    for error in (
        {"error": {"message": "The n and the seed", "param": "messages"}},
        {"detail": [{"loc": ["body", "model"], "msg": "missing", "input": {"seed": 1, "n": 2}}]},
        "It isn't known.\nNo.",
        None,
    ):
        assert parameters.give_up(wanted, wanted, error) == "" and not parameters.without


@pytest.mark.parametrize("mode", [*WHOLE, "no-message", "number", "image"])
def test_an_answer_in_another_form_is_quoted_with_url_and_status(ask, running, mode):
    with pytest.raises(DataError) as caught:
        ask(mode).sample(ASKED, 2, seed=0)
    message = str(caught.value)
    assert message.startswith(f"{running.url} cannot be sampled from: ") and "status 200" in message
    assert message.isprintable() and len(message) < 1000
    quoted = {
        "html": "<html>a page</html>",
        "stream": "It streams its answer",
        "error": "too many requests",
        "hostile": r"\x1b]0;PWNED\x07\x1b[31m \u202e ok",
        "no-message": "a choice must have a `message`",
        "number": "a content must be text or parts; got 7",
        "image": "a part of a content must be text; got {'type': 'image_url'",
    }
    assert quoted.get(mode, "") in message


def test_a_key_that_is_no_header_is_refused(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sesame\n")
    with pytest.raises(
        DataError, match="OPENAI_API_KEY must hold a key of printable ASCII"
    ) as told:
        ServerModel("http://127.0.0.1:9/v1", "m")
    assert "sesame" not in str(told.value)


def volatile():
    fixed = {"id": "plain", "root": "/models/x", "max_model_len": 512}
    return [{"id": "other"}, {**fixed, "created": random.random()}]


def test_a_probe_identifies_the_model_and_is_the_same_every_time(ask, running):
    running.models = volatile
    seen = ask("plain").probe()
    assert seen.startswith("listed root /models/x max_model_len 512; greedy answer 'reply ")
    assert seen.endswith("'; takes top_k -1, min_p 0, repetition_penalty 1")
    assert ask("plain").probe() == seen
    running.models = None
    other = ask("temperature").probe()
    assert other.startswith("not listed; greedy answer 'reply ")
    takes = "; takes top_k -1, min_p 0, repetition_penalty 1"
    assert ask("all-cut-off").probe() == f"not listed; greedy answer 'The user asks'{takes}"
    assert ask("null").probe() == f"not listed; no greedy answer{takes}"
    # What a server without these settings answered before is the same as now.
    for mode in ("strict", "silent"):
        assert re.fullmatch(r"not listed; greedy answer 'reply \d+'", ask(mode).probe())
    assert ask("min_p").probe().endswith("'; takes top_k -1, repetition_penalty 1")
    with pytest.raises(DataError, match="cannot be sampled from"):
        ask("html").probe()


def test_a_model_whose_greedy_answers_differ_has_none(ask, monkeypatch):
    monkeypatch.setitem(REFUSALS, "unseeded", ("seed", REFUSALS["seed"][1]))
    numbers = iter(range(100))
    monkeypatch.setitem(ANSWERS, "unseeded", lambda text, chance: choice(str(next(numbers))))
    assert ask("unseeded").probe().startswith("not listed; greedy answers that differ")
