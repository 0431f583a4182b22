"""Intervals over prompts and seeds hold at least as often as they say, with 2 seeds too."""

import numpy as np
import pytest
from scipy.stats import t

from infalign.errors import ArgumentError
from infalign.evaluation.over_seeds import SeedVariance, over_prompts_and_seeds, pooled
from infalign.evaluation.uncertainty import Student, over_prompts

STUDIES = 400

# Standard deviations of prompts, of seeds, and of what is left. The first two lines have one source
# of variance only, so that their intervals hold exactly as often as they say.
WORLDS = {
    "prompts alone": (1, 0, 0),
    "seeds alone": (0, 1, 0),
    "the rest alone": (0, 0, 1),
    "as in trainings": (0.06, 0.01, 0.08),
    "small differences between seeds": (1, 0.05, 2),
}


def studies(world, seeds, prompts, rng):
    a, b, rest = WORLDS[world]
    for _ in range(STUDIES):
        yield (
            a * rng.normal(size=prompts)
            + b * rng.normal(size=(seeds, 1))
            + rest * rng.normal(size=(seeds, prompts))
        )


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("world", WORLDS)
def test_the_interval_holds_the_truth_at_least_as_often_as_it_says(world, seeds):
    rng = np.random.default_rng(seeds)
    own = [over_prompts_and_seeds(y) for y in studies(world, seeds, 32, rng)]
    share = np.mean([e.low <= 0 <= e.high for e in own])
    error = np.sqrt(0.95 * 0.05 / STUDIES)
    assert share > 0.95 - 4 * error
    if world in ("prompts alone", "seeds alone"):
        assert share < 0.95 + 4 * error


def test_a_shared_variance_makes_intervals_of_two_seeds_narrow_and_holds_where_it_is_shared():
    rng, held, narrower = np.random.default_rng(0), 0, 0
    for _ in range(STUDIES):
        prompts = rng.normal(size=32)
        methods = [
            0.06 * prompts + 0.02 * rng.normal(size=(2, 1)) + 0.08 * rng.normal(size=(2, 32))
            for _ in range(6)
        ]
        shared = pooled([m.mean(1) for m in methods])
        assert shared.degrees == 6
        e = over_prompts_and_seeds(methods[0], between=shared)
        own = over_prompts_and_seeds(methods[0])
        held += e.low <= 0 <= e.high
        narrower += e.high - e.low < own.high - own.low
    assert held / STUDIES > 0.95 - 4 * np.sqrt(0.95 * 0.05 / STUDIES)
    assert narrower > 0.6 * STUDIES


def test_the_half_width_is_that_over_prompts_and_that_of_the_seeds_together():
    y = np.random.default_rng(1).normal(size=(3, 20))
    e = over_prompts_and_seeds(y, interval=Student())
    over = over_prompts(y.mean(0), interval=Student())
    seeds = t.ppf(0.975, 2) * y.mean(1).std(ddof=1) / np.sqrt(3)
    assert e.value == pytest.approx(y.mean())
    assert e.high - e.value == pytest.approx(np.hypot(over.high - over.value, seeds))
    assert e.value - e.low == pytest.approx(np.hypot(over.value - over.low, seeds))


def test_one_seed_gives_the_interval_over_prompts():
    y = np.random.default_rng(2).uniform(size=(1, 20))
    one, over = over_prompts_and_seeds(y, bounds=(0, 1)), over_prompts(y[0], bounds=(0, 1))
    assert (one.value, one.low, one.high) == (over.value, over.low, over.high)


def test_equal_seeds_add_nothing_and_bounds_hold():
    y = np.random.default_rng(3).uniform(0.9, 1, size=(1, 20))
    twice = over_prompts_and_seeds(np.repeat(y, 2, axis=0), bounds=(0, 1))
    assert twice.low == pytest.approx(over_prompts(y[0], bounds=(0, 1)).low)
    wide = over_prompts_and_seeds(y, between=SeedVariance(1.0, 1), bounds=(0, 1))
    assert (wide.low, wide.high) == (0, 1)


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros((0, 3)), np.zeros((1, 1, 1))])
def test_values_must_be_a_row_for_each_seed(values):
    with pytest.raises(ArgumentError, match=r"`values` must have shape \(seeds, prompts\)"):
        over_prompts_and_seeds(values)
