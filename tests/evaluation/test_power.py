"""Sample sizes: exact variances against simulation and enumeration, plans against experiments."""

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from contracts import law
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri, stdtrit

from infalign import (
    BestOfN,
    BestOfPoisson,
    Exponential,
    Identity,
    Log,
    Mixture,
    OrderStatistic,
    Probit,
    Rewind,
    Sampling,
    SolveError,
    Tabulated,
    TiltedPolicy,
    WorstOfN,
    design,
    win_rate,
    win_rate_difference,
)
from infalign.core import at_kl
from infalign.evaluation import variance
from infalign.evaluation.pilot import components
from infalign.evaluation.power import BETWEEN, chance_to_see, detectable, half_width, needed, table
from infalign.evaluation.variance import difference_variance, win_rate_variance

REFERENCE = TiltedPolicy(Identity(), 1e9)
GRID = np.linspace(0, 1, 20_001)


def draw(policy, shape, rng):
    return np.interp(rng.random(shape), policy.cdf(GRID), GRID)


CASES = [
    (Sampling(), None, 3, 4),
    (BestOfN(4), None, 4, 4),
    (BestOfN(4), Sampling(), 10, 6),
    (WorstOfN(4), None, 16, 8),
    (OrderStatistic(5, 2), BestOfN(2), 12, 7),
    (BestOfPoisson(1.5), None, 20, 24),
    (Mixture((BestOfN(4), WorstOfN(2)), (0.25, 0.75)), None, 6, 9),
]


@pytest.mark.parametrize(("procedure", "against", "m", "k"), CASES, ids=str)
def test_the_exact_variances_agree_with_simulation(procedure, against, m, k):
    rng, prompts = np.random.default_rng(0), 4_000
    a, b = at_kl(Exponential(10), 0.5), at_kl(Probit(), 0.3)
    ours, theirs = (draw(p, (prompts, m), rng) for p in (a, b))
    reference = rng.random((prompts, k))
    options = {"samples": m, "reference_samples": k, "against": against}
    for found, exact in (
        (
            win_rate(ours, reference, procedure, against=against),
            win_rate_variance(a, procedure, **options),
        ),
        (
            win_rate_difference(ours, theirs, reference, procedure, against=against),
            difference_variance(a, b, procedure, **options),
        ),
    ):
        squares = (found.per_prompt - found.value) ** 2
        stderr = squares.std() / np.sqrt(prompts)
        assert abs(squares.mean() - exact) < 4 * stderr


@pytest.mark.parametrize("procedure", [Sampling(), BestOfN(2), WorstOfN(3)], ids=str)
@pytest.mark.parametrize(("m", "k"), [(3, 4), (4, 3)])
def test_the_variance_of_the_reference_against_itself_is_that_of_all_orders(procedure, m, k):
    # Under the reference every order of the m + k rewards is as likely as any other.
    orders = np.array(list(permutations(range(m + k))), float)
    values = win_rate(orders[:, :m], orders[:, m:], procedure).per_prompt
    exact = win_rate_variance(REFERENCE, procedure, samples=m, reference_samples=k)
    assert exact == pytest.approx(values.var(), rel=1e-6)


@law
@given(m=st.integers(1, 40), k=st.integers(1, 40))
def test_sampling_from_the_reference_has_the_variance_of_mann_and_whitney(m, k):
    exact = float(Fraction(m + k + 1, 12 * m * k))
    found = win_rate_variance(REFERENCE, Sampling(), samples=m, reference_samples=k)
    assert found == pytest.approx(exact, rel=1e-6)


def test_best_of_n_drawn_and_selected_once_is_a_coin():
    # One subset each side: 0 or 1 with chance W, so the variance is W (1 - W); F = u^3 wins 3/4.
    found = win_rate_variance(TiltedPolicy(Log(), 0.5), BestOfN(4), samples=4, reference_samples=4)
    assert found == pytest.approx(3 / 16, rel=1e-6)


def test_two_policies_with_the_reference_in_common_are_less_noisy_than_two_evaluations():
    policy, sizes = at_kl(Identity(), 0.3), {"samples": 12, "reference_samples": 6}
    one = win_rate_variance(policy, BestOfN(3), **sizes)
    assert 0 < difference_variance(policy, policy, BestOfN(3), **sizes) < 2 * one
    # Without noise of the reference nothing is shared: twice the variance, as k grows.
    sizes["reference_samples"] = 1000
    one = win_rate_variance(policy, BestOfN(3), **sizes)
    both = difference_variance(policy, policy, BestOfN(3), **sizes)
    assert both == pytest.approx(2 * one, rel=0.03)


