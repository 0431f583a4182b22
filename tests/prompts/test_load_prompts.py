"""Prompts from files and from data sets, a local folder standing for the hub's."""

import json

import pytest

from infalign import DataError
from infalign.config import Prompts, parse_config
from infalign.prompts import Prompt, fingerprint, load_prompts, run_prompts
from infalign.prompts.ids import content_key
from infalign.stores.prompt_sets import union


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(**source):
    return {p.id: p.text for p in load_prompts(Prompts(**source))}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data set with two splits, only one of which has prompt ids."""
    import datasets

    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [{"prompt": f"Question {i}?", "prompt_id": f"q{i}"} for i in range(3)]
    write(tmp_path / "talks/train.jsonl", rows)
    write(tmp_path / "talks/test.jsonl", [{"prompt": "And then?"}, {"prompt": "Why?"}])
    return tmp_path / "talks"


def test_a_data_set_is_read_by_split_and_limit(folder):
    assert read(dataset=str(folder)) == {
        "q0": "Question 0?",
        "q1": "Question 1?",
        "q2": "Question 2?",
    }
    assert read(dataset=str(folder), limit=2) == {"q0": "Question 0?", "q1": "Question 1?"}
    # Without ids of its own a prompt goes by its text.
    named = {content_key([{"role": "user", "content": t}]): t for t in ("And then?", "Why?")}
    assert read(dataset=str(folder), split="test") == named


def test_held_out_prompts_come_from_the_other_split_of_the_same_data_set(folder):
    given = {"model": "m", "reward": "r", "kl": 0.5, "prompts": {"dataset": str(folder)}}
    config = parse_config(given)
    assert [p.id for p in load_prompts(config.prompts)] == ["q0", "q1", "q2"]
    assert [p.text for p in load_prompts(config.test_prompts)] == ["And then?", "Why?"]


def test_preference_pairs_in_folders_give_the_conversation_before_the_last_reply(folder):
    # The shape of Anthropic/hh-rlhf: a folder for each part, the prompt inside the transcripts.
    start = "\n\nHuman: Hello\n\nAssistant: Hi\n\nHuman: How long?"
    pair = {"chosen": f"{start}\n\nAssistant: Short.", "rejected": f"{start}\n\nAssistant: No."}
    write(folder.parent / "hh/helpful-base/train.jsonl", [pair])
    (prompt,) = load_prompts(Prompts(dataset=str(folder.parent / "hh"), config="helpful-base"))
    assert [m["role"] for m in prompt.messages] == ["user", "assistant", "user"]
    assert [m["content"] for m in prompt.messages] == ["Hello", "Hi", "How long?"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            {"split": "valid"},
            r"talks holds no prompts with split 'valid'; its splits are train \(3",
        ),
        ({"config": "nope"}, r"talks/nope', split 'train', cannot be read"),
        (
            {"column": "question"},
            r"talks, row 0: there is no column `question`. Its columns are .* --column of",
        ),
    ],
)
def test_a_data_set_that_cannot_be_used_is_named(folder, source, words):
    with pytest.raises(DataError, match=words):
        read(dataset=str(folder), **source)


def test_a_data_set_that_cannot_be_found_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere', split 'train', cannot be read: "):
        read(dataset=str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"'who/nothing', split 'train', cannot be read: "):
        read(dataset="who/nothing")


def test_a_fingerprint_is_that_of_the_set():
    first, *rest = (Prompt(f"p{i}", ({"role": "user", "content": f"q{i}"},)) for i in range(4))
    whole = fingerprint([first, *rest])
    assert whole == fingerprint([*rest[::-1], first])
    assert whole == union([fingerprint(rest), fingerprint([first])])
    for other in (Prompt("p9", first.messages), Prompt(first.id, rest[0].messages)):
        assert fingerprint([other, *rest]) != whole
    assert fingerprint(rest) != whole


def test_a_prompt_has_the_other_columns_of_its_row_and_the_form_of_its_own(tmp_path):
    messages = [{"role": "user", "content": "2 + 2?"}]
    rows = [
        {"question": "1 + 1?", "prompt_id": "a", "split": "train", "answer": 2, "tests": ["x"]},
        {"question": messages, "prompt": "other", "split": "test"},
    ]
    write(tmp_path / "p.jsonl", rows)
    source = {"file": str(tmp_path / "p.jsonl"), "column": "question"}
    (first,), (second,) = (load_prompts(Prompts(**source, split=s)) for s in ("train", "test"))
    assert first.value == "1 + 1?" and second.value == messages
    # Every prompt has the columns of the whole source, whichever rows are read.
    assert first.columns == {
        "question": "1 + 1?",
        "answer": 2,
        "tests": ["x"],
        "prompt": None,
    }
    assert second.columns == {
        "question": messages,
        "answer": None,
        "tests": None,
        "prompt": "other",
    }


def test_the_prompt_itself_is_no_column(tmp_path):
    write(tmp_path / "p.jsonl", [{"prompt": "1 + 1?", "answer": 2}])
    (prompt,) = load_prompts(Prompts(file=str(tmp_path / "p.jsonl")))
    assert prompt.columns == {"answer": 2}


@pytest.fixture
def several(folder):
    """A data set of two configurations, without a split for evaluation."""
    root = folder.parent / "several"
    for name in "ab":
        write(root / f"{name}.jsonl", [{"question": f"What is {name} + {i}?"} for i in range(40)])
    files = "".join(f"- config_name: {name}\n  data_files: {name}.jsonl\n" for name in "ab")
    (root / "README.md").write_text(f"---\nconfigs:\n{files}---\n")
    return str(root)


def test_a_configuration_is_chosen_by_name_and_never_for_the_user(several):
    assert set(read(dataset=several, config="b", limit=2).values()) == {
        "What is b + 0?",
        "What is b + 1?",
    }
    with pytest.raises(
        DataError, match=r"has 2 configurations: a, b\. Name one with `prompts.config`"
    ):
        read(dataset=several)


def test_a_data_set_without_a_test_split_is_divided_and_slices_are_taken_as_they_are(several):
    given = {"model": "m", "reward": "r", "kl": 0.5}
    source = {"dataset": several, "config": "a"}
    run = run_prompts(parse_config(given | {"prompts": source | {"test_fraction": 0.3}}))
    assert len(run.train) + len(run.test) == 40 and 2 < len(run.test) < 25
    sliced = {
        "prompts": source | {"split": "train[:30]"},
        "evaluate": {"prompts": {"split": "train[30:]"}},
    }
    run = run_prompts(parse_config(given | sliced))
    assert (len(run.train), len(run.test)) == (30, 10)
