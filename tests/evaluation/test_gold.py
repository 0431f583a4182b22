"""What one reward says of the responses that another one keeps, two ways."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infalign import BestOfN, Mixture, OrderStatistic, Rewind, Sampling, SoftBestOfN, WorstOfN
from infalign import win_rate as rewards_win_rate
from infalign.evaluation.chances import selection_chances
from infalign.evaluation.gold import gold_reward, gold_win_rate

PROCEDURES = [
    Sampling(),
    BestOfN(3),
    WorstOfN(2),
    OrderStatistic(4, 2),
    Mixture((BestOfN(2), Sampling()), (0.25, 0.75)),
]
each_procedure = pytest.mark.parametrize("procedure", PROCEDURES, ids=repr)
NAN = float("nan")


def test_tied_samples_share_their_chance():
    # Best of 2 of {1, 3, 3}: the pair of threes keeps either, each other pair its three.
    assert selection_chances([[3.0, 1.0, 3.0]], BestOfN(2))[0] == pytest.approx([0.5, 0.0, 0.5])


def test_samples_that_were_not_drawn_have_no_chance():
    chances = selection_chances([[NAN, 1.0, 2.0], [5.0, 4.0, 3.0]], BestOfN(2))
    assert chances == pytest.approx(np.array([[0, 0, 1], [2 / 3, 1 / 3, 0]]))


@given(st.lists(st.integers(0, 4), min_size=3, max_size=7), st.integers(1, 3))
def test_the_chance_is_the_share_of_subsets_that_keep_a_sample(rewards, n):
    counted = np.zeros(len(rewards))
    subsets = list(combinations(range(len(rewards)), n))
    for subset in subsets:
        top = max(rewards[i] for i in subset)
        winners = [i for i in subset if rewards[i] == top]
        counted[winners] += 1 / len(winners) / len(subsets)
    assert selection_chances([rewards], BestOfN(n))[0] == pytest.approx(counted, abs=1e-12)


@each_procedure
def test_chances_sum_to_one(procedure):
    rewards = np.random.default_rng(0).integers(0, 5, (20, 9)).astype(float)
    rewards[::3, 7:] = NAN
    assert selection_chances(rewards, procedure).sum(1) == pytest.approx(np.ones(20), abs=1e-12)


@each_procedure
def test_judged_by_the_selecting_reward_it_is_the_win_rate(procedure):
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 6, (12, 8)).astype(float), rng.integers(0, 5, (12, 6)).astype(float)
    a[3, 5:] = NAN
    judged = gold_win_rate(a, a, b, b, procedure, against=BestOfN(2))
    direct = rewards_win_rate(a, b, procedure, against=BestOfN(2))
    assert judged.per_prompt == pytest.approx(direct.per_prompt, abs=1e-12)


@pytest.mark.parametrize("procedure", [SoftBestOfN(3, 0.2), Rewind(0.6, 4)], ids=repr)
def test_so_it_is_for_procedures_that_read_calibrated_rewards(procedure):
    rng = np.random.default_rng(2)
    a, b, known = rng.normal(size=(5, 7)), rng.normal(size=(5, 6)), rng.normal(size=(5, 16))
    judged = gold_win_rate(a, a, b, b, procedure, calibration=known)
    direct = rewards_win_rate(a, b, procedure, calibration=known)
    assert judged.per_prompt == pytest.approx(direct.per_prompt, abs=1e-12)


def test_a_judge_that_disagrees_against_all_subsets():
    rng = np.random.default_rng(3)
    proxy, gold = rng.normal(size=6), rng.integers(0, 3, 6).astype(float)
    proxy_ref, gold_ref = rng.normal(size=5), rng.integers(0, 3, 5).astype(float)
    kept = [gold[max(s, key=lambda i: proxy[i])] for s in combinations(range(6), 3)]
    kept_ref = [gold_ref[max(s, key=lambda i: proxy_ref[i])] for s in combinations(range(5), 3)]
    wins = np.mean([(x > y) + (x == y) / 2 for x in kept for y in kept_ref])
    judged = gold_win_rate([gold], [proxy], [gold_ref], [proxy_ref], BestOfN(3))
    assert judged.value == pytest.approx(wins, abs=1e-12)
    assert gold_reward([gold], [proxy], BestOfN(3)).value == pytest.approx(np.mean(kept))


def test_a_proxy_that_rewards_what_the_judge_dislikes_loses_more_with_every_draw():
    rng = np.random.default_rng(4)
    proxy = rng.normal(size=(200, 16))
    reference = rng.normal(size=(200, 16))
    gold, gold_reference = -proxy - 0.5, -reference
    rates = [
        gold_win_rate(gold, proxy + 1, gold_reference, reference, BestOfN(n)).value
        for n in (1, 2, 4, 8)
    ]
    assert rates == sorted(rates, reverse=True) and rates[-1] < rates[0] - 0.02


def test_values_and_rewards_must_belong_to_the_same_samples():
    with pytest.raises(ValueError, match="`values` and `rewards` must belong to the same samples"):
        gold_reward([[1.0, NAN]], [[1.0, 2.0]], Sampling())
    with pytest.raises(ValueError, match="one row per prompt"):
        gold_win_rate([[1.0]], [[1.0]], [[1.0], [2.0]], [[1.0], [2.0]], Sampling())
