"""Quantiles by hand and by law; stores in memory; files that are whole or absent."""

import numpy as np
import pytest
from contracts import law
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from infalign import CalibrationStore, DataError, quantiles
from infalign.core import randomized_quantiles

tied = arrays(float, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(-9, 9))
smoothing = pytest.mark.parametrize("smoothing", ["none", "add-half"])


# --- Quantiles. ---


def test_quantiles_by_hand():
    # Among 1, 2, 2, 4: 0 has none below; 2 has one below and two equal, (1 + 2/2)/4;
    # 3 has three below; 4 has three below and one equal; 9 has all four below.
    reference = [[4.0, 2, 1, 2]]
    assert quantiles([[0, 2, 3, 4, 9]], reference).tolist() == [[0, 0.5, 0.75, 0.875, 1]]
    # add-half: ranks 0, 2, 3, 3.5, 4, each plus 1/2, over K + 1 = 5.
    smooth = quantiles([[0, 2, 3, 4, 9]], reference, smoothing="add-half")
    np.testing.assert_allclose(smooth, [[0.1, 0.5, 0.7, 0.8, 0.9]], rtol=1e-15)


def test_each_prompt_has_its_own_reference():
    assert quantiles([[5], [5]], [[1, 2], [8, 9]]).tolist() == [[1], [0]]


@law
@given(rewards=tied, columns=st.integers(1, 8), seed=st.integers(0, 99))
def test_quantiles_are_mean_wins_with_ties_one_half(rewards, columns, seed):
    # C(x, y) = E w(y, z), one comparison at a time.
    reference = np.random.default_rng(seed).integers(-9, 9, (len(rewards), columns))
    wins = np.sign(rewards[:, :, None] - reference[:, None, :]) / 2 + 0.5
    np.testing.assert_allclose(quantiles(rewards, reference), wins.mean(2), atol=1e-12)


@pytest.mark.parametrize("increasing", [np.exp, np.arctan, lambda r: 3 * r - 7, lambda r: r**3])
@smoothing
@law
@given(rewards=tied, reference=st.data())
def test_an_increasing_map_of_the_reward_changes_nothing(increasing, smoothing, rewards, reference):
    reference = reference.draw(arrays(float, (len(rewards), 5), elements=st.integers(-9, 9)))
    before = quantiles(rewards, reference, smoothing=smoothing)
    after = quantiles(increasing(rewards), increasing(reference), smoothing=smoothing)
    assert after.tolist() == before.tolist()


@smoothing
@law
@given(rewards=tied)
def test_reference_samples_have_mean_one_half(smoothing, rewards):
    means = quantiles(rewards, rewards, smoothing=smoothing).mean(axis=1)
    np.testing.assert_allclose(means, 0.5, atol=1e-12)


@law
@given(rewards=tied)
def test_add_half_stays_inside_the_open_interval(rewards):
    ends = np.pad(rewards, ((0, 0), (1, 1)), constant_values=((0, 0), (-1e300, 1e300)))
    smooth, plain = quantiles(ends, rewards, smoothing="add-half"), quantiles(ends, rewards)
    assert (smooth > 0).all() and (smooth < 1).all()
    assert plain[:, [0, -1]].tolist() == [[0, 1]] * len(rewards)


@pytest.mark.parametrize(
    ("rewards", "reference", "message"),
    [
        ([1.0], [[1.0]], r"`rewards` must be a non-empty array of shape \(prompts, samples\); .*"),
        ([[1.0]], [[]], r"`reference_rewards` must be a non-empty array .* got shape \(1, 0\)"),
        (
            [[1.0], [2.0]],
            [[1.0]],
            "`rewards` and `reference_rewards` must have one row per prompt each; got 2 and 1 rows",
        ),
        (
            [[1.0, 2], [3, np.nan]],
            [[1.0], [2.0]],
            r"`rewards` must hold finite rewards; got nan at prompt 1, sample 1 \(1 of 4 entries\)"
            r"\. Score those samples again, or leave their prompts out on purpose",
        ),
        ([[1.0]], [[np.inf]], "`reference_rewards` must hold finite rewards; got inf at prompt 0"),
    ],
)
def test_rewards_that_are_none_are_refused(rewards, reference, message):
    with pytest.raises(ValueError, match=message):
        quantiles(rewards, reference)


