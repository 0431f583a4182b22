"""Scorers of a run, of its pieces and of a server; prompts by id, text and template."""

import json
import shutil
import subprocess
import sys

import framework_run as given
import numpy as np
import pytest
import yaml
from framework_run import REPLIES, assert_scores, scores_of

from infalign.errors import ConfigError, DataError
from infalign.frameworks import Asked, openrlhf, verl
from infalign.frameworks.opened import open_reward, open_scorer
from infalign.frameworks.prompt_text import PromptNames
from infalign.frameworks.score_request import read_body
from infalign.manifest import Manifest
from infalign.models.fingerprints import reward_fingerprint
from infalign.prompts import Prompt
from infalign.stores import CalibrationStore


def test_a_run_scores_as_its_pieces_do_and_as_the_reward_for_trl(folder, calls):
    wanted = [given.expected(*reply) for reply in REPLIES]
    assert_scores(scores_of(open_scorer(folder)), wanted)
    pieces = {
        "store": folder / "calibration",
        "reward": given.REWARD,
        "prompts": folder / "prompts.jsonl",
    }
    for transform in ("exponential:3", folder / "design.json", given.TRANSFORM):
        assert_scores(scores_of(open_scorer(transform=transform, **pieces)), wanted)
    assert sorted(calls) == [1] * 4 + [3] * 4  # of one form each
    columns = {"prompts": [given.messages(i) for i, _ in REPLIES], "prompt_id": [*"abca"]}
    replies = [[{"role": "assistant", "content": reply}] for _, reply in REPLIES]
    shaped = open_reward(folder)(completions=replies, **columns)
    assert shaped == pytest.approx([w["score"] for w in wanted], abs=1e-12)
    raw = scores_of(open_scorer(folder, raw=True))
    assert_scores(raw, [{"score": w["raw_reward"], "raw_reward": w["raw_reward"]} for w in wanted])


def test_white_space_at_the_ends_is_scored_unless_the_run_strips(folder, tmp_path):
    spaced, plain = [("a", " red\n")], [("a", "red")]
    assert scores_of(open_scorer(folder), spaced) == [given.expected("a", " red\n")]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    stripping = shutil.copytree(folder, tmp_path / "stripping")
    config["sampling"]["strip"] = True
    with Manifest(stripping).recording(stripping / "config.yaml", stage="run"):
        (stripping / "config.yaml").write_text(yaml.safe_dump(config))
    for raw in (False, True):
        scorer = open_scorer(stripping, raw=raw)
        assert scores_of(scorer, spaced) == scores_of(scorer, plain)
    reward = open_reward(stripping)
    values = reward(prompts=["", ""], completions=[" red\n", "red"], prompt_id=["a", "a"])
    assert values[0] == values[1] == given.expected("a", "red")["score"]


