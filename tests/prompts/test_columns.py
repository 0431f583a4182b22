"""Which columns make the prompt: named, or by their usual names; unclear ones are refused."""

import json
import logging

import pytest

from infalign import ConfigError, DataError
from infalign.config import Prompts, read_section
from infalign.prompts import load_prompts
from infalign.prompts.columns import CONVERSATIONS, NAMES, SYSTEM

USER = {"role": "user", "content": "How?"}
REPLY = {"role": "assistant", "content": "So."}
KIND = {"role": "system", "content": "Be kind."}


def read(path, *rows, **source):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_prompts(Prompts(file=str(path), **source))


@pytest.mark.parametrize("name", ["prompt", *NAMES])
@pytest.mark.parametrize("written", [str, str.capitalize, str.upper])
@pytest.mark.parametrize("value", ["How?", [USER]])
def test_a_prompt_goes_by_its_usual_names(tmp_path, caplog, name, written, value):
    caplog.set_level(logging.INFO)
    row = {written(name): value, "answer": 4, "prompt_id": "a"}
    (prompt,) = read(tmp_path / "a.jsonl", row)
    assert list(prompt.messages) == [USER] and prompt.columns["answer"] == 4
    assert prompt.plain == (value == "How?")
    assert (f"column `{written(name)}`" in caplog.text) == (written(name) != "prompt")


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("replies", [[], [REPLY]])
@pytest.mark.parametrize("stated", [False, True])
def test_conversations_are_read_without_the_reply_at_their_end(tmp_path, name, replies, stated):
    source = {"column": name} if stated else {}
    (prompt,) = read(tmp_path / "a.jsonl", {name: [USER, *replies], "n": 1}, **source)
    assert list(prompt.messages) == [USER] and not prompt.plain


def test_the_column_prompt_is_taken_before_all_others(tmp_path):
    row = {"prompt": "How?", "question": "Why?", "messages": [USER, REPLY], "chosen": "a"}
    (prompt,) = read(tmp_path / "a.jsonl", row)
    assert prompt.text == "How?" and prompt.columns["question"] == "Why?"


def test_a_pair_is_read_if_no_other_column_has_the_prompt(tmp_path):
    pair = {"chosen": [USER, REPLY], "rejected": [USER, {**REPLY, "content": "No."}]}
    (prompt,) = read(tmp_path / "a.jsonl", pair)
    assert list(prompt.messages) == [USER] and prompt.columns == pair
    (prompt,) = read(tmp_path / "a.jsonl", {"question": "Why?", "chosen": "b", "rejected": "c"})
    assert prompt.text == "Why?"


def test_an_empty_column_is_no_candidate(tmp_path):
    # Alpaca's form: most instructions have no input.
    (prompt,) = read(tmp_path / "a.jsonl", {"instruction": "Sing.", "input": "", "output": "La"})
    assert prompt.text == "Sing."


REFUSED = {
    "two names": ([{"instruction": "Add.", "input": "1, 2"}], {},
                  "line 1: several columns have the name of a prompt: `instruction`, `input`. "),
    "no name": ([{"a": 1, "b": 2}], {}, "line 1: no column has the name .* Its columns are a, b"),
    "wrong name": ([{"a": 1}], {"column": "c"},
                   "line 1: there is no column `c`. Its columns are a"),
    "some lack it": ([{"prompt": "a"}, {"b": 1}, {"b": 2}], {},
                     "line 2: `prompt` must be .* got None .2 of 3 rows cannot be used."),
    "numbers": ([{"prompt": 3}], {}, "line 1: `prompt` must be a text or a list .* got 3"),
    "reply at the end": ([{"prompt": [USER, REPLY]}], {}, "Remove the last reply"),
    "no id column": ([{"prompt": "a"}], {"id_column": "key"},
                     "no column `key`, which .*id_column"),
    "two systems": ([{"prompt": "a", "system": "b", "system_prompt": "c"}], {},
                    "line 1: several columns .* system message: `system`, `system_prompt`"),
    "no system column": ([{"prompt": "a"}], {"system_column": "b"},
                         "no column `b`, which .*system"),
    "system is no text": ([{"prompt": "a", "system": 3}], {},
                          "`system`, that must be a text; got 3"),
    "system twice": ([{"prompt": [KIND, USER]}], {"system": "Be brief."},
                     "begins with a system message of its own, 'Be kind.'"),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "source", "words"), REFUSED.values(), ids=REFUSED)
def test_columns_that_are_unclear_are_refused_by_name(tmp_path, rows, source, words):
    with pytest.raises(DataError, match=f"rows.jsonl, {words}|rows.jsonl.*{words}") as error:
        read(tmp_path / "rows.jsonl", *rows, **source)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("name", SYSTEM)
def test_system_messages_come_from_a_column_or_a_setting(tmp_path, caplog, name):
    caplog.set_level(logging.INFO)
    rows = [{"prompt": "How?", name: "Be kind."}, {"prompt": "Why?", name: None}]
    first, second = read(tmp_path / "a.jsonl", *rows)
    assert list(first.messages) == [KIND, USER] and not first.plain
    assert second.plain and second.text == "Why?"
    assert f"system messages in `{name}`" in caplog.text
    (first, _) = read(tmp_path / "a.jsonl", *rows, system_column="")
    assert list(first.messages) == [USER] and first.plain and first.columns == {name: "Be kind."}
    (first, second) = read(tmp_path / "a.jsonl", *rows, system="Be brief.")
    assert [p.messages[0]["content"] for p in (first, second)] == ["Be brief."] * 2


def test_a_setting_and_a_column_of_system_messages_exclude_each_other():
    with pytest.raises(ConfigError, match="either `system` or `system_column`, not both"):
        read_section(Prompts, {"file": "a", "system": "b", "system_column": "c"})
