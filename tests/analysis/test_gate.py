"""Gates pass, fail or say that the data cannot tell, and how many prompts would."""

import unittest

import numpy as np
import pytest

from infalign import Estimate, over_prompts
from infalign.analysis import Outcome, assert_not_worse, gate
from infalign.errors import ArgumentError

pytest_plugins = "pytester"


def between(low, high):
    return Estimate((low + high) / 2, (high - low) / 4, low, high, np.zeros(50))


@pytest.mark.parametrize(
    ("low", "high", "margin", "outcome"),
    [
        (0.01, 0.05, 0.0, Outcome.NOT_WORSE),
        (0.0, 0.05, 0.0, Outcome.NOT_WORSE),
        (-0.01, 0.05, 0.0, Outcome.CANNOT_TELL),
        (-0.01, 0.05, 0.02, Outcome.NOT_WORSE),
        (-0.01, -0.001, 0.02, Outcome.NOT_WORSE),  # worse, within the margin
        (-0.05, -0.01, 0.02, Outcome.WORSE),
        (-0.05, -0.03, 0.02, Outcome.WORSE),
        (-0.05, 0.01, 0.02, Outcome.CANNOT_TELL),
        (np.nan, np.nan, 0.0, Outcome.CANNOT_TELL),
    ],
)
def test_the_outcome_follows_from_the_interval(low, high, margin, outcome):
    verdict = gate(between(low, high), margin=margin)
    assert verdict.outcome is outcome
    assert bool(verdict) == (outcome is Outcome.NOT_WORSE)
    assert gate(between(low + 0.5, high + 0.5), 0.5, margin=margin).outcome is outcome


def test_exit_codes_are_distinct():
    assert [int(o) for o in Outcome] == [0, 3, 4]


def test_the_recommended_prompts_tell_four_times_in_five():
    rng = np.random.default_rng(0)
    pilot = rng.normal(size=40)
    pilot += 0.1 - pilot.mean()  # the estimate is the truth
    pilot = 0.1 + (pilot - 0.1) / pilot.std(ddof=1)
    asked = gate(over_prompts(pilot), margin=0.1)
    assert asked.outcome is Outcome.CANNOT_TELL
    runs = 400
    decided = sum(
        gate(over_prompts(rng.normal(0.1, 1, asked.prompts_needed)), margin=0.1).outcome
        is Outcome.NOT_WORSE
        for _ in range(runs)
    )
    assert decided / runs == pytest.approx(0.8, abs=0.07)


def test_no_number_of_prompts_tells_equal_policies_apart_without_a_margin():
    assert gate(between(-0.1, 0.1)).prompts_needed is None
    assert gate(between(-0.1, 0.1), margin=0.01).prompts_needed > 50


@pytest.mark.parametrize("prompts", [20, 100])
def test_prompts_that_all_agree_need_as_many_as_exclude_a_loss(prompts):
    def asked(prompts):
        return gate(over_prompts(np.zeros(prompts), bounds=(-1, 1)), margin=0.01)

    enough = next(n for n in range(prompts, 9999) if asked(n))  # 3 / 0.01
    assert asked(prompts).prompts_needed == pytest.approx(enough, rel=0.1)


def test_one_prompt_has_no_interval_and_more_of_them_would():
    alone = gate(over_prompts(np.array([0.5]), bounds=(-1, 1)), question="rl against base")
    assert alone.sentence == (
        "rl against base: the data cannot tell, with a margin of 0 % (50.0, no interval); an "
        "interval needs two or more prompts, each with a value"
    )


@pytest.mark.parametrize("margin", [-0.1, float("nan"), "2"])
def test_margins_are_checked(margin):
    with pytest.raises(ArgumentError, match="margin"):
        gate(between(0, 1), margin=margin)


@pytest.mark.parametrize(
    ("interval", "choice", "end"),
    [
        ((0.01, 0.05), "fail", None),
        ((-0.05, -0.02), "fail", AssertionError),
        ((-0.05, -0.02), "skip", AssertionError),
        ((-0.05, -0.02), "pass", AssertionError),
        ((-0.05, 0.03), "fail", AssertionError),
        ((-0.05, 0.03), "skip", unittest.SkipTest),
        ((-0.05, 0.03), "pass", None),
    ],
)
def test_a_gate_is_a_test(interval, choice, end):
    verdict = gate(between(*interval), margin=0.01, question="rl against base, pass@8")
    if end is None:
        assert_not_worse(verdict, cannot_tell=choice)
        return
    with pytest.raises(end) as raised:
        assert_not_worse(verdict, cannot_tell=choice)
    assert str(raised.value) == verdict.sentence
    assert verdict.sentence.startswith("rl against base, pass@8: ")
    assert (" prompts would" in verdict.sentence) == (verdict.outcome is Outcome.CANNOT_TELL)


def test_pytest_skips_what_the_data_cannot_tell(pytester):
    pytester.makepyfile(
        """
        import numpy as np
        from infalign import over_prompts
        from infalign.analysis import assert_not_worse, gate

        def at(mean):
            return gate(over_prompts(np.random.default_rng(0).normal(mean, 0.1, 50)), margin=0.01)

        def test_better():
            assert_not_worse(at(0.2), cannot_tell="skip")

        def test_close():
            assert_not_worse(at(0.0), cannot_tell="skip")

        def test_worse():
            assert_not_worse(at(-0.2), cannot_tell="skip")
        """
    )
    pytester.runpytest("-p", "no:cacheprovider").assert_outcomes(passed=1, skipped=1, failed=1)
