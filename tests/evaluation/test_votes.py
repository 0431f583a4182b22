"""Majority vote from sampled answers: against every subset, and with replacement in the limit."""

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from contracts import law
from hypothesis import given
from hypothesis import strategies as st

from infalign import majority_vote, pass_at
from infalign.core.finite.majority import MajorityVote
from infalign.evaluation.votes import vote_chances

answers = st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=3, max_size=9)
many = st.lists(st.sampled_from([1, 2, 3, 4, None]), min_size=8, max_size=11)
right = st.sets(st.sampled_from("abcd"), max_size=2)


def by_enumeration(answers, right, n):
    """Mean over all n-subsets of the share of right answers among the most frequent."""
    accuracy = []
    for some in combinations(answers, n):
        votes = Counter(a for a in some if a is not None)
        first = [a for a in votes if votes[a] == max(votes.values())]
        accuracy.append(np.mean([a in right for a in first]) if first else 0)
    return np.mean(accuracy)


@law
@given(rows=st.lists(st.tuples(answers, right), min_size=1, max_size=3), n=st.integers(1, 3))
def test_majority_against_every_subset(rows, n):
    width = max(len(a) for a, _ in rows)
    padded = [a + [None] * (width - len(a)) for a, _ in rows]
    correct = [[x in r for x in a] + [np.nan] * (width - len(a)) for a, r in rows]
    found = majority_vote(padded, correct, n).per_prompt
    np.testing.assert_allclose(found, [by_enumeration(a, r, n) for a, r in rows], atol=1e-12)


@law
@given(
    answers=st.lists(st.sampled_from([1, 2, 3, 4, None]), min_size=8, max_size=11),
    n=st.integers(4, 8),
)
def test_many_draws_against_every_subset(answers, n):
    found = majority_vote([answers], [[a == 1 for a in answers]], n).value
    assert found == pytest.approx(by_enumeration(answers, {1}, n), abs=1e-12)


@law
@given(row=answers, n=st.integers(1, 3))
def test_selection_chances_against_every_subset(row, n):
    kept = np.zeros(len(row))
    subsets = list(combinations(range(len(row)), n))
    for some in subsets:
        votes = Counter(row[i] for i in some if row[i] is not None)
        first = [a for a in votes if votes[a] == max(votes.values())] or [None]
        for winner in first:
            places = [i for i in some if row[i] == winner]
            kept[places] += 1 / len(first) / len(places) / len(subsets)
    np.testing.assert_allclose(vote_chances([row], n)[0], kept, atol=1e-12)


def test_selected_samples_are_right_as_often_as_the_majority():
    rng = np.random.default_rng(1)
    given_answers = rng.integers(0, 4, (12, 16))
    chances = vote_chances(given_answers, 5)
    found = (chances * (given_answers == 2)).sum(1)
    assert found == pytest.approx(majority_vote(given_answers, given_answers == 2, 5).per_prompt)


def test_a_vote_needs_as_many_answers_as_it_counts():
    with pytest.raises(ValueError, match=r"A majority of 4 needs at least 4 `answers`.*got 2"):
        vote_chances([["a", "b"]], 4)


def test_all_samples_are_one_vote():
    # 3 of 7 against 2 and 2; ties of 2, 2 and 2.
    assert majority_vote([list("aaabbcc")], [[1, 1, 1, 0, 0, 0, 0]], 7).value == pytest.approx(1)
    assert majority_vote([list("aabbcc")], [[1, 1, 0, 0, 0, 0]], 6).value == pytest.approx(1 / 3)


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_draws_are_sampling_among_those_who_vote(n):
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 5, (6, 20))
    found = majority_vote(answers, answers == 2, n).per_prompt
    np.testing.assert_allclose(found, pass_at(answers == 2, 1).per_prompt, atol=1e-12)


def test_very_many_samples_are_draws_with_replacement():
    # 30,000 samples: 9 drawn ones repeat with chance 36/30,000.
    share = np.array([0.4, 0.35, 0.25])
    labels = np.repeat([0, 1, 2], (share * 30_000).round().astype(int))
    found = majority_vote([labels], [labels == 0], 9).value
    assert found == pytest.approx(MajorityVote([0, 1, 2], 9).selected(share)[0], abs=1e-4)


