"""The exact online objective: groups of responses, against enumeration and exact gradients."""

import pickle
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infalign import (
    BestOfN,
    BestOfPoisson,
    CalibrationStore,
    DataError,
    GroupShapedReward,
    Mixture,
    OrderStatistic,
    Sampling,
    SoftBestOfN,
    WorstOfN,
    pass_at,
)
from infalign.calibration import Pooled
from infalign.core import finite, group_rewards, group_win_rate
from infalign.shaping import MaxAtKReward, RiskSensitiveReward

PROCEDURES = [
    Sampling(),
    BestOfN(2),
    BestOfN(4),
    WorstOfN(3),
    OrderStatistic(4, 2),
    Mixture((BestOfN(4), Sampling()), (0.3, 0.7)),
]
every = pytest.mark.parametrize("procedure", PROCEDURES, ids=lambda p: p.spec)


def kept(procedure, values):
    """Value that a fixed number of draws keeps, from its definition."""
    ordered = sorted(values)
    if isinstance(procedure, Sampling):
        return float(np.mean(ordered))
    k = {BestOfN: 1, WorstOfN: len(ordered)}.get(type(procedure)) or procedure.k
    return ordered[len(ordered) - k]


@every
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_the_win_rate_of_a_group_is_the_mean_over_all_its_subsets(procedure, seed):
    rng = np.random.default_rng(seed)
    m = int(rng.integers(procedure.draws, procedure.draws + 4))
    rewards = rng.integers(0, 5, m).astype(float)  # ties
    utilities = (rewards / 5) ** 2
    parts = zip(
        getattr(procedure, "procedures", (procedure,)),
        getattr(procedure, "weights", (1.0,)),
        strict=True,
    )
    expected = sum(
        w * np.mean([kept(p, s) for s in combinations(utilities, p.draws)]) for p, w in parts
    )
    assert group_win_rate([rewards], [utilities], procedure)[0] == pytest.approx(expected)


@every
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_rewards_are_what_the_group_loses_without_a_response(procedure, seed):
    rng = np.random.default_rng(seed)
    m = int(rng.integers(procedure.draws + 1, procedure.draws + 5))
    rewards = rng.integers(0, 6, (3, m)).astype(float)
    utilities = rewards / 10
    found = group_rewards(rewards, utilities, procedure)
    whole = group_win_rate(rewards, utilities, procedure)
    for i in range(m):
        without = group_win_rate(np.delete(rewards, i, 1), np.delete(utilities, i, 1), procedure)
        assert found[:, i] == pytest.approx((m - 1) * (whole - without), abs=1e-12)
    assert found.sum(1) == pytest.approx(0, abs=1e-9)


def test_with_one_draw_it_is_the_utility_itself():
    rng = np.random.default_rng(0)
    utilities = rng.random((4, 6))
    found = group_rewards(rng.normal(size=(4, 6)).argsort(1).astype(float), utilities, Sampling())
    assert found == pytest.approx(utilities - utilities.mean(1, keepdims=True))


def test_with_rewards_that_pass_or_fail_the_estimate_is_pass_at_n():
    passed = (np.random.default_rng(1).random((5, 9)) < 0.3) * 1.0
    found = group_win_rate(passed, passed, BestOfN(4))
    assert found.mean() == pytest.approx(pass_at(passed, 4).value)


def world(seed=3, outcomes=12):
    """A prompt with known reference and policy over outcomes, some of which tie."""
    rng = np.random.default_rng(seed)
    reward = np.round(rng.normal(size=outcomes), 1)
    reward[1] = reward[0]
    reference = rng.dirichlet(np.ones(outcomes))
    logits = np.log(reference) + 0.7 * rng.normal(size=outcomes)
    return rng, reward, reference, logits


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


