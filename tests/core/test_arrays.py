"""Arrays of every kind are read for the numbers that they hold, or refused by name."""

import array
import collections
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
import torch

import infalign as ia
from infalign import _check
from infalign.errors import ArgumentError

NAN = np.nan
LOOP: list = []
LOOP.append(LOOP)


class Float:
    def __float__(self):
        return 2.5


class Broken:
    def __array__(self, *arguments, **settings):
        raise AttributeError("no data")


READ = {
    "bfloat16": (torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16), [[1, 2]]),
    "a gradient": (torch.ones(1, 2, requires_grad=True), [[1, 1]]),
    "a list of tensors": ([torch.ones(2, requires_grad=True), torch.zeros(2)], [[1, 1], [0, 0]]),
    "truth values": ([[True, False]], [[1, 0]]),
    "a series of lists": (pd.Series([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    "pandas NA": (pd.DataFrame({"s": pd.array([True, None], "boolean")}), [[1], [NAN]]),
    "columns of several types": (pd.DataFrame({"a": [1, 2], "b": [True, False]}), [[1, 1], [2, 0]]),
    "categories": (pd.Series([1, 2], dtype="category"), [1, 2]),
    "Arrow": (pa.array([1, None, 3]), [1, NAN, 3]),
    "lists of Arrow": (pa.chunked_array([[[1, 2]], [[3, 4]]]), [[1, 2], [3, 4]]),
    "masked": (np.ma.array([1, 2], mask=[False, True]), [1, NAN]),
    "exact numbers": ([Decimal("1.5"), Fraction(1, 2), 2**63, -1], [1.5, 0.5, 2.0**63, -1]),
    "None": ([[1, None]], [[1, NAN]]),
    "a buffer": (memoryview(array.array("d", [1, 2])), [1, 2]),
    "a deque": (collections.deque([1, 2]), [1, 2]),
    "an object with a float": ([Float()], [2.5]),
    "an array of objects": (np.array([[1, True]], object), [[1, 1]]),
    "a number": (np.array(Decimal(2)), 2),
    "half precision": (np.float16([1]), [1]),
}


@pytest.mark.parametrize(
    "value",
    [[2**53 + 1, 0], np.array([[0, 2**53 + 1]]), torch.tensor([2**53 + 1]), [None, -(2**53) - 1]],
    ids=("list", "array", "tensor", "with a gap"),
)
def test_whole_numbers_that_rounding_would_tie_are_refused(value):
    with pytest.raises(ArgumentError, match="9007199254740993, which double precision rounds to"):
        _check.numbers("x", value)


@pytest.mark.parametrize(("value", "numbers"), READ.values(), ids=READ)
def test_an_array_is_read_for_what_it_holds(value, numbers):
    read = _check.numbers("x", value)
    assert read.dtype == float
    np.testing.assert_array_equal(read, numbers)


REFUSED = {
    "texts": ([["passed", "failed"]], "got 'passed' at index (0, 0)"),
    "numbers as texts": (np.array(["1.5"]), "got '1.5' at index 0"),
    "complex": (np.array([1 + 0j]), "an array of complex numbers"),
    "a complex tensor": (torch.ones(2, dtype=torch.complex64), "a tensor of complex numbers"),
    "no data": (torch.ones(2, device="meta"), "a tensor that is not readable"),
    "dates": (pd.Series(pd.to_datetime(["2020-01-01"])), "an array of dates"),
    "durations": (np.array([1], "m8[s]"), "an array of durations"),
    "records": (np.zeros(2, [("a", float)]), "an array of records"),
    "a sparse array": (
        scipy.sparse.csr_array(np.eye(2)),
        "csr_array. Pass its `.toarray()`",
    ),
    "a huge integer": ([[0, 10**400]], "an integer of 400 digits at index (0, 1), which is beyond"),
    "a huge decimal": ([Decimal("1e400")], "Decimal('1E+400') at index 0, which is beyond"),
    "a generator": ((i for i in range(3)), "got <generator"),
    "a huge range": (range(10**12), "a range of 1000000000000 entries"),
    "a set": ({1.0}, "got {1.0}"),
    "a list in itself": (LOOP, "lists nested more than 32 deep"),
    "numbers beside lists": ([1, [2]], "lists and numbers side by side (entries 0 and 1)"),
    "an array that breaks": (Broken(), "(AttributeError)"),
}


@pytest.mark.parametrize(("value", "words"), REFUSED.values(), ids=REFUSED)
def test_what_holds_no_numbers_is_refused_by_name(value, words):
    with pytest.raises(ArgumentError) as caught:
        _check.numbers("x", value)
    assert str(caught.value).startswith("`x` must be an array of numbers; got ")
    assert words in str(caught.value)


RAGGED = [
    [[1.0, 0.0, 0.0], [1.0]],
    pd.Series([[1, 0, 0], [1]]),
    pa.array([[1, 0, 0], [1]]),
    np.array([[1, 0, 0], [1]], object),
    [torch.tensor([1.0, 0, 0]), torch.ones(1)],
]


@pytest.mark.parametrize("rows", RAGGED, ids=lambda rows: type(rows).__name__)
def test_rows_of_different_lengths_are_samples_that_were_not_drawn(rows):
    filled = [[1.0, 0.0, 0.0], [1.0, np.nan, np.nan]]
    for estimate in (ia.pass_at, ia.best_reward):
        assert repr(estimate(rows, 1)) == repr(estimate(filled, 1))


@pytest.mark.parametrize("rows", RAGGED, ids=lambda rows: type(rows).__name__)
def test_where_no_sample_may_be_missing_a_ragged_row_is_named(rows):
    with pytest.raises(ArgumentError, match=r"`reference_rewards` must .* row 1 has 1 .* 0 has 3"):
        ia.quantiles([[1.0], [0.0]], rows)


def test_an_iterator_is_no_list_because_it_may_not_end():
    for value in (iter([1.0]), range(10**12), {0.5}):
        with pytest.raises(ArgumentError, match="`x` must be a list"):
            _check.entries("x", value)


@pytest.mark.parametrize(
    "value",
    [
        [[["lol"] * 9] * 9] * 9,
        "x" * 10**7,
        {"a": ["b"] * 10**6},
        10**5000,
        range(10**12),
        np.zeros((1000, 1000)),
        LOOP,
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_in_a_message_is_short_and_on_one_line(value):
    assert len(_check.short(value)) <= 60 and "\n" not in _check.short(value)


@pytest.mark.parametrize("value", [[1.5, "é", None], {"b": 1, "a": (2,)}, "a'b", b"x", True, int])
def test_a_small_value_is_its_own_words(value):
    assert _check.short(value) == repr(value)