def test_steep_optima_and_many_draws_are_resolved():
    # Against simulation of the loss, which is rare: best-of-32 at 1 nat wins .9999.
    a, b = design(BestOfN(32), kl=1).policy, at_kl(Probit(), 0.5)
    exact = difference_variance(a, b, BestOfN(32), samples=128, reference_samples=128)
    rng, prompts = np.random.default_rng(1), 2_000
    grid = 1 - np.geomspace(1, 1e-9, 200_000)
    grid[0] = 0
    ours, theirs = (np.interp(rng.random((prompts, 128)), p.cdf(grid), grid) for p in (a, b))
    found = win_rate_difference(ours, theirs, rng.random((prompts, 128)), BestOfN(32))
    squares = (found.per_prompt - found.value) ** 2
    assert abs(squares.mean() - exact) < 4 * squares.std() / np.sqrt(prompts)


def test_a_policy_too_steep_for_the_quadrature_is_refused(monkeypatch):
    monkeypatch.setattr(variance, "MOST_NODES", 64)
    step = TiltedPolicy(Tabulated((0, 0.41234, 0.41235, 1), (0, 0, 5, 5)), 1.0)
    with pytest.raises(SolveError, match=r"does not converge with 64 nodes.*smaller `kl`"):
        win_rate_variance(step, Sampling(), samples=4, reference_samples=4)


@pytest.mark.parametrize("procedure", [BestOfN(4), WorstOfN(4)], ids=str)
def test_a_planned_evaluation_sees_the_difference_as_often_as_planned(procedure):
    kl, m, experiments, rng = 0.25, 12, 600, np.random.default_rng(2)
    a, b = design(procedure, kl=kl).policy, at_kl(Probit(), kl)
    full = a.win_rate(procedure) - b.win_rate(procedure)
    plan = needed(procedure, 0.08, kl=kl, samples=m, between=0.0)
    exact = difference_variance(a, b, procedure, samples=m, reference_samples=m)
    assert plan.within == pytest.approx(exact)
    # An experiment of that size whose true difference is 8 points: ours moved to be just that.
    shape = (experiments * plan.prompts, m)
    found = win_rate_difference(
        draw(a, shape, rng), draw(b, shape, rng), rng.random(shape), procedure
    )
    values = found.per_prompt.reshape(experiments, -1) + (plan.difference - full)
    stderr = values.std(1, ddof=1) / np.sqrt(plan.prompts)
    reach = plan.half_width / plan.stderr
    seen = values.mean(1) - reach * stderr > 0
    assert abs(seen.mean() - 0.8) < 4 * np.sqrt(0.16 / experiments)
    squares = stderr**2
    assert abs(squares.mean() - plan.stderr**2) < 4 * squares.std() / np.sqrt(experiments)


def test_spread_between_prompts_is_part_of_the_plan():
    # On q = 3/4 of the prompts a is the optimum and b plain RLHF, on the others the other way
    # round: the noise is the same, the mean difference (2q - 1) d and its variance 4q(1 - q) d².
    procedure, kl, m, experiments = BestOfN(8), 0.5, 16, 15
    rng = np.random.default_rng(3)
    a, b = design(procedure, kl=kl).policy, at_kl(Probit(), kl)
    d = a.win_rate(procedure) - b.win_rate(procedure)
    plan = needed(procedure, d / 2, kl=kl, samples=m, between=0.75 * d**2)
    prompts = experiments * plan.prompts
    first, second = draw(a, (prompts, m), rng), draw(b, (prompts, m), rng)
    swap = (rng.random(prompts) < 0.25)[:, None]
    ours, theirs = np.where(swap, second, first), np.where(swap, first, second)
    reference = rng.random((prompts, m))
    found = win_rate_difference(ours, theirs, reference, procedure)
    assert abs(found.value - d / 2) < 4 * found.stderr
    squares = (found.per_prompt - found.value) ** 2
    total = plan.between + plan.within
    assert abs(squares.mean() - total) < 4 * squares.std() / np.sqrt(prompts)
    # A pilot of the same kind finds both parts again.
    pilot = components(ours, theirs, reference, procedure, rng=rng, splits=2)
    assert abs(pilot.between - plan.between) < 4 * pilot.between_stderr
    assert abs(pilot.within - plan.within) < 4 * pilot.between_stderr
    assert (pilot.prompts, pilot.samples, pilot.reference_samples) == (prompts, m, m)


def test_the_half_width_of_one_win_rate_is_that_of_its_intervals():
    procedure, prompts, m, k, experiments = WorstOfN(2), 20, 6, 8, 300
    rng, policy = np.random.default_rng(4), design(WorstOfN(2), kl=0.3).policy
    planned = half_width(procedure, prompts, m, kl=0.3, reference_samples=k, between=0.0)
    ours = draw(policy, (experiments, prompts, m), rng)
    reference = rng.random((experiments, prompts, k))
    found = [win_rate(a, b, procedure).stderr ** 2 for a, b in zip(ours, reference, strict=True)]
    squares = stdtrit(prompts - 1, 0.975) ** 2 * np.array(found)  # Student's, half, squared
    assert abs(squares.mean() - planned**2) < 4 * squares.std() / np.sqrt(experiments)