@pytest.mark.parametrize(
    ("sampling", "strip"),
    [
        ({"temperature": 1.0, "strip": True}, True),
        ({"temperature": 1.0, "strip": False}, False),
        # As version 0.1 recorded it, which stripped every response.
        ({"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 8, "batch_size": 4}, True),
        ({"temperature": 1.0}, None),
        (None, None),
    ],
)
def test_pieces_strip_as_their_store_was_made(sampling, strip):
    store = given.reference(None if sampling is None else {"sampling": sampling})
    prompts = {"messages": tuple(given.messages("a"))}
    pieces = {"store": store, "transform": "exponential:3", "reward": given.length}
    scorer = open_scorer(**pieces)
    (scored,) = scorer([scorer.resolve(Asked("a", " red\n", **prompts))])
    assert scored == given.expected("a", "red" if strip else " red\n")
    for asked in (False, True):
        if strip in (None, asked):
            open_scorer(**pieces, strip=asked)
            continue
        made, wanted = str(strip).lower(), str(asked).lower()
        with pytest.raises(DataError, match=f"`sampling.strip` {made}, but it is {wanted} here"):
            open_scorer(**pieces, strip=asked)


def test_a_run_that_strips_otherwise_than_its_store_is_refused(tmp_path):
    run = given.make_run(tmp_path / "run", sampling={"strip": True})
    for opened in (open_scorer, open_reward):
        with pytest.raises(DataError, match="Calibrate again, or set `strip` to true"):
            opened(run)


def test_an_infinite_transform_stays_finite(folder):
    scorer = open_scorer(
        store=folder / "calibration",
        transform="log",
        reward=given.REWARD,
        prompts=folder / "prompts.jsonl",
    )
    low, high = scores_of(scorer, [("a", ""), ("a", "x" * 99)])
    assert low["quantile"] == pytest.approx(0.5 / 17, abs=0.1) and np.isfinite(low["score"])
    assert high["quantile"] == pytest.approx(1 - 0.5 / 17) and high["score"] < 0
    span = openrlhf.clip_range(scorer.shaper.transform, 16)
    assert span == 10 and high["score"] - low["score"] < span


def test_prompts_are_named_by_id_by_text_and_by_template(folder, text):
    scorer = open_scorer(folder)
    asked = text.prompt(given.TURNS)
    joined = "user: Name a color.\n\nassistant: Red.\n\nuser: Another."
    for key, name in [("a", "a"), ("Name a number.", "b"), (joined, "c"), (asked, "c")]:
        assert scorer.resolve(Asked(key, "x")).key == name
    with pytest.raises(DataError, match=r"2 prompts have the text 'Twice\?', first 'd' and 'e'"):
        scorer.resolve(Asked("Twice?", "x"))
    assert scorer.resolve(Asked("e", "x")).key == "e"


def asks(prompt_id, text):
    return Prompt(prompt_id, ({"role": "user", "content": text},))


def test_an_id_wins_over_a_text_except_where_it_can_only_be_a_text():
    names = PromptNames([asks("b", "a"), asks("a", "b")])
    assert names.find("a").id == "a" and names.find("b").id == "b"
    assert names.find("a", by_text=True).id == "b" and names.find("b", by_text=True).id == "a"


def test_prompts_that_differ_in_white_space_are_different_prompts():
    texts = ["def f():\n", "def f():", " def f():", "def f():\n\n"]
    names = PromptNames([asks(f"p{i}", text) for i, text in enumerate(texts)])
    assert [names.find(text).id for text in texts] == ["p0", "p1", "p2", "p3"]
    for unknown in ("def f(): ", "\tdef f():"):
        with pytest.raises(DataError, match="is not one of the 4 prompts"):
            names.find(unknown)


def test_a_text_that_is_another_prompts_text_in_the_template_is_ambiguous():
    names = PromptNames([asks("p", "Hi"), asks("q", "<Hi>")], lambda m: f"<{m[0]['content']}>")
    assert names.find("Hi").id == "p" and names.find("<<Hi>>").id == "q"
    with pytest.raises(DataError, match="2 prompts have the text '<Hi>', first 'p' and 'q'"):
        names.find("<Hi>")


@pytest.mark.parametrize("key", ["nobody", "", None, 3])
def test_an_unknown_prompt_is_named(folder, key):
    with pytest.raises(DataError, match=r"prompt_id"):
        open_scorer(folder).resolve(Asked(key, "x"))
    with pytest.raises(ValueError, match=r"prompt_id"):  # a number is not even an id
        pieces = {"store": given.reference(), "transform": "identity", "reward": given.length}
        open_scorer(**pieces).resolve(Asked(key, "x"))


def test_pieces_without_prompts_need_conversations():
    scorer = open_scorer(store=given.reference(), transform="exponential:3", reward=given.length)
    with pytest.raises(DataError, match=r"prompt_id 'a' came without its conversation.*prompts="):
        scorer.resolve(Asked("a", "red"))
    asked = scorer.resolve(Asked("a", "red", tuple(given.messages("a"))))
    assert_scores(scorer([asked]), [given.expected("a", "red")])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "got none of them"),
        ({"run": "x", "server": "http://y"}, "got `run`, `server`"),
        ({"run": "x", "store": "y"}, "got `run`, `store`"),
        ({"store": "x", "transform": "log"}, "got `store`, `transform`"),
        ({"server": "http://x", "raw": True}, "got `server`"),
    ],
)
def test_sources_that_do_not_fit_are_named(arguments, named):
    with pytest.raises(ConfigError, match=f"exactly one of .*{named}"):
        open_scorer(**arguments)


def test_a_store_of_another_reward_function_is_refused(tmp_path):
    path = tmp_path / "r.py"
    path.write_text("def score(prompts, completions, **_):\n    return [0.0] * len(completions)\n")
    own, other = (
        CalibrationStore.from_rewards(
            ["a"], [[1.0, 2.0]], {"reward": name, "sampling": {"strip": True}}
        )
        for name in (reward_fingerprint(f"{path}:score"), "another")
    )
    pieces = {"transform": "identity", "reward": f"{path}:score"}
    open_scorer(store=own, **pieces)
    with pytest.raises(DataError, match="was made with reward 'another'"):
        open_scorer(store=other, **pieces)