def test_many_votes_keep_their_digits():
    # Answers alike in number win alike often, and one of them always does.
    answers = np.tile(np.arange(8), 16)[None]
    for n in (1, 31, 64, 100):
        assert majority_vote(answers, answers == 3, n).value == pytest.approx(1 / 8, abs=1e-12)


def test_the_estimate_is_unbiased():
    rng, share = np.random.default_rng(1), np.array([0.3, 0.3, 0.2, 0.2])
    answers = rng.choice(4, size=(4_000, 12), p=share)
    found = majority_vote(answers, answers == 0, 5)
    assert abs(found.value - MajorityVote(range(4), 5).selected(share)[0]) < 4 * found.stderr


@pytest.mark.parametrize(
    ("answers", "correct", "n", "message"),
    [
        (
            [["a", "b"]],
            [[1]],
            1,
            r"must have the same shape .* got \(1, 2\) and \(1, 1\)",
        ),
        (
            [["a", "a"]],
            [[1, 0]],
            1,
            "the same for equal answers; got both 0 and 1 for 'a' at prompt 0",
        ),
        (
            [["a", None]],
            [[1, 1]],
            1,
            "must be 0 where a sample gives no answer.* got 1 for None at",
        ),
        (
            [["a", "b"]],
            [[1, np.nan]],
            1,
            "nan only where none was drawn; got nan for 'b' at",
        ),
        ([["a", "b"]], [[1, 0.5]], 1, r"`correct` must be 0 or 1, or nan .* got 0\.5"),
        (
            [["a", "b"]],
            [[1, 0]],
            3,
            "majority of 3 needs at least 3 samples per prompt in `correct`",
        ),
        ([["a", "b"]], [[1, 0]], 0, "`n` must be a whole number of at least 1; got 0"),
        (
            [["a", "b"], ["a"]],
            [[1, 0], [1]],
            1,
            "`answers` must have equally many samples .* prompt 0 has 2 and prompt 1 has 1. Fill",
        ),
        (
            [[[1], [2, 3]]],
            [[1, 0]],
            1,
            r"`answers` must hold hashable .* got \[1\] at prompt 0, sam",
        ),
        ([["a", {}]], [[1, 0]], 1, r"`answers` must hold hashable .* got {} at prompt 0, sample 1"),
        (["ab"], [[1, 0]], 1, "`answers` must be a list; got 'ab'"),
        ("ab", [[1, 0]], 1, "`answers` must be a list; got 'ab'"),
        ([], [], 1, "`answers` must hold at least one row"),
        ([[]], [[]], 1, "`answers` must hold at least one row"),
    ],
)
def test_answers_that_do_not_suffice_are_refused(answers, correct, n, message):
    with pytest.raises(ValueError, match=message):
        majority_vote(answers, correct, n)


def test_answers_may_be_tuples_and_come_from_any_table():
    pairs = [[(1, 2), (1, 2), (3, 4)]]
    assert majority_vote(pairs, [[1, 1, 0]], 3).value == 1
    assert vote_chances(pairs, 3).tolist() == [[0.5, 0.5, 0]]
    texts = [["7", "7", "3"]]
    for table in (texts, tuple(map(tuple, texts)), np.array(texts), pd.DataFrame(texts)):
        assert majority_vote(table, [[1, 1, 0]], 3).value == 1
    for table in (torch.tensor([[7, 7, 3]]), np.array([[7.0, 7.0, 3.0]])):
        assert majority_vote(table, [[1, 1, 0]], 3).value == 1


def test_an_empty_text_is_an_answer_and_a_missing_value_is_none():
    assert vote_chances([["", "", "a"]], 3).tolist() == [[0.5, 0.5, 0]]
    for missing in (None, math.nan, np.nan, pd.NA, pd.NaT, np.float32("nan")):
        assert vote_chances([[missing, missing, "a"]], 3).tolist() == [[0, 0, 1]]
