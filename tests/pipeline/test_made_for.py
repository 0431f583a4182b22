"""A calibration store that a user names is of the reward and of the prompts in use."""

import json

import pytest
import soak

from infalign import CalibrationStore, Rewind
from infalign.collection import Local, collect
from infalign.config import SamplingSettings
from infalign.errors import DataError
from infalign.frameworks import Asked, open_scorer
from infalign.models.fingerprints import reward_fingerprint
from infalign.pipeline.decoding_work import DecodingWork
from infalign.pipeline.made_for import require_made_for
from infalign.prompts import Prompt, fingerprint

SOURCE = """
def score(completions, **columns):
    return [float(len(c)) for c in completions]
def other(completions, answer=None):
    return [-float(len(c)) for c in completions]
"""


@pytest.fixture
def rewards(tmp_path, monkeypatch):
    """A file of rewards in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "graded.py").write_text(SOURCE)
    return tmp_path


def asked(*texts, **columns):
    return [
        Prompt(str(i), ({"role": "user", "content": text},), columns, plain=True)
        for i, text in enumerate(texts)
    ]


OLD, NEW = asked("one", "two", "three"), asked("one", "TWO", "three")


def stored(prompts=OLD, spec="graded.py:score", **more):
    """A store in memory, as a run makes it."""
    stated = {"reward": reward_fingerprint(spec), "prompts": fingerprint(prompts, spec), **more}
    return CalibrationStore.from_rewards([p.id for p in prompts], [[1, 2, 3]] * 3, stated)


def collected(folder, prompts=OLD, spec="graded.py:score"):
    """A store on disk with its samples."""
    stated = {"reward": reward_fingerprint(spec), "prompts": fingerprint(prompts, spec)}
    engine = Local(lambda: (soak.StandIn(0.0), soak.first_digits))
    collect(prompts, engine, 2, folder, seed=0, provenance=stated, reward=spec)
    return CalibrationStore.open(folder)


def test_a_store_of_the_same_reward_and_prompts_passes_in_silence(rewards, caplog):
    store = collected(rewards / "store")
    caplog.clear()
    require_made_for(stored(), "graded.py:score", OLD)
    require_made_for(stored(), "graded.py:score", OLD[::-1])
    require_made_for(store, "graded.py:score", OLD[1:])
    assert caplog.text == ""


def test_another_reward_is_refused(rewards):
    with pytest.raises(DataError, match=r"was made with reward .*, not "):
        require_made_for(stored(), "graded.py:other", OLD)


def test_other_messages_under_the_same_ids_are_refused(rewards):
    with pytest.raises(DataError, match=r"^Some of the 3 prompts have other messages than"):
        require_made_for(stored(), "graded.py:score", NEW)
    answers = stored(asked("one", "two", "three", answer=4))
    with pytest.raises(DataError, match=r"Some of the 3 prompts .* columns that the reward reads"):
        require_made_for(answers, "graded.py:score", asked("one", "two", "three", answer=5))


def test_some_prompts_of_a_store_are_compared_one_by_one_by_its_samples(rewards):
    store = collected(rewards / "store")
    for reward in ("graded.py:score", None):
        with pytest.raises(DataError, match=r"^1 of 2 prompts, first '1', have other messages"):
            require_made_for(store, reward, NEW[:2])
    answers = collected(rewards / "answers", asked("one", "two", "three", answer=4))
    require_made_for(answers, "graded.py:score", asked("one", "two", answer=4))
    with pytest.raises(DataError, match=r"^2 of 2 prompts, first '0', have other messages"):
        require_made_for(answers, "graded.py:score", asked("one", "two", answer=5))


def test_what_a_store_does_not_say_is_not_refused_and_is_said(rewards, caplog):
    require_made_for(stored(), "graded.py:score", NEW[:2])
    assert "may not be of these prompts, whose ids alone are compared." in caplog.text
    columns = asked("one", "two", "three", answer=4)
    for store in (stored(), collected(rewards / "store")):
        caplog.clear()
        require_made_for(store, "graded.py:score", columns)
        assert "may not be of these columns of the prompts" in caplog.text
    caplog.clear()
    foreign = CalibrationStore.from_rewards(["0"], [[1, 2]], {"prompts": "my own name"})
    require_made_for(foreign, "graded.py:score", NEW)
    assert "may not be of this reward or of these prompts" in caplog.text
    caplog.clear()
    require_made_for(stored(), None, OLD)  # a function, and columns that it might read
    assert "may not be of this reward." in caplog.text
    require_made_for(stored(), None, asked("one", "two", "three", answer=4))
    assert "these prompts" not in caplog.text


def test_a_scorer_of_parts_compares_them(rewards):
    lines = [json.dumps({"prompt_id": p.id, "prompt": p.text}) for p in NEW]
    (rewards / "new.jsonl").write_text("\n".join(lines))
    (rewards / "old.jsonl").write_text("\n".join(lines).replace("TWO", "two"))
    parts = {"store": stored(), "transform": "identity", "reward": "graded.py:score"}
    scorer = open_scorer(**parts, prompts="old.jsonl")
    assert scorer([scorer.resolve(Asked("1", "ab"))])[0]["quantile"] == 0.5
    with pytest.raises(DataError, match="Some of the 3 prompts have other messages"):
        open_scorer(**parts, prompts="new.jsonl")
    with pytest.raises(DataError, match="was made with reward"):
        open_scorer(**parts | {"reward": "graded.py:other"}, prompts="old.jsonl")


def test_decoding_compares_the_prompts_of_its_store(rewards):
    def opened(prompts):
        return DecodingWork(
            model="bundled:language-model",
            procedure=Rewind(0.5, 2),
            prompts=prompts,
            sampling=SamplingSettings(),
            reward="graded.py:score",
            calibration=rewards / "store",
        ).store

    collected(rewards / "store")
    assert opened(OLD[:2]) is not None
    with pytest.raises(DataError, match="1 of 2 prompts, first '1', have other messages"):
        opened(NEW[:2])
