"""The exact online objective: groups of responses, against enumeration and exact gradients."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infalign import (
    BestOfN,
    BestOfPoisson,
    DataError,
    Mixture,
    OrderStatistic,
    Sampling,
    WorstOfN,
    pass_at,
)
from infalign.core import finite, group_rewards, group_win_rate

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
@settings(max_examples=15)
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
@settings(max_examples=15)
def test_rewards_are_what_the_group_loses_without_a_response(procedure, seed):
    rng = np.random.default_rng(seed)
    m = int(rng.integers(procedure.draws + 1, procedure.draws + 5))
    rewards = rng.integers(0, 6, (3, m)).astype(float)
    utilities = rewards / 10
    shaped = group_rewards(rewards, utilities, procedure)
    whole = group_win_rate(rewards, utilities, procedure)
    for i in range(m):
        without = group_win_rate(np.delete(rewards, i, 1), np.delete(utilities, i, 1), procedure)
        assert shaped[:, i] == pytest.approx((m - 1) * (whole - without), abs=1e-12)
    assert shaped.sum(1) == pytest.approx(0, abs=1e-9)


def test_with_one_draw_it_is_the_utility_itself():
    rng = np.random.default_rng(0)
    utilities = rng.random((4, 6))
    shaped = group_rewards(rng.normal(size=(4, 6)).argsort(1).astype(float), utilities, Sampling())
    assert shaped == pytest.approx(utilities - utilities.mean(1, keepdims=True))


def test_with_rewards_that_pass_or_fail_the_estimate_is_pass_at_n():
    passed = (np.random.default_rng(1).random((5, 9)) < 0.3) * 1.0
    win_rates = group_win_rate(passed, passed, BestOfN(4))
    assert win_rates.mean() == pytest.approx(pass_at(passed, 4).value)


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


@pytest.mark.parametrize(
    ("rewards", "utilities", "procedure", "words"),
    [
        ([[1.0, 2.0]], [[1.0, 2.0]], BestOfN(2), "at least 3 responses"),
        ([[1.0, 2.0]], [[1.0]], BestOfN(2), "`utilities` must have"),
        ([[1.0, np.nan]], [[1.0, 1.0]], Sampling(), "`rewards` must hold"),
    ],
)
def test_wrong_groups_are_named(rewards, utilities, procedure, words):
    with pytest.raises((ValueError, DataError), match=words):
        group_rewards(rewards, utilities, procedure)
