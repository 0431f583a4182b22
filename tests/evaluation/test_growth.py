"""Forecasts of success beyond the attempts that there are, and attempts that stop."""

import numpy as np
import pytest
from scipy.special import betaln

from infalign.errors import ArgumentError
from infalign.evaluation.growth import fit_growth, stopping


def stopped_at(first, cap):
    """A log of attempts that end at the first success, or at the cap."""
    table = np.full((len(first), cap), np.nan)
    for row, at in zip(table, first, strict=True):
        row[: min(at, cap)] = 0
        if at <= cap:
            row[at - 1] = 1
    return table


def beta_rate(a, b, n):
    return 1 - np.exp(betaln(a, b + n) - betaln(a, b))


LAWS = {
    "beta": lambda rng, n: rng.beta(0.3, 6, n),
    "logit-normal": lambda rng, n: 1 / (1 + np.exp(5 + 3 * rng.normal(size=n))),
    "two kinds": lambda rng, n: np.where(
        rng.random(n) < 0.6, rng.beta(3, 1, n), rng.beta(0.3, 10, n)
    ),
    "impossible ones": lambda rng, n: rng.beta(0.5, 5, n) * (rng.random(n) > 0.2),
}


def test_intervals_hold_withheld_counts_and_the_population_as_often_as_they_say():
    rng, runs = np.random.default_rng(0), 12
    held = []
    for law in LAWS.values():
        many = law(rng, 200_000)
        for _ in range(runs):
            p = law(rng, 159)
            seen = rng.binomial(100, p)
            withheld = seen + rng.binomial(9_900, p)
            growth = fit_growth(np.arange(100) < seen[:, None], stopped=False)
            for n in (1_000, 10_000):
                f = growth.forecast(n)
                truth = (-np.expm1(n * np.log1p(-many))).mean()
                hit = f.these_low - 1e-9 <= (withheld > 0).mean() <= f.these_high + 1e-9
                held.append((f.low <= truth <= f.high, hit if n == 10_000 else True))
    others, these = np.mean(held, axis=0)
    assert 0.88 <= others <= 1 and 0.88 <= these <= 1


def test_the_bias_of_a_power_law_at_small_chances_is_largely_gone():
    from infalign.red_team.power_law import fit_power_law

    rng = np.random.default_rng(1)
    errors = []
    for _ in range(12):
        tries = rng.random((159, 100)) < rng.beta(1, 100, (159, 1))
        law = fit_power_law(tries, rng=rng, resamples=100)
        line = np.exp(-law.a.value * 1_000.0**-law.b.value)
        errors.append((fit_growth(tries, stopped=False).forecast(1_000).value, line))
    truth = (-np.expm1(1_000 * np.log1p(-rng.beta(1, 100, 400_000)))).mean()
    ours, line = np.abs(np.mean(errors, axis=0) - truth)
    assert ours < line / 2


@pytest.mark.parametrize("cap", [30, 100])
def test_stopped_attempts_forecast_what_complete_ones_do(cap):
    rng = np.random.default_rng(0)
    log = stopped_at(rng.geometric(rng.beta(0.4, 6, 2_000)), cap)
    growth = fit_growth(log)
    assert growth.stopped and growth.made == cap and growth.stopped.probability < 1e-100
    for n in (cap, 10 * cap):
        f = growth.forecast(n)
        assert f.low <= beta_rate(0.4, 6, n) <= f.high
        assert f.high - f.low < 0.3
    assert growth.forecast(cap).value == pytest.approx(np.nansum(log) / 2_000, abs=0.02)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t: t[:, :1], "one attempt each"),
        (lambda t: np.nan_to_num(t), "all have the same number"),
        (lambda t: np.vstack([t, [[1.0, 0] + [np.nan] * 18]]), "a success is not the last"),
        (lambda t: np.vstack([t, [[1.0, 1] + [np.nan] * 18]]), "two successes"),
        (lambda t: t[np.argsort(np.nansum(t, 1))[[0, 1, -1]]], "too few to tell"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_only_a_log_that_shows_it_counts_as_stopped(change, what):
    rng = np.random.default_rng(3)
    log = stopped_at(rng.geometric(rng.beta(1, 6, 60)), 20)
    assert stopping(log)
    assert stopping(change(log)) is None, what


def test_counts_show_stopping_by_which_prompts_are_short():
    rng = np.random.default_rng(4)
    log = stopped_at(rng.geometric(rng.beta(1, 8, 60)), 20)
    assert stopping(log, ordered=False)
    failed = np.where(np.isnan(log), np.nan, 0.0)
    failed[0] = log[0]
    assert stopping(failed, ordered=False) is None


def test_a_few_easier_prompts_do_not_stretch_the_law_of_the_hard_ones():
    """Half of the prompts have p near 0.2, some of them few successes, the others p near 0.002."""
    rng, held = np.random.default_rng(6), []
    for _ in range(6):
        middle = np.where(rng.random(159) < 0.5, -1.4, -6.2)
        p = 1 / (1 + np.exp(-rng.normal(middle, 0.55)))
        growth = fit_growth(np.arange(100) < rng.binomial(100, p)[:, None], stopped=False)
        forecast = growth.forecast(10_000)
        held.append(forecast.high == 1 and forecast.value > 0.85)
    assert sum(held) >= 5


@pytest.mark.parametrize("easy", [11, 40, 100])
def test_prompts_with_many_successes_have_chances_of_their_own(easy):
    """However far they are from the law of the hard ones."""
    counts = np.array([easy] * 50 + [0] * 48 + [1, 1])
    growth = fit_growth(np.arange(100) < counts[:, None], stopped=False)
    near, far = growth.forecast(200), growth.forecast(10_000)
    assert 0.5 < near.value < far.value and near.these_low >= 0.5
    assert "2 of 100 prompts have 1 to 10 successes" in growth.reservations[0]
    # Beta(½, ½) for the p of each: E (1 − p)^n.
    fails = np.exp(betaln(easy + 0.5, 100.5 - easy + 3) - betaln(easy + 0.5, 100.5 - easy))
    one = fit_growth(np.arange(100) < np.array([[easy], [0]]), stopped=False)
    assert one.forecast(3).value == pytest.approx((1 - fails) / 2, abs=0.04)


def test_a_budget_is_the_inverse_of_the_forecast():
    rng = np.random.default_rng(5)
    growth = fit_growth(rng.random((400, 64)) < rng.beta(0.4, 6, (400, 1)))
    for target in (0.1, 0.6, 0.8):
        budget = growth.budget_for(target)
        n = int(budget.value)
        assert budget.low <= n <= budget.high
        assert growth.forecast(n + 1).value >= target - 1e-3
        assert growth.forecast(n - 1).value < target + 1e-3
    assert str(growth.budget_for(0.999999)).endswith("∞]")
    for wrong in (0.0, 1.0, -1, float("nan")):
        with pytest.raises(ArgumentError, match="`target`"):
            growth.budget_for(wrong)
    with pytest.raises(ArgumentError, match="`n` must be at most"):
        growth.forecast(10**10)


@pytest.mark.parametrize(
    ("tries", "words"),
    [
        (np.zeros((20, 8)), "nothing succeeded"),
        (np.ones((20, 8)), "every attempt succeeded"),
        (np.eye(1, 8), "one prompt says nothing"),
    ],
)
def test_without_evidence_there_is_no_forecast(tries, words):
    growth = fit_growth(tries)
    assert not growth.fitted and words in growth.reservations[0]
    assert np.isnan(growth.forecast(100).value) and np.isnan(growth.budget_for(0.5).value)