@pytest.mark.parametrize(
    ("procedure", "against"),
    [
        (BestOfN(4), BestOfN(4)),
        (WorstOfN(4), WorstOfN(4)),
        (OrderStatistic(3, 2), BestOfN(2)),
        (BestOfPoisson(1.0), Sampling()),
    ],
    ids=repr,
)
def test_the_mean_gradient_through_rloo_is_the_exact_one_of_the_win_rate_less_kl(
    procedure, against
):
    """Groups drawn from an enumerable policy; utilities from stores drawn from its reference; the
    advantage as RLOO makes it of reward less β k1. In its place the exact gradient of W − β KL."""
    rng, reward, reference, logits = world()
    beta, m, k, groups = 0.3, 8 if procedure.draws < 8 else 20, 6, 40_000
    policy = softmax(logits)

    def objective(x):
        p = softmax(x)
        return finite.win_rate(reward, p, reference, procedure, against=against) - beta * finite.kl(
            p, reference
        )

    exact = np.array(
        [(objective(logits + e) - objective(logits - e)) / 2e-5 for e in 1e-5 * np.eye(len(logits))]
    )
    drawn = rng.choice(len(reward), size=(groups, m), p=policy)
    known = np.sort(reward[rng.choice(len(reward), size=(groups, k), p=reference)], axis=1)
    values = reward[drawn]
    below = (known[:, None, :] < values[..., None]).sum(2)
    up_to = (known[:, None, :] <= values[..., None]).sum(2)
    law = against.subset_cdf(k)
    wins = (law[below] + law[up_to]) / 2
    trained = group_rewards(values, wins, procedure)
    trained -= beta * np.log(policy / reference)[drawn]
    advantage = m / (m - 1) * (trained - trained.mean(1, keepdims=True))
    # ∇ log π of a softmax: the outcome's own unit vector, less π.
    score = np.eye(len(reward))[drawn] - policy
    each = (advantage[..., None] * score).mean(1)
    error = each.std(0, ddof=1) / np.sqrt(groups)
    assert (np.abs(each.mean(0) - exact) < 4 * error + 1e-7).all()
    assert np.abs(exact).max() > 10 * error.max()  # the test can tell
    if procedure == BestOfN(4):
        # One subset alone is unbiased too, and far noisier: here by the rewards of its responses.
        alone = wins[:, :4].max(1)
        rest = wins[:, 4:].max(1)  # another subset as its baseline
        one = (alone - rest)[:, None] * score[:, :4].sum(1)
        kl = beta * np.log(policy / reference)[drawn]
        kl = m / (m - 1) * (kl - kl.mean(1, keepdims=True))
        one -= (kl[..., None] * score).mean(1)
        noise = one.std(0, ddof=1) / np.sqrt(groups)
        assert (np.abs(one.mean(0) - exact) < 4 * noise).all()
        assert one.var(0).sum() > 2 * each.var(0).sum()


# --- As a reward function. ---

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
    found = shaped.shaper.calibration.locate(["b"] * 4, rewards).win_chance(BestOfN(2))
    reference = known.rewards["b"]
    expected = [
        np.mean([(r > max(s)) + (r == max(s)) / 2 for s in combinations(reference, 2)])
        for r in rewards
    ]
    assert found == pytest.approx(expected)
    told = {}
    out = call(shaped, ["b"] * 4, rewards, log_metric=told.__setitem__)
    assert out == pytest.approx(group_rewards([rewards], [found], BestOfN(2))[0])
    assert told["infalign/win_rate"] == pytest.approx(
        group_win_rate([rewards], [found], BestOfN(2))[0]
    )
    assert set(told) >= {"infalign/raw_reward", "infalign/quantile", "infalign/saturated"}


def test_groups_of_several_prompts_are_told_apart():
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
    wins = shaped.shaper.calibration.locate(["5"] * 3, above).win_chance(BestOfN(8))
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
        (lambda: group_rewards([[1.0, 2.0]], [[1.0, 2.0]], BestOfN(2)), "at least 3 responses"),
        (lambda: group_rewards([[1.0, 2.0]], [[1.0]], BestOfN(2)), "`utilities` must have"),
        (lambda: group_rewards([[1.0, np.nan]], [[1.0, 1.0]], Sampling()), "`rewards` must hold"),
    ],
)
def test_wrong_arguments_are_named(make, words):
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


# --- Rivals, on numbers worked out by hand. ---


def advantages(rewards):
    """As RLOO makes them: less the mean of the others in the group."""
    r = np.array(rewards)
    return (len(r) * r - r.sum()) / (len(r) - 1)


def test_max_at_k_is_what_the_best_of_two_loses_without_a_response():
    # Of 1, 2, 4: the best of two is 10/3 on average; without 1 it is 4, without 2 too, without 4
    # it is 2.
    rival = MaxAtKReward(number, store(), BestOfN(2))
    found = advantages(call(rival, ["a"] * 3, [1, 2, 4]))
    assert found == pytest.approx([3 * (10 / 3 - 4)] * 2 + [3 * (10 / 3 - 2)])
    worst = advantages(call(MaxAtKReward(number, store(), WorstOfN(2)), ["a"] * 3, [1, 2, 4]))
    assert worst == pytest.approx([3 * (4 / 3 - 2), 3 * (4 / 3 - 1), 3 * (4 / 3 - 1)])


def test_exponential_utility_weighs_by_the_share_of_the_exponentials():
    # e^{log 2 · r} of 0, 1, 2 are 1, 2, 4, of mean 7/3.
    rival = RiskSensitiveReward(number, store(), np.log(2))
    found = advantages(call(rival, ["b"] * 3, [0, 1, 2]))
    assert found == pytest.approx((np.array([1, 2, 4]) * 3 / 7 - 1) / np.log(2))
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
