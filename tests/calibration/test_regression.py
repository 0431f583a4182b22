"""Quantiles from prompt features, also of prompts that were never sampled."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from infalign.calibration import Pooled, QuantileRegression
from infalign.calibration.ridge import PENALTIES, Ridge


def prompts_with_features(prompts=400, samples=6, seed=0):
    """Rewards 2f + m + Z with m, Z and the feature f standard normal; a useless feature beside."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(prompts, 2)) * [1, 1000] + [5, 0]
    place = 2 * (features[:, :1] - 5) + rng.normal(size=(prompts, 1))
    return place + rng.normal(size=(prompts, samples)), features


def test_a_prompt_without_samples_has_the_quantiles_that_its_features_predict():
    rewards, features = prompts_with_features()
    rewards[:20] = np.nan
    fitted = QuantileRegression(np.inf).fit(rewards, features)
    # Without samples r is normal around 2f with variance 1 + 1.
    asked = 2 * (features[:20, :1] - 5) + np.linspace(-3, 3, 7)
    found = fitted.quantiles(np.arange(20), asked)
    expected = ndtr(np.linspace(-3, 3, 7) / np.sqrt(2))
    # What 380 prompts leave open of the prior: mean and spread of m to a twentieth.
    assert np.abs(found - expected).mean() < 0.025
    sure = QuantileRegression(4.0).fit(rewards, features).quantiles(np.arange(20), asked)
    assert np.abs(sure - expected).mean() < 0.03


def test_a_prompt_with_samples_has_the_posterior_of_both():
    rewards, features = prompts_with_features(samples=4)
    fitted = QuantileRegression(np.inf).fit(rewards, features)
    asked = rewards.mean(1, keepdims=True) + np.linspace(-2, 2, 5)
    # m given K samples is normal around K/(K + 1) of their mean beside 2f, variance 1/(K + 1).
    prior = 2 * (features[:, :1] - 5)
    middle = prior + (rewards.mean(1, keepdims=True) - prior) * 4 / 5
    expected = ndtr((asked - middle) / np.sqrt(1 + 1 / 5))
    found = fitted.quantiles(np.arange(400), asked)
    pooled = Pooled(np.inf).fit(rewards).quantiles(np.arange(400), asked)
    assert np.abs(found - expected).mean() < 0.015 < np.abs(pooled - expected).mean()


def test_held_out_samples_have_uniform_quantiles_without_own_samples():
    rewards, features = prompts_with_features(seed=3)
    held = rewards[:100].copy()
    rewards[:100] = np.nan
    u = QuantileRegression().fit(rewards, features).quantiles(np.arange(100), held)
    for level in (0.1, 0.5, 0.9):
        below = (u <= level).mean(1)
        assert abs(below.mean() - level) < 4 * below.std(ddof=1) / 10 + 0.01


def test_other_prompts_need_no_samples_either():
    rewards, features = prompts_with_features()
    fitted = QuantileRegression().fit(rewards[50:], features[50:])
    other = fitted.on(np.full((50, 1), np.nan), features[:50])
    assert other.prompts == 50
    asked = np.linspace(-4, 4, 9) + np.zeros((50, 1))
    unsampled = np.vstack([np.full((50, 6), np.nan), rewards[50:]])
    # Prior and shape come from sampled prompts alone; the features' units from all.
    together = QuantileRegression().fit(unsampled, features)
    rows = np.arange(50)
    assert other.quantiles(rows, asked) == pytest.approx(together.quantiles(rows, asked), abs=5e-3)


def test_features_that_say_nothing_change_little():
    rewards, _ = prompts_with_features()
    noise = np.random.default_rng(4).normal(size=(400, 10))
    rows = np.arange(400)
    found = QuantileRegression().fit(rewards, noise).quantiles(rows, rewards)
    assert np.abs(found - Pooled().fit(rewards).quantiles(rows, rewards)).mean() < 0.01


def test_units_of_features_do_not_matter():
    rewards, features = prompts_with_features(60)
    one, other = (
        QuantileRegression().fit(rewards, f).quantiles(np.arange(60), rewards)
        for f in (features, features * [1e-6, 1e3] + [7, -3])
    )
    assert other == pytest.approx(one, abs=1e-6)


@pytest.mark.parametrize(
    ("features", "told"),
    [
        (None, "got none. Give numbers"),
        (np.zeros((11, 2)), r" have shape \(12, d\), one row per prompt; got \(11, 2\)"),
        (np.zeros(12), r"got \(12,\)"),
        (np.where(np.arange(24).reshape(12, 2) == 9, np.nan, 0), "got nan at prompt 4, column 1"),
    ],
)
def test_features_that_are_missing_are_refused(features, told):
    with pytest.raises(ValueError, match="`features` must.*" + told):
        QuantileRegression().fit(np.random.default_rng(5).normal(size=(12, 4)), features)


