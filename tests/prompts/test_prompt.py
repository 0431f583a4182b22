"""Fingerprints of prompts: scores come also from what a reward may read of a prompt."""

from dataclasses import replace
from datetime import date

import pytest

from infalign.config import load_config
from infalign.pipeline.folder import Run
from infalign.prompts import Prompt, columns_fingerprint, fingerprint, read_by
from infalign.red_team import Campaign
from infalign.stores.prompt_sets import union

SOURCE = """
from functools import cache, partial
def answers(completions, answer): ...
async def waits(prompts, *, answer): ...
def every(completions, **columns): ...
@cache
def wrapped(completions, answer): ...
again = partial(answers, answer=1)
def twice(completions): ...
def twice(completions, answer): ...
class Kind:
    def method(self, completions): ...
method = Kind().method
def nothing(prompts, completions): ...
if True:
    def inner(completions): ...
"""
ASKED = ({"role": "user", "content": "1 + 1?"},)
TEXT = Prompt("a", ASKED, {"answer": 2, "source": "x", "when": date(2026, 1, 1)}, plain=True)
CHANGES = {
    "answer": replace(TEXT, columns={**TEXT.columns, "answer": 3}),
    "source": replace(TEXT, columns={**TEXT.columns, "source": "y"}),
    "form": replace(TEXT, plain=False),
}
READ = {
    "python:mine:answers": {"answer", "form"},
    "python:mine:waits": {"answer", "form"},
    "mine.py:nothing": {"form"},
    "reward:python:mine:answers": {"answer", "form"},
    # Where the source does not say what is read, everything may be.
    **{
        f"python:mine:{name}": set(CHANGES)
        for name in ("every", "wrapped", "again", "twice", "method", "inner")
    },
    "http://127.0.0.1:9/score": set(CHANGES),
    "bundled:helpful": set(),
    "http://127.0.0.1:9/v1#judge": set(),
}


@pytest.fixture(autouse=True)
def _module(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("reward", "read"), READ.items(), ids=READ)
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_counts_where_the_reward_may_read_it(reward, read, change):
    before, after = [TEXT], [CHANGES[change]]
    assert (fingerprint(before, reward) != fingerprint(after, reward)) == (change in read)
    known = [columns_fingerprint(p, reward) for p in (before, after)]
    assert (known[0] != known[1]) == (change in read)
    assert fingerprint(before) == fingerprint(after)


def test_what_is_read_keeps_the_fingerprint_of_a_set():
    prompts, reward = [TEXT, replace(CHANGES["answer"], id="b")], "python:mine:every"
    whole = fingerprint(prompts, reward)
    assert whole == fingerprint(prompts[::-1], reward)
    assert whole == union([fingerprint([p], reward) for p in prompts])


def test_texts_without_columns_have_the_fingerprint_that_they_always_had():
    text = replace(TEXT, columns={})
    assert fingerprint([text], "python:mine:every") == fingerprint([text])


CONFIG = """
model: bundled:language-model
reward: python:mine:answers
prompts: {file: prompts.jsonl}
kl: 0.5
"""


def test_a_changed_answer_is_another_calibration_another_score_and_another_attack(tmp_path):
    (tmp_path / "run.yaml").write_text(CONFIG)
    seen = []
    for answer, source in ((2, "x"), (2, "y"), (3, "x")):
        row = f'"answer": {answer}, "source": "{source}"'
        lines = [f'{{"prompt": "1 + 1?", "split": "{s}", {row}}}' for s in ("train", "test")]
        (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
        run = Run(load_config(tmp_path / "run.yaml"), tmp_path / "run")
        campaign = Campaign(run.config.model, {"none": ()}, run.config.reward, threshold=0.0)
        attacked = campaign.origin("none", run.prompts)
        scored = read_by(run.prompts, run.config.reward)  # noted beside stored scores
        parts = scored, attacked.sources["reward"].parts
        others = attacked.settings, read_by(run.prompts, "bundled:helpful")
        seen.append((run.fingerprints["prompts"], *parts, others))
    same, changed = seen[1], seen[2]
    assert seen[0] == same  # nothing reads the source
    for before, after in zip(same[:3], changed[:3], strict=True):
        assert before != after
    assert same[3] == changed[3]  # the samples and another reward's scores stay
