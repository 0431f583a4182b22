"""Comma- and tab-separated files: every text comes back, everything else is refused by line."""

import csv
import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infalign import DataError
from infalign.config import Prompts
from infalign.prompts import load_prompts

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.text(CHARACTERS).filter(lambda text: text.strip() and not text.lstrip().startswith("["))
"""Texts of cells. What starts as a list of messages does is read as one, or refused."""


def written(rows, delimiter=",", **form):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, **form).writerows(rows)
    return text.getvalue().encode()


def read(path, data, **source):
    path.write_bytes(data)
    return load_prompts(Prompts(file=str(path), **source))


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.tsv", "\t")])
@given(texts=st.lists(st.tuples(TEXTS, TEXTS), min_size=1))
def test_every_text_comes_back_as_it_was_written(tmp_path_factory, name, delimiter, texts):
    rows = [("prompt", "answer"), *texts]
    prompts = read(tmp_path_factory.mktemp("files") / name, written(rows, delimiter))
    assert [(p.text, p.columns["answer"]) for p in prompts] == texts


def test_cells_are_texts_and_empty_cells_have_no_value(tmp_path):
    rows = [("prompt", "prompt_id", "split", "answer"), ("How?", "007", "", "1.50")]
    for name, data in (("a.csv", written(rows)), ("a.csv.gz", gzip.compress(written(rows)))):
        (prompt,) = read(tmp_path / name, data, split="test")
        assert prompt.id == "007" and prompt.columns == {"answer": "1.50"} and prompt.plain
    (prompt,) = read(tmp_path / "b.csv", b"\xef\xbb\xbfprompt,answer\r\nHow?,\r\n\r\n")
    assert prompt.columns == {"answer": None}


def test_messages_in_a_cell_are_read_from_json(tmp_path):
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": 'A "b"?'}]
    (prompt,) = read(tmp_path / "a.csv", written([["prompt"], [json.dumps(turns)]]))
    assert list(prompt.messages) == turns and not prompt.plain
    with pytest.raises(DataError, match=r"line 2: `prompt` is a list of messages .* as one text"):
        read(tmp_path / "a.csv", written([["prompt"], [str(turns)]]))


def test_the_index_that_pandas_writes_is_left_out(tmp_path):
    (prompt,) = read(tmp_path / "a.csv", b",prompt,answer\n0,How?,4\n")
    assert prompt.text == "How?" and prompt.columns == {"answer": "4"}


def test_a_prompt_may_be_longer_than_pythons_own_limit(tmp_path):
    (prompt,) = read(tmp_path / "a.csv", written([["prompt"], ["a" * 200_000]]))
    assert len(prompt.text) == 200_000


REFUSED = {
    "too many cells": (b'prompt,a\n"b\nc",d\ne, f,g\n', r"line 4: 3 cells for 2 columns \(prompt"),
    "too few cells": (b"prompt,a\nb\n", "line 2: 1 cells for 2 columns"),
    "open quote": (b'prompt,a\nb,c\n"d,e\n', "line 3: not a row of a table"),
    "quote inside": (b'prompt,a\n"d"x,e\n', "line 2: not a row of a table .*doubled"),
    "two of a name": (b"prompt,a,a\nb,c,d\n", "line 1: the column 'a' occurs twice"),
    "no name": (b"prompt,\nb,c\n", "line 1: column 2 has no name"),
    "semicolons": (b"prompt;a\nb;c\n", "line 1: one column, 'prompt;a'.*Separate them by ','"),
    "tabs": (b"prompt\ta\nb\tc\n", "line 1: one column.*Name the file .tsv"),
    "no header": (b"How do I bake?\nWhy?\n", "line 2: no column has the name of a prompt"),
    "header alone": (b"prompt\n", "holds no prompts with split 'train'"),
    "empty": (b"", "holds no prompts with split 'train'"),
    "empty prompt": (b"prompt,a\n,b\nc,d\n", "line 2: `prompt` must be a text .* got None"),
    "latin-1": ("prompt\nä\n".encode("latin-1"), "line 2: byte 0xe4 is not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_table_is_named_with_file_line_and_remedy(tmp_path, data, words):
    with pytest.raises(DataError, match=f"(?s)rows.csv.*{words}") as error:
        read(tmp_path / "rows.csv", data)
    assert len(str(error.value)) < 600