def test_other_prompts_have_the_same_features():
    rewards, features = prompts_with_features(20)
    fitted = QuantileRegression().fit(rewards, features)
    with pytest.raises(ValueError, match=r"must have shape \(20, 2\)"):
        fitted.on(rewards, features[:, :1])


@pytest.mark.parametrize("rewards", [np.ones((12, 4)), np.arange(48.0).reshape(48, 1)])
def test_without_anything_to_learn_from_every_prompt_needs_a_sample(rewards):
    rewards = rewards.copy()
    features = np.arange(len(rewards), dtype=float)[:, None]
    QuantileRegression().fit(rewards, features)
    rewards[3] = np.nan
    with pytest.raises(ValueError, match=r"prompt 3 has none.*Draw samples of it"):
        QuantileRegression().fit(rewards, features)


def test_more_features_than_prompts_do_not_count_samples_twice():
    # Half of the location's variance is in one of 80 features of 60 prompts; a fit of them all
    # tells every location, and with it the prompt's own samples once more.
    rng = np.random.default_rng(6)
    below = {QuantileRegression: [], Pooled: []}
    for _ in range(6):
        features = rng.normal(size=(60, 80))
        place = features[:, :1] + rng.normal(size=(60, 1))
        rewards, fresh = place + rng.normal(size=(60, 3)), place + rng.normal(size=(60, 60))
        for kind, found in below.items():
            u = kind(np.inf).fit(rewards, features).quantiles(np.arange(60), fresh)
            found.append([(u <= level).mean(1) for level in (0.05, 0.5, 0.95)])
    for found in below.values():
        share = np.concatenate(found, axis=1)
        error = share.std(axis=1, ddof=1) / np.sqrt(share.shape[1])
        assert (np.abs(share.mean(1) - [0.05, 0.5, 0.95]) < 4 * error + 0.01).all()


def test_scales_are_predicted_too():
    rng = np.random.default_rng(7)
    features = rng.normal(size=(300, 1))
    rewards = np.exp(features) * rng.normal(size=(300, 8))
    rewards[:50] = np.nan
    fitted = QuantileRegression(np.inf).fit(rewards, features)
    asked = np.exp(features[:50]) * np.linspace(-2, 2, 5)
    found = fitted.quantiles(np.arange(50), asked)
    assert np.abs(found - ndtr(np.linspace(-2, 2, 5))).mean() < 0.02


@settings(max_examples=30)
@given(st.integers(2, 12), st.integers(1, 15), st.integers(0, 2**32 - 1))
def test_a_ridge_regression_left_out_is_one_without_the_prompt(prompts, columns, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(prompts, columns))
    y = features[:, 0] + rng.normal(size=prompts)
    ridge, predicted = Ridge.learned(features, y)
    assert ridge.level == pytest.approx(y.mean())
    middle = features - features.mean(0)

    # The penalty that it chose, from its slopes; every prompt then left out by hand.
    def fitted(penalty, x, z):
        x, z = x - x.mean(0), z - z.mean()
        return np.linalg.solve(x.T @ x + penalty * prompts * np.eye(columns), x.T @ z)

    penalties = [p for p in PENALTIES if p < np.inf]
    slopes = [fitted(p, middle, y) for p in penalties] + [np.zeros(columns)]
    chosen = int(np.argmin([np.abs(s - ridge.slopes).max() for s in slopes]))
    assert ridge.slopes == pytest.approx(slopes[chosen], abs=1e-6)
    for out in range(prompts):
        x, z = np.delete(features, out, 0), np.delete(y, out)
        slope = fitted(PENALTIES[chosen], x, z) if chosen < len(penalties) else np.zeros(columns)
        told = z.mean() + (features[out] - x.mean(0)) @ slope
        around_all = told + y.mean() - z.mean()
        assert predicted[out] == pytest.approx(around_all, abs=1e-6)


def test_features_that_predict_nothing_leave_everything_as_it_is():
    # Constant features: no slope, and rewards pooled as they are.
    rewards, _ = prompts_with_features(50)
    rows = np.arange(50)
    found = QuantileRegression().fit(rewards, np.ones((50, 3))).quantiles(rows, rewards)
    assert found == pytest.approx(Pooled().fit(rewards).quantiles(rows, rewards), abs=1e-6)
