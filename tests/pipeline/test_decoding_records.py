"""Decoded prompts in parts: continued after every interruption, and never mixed with others."""

import json
import logging
import os
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from kills import killed_at

import infalign as ia
from infalign import ConfigError, storage
from infalign.config import SamplingSettings
from infalign.decoding import MajorityVote, load_answers
from infalign.models.interfaces import Response
from infalign.pipeline import decoding_records
from infalign.pipeline.decoding_records import decoded_records
from infalign.pipeline.decoding_work import DecodingWork
from infalign.prompts import Prompt
from infalign.stores import StoreWriter

REWARD = """
from pathlib import Path

def score(prompts, completions, prompt_id, weight):
    if (Path(__file__).parent / "broken").exists() and "p4" in prompt_id:
        raise OSError("no connection")
    return [len(c[0]["content"]) / 7 for c in completions]

def answer(text):
    return len(text)
"""
PROMPTS = [
    Prompt(f"p{i}", ({"role": "user", "content": f"q{i}"},), {"weight": 1}) for i in range(7)
]
SIZE = 2


class Sampler:
    """Texts that depend on the prompt and on the number of the draw; notes the prompts asked."""

    strip, answer = False, "whole"

    def __init__(self, asked):
        self.asked = asked

    def sample(self, conversations, n, *, seed, keys):
        self.asked += keys
        texts = ("x", "x\x1b", "x\x1b\ud83d")
        return [[Response(texts[(k + int(i[1:])) % 3], -k / 3) for k in range(n)] for i in keys]


@pytest.fixture
def asked(monkeypatch):
    """The ids of the prompts that were drawn for, in order."""
    own: list[str] = []
    monkeypatch.setattr("infalign.models.samplers.load_sampler", lambda *a, **k: Sampler(own))
    monkeypatch.setattr(decoding_records, "TOGETHER", 2 * SIZE)
    return own


@pytest.fixture
def work(tmp_path, asked):
    """Seven prompts in parts of two."""
    (tmp_path / "lengths_of_parts.py").write_text(REWARD)
    return DecodingWork(
        model="bundled:language-model",
        procedure=ia.BestOfN(2),
        prompts=PROMPTS,
        sampling=SamplingSettings(),
        reward=f"{tmp_path / 'lengths_of_parts.py'}:score",
        out=tmp_path / "out.jsonl",
        seed=3,
    )


def decoded(work, **changes):
    """The records of a new call with this work, and the file that it writes."""
    own = replace(work, **changes)

    def write(records):
        storage.write_text(own.out, "".join(json.dumps(r) + "\n" for r in records))

    return decoded_records(own, write, lambda step, done, total: None)


@pytest.fixture
def unfinished(work, tmp_path):
    """The work, of which the first two parts are stored: the reward failed on the third."""
    (tmp_path / "broken").touch()
    with pytest.raises(ia.DataError, match="no connection"):
        decoded(work)
    (tmp_path / "broken").unlink()
    return work


def test_parts_give_what_one_call_gives_and_leave_nothing_beside_the_file(
    work, tmp_path, monkeypatch
):
    before = set(tmp_path.iterdir())
    records = decoded(work)
    assert [r["prompt_id"] for r in records] == [p.id for p in PROMPTS]
    assert set(tmp_path.iterdir()) == before | {work.out}
    written = work.out.read_bytes()
    assert decoded(work, out=None) == records
    monkeypatch.setattr(decoding_records, "TOGETHER", 1000)
    assert decoded(work) == records and work.out.read_bytes() == written
    assert set(tmp_path.iterdir()) == before | {work.out}


def test_a_slow_model_makes_smaller_parts(work, monkeypatch):
    done = []
    monkeypatch.setattr(decoding_records, "block_of", lambda model, tokens, batch_size: 3)
    decoded_records(replace(work, out=None), lambda rows: None, lambda s, n, total: done.append(n))
    assert done == list(range(len(PROMPTS) + 1))


def test_a_kill_at_any_file_operation_changes_no_byte(work, asked, tmp_path):
    before = set(tmp_path.iterdir())
    decoded(work)
    expected = work.out.read_bytes()
    writes = [(storage, n) for n in ("save_table", "write_json", "write_text", "sync_folder")]
    removes = [(os, "unlink"), (os, "rmdir"), (Path, "unlink"), (Path, "rmdir")]
    for operation in count():
        work.out.unlink()
        asked.clear()
        with killed_at(operation, *writes, *removes) as kill:
            decoded(work)
        finished = work.out.exists()
        decoded(work)
        assert work.out.read_bytes() == expected and set(tmp_path.iterdir()) == before | {work.out}
        assert finished or len(asked) <= len(PROMPTS) + SIZE
        if not kill.came:
            break
    assert operation > 40