def test_an_unknown_smoothing_is_refused_with_the_known_ones():
    with pytest.raises(ValueError) as caught:
        quantiles([[1.0]], [[1.0]], smoothing="laplace")
    assert str(caught.value) == "`smoothing` must be one of none, add-half; got 'laplace'."


def test_randomized_quantiles_by_hand():
    # Among 1, 2, 2, 4 the K + 1 = 5 cells are a fifth each: 0 stands in the first, 3 in the
    # fourth, 9 in the last, and 2 anywhere from the second to the fourth.
    rewards = np.repeat([[0.0, 3, 9, 2]], 2_000, axis=0)
    found = randomized_quantiles(rewards, [[4.0, 2, 1, 2]] * 2_000, rng=np.random.default_rng(0))
    low, high = np.array([0, 3, 4, 1]) / 5, np.array([1, 4, 5, 4]) / 5
    assert (found >= low).all() and (found < high).all()
    stderr = (high - low) / np.sqrt(12 * 2_000)
    assert (np.abs(found.mean(0) - (low + high) / 2) < 4 * stderr).all()


@pytest.mark.parametrize("values", [2, 5, None], ids=["coin", "ties", "continuous"])
def test_randomized_quantiles_of_fresh_samples_are_uniform(values):
    # One sample per prompt, so all are independent; five of them known, and ties in most.
    rng = np.random.default_rng(1)
    drawn = rng.random((4_000, 6)) if values is None else rng.integers(0, values, (4_000, 6))
    u = randomized_quantiles(drawn[:, :1], drawn[:, 1:], rng=rng).ravel()
    counts = np.histogram(u, 20, (0, 1))[0]
    assert (np.abs(counts - 200) < 4 * np.sqrt(4_000 / 20 * 19 / 20)).all()


# --- Stores in memory. ---


def test_a_store_in_memory_by_hand():
    store = CalibrationStore.from_rewards(["a", "b"], [[3, 1, 2, 4], [30, 10, 20, 40]])
    assert store.quantiles(["b", "a", "a"], [15, 15, 2]).tolist() == [0.25, 1, 0.375]
    # (1.5 + 1/2) / 5
    assert store.quantiles(["a"], [2], smoothing="add-half").tolist() == [0.4]
    assert store.samples == 4


@pytest.mark.parametrize("ids", [["a"], ["a", "b", "c"], ["a", "a"]])
def test_prompt_ids_must_be_unique_one_per_row(ids):
    with pytest.raises(ValueError, match="`prompt_ids` must be unique, one per row of `rewards`"):
        CalibrationStore.from_rewards(ids, [[1.0], [2.0]])


def test_unknown_prompts_are_named():
    store = CalibrationStore.from_rewards(["a"], [[1.0, 2.0]])
    with pytest.raises(DataError) as caught:
        store.quantiles(["a", "x", "y"], [1, 2, 3])
    assert str(caught.value) == (
        "prompt_id 'x' is not in the calibration store (2 of 3 are unknown; it has 1). "
        "Calibrate on the prompts you train on."
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_has_no_quantile(value):
    store = CalibrationStore.from_rewards(["a"], [[1.0, 2.0]])
    with pytest.raises(ValueError, match="`rewards` must"):
        store.quantiles(["a"], [value])


def test_prompts_and_rewards_must_be_as_many():
    store = CalibrationStore.from_rewards(["a"], [[1.0, 2.0]])
    with pytest.raises(ValueError, match="`rewards`"):
        store.quantiles(["a", "a"], [1.0])
