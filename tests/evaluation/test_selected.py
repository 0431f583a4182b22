"""The reward of what is kept, pass@k: against every subset, without bias, on real samples."""

from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import pytest
from contracts import keep, law
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from infalign import (
    BestOfN,
    BestOfPoisson,
    Mixture,
    OrderStatistic,
    Sampling,
    WorstOfN,
    best_reward,
    pass_at,
    selected_reward,
    win_rate,
    worst_reward,
)

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "samples"
real = pytest.mark.skipif(not SAMPLES.exists(), reason="needs the public samples, kept elsewhere")

procedures = st.sampled_from(
    [Sampling(), BestOfN(1), BestOfN(3), WorstOfN(2), OrderStatistic(3, 2), OrderStatistic(4, 4)]
)
samples = st.lists(st.integers(-3, 3), min_size=4, max_size=7)


@law
@given(samples=samples, procedure=procedures)
def test_selected_reward_against_every_subset(samples, procedure):
    kept = [keep(procedure, iter(s), None) for s in combinations(samples, procedure.draws)]
    found = selected_reward([samples], procedure).value
    assert found == pytest.approx(np.mean(kept), abs=1e-12)


@law
@given(samples=samples, weight=st.floats(0.1, 0.9))
def test_a_mixture_has_the_mean_of_its_parts(samples, weight):
    a, b = BestOfN(4), OrderStatistic(3, 2)
    mixed = selected_reward([samples], Mixture((a, b), (weight, 1 - weight))).value
    parts = selected_reward([samples], a).value, selected_reward([samples], b).value
    assert mixed == pytest.approx(weight * parts[0] + (1 - weight) * parts[1], abs=1e-12)


def test_rows_may_differ_in_their_samples():
    rewards = [[3, np.nan, 1, 2], [5, 7, np.nan, np.nan], [4, 4, 4, 9]]
    found = best_reward(rewards, 2).per_prompt
    # Pairs of 1, 2, 3 keep 2, 3, 3; of 5, 7 keep 7; of 4, 4, 4, 9 keep 9 in three of six.
    np.testing.assert_allclose(found, [8 / 3, 7, 6.5], atol=1e-14)
    np.testing.assert_allclose(worst_reward(rewards, 2).per_prompt, [4 / 3, 5, 4], atol=1e-14)


@law
@given(samples=samples, n=st.integers(1, 4))
def test_the_worst_is_the_best_of_the_opposite(samples, n):
    worst, opposite = worst_reward([samples], n).value, best_reward([np.negative(samples)], n).value
    assert worst == pytest.approx(-opposite, abs=1e-12)


@pytest.mark.parametrize(
    "procedure", [BestOfPoisson(2.0), BestOfN(6), OrderStatistic(6, 2)], ids=repr
)
def test_the_estimate_is_unbiased(procedure):
    # Uniform rewards: the kept one has mean 1 - ∫ H, here of each law by the midpoint rule.
    rng, u = np.random.default_rng(0), (np.arange(10_000) + 0.5) / 10_000
    found = selected_reward(rng.random((5_000, 24)), procedure)
    assert abs(found.value - (1 - procedure.cdf(u).mean())) < 4 * found.stderr


def test_rewards_of_very_many_samples():
    # The best of n of the ranks 1 … m has mean n (m + 1)/(n + 1).
    m, n = 100_000, 1024
    rewards = np.random.default_rng(1).permutation(m)[None] + 1.0
    assert best_reward(rewards, n).value == pytest.approx(n * (m + 1) / (n + 1), rel=1e-12)
    second = selected_reward(rewards, OrderStatistic(n, 2)).value
    assert second == pytest.approx((n - 1) * (m + 1) / (n + 1), rel=1e-12)


@law
@given(st.lists(st.booleans(), min_size=4, max_size=12), st.integers(1, 4))
def test_pass_at_k_in_whole_numbers(correct, k):
    m, c = len(correct), sum(correct)
    found = pass_at([correct], k)
    assert found.value == pytest.approx(1 - comb(m - c, k) / comb(m, k), abs=1e-14)
    assert found.value == pytest.approx(best_reward([correct], k).value, abs=1e-12)
    # Against failures a pass wins and a failure ties.
    beaten = win_rate([correct], np.zeros((1, 4)), BestOfN(k)).value
    assert beaten == pytest.approx((1 + found.value) / 2, abs=1e-12)


