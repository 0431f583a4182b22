"""Calibrators on normal scores: rewards of any scale."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, ndtri

from infalign import BestOfN, Exponential, WorstOfN
from infalign.calibration import Counting, NormalScores, Pooled, QuantileRegression, choose
from infalign.calibration.assessment import KnownWorld, assess
from infalign.calibration.outlook import outlook_of
from infalign.calibration.scores import Scale

RANKED = NormalScores(Pooled())


def bounded(u, place):
    """Chances whose log-odds are normal: most lie near 0 or 1."""
    return expit(4 * (place + ndtri(u)))


def places(prompts, seed=0):
    return np.random.default_rng(seed).normal(size=(prompts, 1))


def test_scores_of_normal_rewards_are_these_rewards():
    rewards = 5 + 3 * np.random.default_rng(0).normal(size=(200, 50))
    asked = np.linspace(-2.5, 2.5, 21)
    # A quantile of 10,000 is known to sqrt(u (1 - u)/10,000)/density: 0.03 at 2.5.
    assert Scale.of(rewards)(5 + 3 * asked) == pytest.approx(asked, abs=0.1)


REWARDS = st.integers(-(10**9), 10**9).map(lambda thousandths: thousandths / 1000)


@given(
    st.lists(REWARDS, min_size=1, max_size=40),
    st.lists(REWARDS, min_size=2, max_size=10),
)
def test_the_map_is_increasing_and_continuous(rewards, asked):
    scale = Scale.of(np.array([rewards]))
    asked = np.sort(asked)
    found = scale(asked)
    assert np.isfinite(found).all() and (np.diff(found) >= 0).all()
    at = scale.rewards
    assert scale(at) == pytest.approx(scale.scores)
    assert np.isnan(scale(np.array([np.nan]))).all()


@pytest.mark.parametrize("samples", [4, 16])
def test_quantiles_do_not_change_with_the_scale_of_the_reward(samples):
    rng = np.random.default_rng(1)
    rewards = places(200) + rng.normal(size=(200, samples))
    rows, new = np.arange(200), places(200)[:, 0] + rng.normal(size=200)
    told = [
        RANKED.fit(change(rewards)).quantiles(rows, change(new))
        for change in (lambda r: r, lambda r: r**3, lambda r: expit(2 * r))
    ]
    # Not exactly: knots lie between samples, and straight lines between knots.
    for other in told[1:]:
        assert np.abs(other - told[0]).mean() < 0.01
    raw = [Pooled().fit(r).quantiles(rows, n) for r, n in ((rewards, new), (rewards**3, new**3))]
    assert np.abs(raw[1] - raw[0]).mean() > 0.02


# Measured with K = 2: best-of-8 gains 14 points over counting, worst-of-8 5; with 16 3 and 0.6.
@pytest.mark.parametrize("samples", [2, 16])
def test_rewards_that_crowd_at_their_bounds_are_served(samples):
    place = places(128, 2)
    world = KnownWorld(lambda u: bounded(u, place), 128)
    for procedure, transform in (
        (BestOfN(8), Exponential(20.0)),
        (WorstOfN(8), Exponential(-20.0)),
    ):
        found = assess(world, {"counting": Counting(), "ranked": RANKED}, transform, procedure,
                      kl=0.5, samples=samples, rounds=1, rng=np.random.default_rng(3))  # fmt: skip
        paired = found["ranked"].prompts - found["counting"].prompts
        assert paired.mean() > 2 * paired.std(ddof=1) / np.sqrt(128) > 0


def test_it_is_chosen_where_it_is_better():
    rng = np.random.default_rng(4)
    chosen = choose(bounded(rng.random((128, 6)), places(128, 5)))
    assert chosen.name == "pooled-ranks" and chosen.calibrator == RANKED
    assert chosen.held_out["pooled-ranks"].better > chosen.held_out["pooled"].better + 0.02


def test_held_out_samples_have_uniform_quantiles():
    rng = np.random.default_rng(6)
    place = places(300, 7)
    fitted = RANKED.fit(bounded(rng.random((300, 6)), place))
    u = fitted.quantiles(np.arange(300), bounded(rng.random((300, 50)), place))
    for level in (0.05, 0.5, 0.95):
        below = (u <= level).mean(1)
        assert abs(below.mean() - level) < 4 * below.std(ddof=1) / np.sqrt(300) + 0.01


def test_levels_are_counted():
    rewards = np.random.default_rng(8).integers(0, 3, (40, 6)).astype(float)
    rows, asked = np.arange(40), rewards[:, ::-1] + 0.5
    found = RANKED.fit(rewards).quantiles(rows, asked)
    assert np.array_equal(found, Counting().fit(rewards).quantiles(rows, asked))


def test_one_reward_for_all_is_no_trouble():
    fitted = RANKED.fit(np.ones((12, 3)))
    assert fitted.quantiles(np.zeros(3, int), [0.0, 1.0, 2.0]).tolist() == [0, 0.5, 1]


def test_features_predict_scores():
    rng = np.random.default_rng(9)
    features = rng.normal(size=(200, 1))
    rewards = bounded(rng.random((200, 6)), features)
    rewards[:50] = np.nan
    fitted = NormalScores(QuantileRegression()).fit(rewards, features)
    u = fitted.quantiles(np.arange(50), bounded(rng.random((50, 80)), features[:50]))
    below = (u <= 0.5).mean(1)
    assert abs(below.mean() - 0.5) < 4 * below.std(ddof=1) / np.sqrt(50) + 0.01
    other = fitted.on(np.full((1, 1), np.nan), [[2.0]])
    assert other.quantiles([0], bounded(np.array([0.5]), 2.0)) == pytest.approx(0.5, abs=0.1)


def test_what_is_expected_is_what_is_expected_of_scores():
    rewards = bounded(np.random.default_rng(10).random((64, 5)), places(64, 11))
    fitted = RANKED.fit(rewards)
    procedure, transform = BestOfN(4), Exponential(10.0)
    one, other = (
        outlook_of(*given).achieved(transform, procedure, procedure, kl=0.5)
        for given in (
            (fitted, rewards),
            (fitted.learned, fitted.scale(rewards)),
        )
    )
    assert one == other
