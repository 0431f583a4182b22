"""Generalised Pareto tails beyond a prompt's own samples, against laws whose tails are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, genpareto

from infalign import Exponential
from infalign.calibration import Counting, TailExtrapolation
from infalign.calibration.tail import RANKS, Tail, _rank_quantiles, excesses


def rewards_of(shape, prompts=400, samples=16, seed=0, spread=0.3):
    """Generalised Pareto rewards, prompts of different location and scale; and both of them."""
    rng = np.random.default_rng(seed)
    place, scale = 3 * rng.normal(size=(prompts, 1)), np.exp(spread * rng.normal(size=(prompts, 1)))
    return place + scale * genpareto.ppf(rng.random((prompts, samples)), shape), place, scale


@pytest.mark.parametrize("shape", [-0.5, 0.0, 0.5])
def test_the_shape_and_the_scales_are_those_of_a_known_tail(shape):
    rewards, _, _ = rewards_of(shape)
    tail = Tail.learned(excesses(np.sort(rewards, axis=1)), 1.0)
    # 1600 excesses; the standard error of their ξ by maximum likelihood is (1 + ξ)/40, and some
    # more as scales are unknown too.
    assert abs(tail.shape - shape) <= 0.125 + 0.125
    # At the threshold, the 5th highest of 16, the scale is that at 0 times a power of what is left
    # above it, a Beta(5, 12).
    left = beta(5, 12)
    mean = left.expect(np.log) * -shape
    variance = 0.3**2 + shape**2 * left.expect(lambda p: (np.log(p) - left.expect(np.log)) ** 2)
    assert abs(tail.location - mean) < 0.25
    assert abs(tail.variance - variance) < 0.06


def test_an_exponential_tail_goes_on_as_one():
    # One scale for all, so nothing is to be averaged: the chance to lie above the highest of K by
    # y is e^{−y}/(K + 1).
    rewards, _, _ = rewards_of(0.0, samples=32, spread=0.0)
    fitted = TailExtrapolation().fit(rewards)
    over = np.array([0.0, 0.5, 1.0, 2.0])
    asked = rewards.max(1, keepdims=True) + over
    found = fitted.quantiles(np.arange(400), asked).mean(0)
    # Of the order of one step of ξ, by second order in y.
    assert 33 * (1 - found) == pytest.approx(np.exp(-over), abs=0.06)


@pytest.mark.parametrize("samples", [4, 16])
@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.4])
def test_held_out_samples_are_as_often_beyond_as_told(shape, samples):
    rewards, place, scale = rewards_of(shape, 600, samples, seed=1)
    for sign in (1, -1):  # the tail, and its mirror
        fitted = TailExtrapolation().fit(sign * rewards)
        fresh = np.random.default_rng(2).random((600, 200))
        u = fitted.quantiles(np.arange(600), sign * (place + scale * genpareto.ppf(fresh, shape)))
        for level in (0.02, 0.1, 0.5, 0.9, 0.98):
            below = (u <= level).mean(1)
            error = below.std(ddof=1) / np.sqrt(600)
            # One excess of 4 samples tells a heavy tail from scales that differ only roughly.
            off = 0.01 if samples == 16 else 0.02
            assert abs(below.mean() - level) < 4 * error + off, (sign, level)


def test_a_bounded_tail_ends():
    # Uniform rewards, ξ = −1: the nearest shape tried is −3/4, and ends soon after the top.
    rewards = np.random.default_rng(3).random((300, 16))
    fitted = TailExtrapolation().fit(rewards)
    u = fitted.quantiles(np.arange(300), np.array([[1.0, 1.2, 3.0]]) + np.zeros((300, 1)))
    assert (u.mean(0) > [0.98, 0.995, 1 - 1e-9]).all()


@settings(max_examples=25)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_quantiles_are_continuous_and_rise_beyond_all_samples(samples, seed):
    rng = np.random.default_rng(seed)
    rewards = np.sort(rng.standard_t(3, size=(12, max(samples, 2))), axis=1)
    rewards[0, samples:] = np.nan
    own = np.sort(rewards[0, :samples])
    fitted = TailExtrapolation().fit(rewards)
    told = fitted.quantiles(np.zeros(samples, int), own)
    assert told == pytest.approx(np.arange(1, samples + 1) / (samples + 1), abs=1e-9)
    for transform in (None, Exponential(20.0)):
        near = (own[:, None] + np.array([-1e-9, 0, 1e-9])).ravel()
        told = _told(fitted, near, transform).reshape(samples, 3)
        assert np.ptp(told, axis=1).max() < 1e-4
    beyond = own[-1] + np.array([0, 0.01, 0.1])
    assert (np.diff(_told(fitted, beyond, None)) > 0).all()
    assert (np.diff(_told(fitted, own[0] - beyond + own[-1], None)) < 0).all()


def _told(fitted, rewards, transform):
    rows = np.zeros(len(rewards), int)
    if transform is None:
        return fitted.quantiles(rows, rewards)
    return fitted.shaped(rows, rewards, transform)


@pytest.mark.parametrize("count", [1, 4, 16])
def test_parts_of_the_true_quantiles_have_their_law(count):
    parts = _rank_quantiles(count)
    numbers = np.arange(1, count + 1)
    assert parts.mean(0) == pytest.approx(numbers / (count + 1), abs=1e-12)
    assert (np.diff(parts, axis=0) > 0).all() and (np.diff(parts, axis=1) > 0).all()
    for part, column in zip(parts.T, numbers, strict=True):
        drawn = np.sort(beta(column, count + 1 - column).ppf((np.arange(8000) + 0.5) / 8000))
        assert part == pytest.approx(drawn.reshape(RANKS, -1).mean(1), abs=1e-4)


def test_it_counts_where_rewards_tie_or_prompts_are_few():
    rng = np.random.default_rng(5)
    levels = rng.integers(0, 3, (40, 6)).astype(float)
    few = rng.normal(size=(7, 6))
    for rewards in (levels, few):
        rows, asked = np.arange(len(rewards)), rewards + 0.5
        found = TailExtrapolation().fit(rewards).quantiles(rows, asked)
        assert np.array_equal(found, Counting().fit(rewards).quantiles(rows, asked))


def test_what_was_learned_applies_to_other_prompts():
    rewards, _, _ = rewards_of(0.2, 100)
    fitted = TailExtrapolation().fit(rewards)
    rows, asked = np.arange(3), rewards[:3] + 0.1
    again = fitted.on(rewards[:3]).quantiles(rows, asked)
    assert again == pytest.approx(fitted.quantiles(rows, asked), abs=1e-12)


def test_a_sample_that_no_bounded_tail_explains_is_no_trouble():
    rewards = np.random.default_rng(6).random((300, 8))
    fitted = TailExtrapolation().fit(rewards)
    assert fitted.upper.shape < 0
    far = np.append(rewards[0], 1e6)[None]
    u = fitted.on(far).quantiles(np.zeros(3, int), [1e6, 1e6 + 1, 1e9])
    assert u[0] == pytest.approx(0.9) and (np.diff(u) >= 0).all() and np.isfinite(u).all()