def test_pass_at_k_of_samples_that_are_missing():
    found = pass_at([[0, 1, np.nan], [0, np.nan, 0], [1, 0, 0]], 2)
    np.testing.assert_allclose(found.per_prompt, [1, 0, 2 / 3], atol=1e-15)


def test_one_success_in_four_passes_at_four():
    # A bootstrap, which draws with replacement, would say 1 - (3/4)^4 = .684.
    assert pass_at([[0, 0, 1, 0]], 4).value == 1


@pytest.mark.parametrize(
    ("correct", "k", "message"),
    [
        (
            [[0, 0.5]],
            1,
            r"`correct` must be 0 or 1.* got 0\.5 at prompt 0, sample 1 \(1 of 2",
        ),
        (
            [[0, 1], [2, 1]],
            1,
            r"got 2 at prompt 1, sample 0 .* For graded .* `best_reward`",
        ),
        ([[0, 1]], 3, r"needs at least 3 samples per prompt in `correct`; prompt 0 has 2"),
        ([[0, np.nan]], 2, r"needs at least 2 samples per prompt in `correct`; prompt 0 has 1"),
        ([[0, 1]], 0, "`k` must be a whole number of at least 1; got 0"),
        ([0, 1], 1, "`correct` must be a non-empty array of shape"),
    ],
)
def test_verdicts_that_do_not_suffice_are_refused(correct, k, message):
    with pytest.raises(ValueError, match=message):
        pass_at(correct, k)


def test_rewards_that_do_not_suffice_are_refused():
    with pytest.raises(ValueError, match=r"`BestOfN\(n=3\)` needs .* in `rewards`; prompt 0 has 2"):
        best_reward([[1.0, 2.0]], 3)
    with pytest.raises(ValueError, match="`rewards` must hold finite rewards; got inf at prompt"):
        worst_reward([[np.inf, 2.0]], 1)


def table(path, columns):
    """Columns of a Parquet file of samples, by name."""
    rows = parquet.read_table(SAMPLES / path, columns=columns)
    return {name: np.array(rows[name].to_pylist(), dtype=None) for name in columns}


def by_prompt(values, prompts, samples):
    """One row per prompt, its samples in order."""
    return values[np.lexsort((samples, prompts))].reshape(np.unique(prompts).size, -1)


PASSES = {
    "standard": [0.0734, 0.1057, 0.1492, 0.1789, 0.2242, 0.2728, 0.33],
    "cot": [0.0403, 0.0728, 0.1429, 0.2148, 0.3224, 0.4068, 0.49],
}


@real
@pytest.mark.parametrize("method", PASSES)
def test_pass_at_k_of_the_game_of_24(method):
    found = table("game24_tot/samples.parquet", ["method", "problem_id", "sample", "correct"])
    found = {name: column[found["method"] == method] for name, column in found.items()}
    correct = by_prompt(found["correct"], found["problem_id"], found["sample"])
    assert correct.shape == (100, 100)
    passes = [pass_at(correct, k).value for k in (1, 2, 5, 10, 25, 50, 100)]
    np.testing.assert_allclose(passes, PASSES[method], atol=5.1e-5)


@real
def test_the_best_judged_reward_of_rewardbench():
    found = table("rewardbench_bon16/samples.parquet", ["prompt_id", "sample", "reward"])
    rewards = by_prompt(found["reward"].astype(float), found["prompt_id"], found["sample"])
    assert rewards.shape == (805, 16) and np.isnan(rewards[:, 11:]).all()
    best = [best_reward(rewards, k).value for k in (1, 2, 4, 8, 11)]
    np.testing.assert_allclose(best, [0.3203, 0.4061, 0.4871, 0.5609, 0.5918], atol=5.1e-5)
