"""Stored samples joined to prompts by id, whatever the order of the files."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infalign import DataError
from infalign.stores import StoreWriter, by_prompt, samples_of


def table(rows):
    """Rows of (prompt, sample, reward) as a table of samples."""
    ids, numbers, rewards = zip(*rows, strict=True)
    return pa.table(
        {"prompt_id": ids, "sample": numbers, "reward": pa.array(rewards, pa.float64())}
    )


def test_by_hand():
    samples = table([("b", 1, 4.0), ("a", 0, 1.0), ("c", 0, 9.0), ("b", 0, None), ("a", 1, 2.0)])
    joined = by_prompt(samples, ["a", "b"], source="x")
    assert joined.rows("reward") == [[1.0, 2.0], [None, 4.0]]
    assert np.array_equal(joined.matrix("reward"), [[1, 2], [np.nan, 4]], equal_nan=True)
    assert by_prompt(samples, ["b", "c", "a"], source="x").rows("sample") == [[0, 1], [0], [0, 1]]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_rows_says_nothing(counts, random):
    rows = [(f"p{i}", k, 10.0 * i + k) for i, count in enumerate(counts) for k in range(count)]
    asked = [f"p{i}" for i in range(len(counts))]
    random.shuffle(asked)
    random.shuffle(rows)
    joined = by_prompt(table(rows), asked, source="x")
    expected = [[10.0 * int(p[1:]) + k for k in range(counts[int(p[1:])])] for p in asked]
    assert joined.rows("reward") == expected and joined.counts.tolist() == list(map(len, expected))


def test_without_a_column_of_sample_numbers_rows_keep_their_order():
    verdicts = pa.table({"prompt_id": ["b", "a", "b"], "won": [1, 0, 0]})
    assert by_prompt(verdicts, ["a", "b"], source="x").rows("won") == [[0], [1, 0]]


def test_a_store_is_read_in_the_order_asked_for(tmp_path):
    with StoreWriter(tmp_path, {}) as out:
        out.add(["a"], [["x", "y"]], [[2.0, 1.0]], {"logprob": [-1.0, -2.0]})
        out.add(
            ["b", "c"], [["z", "v"], ["w", "u"]], [[3.0, 0.0], [5.0, 4.0]], {"logprob": [0.0] * 4}
        )
    joined = samples_of(tmp_path, ["c", "a"], ["logprob", "reward"])
    assert joined.matrix("reward").tolist() == [[5.0, 4.0], [2.0, 1.0]]  # as drawn, not sorted
    assert joined.matrix("logprob").tolist() == [[0.0, 0.0], [-1.0, -2.0]]
    assert samples_of(tmp_path, ["b"]).rows("completion") == [["z", "v"]]


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (["a", "x", "y"], r"^it has no samples of prompt_id 'x' \(2 of 3 prompts are missing\)"),
        (["a", "b", "a"], "'a' occurs more than once"),
    ],
)
def test_what_cannot_be_joined_is_named(asked, error):
    with pytest.raises(DataError, match=error):
        by_prompt(table([("a", 0, 1.0), ("b", 0, 1.0)]), asked, source="it")


def test_a_matrix_needs_equally_many_samples_of_every_prompt():
    joined = by_prompt(table([("a", 0, 1.0), ("b", 0, 1.0), ("b", 1, 1.0)]), ["a", "b"], source="x")
    with pytest.raises(DataError, match=r"got 2 for prompt_id 'b' and 1 for 'a' .1 of 2 differ"):
        joined.matrix("reward")