def test_a_reward_that_fails_loses_its_part_only(unfinished, asked, caplog, tmp_path):
    (tmp_path / "broken").touch()
    asked.clear()
    with caplog.at_level(logging.INFO), pytest.raises(ia.DataError, match="no connection"):
        decoded(unfinished)
    folder = f"{unfinished.out}.parts"
    assert asked == ["p4", "p5"] and not unfinished.out.exists()
    assert [r.getMessage() for r in caplog.records] == [
        f"Continues in {folder}, with 4 of 7 prompts done.",
        f"4 of 7 prompts are done, in {folder}. The same command continues there.",
    ]
    (tmp_path / "broken").unlink()
    asked.clear()
    records = decoded(unfinished)
    assert asked == ["p4", "p5", "p6"] and decoded(unfinished, out=None) == records


def vote(answers):
    return {"procedure": MajorityVote(2, load_answers(answers)), "answers": answers, "reward": None}


CHANGES = {
    "seed": ({"seed": 4}, "seed 3, not 4"),
    "sampling": ({"sampling": SamplingSettings(top_p=0.5)}, "top_p 1.0, not 0.5"),
    "procedure": ({"procedure": ia.WorstOfN(2)}, "procedure 'best-of-n:2', not 'worst-of-n:2'"),
    "number": ({"prompts": PROMPTS[:6]}, "number of prompts 7, not 6"),
    "order": ({"prompts": PROMPTS[::-1]}, "the content of the prompts, which changed"),
    "columns": (
        {"prompts": [replace(p, columns={"weight": 2}) for p in PROMPTS]},
        "the prompt columns of the reward, which changed",
    ),
    "reward": ({"reward": "bundled:helpful"}, "lengths_of_parts.py:score', not 'bundled:helpful'"),
    "precision": ({"dtype": "bfloat16"}, "the precision of the model, which changed"),
    "votes": (vote("numeric"), "answers '', not 'numeric'"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_parts_of_other_settings_are_refused_and_stay(unfinished, asked, change):
    changed, words = CHANGES[change]
    asked.clear()
    with pytest.raises(ConfigError) as refused:
        decoded(unfinished, **changed)
    message = str(refused.value)
    assert message.startswith(f"{unfinished.out}.parts holds 4 prompts that were done with other")
    assert words in message and message.endswith("or remove that folder to start anew.")
    assert asked == [] and not unfinished.out.exists()
    decoded(unfinished)
    assert asked == ["p4", "p5", "p6"]


def test_a_reward_with_other_code_does_not_continue(unfinished, tmp_path):
    (tmp_path / "lengths_of_parts.py").write_text(REWARD.replace("/ 7", "/ 8"))
    with pytest.raises(ConfigError, match="the source code of the reward, which changed"):
        decoded(unfinished)


def test_answers_of_other_code_do_not_continue(work, tmp_path, asked):
    changed = vote(f"{tmp_path / 'lengths_of_parts.py'}:answer")
    with killed_at(2, (storage, "write_json")) as kill:
        decoded(work, **changed)
    assert kill.came and asked
    (tmp_path / "lengths_of_parts.py").write_text(REWARD.replace("len(text)", "1"))
    with pytest.raises(ConfigError, match="the source code of the answers, which changed"):
        decoded(work, **changed)


def test_a_store_with_other_rewards_does_not_continue(work, tmp_path, asked):
    def store(name, reward):
        writer = StoreWriter(tmp_path / name, {}, 7)
        writer.add([p.id for p in PROMPTS], [["x"]] * 7, [[reward]] * 7)
        return tmp_path / name

    own = {"procedure": ia.Rewind(0.4, 2), "calibration": store("a", 0.1)}
    with killed_at(2, (storage, "write_json")) as kill:
        decoded(work, **own)
    assert kill.came and asked
    with pytest.raises(ConfigError, match=r"calibration '.*a', not '.*b'"):
        decoded(work, **own | {"calibration": store("b", 0.2)})
    copy = decoded(work, **own | {"calibration": store("c", 0.1)})  # moved, with the same rewards
    assert copy == decoded(work, out=None, **own)


def test_files_of_others_in_the_folder_stay(unfinished):
    other = storage.parts_of(unfinished.out) / "notes.txt"
    other.write_text("mine")
    decoded(unfinished)
    assert [p.name for p in other.parent.iterdir()] == ["notes.txt"]


def test_one_part_continues_what_is_there(unfinished, asked, monkeypatch):
    monkeypatch.setattr(decoding_records, "TOGETHER", 1000)
    asked.clear()
    decoded(unfinished)
    assert asked == ["p4", "p5", "p6"] and not storage.parts_of(unfinished.out).exists()