def test_folders_that_are_not_this_run_are_refused(folder, tmp_path):
    with pytest.raises(DataError, match=r"has no config.yaml. Make it one with: infalign run"):
        open_scorer(tmp_path)
    other = given.make_run(tmp_path / "other")
    (other / "prompts.jsonl").write_text(json.dumps({"prompt_id": "a", "prompt": "Else?"}))
    with pytest.raises(DataError, match="store was made with prompts"):
        open_scorer(other)
    with pytest.raises(ConfigError, match="`calibrator` must be ecdf, tail"):
        pieces = {"store": given.reference(), "transform": "identity", "reward": given.length}
        open_scorer(**pieces, calibrator="auto")


def test_no_framework_is_imported():
    code = (
        "import infalign.frameworks.verl, infalign.frameworks.verl_manager, "
        "infalign.frameworks.openrlhf, infalign.frameworks.serving, sys; "
        "print(sorted({'verl', 'openrlhf', 'ray', 'torch', 'starlette'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


SENT = {  # how callers send what a reward needs besides the response
    "columns": {"labels": ["x"], "columns": {"answer": ["teal"]}},
    "a key of its own": {"labels": ["x"], "answer": ["teal"]},
    "a label": {"labels": ['{"prompt_id": "x", "answer": "teal"}']},
}


@pytest.mark.parametrize("way", SENT)
def test_a_request_brings_the_columns_of_prompts_that_are_not_known(way):
    def reward(prompts, completions, prompt_id, answer):
        assert prompts == [[{"role": "user", "content": "Q"}]] and prompt_id == ["x"]
        return [float(c[0]["content"] == a) for c, a in zip(completions, answer, strict=True)]

    messages = [[{"role": "user", "content": "Q"}, {"role": "assistant", "content": "teal"}]]
    scorer = open_scorer(raw=True, reward=reward)
    body = read_body(json.dumps({"messages": messages, **SENT[way]}).encode())
    assert scorer([scorer.resolve(body.asked(0, None))])[0]["score"] == 1.0


def test_the_columns_of_known_prompts_take_precedence(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "Q", "prompt_id": "x", "answer": "teal"}')
    seen = []

    def reward(completions, answer, more):
        seen.extend([completions, answer, more])
        return [1.0]

    scorer = open_scorer(raw=True, reward=reward, prompts=tmp_path / "p.jsonl")
    info = {"prompt_id": "x", "answer": "red", "more": 1}
    scorer([scorer.resolve(verl._asked("teal", info, {"ground_truth": ""}))])
    assert seen == [["teal"], ["teal"], [1]]
    label = json.dumps({"prompt_id": "x", "answer": "red", "more": 2})
    scorer([scorer.resolve(openrlhf._asked(label, "", "teal"))])
    assert seen[3:] == [["teal"], ["teal"], [2]]


def test_lists_of_other_lengths_are_refused_by_name():
    body = {"responses": ["a", "b"], "labels": ["x", "y"], "columns": {"answer": [1]}}
    with pytest.raises(DataError, match=r"of one length; got .*'columns.answer': 1"):
        read_body(json.dumps(body).encode())
    body = {"responses": ["a", "b"], "labels": ["x", "y"], "answer": ["4"]}
    with pytest.raises(DataError, match=r"of one length; got .*'answer': 1"):
        read_body(json.dumps(body).encode())


def test_a_column_that_only_another_response_has_keeps_its_default(folder):
    def reward(completions, answer="by default", **columns):
        values = [answer] * len(completions) if isinstance(answer, str) else answer
        return [float(len(value)) for value in values]

    scorer = open_scorer(raw=True, reward=reward)
    asked = [
        Asked(key, "teal", tuple(given.messages("a")), columns=columns)
        for key, columns in (("x", {}), ("y", {"answer": "red"}), ("z", {}))
    ]
    alone = [scorer([a])[0] for a in asked]
    assert [a["score"] for a in alone] == [10.0, 3.0, 10.0]
    assert scorer(asked) == alone and scorer(asked[::-1]) == alone[::-1] and scorer([]) == []


def test_a_server_is_asked_apart_for_responses_with_other_columns(folder, monkeypatch):
    sent = []

    def ask(self, body):
        sent.append(body)
        scores = [float(len(r)) for r in body["responses"]]
        return {"rewards": scores, "extra_logs": {"raw_reward": scores}}

    monkeypatch.setattr("infalign.frameworks.scorer.ServerReward.ask", ask)
    scorer = open_scorer(server="http://127.0.0.1:9")
    rows = (("a", {}), ("bb", {"answer": 4}), ("ccc", {}))
    scored = scorer([Asked("a", reply, columns=columns) for reply, columns in rows])
    assert [s["score"] for s in scored] == [1.0, 2.0, 3.0]
    assert [body.get("columns") for body in sent] == [None, {"answer": [4]}]
