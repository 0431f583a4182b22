"""Ids follow what prompts say: not the name of their file, nor the order of its rows."""

import json
import logging
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infalign.config import Prompts
from infalign.prompts import load_prompts
from infalign.prompts.ids import content_key, share_of

ROWS = st.lists(
    st.fixed_dictionaries({"prompt": st.sampled_from("abc"), "answer": st.integers(0, 1)}),
    min_size=1,
    max_size=8,
)


def read(path, rows, **source):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_prompts(Prompts(file=str(path), **source))


def named(prompts):
    """What each id stands for."""
    return {p.id: (p.messages, p.columns) for p in prompts}


@given(ROWS, st.randoms(use_true_random=False))
def test_neither_the_file_nor_the_order_of_rows_matters(tmp_path_factory, rows, order):
    folder = tmp_path_factory.mktemp("ids")
    known = named(read(folder / "a.jsonl", rows))
    assert len(known) == len(rows)
    moved = random.Random(order.random()).sample(rows, len(rows))
    assert named(read(folder / "b.jsonl", moved)) == known


@given(ROWS, st.sampled_from("de"))
def test_a_row_that_is_inserted_leaves_the_ids_of_others(tmp_path_factory, rows, text):
    path = tmp_path_factory.mktemp("ids") / "a.jsonl"
    known = named(read(path, rows))
    more = named(read(path, [{"prompt": text, "answer": 2}, *rows]))
    assert known.items() <= more.items() and len(more) == len(known) + 1


def test_an_id_is_the_same_in_every_version():
    (text,), (spoken,) = ([{"role": "user", "content": c}] for c in ("How?", "Wie geht’s?"))
    assert content_key([text]) == "p0319ec73cb5b998d"
    assert content_key([spoken]) == "p7a3acda08bc3fc97"


def test_repeated_prompts_get_a_suffix_and_it_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    first, second = read(tmp_path / "a.jsonl", [{"prompt": "a"}, {"prompt": "a"}])
    assert second.id == f"{first.id}-2"
    words = " ".join(caplog.text.split())
    assert (
        f"1 of 2 prompts repeat another one; their ids have a suffix, such as {second.id}" in words
    )
    # With other columns, which a reward may read, the suffix says which row it is.
    rows = [{"prompt": "a", "answer": 1}, {"prompt": "a", "answer": 2}]
    ids = [p.id for p in read(tmp_path / "a.jsonl", rows)]
    assert [p.id for p in read(tmp_path / "a.jsonl", rows[::-1])] == ids[::-1]


def test_given_ids_are_used_as_they_are(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    rows = [
        {"prompt": "a", "prompt_id": 7, "key": "x"},
        {"prompt": "b", "prompt_id": "b 1", "key": "y"},
    ]
    assert [p.id for p in read(tmp_path / "a.jsonl", rows)] == ["7", "b 1"]
    assert "ids follow" not in caplog.text and "suffix" not in caplog.text
    assert [p.id for p in read(tmp_path / "a.jsonl", rows, id_column="key")] == ["x", "y"]


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_shares_are_even(fraction):
    shares = [share_of([{"role": "user", "content": f"Question {i}"}]) for i in range(4000)]
    below = sum(share < fraction for share in shares) / len(shares)
    assert abs(below - fraction) < 4 * (fraction * (1 - fraction) / len(shares)) ** 0.5
