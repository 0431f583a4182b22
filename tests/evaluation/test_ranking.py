"""Rankings of several policies: pairs, ranks and tied sets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infalign.analysis import rank
from infalign.errors import ArgumentError
from infalign.evaluation import simultaneous as together
from infalign.evaluation.ranking import _letters


@given(
    st.integers(2, 6).flatmap(
        lambda k: st.tuples(
            st.just(k),
            st.sets(
                st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)).filter(
                    lambda pair: pair[0] < pair[1]
                )
            ),
        )
    )
)
def test_policies_share_a_letter_exactly_if_they_are_tied(drawn):
    k, above = drawn
    order = [f"policy {i}" for i in range(k)]
    letters = _letters(order, {(order[a], order[b]) for a, b in above})
    for a in range(k):
        assert letters[order[a]]
        for b in range(a + 1, k):
            assert bool(set(letters[order[a]]) & set(letters[order[b]])) == ((a, b) not in above)


def test_ranks_follow_from_the_pairs():
    rng = np.random.default_rng(0)
    prompts = rng.normal(size=(300, 1))
    a, b, c, d = (prompts + [[1.0, 0.9, 0.5, -1.0]] + rng.normal(size=(300, 4)) / 2).T
    ranking = rank({"d": d, "b": b, "a": a, "c": c})
    rows = {row.policy: row for row in ranking.policies}
    assert [row.policy for row in ranking.policies] == ["a", "b", "c", "d"]
    assert {p: (row.best, row.worst) for p, row in rows.items()} == {
        "a": (1, 2) if set(rows["a"].tied) & set(rows["b"].tied) else (1, 1),
        "b": (1, 2) if set(rows["a"].tied) & set(rows["b"].tied) else (2, 2),
        "c": (3, 3),
        "d": (4, 4),
    }
    for pair in ranking.pairs:
        assert pair.p <= pair.p_max_t <= 6 * pair.p + 1e-12
        assert pair.p <= pair.p_holm
        assert pair.shown == (pair.difference.low > 0)
    assert len(ranking.to_frame()) == 4
    assert ranking.plot().get_xlabel()


def test_true_ranks_lie_within_all_bounds_together(monkeypatch):
    monkeypatch.setattr(together, "DRAWS", 2_000)
    rng, runs, truth = np.random.default_rng(1), 100, np.array([0.0, 0.1, 0.3, 0.35])
    inside = 0
    for _ in range(runs):
        values = truth + rng.normal(size=(40, 1)) + rng.normal(size=(40, 4)) / 3
        ranking = rank({str(i): values[:, i] for i in range(4)})
        inside += all(row.best <= 4 - int(row.policy) <= row.worst for row in ranking.policies)
    assert inside / runs > 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs)


def test_equal_policies_are_tied():
    values = np.random.default_rng(2).random(50)
    ranking = rank({"a": values, "b": values.copy(), "c": values}, bounds=(0, 1))
    assert ranking.tied == (("a", "b", "c"),)
    assert all((row.best, row.worst) == (1, 3) for row in ranking.policies)


@pytest.mark.parametrize(
    "bad", [{"a": [1.0, 2.0]}, {"a": [1.0], "b": [1.0, 2.0]}, {"a": 1.0, "b": 2.0}, [1, 2], {}]
)
def test_values_that_cannot_be_compared_are_refused(bad):
    with pytest.raises(ArgumentError, match="per_prompt"):
        rank(bad)
