"""Checks of a calibration: sound ones pass as often as they claim, broken ones are found."""

import numpy as np
import pytest

from infalign import BestOfN, design
from infalign.calibration import Pooled
from infalign.calibration.diagnostics import drift, resolution, saturation, ties, uniformity
from infalign.calibration.outlook import outlook_of

RNG = np.random.default_rng


@pytest.mark.parametrize(("samples", "fresh", "levels"), [(4, 2, None), (16, 8, None), (8, 4, 3)])
def test_p_values_of_sound_calibrations_are_uniform(samples, fresh, levels):
    # All fresh samples of a prompt share its few stored ones; a test that took them for
    # independent would reject far too often.
    rng, found = RNG(0), []
    for _ in range(300):
        pooled = rng.normal(size=(20, samples + fresh)) * rng.uniform(0.5, 2, (20, 1))
        pooled += 3 * rng.normal(size=(20, 1))
        if levels:
            pooled = np.round(pooled / 3 * levels) / levels
        result = uniformity(pooled[:, :fresh], pooled[:, fresh:], rng=rng, permutations=99)
        found.append((result.p_deviation, result.p_shift))
    found = np.array(found)
    for level in (0.05, 0.2, 0.5):
        error = np.sqrt(level * (1 - level) / len(found))
        assert ((found <= level).mean(0) <= level + 4 * error).all()
        # Where few places make equal statistics, p-values are larger than they would need to be.
        assert ((found <= level).mean(0) >= level - 4 * error).all() or samples < 16


def test_a_shift_of_the_reward_is_found_and_named():
    rng = RNG(1)
    result = uniformity(rng.normal(0.3, 1, (200, 4)), rng.normal(size=(200, 16)), rng=rng)
    assert result.p_shift < 0.01 and result.p_deviation < 0.01
    # P(fresh > stored) - 1/2 for a shift of 0.3 is Φ(0.3/√2) - 1/2 = 0.084, times K/(K+1).
    assert abs(result.shift - 0.084 * 16 / 17) < 0.03


def test_a_change_of_spread_deviates_without_a_shift():
    rng = RNG(2)
    result = uniformity(rng.normal(0, 2, (300, 4)), rng.normal(size=(300, 16)), rng=rng)
    assert result.p_deviation < 0.01 and result.p_shift > 0.05


def test_uniformity_sees_ranks_only():
    rng = RNG(3)
    fresh, stored = rng.normal(size=(30, 3)), rng.normal(size=(30, 9))
    one = uniformity(fresh, stored, rng=RNG(4))
    other = uniformity(np.exp(3 * fresh) - 7, np.exp(3 * stored) - 7, rng=RNG(4))
    assert one == other


def test_deviation_by_hand():
    # One prompt, 3 stored, 1 fresh above all: its quantile is in the last of 4 cells, where the
    # distribution function is 0 up to 3/4.
    result = uniformity([[9.0]], [[1.0, 2.0, 3.0]], rng=RNG(0))
    assert result.deviation == pytest.approx(0.75) and result.shift == pytest.approx(0.375)
    assert result.p_deviation > 0.3  # two of four places are as extreme


def test_the_same_reward_again_shows_no_drift():
    stored = RNG(0).normal(size=(10, 6))
    found = drift(stored, stored + 1e-7)
    assert found.changed == found.swapped == 0 and found.responses == 60


def test_a_rescaled_reward_has_changed_but_orders_the_same():
    stored = RNG(0).normal(size=(10, 6))
    found = drift(stored, 2 * stored + 1)
    assert found.changed == 1 and found.swapped == 0


def test_another_reward_swaps_half_of_the_pairs():
    rng = RNG(1)
    found = drift(rng.normal(size=(400, 8)), rng.normal(size=(400, 8)))
    assert abs(found.swapped - 0.5) < 0.02


def test_what_was_not_scored_again_does_not_count():
    stored = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    again = np.array([[1.0, np.nan, 0.0], [np.nan, np.nan, np.nan]])
    found = drift(stored, again)
    assert found.responses == 2 and found.swapped == 1 and found.changed == 0.5


def test_saturation_of_the_reference_itself_is_as_expected():
    rng, errors = RNG(5), []
    for _ in range(200):
        found = saturation(rng.normal(size=(20, 4)), rng.normal(size=(20, 7)))
        errors.append((found.above - found.expected, found.below - found.expected))
    error = np.std(errors, axis=0) / np.sqrt(200)
    assert (np.abs(np.mean(errors, axis=0)) < 4 * error).all()
    assert found.expected == 1 / 8


def test_resolution_is_what_design_says():
    found = resolution(BestOfN(2), 0.5, 8)
    assert found.exact == design(BestOfN(2), kl=0.5).win_rate
    assert found.reached == pytest.approx(design(BestOfN(2), kl=0.5, samples=8).win_rate)
    assert 0.01 < found.loss < 0.05 and 8 < found.needed < 64
    assert found.advice == (
        "K = 8 is too few for best-of-n:2 at 0.5 nats: with ecdf the expected win rate is "
        f"{100 * found.reached:.1f} %, {100 * found.loss:.1f} points below the "
        f"{100 * found.exact:.1f} % of exact quantiles. Plain ranks need K = {found.needed} to "
        "come within 1 point of exact quantiles."
    )
    enough = resolution(BestOfN(2), 0.5, found.needed)
    assert enough.advice.startswith(f"K = {found.needed} is enough for best-of-n:2")


def test_resolution_counts_what_pooling_is_worth():
    rng = RNG(5)
    rewards = rng.normal(size=(96, 1)) + rng.normal(size=(96, 8))
    pooled = outlook_of(Pooled().fit(rewards), rewards)
    found = resolution(BestOfN(8), 0.5, 8, outlook=pooled, calibrator="pooled")
    counted = resolution(BestOfN(8), 0.5, 8)
    assert found.exact == counted.exact and 0 < found.loss < 0.8 * counted.loss
    assert "with pooled the expected win rate is" in found.advice


def test_a_budget_that_so_few_samples_cannot_express_is_told():
    found = resolution(BestOfN(2), 3.0, 2, within=0.05)
    assert np.isnan(found.reached) and np.isnan(found.loss)
    assert "K = 2 cannot express best-of-n:2 at 3 nats: draw more samples" in found.advice


def test_ties_are_the_share_of_equal_pairs():
    assert ties([[1.0, 1.0, np.nan]]) == 1
    assert ties(RNG(0).normal(size=(5, 9))) == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: uniformity([[1.0]], [[1.0], [2.0]], rng=RNG(0)), "`fresh` and `stored` must have"),
        (lambda: uniformity([[np.nan]], [[1.0]], rng=RNG(0)), "`fresh` must hold finite"),
        (lambda: drift([[1.0]], [[1.0, 2.0]]), "`again` must have the shape"),
        (lambda: drift([[1.0]], [[np.nan]]), "`again` must have a reward in common"),
    ],
)
def test_wrong_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
