"""Simultaneous intervals hold together as often as they say, and are no wider than needed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_t, norm, ttest_1samp

from infalign import Student, over_prompts
from infalign.errors import ArgumentError
from infalign.evaluation import simultaneous as module
from infalign.evaluation.simultaneous import holm, p_value, simultaneous

RUNS = 400


def within(share, expected):
    """Whether a share of RUNS lies within three standard errors above or at the expected one."""
    return share > expected - 3 * np.sqrt(expected * (1 - expected) / RUNS)


def test_one_mean_has_the_interval_of_every_other_estimate():
    values = np.random.default_rng(0).normal(size=(30, 1))
    together = simultaneous(values)
    assert together.pointwise[0].low == over_prompts(values[:, 0]).low
    assert together.joint[0].low == pytest.approx(together.pointwise[0].low, abs=0.01)
    assert together.level_each == pytest.approx(0.95, abs=0.004)


def test_the_level_of_each_is_that_of_the_multivariate_t_law():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(12, 1)) + rng.normal(size=(12, 3))
    together = simultaneous(values)
    t = np.quantile(together.largest, 0.95)
    law = multivariate_t(shape=np.corrcoef(values.T), df=11)
    inside = law.cdf([t] * 3, lower_limit=[-t] * 3, random_state=0)
    assert inside == pytest.approx(0.95, abs=4e-3)


def test_equal_columns_count_once_and_independent_ones_count_each():
    rng = np.random.default_rng(2)
    same = np.repeat(rng.normal(size=(500, 1)), 20, axis=1)
    assert simultaneous(same).level_each == pytest.approx(0.95, abs=0.004)
    apart = simultaneous(rng.normal(size=(2000, 20)))
    assert apart.level_each == pytest.approx(0.95 ** (1 / 20), abs=6e-4)


@pytest.mark.parametrize("prompts", [15, 60])
@pytest.mark.parametrize("kind", ["normal", "skewed", "0/1"])
def test_joint_intervals_hold_together(kind, prompts, monkeypatch):
    """A curve of eight means that share their prompts, as best-of-1 … 8 do."""
    monkeypatch.setattr(module, "DRAWS", 2_000)
    rng = np.random.default_rng(3)
    hold = alone = 0
    for _ in range(RUNS):
        rate = rng.beta(2, 2, (prompts, 1))
        if kind == "normal":
            values, truth, bounds = rng.normal(size=(prompts, 8)).cumsum(1), np.zeros(8), None
        elif kind == "skewed":
            values = 1 - (1 - rate) ** np.arange(1, 9)
            ks = np.arange(1, 9)  # E (1 − r)^k for Beta(2, 2)
            truth, bounds = 1 - 6 / ((ks + 2) * (ks + 3)), (0, 1)
        else:
            values = (rng.random((prompts, 8)) < rate).astype(float)
            truth, bounds = np.full(8, 0.5), (0, 1)
        together = simultaneous(values, bounds=bounds)
        ends = np.array(
            [[(e.low, e.high) for e in es] for es in (together.joint, together.pointwise)]
        )
        inside = ((ends[..., 0] <= truth) & (truth <= ends[..., 1])).all(1)
        hold, alone = hold + inside[0], alone + inside[1]
    assert within(hold / RUNS, 0.93)
    if kind == "normal":  # 0/1 values have wide intervals; rates share nearly all of their errors
        assert not within(alone / RUNS, 0.93)


def test_means_without_spread_do_not_widen_the_others():
    values = np.random.default_rng(4).normal(size=(40, 3))
    padded = np.hstack([values, np.full((40, 2), 0.3)])
    assert simultaneous(padded).level_each == pytest.approx(
        simultaneous(values).level_each, abs=1e-3
    )
    flat = simultaneous(np.full((40, 2), 0.3), bounds=(0, 1))
    assert flat.joint[0].low < 0.3 < flat.joint[0].high


def test_a_single_prompt_has_no_intervals():
    assert np.isnan(simultaneous([[0.1, 0.2]]).joint[0].low)


def test_p_values_are_those_of_the_interval():
    values = np.random.default_rng(5).normal(0.2, size=40)
    expected = ttest_1samp(values, 0).pvalue
    assert p_value(values, interval=Student()) == pytest.approx(expected, rel=1e-6)
    assert p_value(values, values.mean()) == 1
    assert p_value(np.ones(5), 0) == 0
    assert np.isnan(p_value([0.1]))


@given(st.integers(0, 99), st.floats(1e-6, 1))
def test_an_adjusted_p_value_lies_between_its_own_and_bonferronis(seed, p):
    together = simultaneous(np.random.default_rng(seed).normal(size=(20, 4)))
    assert p <= together.adjusted(p) <= 4 * p


def test_an_adjusted_p_value_is_below_5_percent_where_the_joint_interval_excludes_the_null():
    rng = np.random.default_rng(6)
    values = rng.normal(size=(50, 6)) + np.linspace(0, 0.8, 6)
    together = simultaneous(values)
    for column, estimate in zip(values.T, together.joint, strict=True):
        adjusted = together.adjusted(p_value(column))
        if abs(adjusted - 0.05) > 0.003:  # the simulation's error
            assert (adjusted < 0.05) == (not estimate.low <= 0 <= estimate.high)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holms_p_values_follow_the_definition(p):
    adjusted = holm(p)
    m = len(p)
    for own, value in zip(p, adjusted, strict=True):
        lower = sorted(q for q in p if q <= own)
        assert value == pytest.approx(min(1, max((m - i) * q for i, q in enumerate(lower))))


@pytest.mark.parametrize("bad", [[], [1.5], [[0.1]], ["a"], [float("nan")]])
def test_holm_refuses_what_is_no_p_value(bad):
    with pytest.raises(ArgumentError, match="p_values"):
        holm(bad)


def test_the_largest_error_is_that_of_the_multiplier_bootstrap():
    """The same law from multipliers drawn for each prompt, without the square root."""
    rng = np.random.default_rng(7)
    values = rng.exponential(size=(400, 5)).cumsum(1)
    z = (values - values.mean(0)) / values.std(0) / np.sqrt(400)
    drawn = np.abs(rng.normal(size=(40_000, 400)) @ z).max(1)
    own = simultaneous(values).largest
    # t with 399 degrees of freedom is normal to 1 %.
    for level in (0.5, 0.9, 0.95):
        assert np.quantile(own, level) == pytest.approx(np.quantile(drawn, level), rel=0.015)
    assert np.quantile(own, 0.95) > norm.ppf(0.975)
