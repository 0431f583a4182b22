"""Rewards from whole groups: the exact online objective, and its rivals by hand."""

import pickle
from itertools import combinations

import numpy as np
import pytest

from infalign import (
    BestOfN,
    CalibrationStore,
    DataError,
    GroupShapedReward,
    SoftBestOfN,
    WorstOfN,
)
from infalign.calibration import Pooled
from infalign.core import group_rewards, group_win_rate
from infalign.shaping import MaxAtKReward, RiskSensitiveReward

IDS = ["a", "b", "c"]


def store(samples=6, seed=5):
    return CalibrationStore.from_rewards(IDS, np.random.default_rng(seed).normal(size=(3, samples)))


def number(prompts, completions, **columns):
    return [float(c) for c in completions]


def call(shaped, ids, rewards, **options):
    return shaped(prompts=ids, completions=[str(r) for r in rewards], prompt_id=ids, **options)


def test_utilities_are_exact_chances_against_subsets_of_the_reference():
    known = store()
    shaped = GroupShapedReward(number, known, BestOfN(2), group=4)
    rewards = np.array([-0.5, 0.3, float(known.rewards["b"][4]), 9.0])
    chances = shaped.shaper.calibration.place(["b"] * 4, rewards).win_chance(BestOfN(2))
    reference = known.rewards["b"]
    expected = [
        np.mean([(r > max(s)) + (r == max(s)) / 2 for s in combinations(reference, 2)])
        for r in rewards
    ]
    assert chances == pytest.approx(expected)
    metrics = {}
    out = call(shaped, ["b"] * 4, rewards, log_metric=metrics.__setitem__)
    assert out == pytest.approx(group_rewards([rewards], [chances], BestOfN(2))[0])
    assert metrics["infalign/win_rate"] == pytest.approx(
        group_win_rate([rewards], [chances], BestOfN(2))[0]
    )
    assert set(metrics) >= {"infalign/raw_reward", "infalign/quantile", "infalign/saturated"}


def test_groups_of_several_prompts_are_separate():
    rewards = np.random.default_rng(6).normal(size=12)
    ids = ["c"] * 4 + ["a"] * 4 + ["c"] * 4  # one prompt twice
    for group in (4, None):
        shaped = GroupShapedReward(number, store(), WorstOfN(3), group=group)
        each = [call(shaped, ids[i : i + 4], rewards[i : i + 4]) for i in (0, 4, 8)]
        assert call(shaped, ids, rewards) == pytest.approx(np.concatenate(each))


def test_pooled_chances_go_on_rising_beyond_the_best_reference_sample():
    rng = np.random.default_rng(7)
    known = CalibrationStore.from_rewards(
        [str(i) for i in range(64)], rng.normal(size=(64, 1)) + rng.normal(size=(64, 4))
    )
    shaped = GroupShapedReward(number, known, BestOfN(8), calibrator=Pooled())
    top = known.rewards["5"][-1]
    above = top + np.array([0.1, 1.0, 3.0])
    wins = shaped.shaper.calibration.place(["5"] * 3, above).win_chance(BestOfN(8))
    assert 0 < wins[0] < wins[1] < wins[2] < 1
    again = pickle.loads(pickle.dumps(shaped))
    batch = (["5"] * 9, range(9))
    assert call(again, *batch) == call(shaped, *batch)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GroupShapedReward(number, store(), BestOfN(4), group=4), "`group` must be more"),
        (lambda: GroupShapedReward(number, store(), SoftBestOfN(4, 0.1)), "selects by rank"),
        (lambda: GroupShapedReward(number, store(3), BestOfN(4)), "3 reference samples .* fewer"),
        (lambda: MaxAtKReward(number, store(), BestOfN(4), group=4), "`group` must be more than"),
        (
            lambda: RiskSensitiveReward(number, store(), 1.0, group=1),
            "`group` must be .*at least 2",
        ),
    ],
)
def test_a_group_reward_that_cannot_be_estimated_is_refused(make, words):
    with pytest.raises((ValueError, DataError), match=words):
        make()


