"""Reference and policy samples together: the balance heuristic against exact quantiles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

from infalign.calibration import Counting, Refined

SHIFT = 2.0
"""The policy draws N(SHIFT, 1) where the reference draws N(0, 1)."""


def log_ratio(rewards):
    return SHIFT * rewards - SHIFT**2 / 2


def drawn(prompts, k, m, seed=0):
    rng = np.random.default_rng(seed)
    reference, policy = rng.normal(size=(prompts, k)), SHIFT + rng.normal(size=(prompts, m))
    return reference, Refined(log_ratio(reference), policy, log_ratio(policy))


def test_by_hand():
    # K = 1 at 0 with ratio 1, m = 1 at 2 with ratio 3: weights 1/2 and 1/4, so 2/3 and 1/3.
    refined = Refined([[0.0]], [[2.0]], [[np.log(3)]])
    found = refined.fit([[0.0]]).quantiles(np.zeros(5, int), [-1.0, 0.0, 1.0, 2.0, 3.0])
    assert found == pytest.approx([0, 1 / 3, 2 / 3, 5 / 6, 1])


def test_quantiles_are_unbiased_and_sharp_where_the_policy_is():
    prompts = 2000
    reference, refined = drawn(prompts, 32, 32)
    asked = np.array([0.0, 1.0, 2.0, 3.0])
    every = np.broadcast_to(asked, (prompts, 4))
    rows, exact = np.arange(prompts), ndtr(asked)
    u = refined.fit(reference).quantiles(rows, every)
    stderr = u.std(0, ddof=1) / np.sqrt(prompts)
    # A ratio of two unbiased sums is off by the order of 1/(K + m) of the error of one prompt.
    assert (np.abs(u.mean(0) - exact) < 4 * stderr + 0.002 * (1 - exact)).all()
    counted = Counting().fit(reference).quantiles(rows, every)
    ratio = np.std(u, axis=0) / np.std(counted, axis=0)
    assert ratio[0] < 1.1 and (ratio[2:] < 0.35).all()


@pytest.mark.parametrize("m", [8, 64])
def test_the_relative_error_of_the_upper_tail_shrinks_as_policy_samples_grow(m):
    # Two roads to the standard error of 1 − û at 2: over prompts, and by the delta method from the
    # exact densities, by quadrature.
    k, at = 8, 2.0
    reference, refined = drawn(3000, k, m)
    u = refined.fit(reference).quantiles(np.arange(3000), np.full((3000, 1), at))[:, 0]
    grid = np.linspace(-8, 12, 20001)
    p = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi)
    q = np.exp(-((grid - SHIFT) ** 2) / 2) / np.sqrt(2 * np.pi)
    weight = 1 / (k + m * np.exp(log_ratio(grid)))
    centered = weight * ((grid > at) - ndtr(-at))
    step = grid[1] - grid[0]
    variance = sum(
        n * (np.sum(d * centered**2) * step - (np.sum(d * centered) * step) ** 2)
        for n, d in ((k, p), (m, q))
    )
    assert np.std(u) == pytest.approx(np.sqrt(variance), rel=0.15)


def kolmogorov(fitted, prompts):
    """Largest error over a grid, of each prompt: in units of the chance to lie above."""
    grid = np.linspace(0, 3, 61)
    u = fitted.quantiles(np.arange(prompts), np.broadcast_to(grid, (prompts, 61)))
    return np.max(np.abs(u - ndtr(grid)) / ndtr(-grid), axis=1).mean()


def test_kolmogorov_error_above_the_median_shrinks_against_counting():
    reference, refined = drawn(200, 16, 64)
    found = kolmogorov(refined.fit(reference), 200)
    assert found < 0.5 * kolmogorov(Counting().fit(reference), 200)
    more_reference, more = drawn(200, 64, 256)
    assert kolmogorov(more.fit(more_reference), 200) < 0.65 * found


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_a_policy_that_is_the_reference_adds_samples(k, m, seed):
    rng = np.random.default_rng(seed)
    reference, policy = rng.integers(0, 5, (3, k)), rng.integers(0, 5, (3, m))
    refined = Refined(np.zeros((3, k)), policy, np.zeros((3, m))).fit(reference)
    counted = Counting().fit(np.hstack([reference, policy]))
    asked = np.tile(np.arange(-1.0, 6.0), (3, 1))
    rows = np.arange(3)
    assert refined.quantiles(rows, asked) == pytest.approx(counted.quantiles(rows, asked))


def test_a_prompt_without_policy_samples_is_counted():
    reference, refined = drawn(3, 6, 4)
    refined.policy_rewards[1] = np.nan
    fitted, counted = refined.fit(reference), Counting().fit(reference)
    rows, asked = np.array([1]), np.linspace(-3, 3, 13)[None]
    assert fitted.quantiles(rows, asked) == pytest.approx(counted.quantiles(rows, asked))


def test_ratios_of_any_size_are_no_trouble():
    refined = Refined([[-np.inf, -2000.0, 0.0]], [[5.0, 6.0]], [[2000.0, 300.0]])
    u = refined.fit([[0.0, 1.0, 2.0]]).quantiles(np.zeros(3, int), [0.5, 1.5, 5.5])
    # Weights 1/3, 1/3, 1/5 and next to nothing.
    assert u == pytest.approx(np.array([5, 10, 13]) / 13)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"log_ratios": np.zeros((4, 2))}, r"`log_ratios`.*shape \(4, 3\); got \(4, 2\)"),
        ({"policy_log_ratios": np.full((4, 5), np.nan)}, r"`policy_log_ratios`.*got nan at prompt"),
        ({"log_ratios": np.full((4, 3), np.inf)}, r"got inf at prompt 0, sample 0 \(12 of 12"),
        (
            {"policy_rewards": np.zeros((3, 5))},
            r"`rewards` and `policy_rewards` must have one row per prompt each; got 4 and 3 rows",
        ),
    ],
)
def test_wrong_samples_are_refused(changed, told):
    given_samples = {
        "log_ratios": np.zeros((4, 3)),
        "policy_rewards": np.zeros((4, 5)),
        "policy_log_ratios": np.zeros((4, 5)),
    }
    with pytest.raises(ValueError, match=told):
        Refined(**{**given_samples, **changed}).fit(np.zeros((4, 3)))