def test_a_pilot_of_one_policy_on_prompts_that_are_all_alike_finds_nothing_between():
    rng, shape = np.random.default_rng(5), (600, 16)
    policy = at_kl(Identity(), 0.3)
    pilot = components(draw(policy, shape, rng), None, rng.random(shape), BestOfN(4), rng=rng)
    assert abs(pilot.between) < 4 * pilot.between_stderr
    exact = win_rate_variance(policy, BestOfN(4), samples=16, reference_samples=16)
    assert pilot.within == pytest.approx(exact, rel=0.2)


def test_large_samples_need_the_number_of_the_textbook():
    # (z.975 + z.8)² σ²/d² prompts, where t and normal are alike.
    plan = needed(BestOfN(4), 0.001, kl=0.25, samples=16)
    textbook = (ndtri(0.975) + ndtri(0.8)) ** 2 * (plan.between + plan.within) / 0.001**2
    assert plan.prompts == pytest.approx(textbook, rel=1e-4)


@law
@given(
    difference=st.floats(0.01, 0.5),
    samples=st.integers(4, 20),
    power=st.floats(0.05, 0.99),
    level=st.floats(0.91, 0.999),
)
def test_a_plan_is_just_large_enough(difference, samples, power, level):
    plan = needed(WorstOfN(4), difference, kl=0.2, samples=samples, power=power, level=level)
    total = plan.between + plan.within
    assert chance_to_see(plan.prompts, difference, total, level) >= power
    if plan.prompts > 2:
        assert chance_to_see(plan.prompts - 1, difference, total, level) < power


@pytest.mark.parametrize("procedure", [Sampling(), BestOfN(4)], ids=str)
def test_what_can_be_seen_and_how_many_are_needed_are_inverses(procedure):
    plan = needed(procedure, 0.05, kl=0.3, samples=8, reference_samples=16)
    options = {"kl": 0.3, "reference_samples": 16}
    seen = detectable(procedure, plan.prompts, 8, **options)
    assert seen <= 0.05 < detectable(procedure, plan.prompts - 1, 8, **options)


def test_a_table_shows_where_samples_stop_helping():
    plans = table(BestOfN(4), 0.03, kl=0.25)
    assert [p.samples for p in plans] == [4, 8, 16, 32, 64]
    prompts = [p.prompts for p in plans]
    assert prompts == sorted(prompts, reverse=True)
    cheapest = min(plans, key=lambda p: p.responses)
    assert cheapest.samples in (16, 32)
    assert cheapest.responses == cheapest.prompts * 3 * cheapest.samples
    assert plans[-1].sampling_share < 0.6 and plans[0].between == BETWEEN
    # The opponent may draw more than the policy, and needs as many samples.
    assert [p.samples for p in table(Sampling(), 0.1, kl=0.2, against=BestOfN(2))][:2] == [2, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"difference": 3.0}, r"`difference` must lie in \(0, 1\); got 3\. Three points are 0\.03"),
        ({"between": -0.1}, r"`between` must be at least 0; got -0\.1\. If a pilot's .* use 0, or"),
        ({"power": 1.0}, r"`power` must lie in \(0\.025, 1\): even .* got 1\."),
        ({"level": 95}, r"`level` must lie in \(0, 1\); got 95"),
        ({"kl": 0.0}, r"`kl` must be above 0"),
        (
            {"samples": 3},
            r"`samples` must be at least the 4 that `BestOfN\(n=4\)` draws; got 3\. Pl",
        ),
        ({"reference_samples": 2}, r"`reference_samples` must be at least the 4 that"),
        (
            {"procedure": Rewind(0.9, 4)},
            r"`procedure` must be .* selects by rank.* got Rewind.*nearest",
        ),
        (
            {"against": Rewind(0.9, 4)},
            r"`against` must be .* selects by rank.* got Rewind",
        ),
    ],
)
def test_plans_that_make_no_sense_are_refused(change, message):
    arguments = {"procedure": BestOfN(4), "difference": 0.03, "kl": 0.25, "samples": 8} | change
    with pytest.raises(ValueError, match=message):
        needed(**arguments)


def test_a_pilot_too_small_to_be_halved_is_refused():
    rng, x = np.random.default_rng(0), np.random.default_rng(1).random((5, 7))
    with pytest.raises(ValueError, match=r"BestOfN\(n=4\).* in `each half of a_rewards`.* has 3"):
        components(x, x, x, BestOfN(4), rng=rng)
    with pytest.raises(ValueError, match=r"`a_rewards` must have at least 2 prompts .* got 1\."):
        components(x[:1], None, x[:1], Sampling(), rng=rng)
    with pytest.raises(ValueError, match=r"`prompts` must be .* at least 2; got 1"):
        detectable(BestOfN(4), 1, 8, kl=0.25)