def test_incomplete_groups_are_refused():
    shaped = GroupShapedReward(number, store(), BestOfN(2), group=4)
    with pytest.raises(DataError, match=r"prompt 'b' has 3, from completion 4 of 7 on"):
        call(shaped, ["a"] * 4 + ["b"] * 3, range(7))
    inferred = GroupShapedReward(number, store(), BestOfN(2))
    with pytest.raises(DataError, match=r"Groups of 3 .* prompt 'a' has 4"):
        call(inferred, ["a"] * 4 + ["b"] * 3, range(7))
    with pytest.raises(DataError, match=r"at least 3 responses"):
        call(inferred, ["a", "a"], range(2))
    with pytest.raises(DataError, match=r"prompt_id 'z' is not in"):
        call(shaped, ["z"] * 4, range(4))


OF_GROUPS = {
    "group": lambda **o: GroupShapedReward(number, store(), BestOfN(2), **o),
    "max@k": lambda **o: MaxAtKReward(number, store(), BestOfN(2), **o),
    "risk": lambda **o: RiskSensitiveReward(number, store(), 1.0, **o),
}


@pytest.mark.parametrize("make", OF_GROUPS.values(), ids=OF_GROUPS)
def test_half_a_group_never_passes_as_a_group_where_processes_share_a_step(make, monkeypatch):
    rewards = np.random.default_rng(8).normal(size=16)
    whole = call(make(), ["a"] * 8 + ["b"] * 8, rewards)
    for size in ("2", "16"):
        monkeypatch.setenv("WORLD_SIZE", size)
        assert call(make(group=8), ["a"] * 8 + ["b"] * 8, rewards) == whole
        with pytest.raises(DataError, match=r"Groups of 8 .* prompt 'a' has 4, .* is split"):
            call(make(group=8), ["a"] * 4, rewards[:4])
        with pytest.raises(DataError, match=rf"of {size} processes \(WORLD_SIZE\).* Pass `group`"):
            call(make(), ["a"] * 8, rewards[:8])
    for alone in ("1", "", "none"):
        monkeypatch.setenv("WORLD_SIZE", alone)
        assert call(make(), ["a"] * 8 + ["b"] * 8, rewards) == whole


# Rivals, on numbers worked out by hand


def advantages(rewards):
    """As RLOO makes them: less the mean of the others in the group."""
    r = np.array(rewards)
    return (len(r) * r - r.sum()) / (len(r) - 1)


def test_max_at_k_is_what_the_best_of_two_loses_without_a_response():
    # Of 1, 2, 4: the best of two is 10/3 on average; without 1 it is 4, without 2 too, without 4
    # it is 2.
    rival = MaxAtKReward(number, store(), BestOfN(2))
    own = advantages(call(rival, ["a"] * 3, [1, 2, 4]))
    assert own == pytest.approx([3 * (10 / 3 - 4)] * 2 + [3 * (10 / 3 - 2)])
    worst = advantages(call(MaxAtKReward(number, store(), WorstOfN(2)), ["a"] * 3, [1, 2, 4]))
    assert worst == pytest.approx([3 * (4 / 3 - 2), 3 * (4 / 3 - 1), 3 * (4 / 3 - 1)])


def test_exponential_utility_weighs_by_the_share_of_the_exponentials():
    # e^{log 2 · r} of 0, 1, 2 are 1, 2, 4, of mean 7/3.
    rival = RiskSensitiveReward(number, store(), np.log(2))
    own = advantages(call(rival, ["b"] * 3, [0, 1, 2]))
    assert own == pytest.approx((np.array([1, 2, 4]) * 3 / 7 - 1) / np.log(2))
    averse = advantages(call(RiskSensitiveReward(number, store(), -1e-6), ["b"] * 3, [0, 1, 5]))
    assert averse == pytest.approx([-2, -1, 3], abs=1e-4)  # the raw reward, in the limit
    with pytest.raises(ValueError, match="`strength`"):
        RiskSensitiveReward(number, store(), 0.0)


@pytest.mark.parametrize("procedure", [BestOfN(2), WorstOfN(2)], ids=repr)
def test_rivals_refuse_incomplete_groups_and_pickle(procedure):
    for rival in (
        MaxAtKReward(number, store(), procedure),
        RiskSensitiveReward(number, store(), 1),
    ):
        with pytest.raises(DataError, match="Groups of 3"):
            call(rival, ["a"] * 4 + ["b"] * 3, range(7))
        again = pickle.loads(pickle.dumps(rival))
        assert call(again, ["a"] * 3, range(3)) == call(rival, ["a"] * 3, range(3))
        assert again.__name__ == rival.__name__
