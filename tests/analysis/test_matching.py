"""Samples are checked, and policies are matched by prompt without losing any silently."""

import numpy as np
import pytest

from infalign.analysis import Samples, match
from infalign.errors import ArgumentError


def samples(name, prompts, scores=None):
    prompts = tuple(prompts)
    return Samples(
        name, prompts, np.arange(2.0 * len(prompts)).reshape(-1, 2) if scores is None else scores
    )


def test_policies_are_put_in_one_order():
    a, b = match([samples("a", "pqr"), samples("b", "rpq")]).policies
    assert a.prompts == b.prompts == ("p", "q", "r")
    assert b.scores.tolist() == [[2, 3], [4, 5], [0, 1]]


def test_prompts_of_one_policy_only_are_an_error_unless_dropped():
    sides = [samples("a", "pqr"), samples("b", "qp"), samples("c", "pqs")]
    with pytest.raises(
        ArgumentError, match=r"1 of the 3 prompts of 'a' are missing elsewhere, such as 'r'; 2"
    ):
        match(sides)
    matched = match(sides, drop=True)
    assert matched.prompts == ("p", "q")
    assert matched.without == {"a": ("r",), "c": ("s",)}


def test_policies_without_a_common_prompt_are_refused():
    with pytest.raises(ArgumentError, match=r"in all of them: 'p' \(a\), 'q' \(b\)"):
        match([samples("a", "p"), samples("b", "q")], drop=True)


@pytest.mark.parametrize("policies", [[], [samples("a", "p"), samples("a", "p")], "ab", [1]])
def test_other_things_are_refused(policies):
    with pytest.raises(ArgumentError, match="policies"):
        match(policies)


REAL, BINARY = [[5.1, 3.9]], [[0.0, 1.0]]


def two_scores(one, other):
    return [
        Samples(name, ("p",), scores, score=score)
        for name, (score, scores) in (("base", one), ("rl", other))
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("reward", REAL), ("correct", BINARY)),
        (("correct", BINARY), ("points", REAL)),
        (("correct", BINARY), ("acc", [[0.2, 0.9]])),
    ],
)
def test_rewards_are_not_compared_with_scores_of_0_and_1(one, other):
    with pytest.raises(
        ArgumentError,
        match=rf"same score; 'base' has `{one[0]}` \(.*\), and 'rl' has `{other[0]}` \(.*\)\."
        r".*--column score=NAME",
    ):
        match(two_scores(one, other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("reward", REAL), ("rewards", REAL)),
        (("score", REAL), ("score", BINARY)),
        (("correct", BINARY), ("passed", BINARY)),
    ],
)
def test_one_score_may_have_several_names(one, other):
    assert [p.notes for p in match(two_scores(one, other)).policies] == [(), ()]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("reward", REAL), ("brevity_reward", REAL)),
        (("match", BINARY), ("correct", BINARY)),
        (("acc", REAL), ("accuracy", REAL)),
    ],
)
def test_scores_of_one_kind_with_other_names_are_compared_with_a_note(one, other):
    base, rl = match(two_scores(one, other)).policies
    assert base.notes == ()
    assert rl.notes == (
        f"scores in `{other[0]}` are compared with those in `{one[0]}` of base, as if they were "
        "the same",
    )


def test_what_a_policy_holds_is_checked():
    with pytest.raises(ArgumentError, match="occurs again at index 1"):
        samples("a", "pp")
    with pytest.raises(ArgumentError, match="one row per prompt"):
        samples("a", "pq", [[1.0]])
    with pytest.raises(ValueError, match="prompt 1 has 0"):
        samples("a", "pq", [[1.0], [np.nan]])
    with pytest.raises(ArgumentError, match="one entry for each score"):
        Samples("a", ("p",), [[1.0, 2.0]], answers=[["x"]])


def test_a_policy_says_what_it_is():
    ragged = samples("a", "pq", [[1.0, 0.0], [1.0, np.nan]])
    assert ragged.binary
    assert "samples='1 to 2'" in repr(ragged)
    assert "prompts=2" in repr(ragged)


@pytest.mark.parametrize("other", ["caf\u0065\u0301", " caf\u00e9 "])
def test_ids_that_look_alike_are_an_error_that_says_how_they_differ(other):
    sides = [samples("a", ["caf\u00e9", "x"]), samples("b", [other, "y"])]
    with pytest.raises(ArgumentError, match="1 of them differ only in spaces at their ends or in"):
        match(sides)
