"""Coupled optima on samples: against fixed rewards, gradients, and a general optimizer."""

from functools import partial

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, logit, logsumexp

from infalign import BestOfN, OrderStatistic, Sampling, SolveError, WorstOfN
from infalign.core import (
    ExponentialUtility,
    RawRewards,
    SelectedReward,
    _utilities,
    at_kl,
    coupled_tilt,
    first_tilt,
    log_weights,
)

RNG = np.random.default_rng


def value(utility, rewards, logs):
    """The utility itself, from its definition, of one prompt with increasing rewards."""
    p = np.exp(logs)
    if isinstance(utility, ExponentialUtility):
        return logsumexp(utility.strength * rewards + logs) / utility.strength
    kept = np.diff(utility.procedure.cdf(np.clip(np.cumsum(np.append(0, p)), 0, 1)))
    return float(kept @ rewards)


UTILITIES = [
    SelectedReward(BestOfN(4)),
    SelectedReward(WorstOfN(3)),
    SelectedReward(OrderStatistic(5, 2)),
    ExponentialUtility(1.5),
    ExponentialUtility(-0.7),
]


@pytest.mark.parametrize("utility", UTILITIES, ids=repr)
def test_the_advantage_is_the_gradient_of_the_utility(utility):
    rng = RNG(0)
    rewards = np.sort(rng.normal(size=9))
    logs = np.log(rng.dirichlet(np.ones(9)))
    advantage = utility.advantage(rewards[None], logs[None])[0]
    p = np.exp(logs)
    for direction in rng.normal(size=(6, 9)):
        direction = p * (direction - p @ direction)  # keeps the sum of the probabilities
        moved = [value(utility, rewards, np.log(p + e * direction)) for e in (1e-6, -1e-6)]
        assert (moved[0] - moved[1]) / 2e-6 == pytest.approx(advantage @ direction, abs=1e-7)


def test_a_linear_utility_is_the_raw_reward():
    rewards = RNG(1).normal(size=(20, 12))
    beta, logs = coupled_tilt(rewards, SelectedReward(Sampling()), 0.5)
    assert beta == pytest.approx(at_kl(RawRewards(rewards), 0.5).beta, rel=1e-6)
    assert logs == pytest.approx(log_weights(rewards, beta), abs=1e-6)
    assert first_tilt(rewards, SelectedReward(Sampling()), 0.5)[1] == pytest.approx(logs, abs=1e-6)


@pytest.mark.parametrize("utility", [SelectedReward(BestOfN(4)), ExponentialUtility(1.5)], ids=repr)
def test_it_is_what_a_general_optimizer_finds(utility):
    rewards = RNG(2).normal(size=(1, 8))
    beta, logs = coupled_tilt(rewards, utility, 0.4)
    order = np.argsort(rewards[0])
    ranked = rewards[0][order]

    def loss(x):
        log_p = log_softmax(x)
        kl = np.exp(log_p) @ (log_p + np.log(8))
        return beta * kl - value(utility, ranked, log_p)

    best = minimize(loss, np.zeros(8), method="BFGS", options={"gtol": 1e-9})
    assert log_softmax(best.x) + np.log(8) == pytest.approx(logs[0][order], abs=2e-4)
    ratio = np.exp(logs[0])
    assert np.mean(ratio) == pytest.approx(1) and np.mean(ratio * logs[0]) == pytest.approx(
        0.4, abs=1e-5
    )


def test_the_mean_kl_over_prompts_is_the_one_asked_for():
    rng = RNG(3)
    rewards = rng.normal(size=(50, 1)) + rng.exponential(size=(50, 32))
    for utility, close in ((SelectedReward(BestOfN(8)), 1e-6), (SelectedReward(WorstOfN(4)), 0.01)):
        _, logs = coupled_tilt(rewards, utility, 0.3, close=close)
        assert np.mean(np.exp(logs) * logs) == pytest.approx(0.3, abs=0.01)
        assert np.exp(logs).mean(1) == pytest.approx(1)


def test_samples_hardly_drawn_may_still_move_after_the_last_round(monkeypatch):
    rewards = -RNG(0).exponential(size=(30, 32))
    solve = partial(coupled_tilt, rewards, SelectedReward(WorstOfN(8)), 0.5, close=0.01)
    exact, logs = solve()
    monkeypatch.setattr(_utilities, "ROUNDS", 1000)
    beta, early = solve()
    assert beta != exact and beta == pytest.approx(exact, rel=0.01)
    assert np.mean(np.exp(early) * np.abs(early - logs)) < 0.01
    monkeypatch.setattr(_utilities, "ROUNDS", 300)
    with pytest.raises(SolveError, match=r"still moves by 0\.0\d+ nats. Ask for a smaller `kl`"):
        solve()


def test_what_cannot_be_expressed_is_refused():
    with pytest.raises(SolveError, match=r"4 samples per prompt reach at most 1\.39 nats"):
        coupled_tilt(RNG(4).normal(size=(3, 4)), SelectedReward(BestOfN(2)), 2.0)
    ties = [[0, 0, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]]  # (log 4 + log 2 + 0) / 3
    with pytest.raises(SolveError, match=r"with these ties reach at most 0\.693 nats"):
        first_tilt(ties, SelectedReward(BestOfN(2)), 0.7)
    with pytest.raises(SolveError, match="advantages are 0 to double precision"):
        coupled_tilt([[0, 1] + 8 * [1]], SelectedReward(BestOfN(400)), 0.01)
    with pytest.raises(SolveError, match="did not converge in 2000 rounds"):
        coupled_tilt(3 * RNG(5).normal(size=(30, 32)), ExponentialUtility(-3.0), 1.0)
    with pytest.raises(ValueError, match="`rewards` must hold finite"):
        first_tilt([[1.0, np.inf]], SelectedReward(BestOfN(2)), 0.1)


@pytest.mark.parametrize(
    ("draws", "passing", "kl"), [(2, 0.9, 0.01), (8, 0.05, 1.5), (32, 0.9, 0.01), (64, 0.3, 0.3)]
)
def test_the_optimum_on_pass_or_fail_is_the_root_of_its_equation(draws, passing, kl):
    rewards = (RNG(6).random((20, 64)) < passing).astype(float)
    beta, logs = coupled_tilt(rewards, SelectedReward(BestOfN(draws)), kl)
    start = rewards.mean(1)
    rate = np.mean(np.exp(logs) * rewards, axis=1)
    mixed = (start > 0) & (start < 1)
    start, rate = start[mixed], rate[mixed]
    # logit q - logit p = n (1 - q)^(n - 1) / beta
    gain = draws * (1 - rate) ** (draws - 1) / beta
    assert logit(rate) - logit(start) == pytest.approx(gain, rel=1e-3)
    spent = rate * np.log(rate / start) + (1 - rate) * np.log((1 - rate) / (1 - start))
    assert spent.sum() / 20 == pytest.approx(kl, rel=1e-4)
