"""JSON files: lists, objects with a list, splits, columns; what is unclear is refused by name."""

import gzip
import json

import pytest

from infalign import DataError
from infalign.config import Prompts
from infalign.prompts import load_prompts

ROWS = [{"prompt": "a", "n": 1}, {"prompt": "b", "n": 2}]
TURNS = [{"role": "user", "content": "a"}]


def read(path, value, **source):
    data = value if isinstance(value, bytes) else json.dumps(value, indent=1).encode()
    path.write_bytes(data)
    return load_prompts(Prompts(file=str(path), **source))


FORMS = {
    "array": ROWS,
    "object with a list": {"version": 3, "data": ROWS},
    "columns": {"prompt": ["a", "b"], "n": [1, 2]},
    "splits": {"train": ROWS, "test": [{"prompt": "c", "n": 3}]},
    "json lines by another name": b'{"prompt": "a", "n": 1}\n{"prompt": "b", "n": 2}\n',
    "gzip": gzip.compress(json.dumps(ROWS).encode()),
}


@pytest.mark.parametrize("value", FORMS.values(), ids=FORMS)
def test_forms_of_json_are_read_alike(tmp_path, value):
    prompts = read(tmp_path / ("a.json.gz" if value is FORMS["gzip"] else "a.json"), value)
    assert [(p.text, p.columns) for p in prompts] == [("a", {"n": 1}), ("b", {"n": 2})]


def test_an_array_is_read_by_any_name_and_splits_by_theirs(tmp_path):
    assert len(read(tmp_path / "a.jsonl", ROWS)) == 2
    assert [p.text for p in read(tmp_path / "a.json", FORMS["splits"], split="test")] == ["c"]


@pytest.mark.parametrize("value", [["a", "b"], {"prompts": ["a", "b"]}])
def test_a_list_of_texts_is_a_list_of_prompts(tmp_path, value):
    assert [p.text for p in read(tmp_path / "a.json", value)] == ["a", "b"]


def test_one_object_is_one_prompt(tmp_path):
    rows = {"prompt": "a"}, {"prompt": TURNS}, {"messages": TURNS, "tags": ["x"]}
    for value in (*rows, {"prompt": "a", "tags": ["x", "y"]}):
        (prompt,) = read(tmp_path / "a.json", value)
        assert prompt.text == "a"


REFUSED = {
    "text": ("How?", "must hold a list of prompts.* got 'How"),
    "two lists": (
        {"good": ROWS, "bad": ROWS[:1]},
        "an object with 2 lists, good, bad, .*not clear",
    ),
    "columns of other lengths": (
        {"prompts": ["a", "b", "c"], "answers": ["1", "2"]},
        r"one list per column, of different lengths: prompts 3, answers 2.* one object per prompt",
    ),
    "a column beside objects": (
        {"data": ROWS, "answers": ["1", "2", "3"]},
        "different lengths: data 2, answers 3",
    ),
    "pandas": ({"prompt": {"0": "a"}}, 'one object per column, prompt, .*orient="records"'),
    "other texts": ({"files": ["a", "b"]}, "no column has the name .* Its columns are files"),
    "mixed": ([{"prompt": "a"}, 3], "row 2: neither an object nor a text: 3"),
    "lists": ([["a"]], "row 1: neither an object nor a text"),
    "nan": (b'[{"prompt": "a",\n "x": NaN}]', "JSON has no NaN; write null"),
    "twice": (b'[{"prompt": "a", "prompt": "b"}]', "'prompt' occurs twice in one object"),
    "broken": (b'[{"prompt": "a"},\n{"prompt" "b"}]', "line 2: not JSON .*column 11"),
    "nothing": ([], "holds no prompts with split 'train'"),
}


@pytest.mark.parametrize(("value", "words"), REFUSED.values(), ids=REFUSED)
def test_anything_else_is_named_with_file_and_remedy(tmp_path, value, words):
    with pytest.raises(DataError, match=f"(?s)rows.json.*{words}") as error:
        read(tmp_path / "rows.json", value)
    assert len(str(error.value)) < 600
