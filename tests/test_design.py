"""The optimum against published figures, an independent solver, and whatever else could win."""

from functools import lru_cache

import numpy as np
import pytest
from contracts import law
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import cumulative_trapezoid, solve_ivp, trapezoid
from scipy.optimize import brentq
from scipy.special import ndtr

from infalign import (
    BestOfN,
    Candidate,
    Exponential,
    Identity,
    Log,
    Probit,
    Sampling,
    SolveError,
    Tabulated,
    TiltedPolicy,
    WorstOfN,
    compare,
    design,
)
from infalign.design import at_kl
from infalign.solve import solve

U = np.linspace(0, 1, 101)
optimum = lru_cache(design)


def win_rates(procedure, transforms, kl):
    """Win rates of the transforms and of the optimum, to four digits."""
    best, *rest = compare(procedure, transforms, kl=kl)
    return [round(c.win_rate, 4) for c in [*rest, best]]


@pytest.mark.parametrize(
    ("procedure", "kl", "t", "expected"),
    [
        # docs/maths.md, section 4: exponential, identity, optimum.
        (BestOfN(8), 0.5, 10, [0.9037, 0.8036, 0.9299]),
        (BestOfN(32), 0.1, 10, [0.7960, 0.6656, 0.9017]),
        (WorstOfN(4), 0.1, -10, [0.7339, 0.6808, 0.7374]),
        (BestOfN(4), 0.5, 10, [0.8715, 0.7998, 0.8733]),
    ],
    ids=str,
)
def test_figures_of_the_paper_s_exponential(procedure, kl, t, expected):
    assert win_rates(procedure, [Exponential(t), Identity()], kl) == expected


@pytest.mark.parametrize(
    ("procedure", "expected"),
    [
        # docs/maths.md, section 4, at 0.5 nats: probit, identity, optimum.
        (Sampling(), [0.7602, 0.7737, 0.7737]),
        (BestOfN(4), [0.8450, 0.7998, 0.8733]),
        (BestOfN(8), [0.8789, 0.8036, 0.9299]),
        (BestOfN(32), [0.9268, 0.8063, 0.9928]),
        (WorstOfN(4), [0.8450, 0.8860, 0.9479]),
        (WorstOfN(8), [0.8789, 0.9116, 0.9929]),
    ],
    ids=str,
)
def test_figures_of_raw_reward_training(procedure, expected):
    assert win_rates(procedure, [Probit(), Identity()], 0.5) == expected


def test_raw_reward_training_by_hand():
    # Normal rewards one standard deviation apart: the best of 4 of N(1, 1) beats the best of 4
    # of N(0, 1) with chance 1 - ∫ Φ(x - 1)⁴ d(Φ(x)⁴) = .84505.
    x = np.linspace(-9, 10, 20_001)
    expected = 1 - trapezoid(ndtr(x - 1) ** 4, ndtr(x) ** 4)
    assert at_kl(Probit(), 0.5).win_rate(BestOfN(4)) == pytest.approx(expected, abs=1e-6)
    assert at_kl(Probit(), 0.5).win_rate(WorstOfN(4)) == pytest.approx(expected, abs=1e-6)


# --- A second solver: shooting. ---

LAWS = {
    Sampling: (lambda s, n: s, lambda s, n: 1.0),
    BestOfN: (lambda s, n: s**n, lambda s, n: n * s ** (n - 1)),
    WorstOfN: (lambda s, n: 1 - (1 - s) ** n, lambda s, n: n * (1 - s) ** (n - 1)),
}
"""H and h, written out once more."""


def shoot(log_start, procedure, against, beta, rtol=1e-12):
    """F(1), win rate and KL of the policy with log f(0) = `log_start` that solves
    F' = f, (log f)' = h(F) g(v) / β."""
    big_h, h = LAWS[type(procedure)]
    g, n, m = LAWS[type(against)][1], procedure.draws, against.draws

    def right_side(v, y):
        s, f = min(y[0], 1.0), np.exp(y[1])
        return [f, h(s, n) * g(v, m) / beta, big_h(s, n) * g(v, m), f * y[1]]

    start = [0, log_start, 0, 0]
    end = solve_ivp(right_side, (0, 1), start, "DOP853", rtol=rtol, atol=rtol / 100).y[:, -1]
    return end[0], 1 - end[2], end[3]


@pytest.mark.parametrize(
    ("procedure", "against", "kl"),
    [
        (BestOfN(2), None, 1.0),
        (BestOfN(4), None, 0.5),
        (BestOfN(32), None, 0.1),
        (WorstOfN(2), None, 1.0),
        (WorstOfN(4), None, 0.5),
        (WorstOfN(8), None, 0.1),
        (Sampling(), BestOfN(4), 0.5),
        (BestOfN(4), Sampling(), 0.5),
        (WorstOfN(4), Sampling(), 0.5),
        (BestOfN(8), WorstOfN(2), 0.1),
        (WorstOfN(4), BestOfN(2), 0.5),
    ],
    ids=str,
)
def test_the_optimum_against_shooting(procedure, against, kl):
    found, against = design(procedure, kl=kl, against=against), against or procedure

    def excess(log_start):
        return shoot(log_start, procedure, against, found.beta)[0] - 1

    start = brentq(excess, -40, 0, xtol=1e-13, rtol=1e-14)
    _, win_rate, reached = shoot(start, procedure, against, found.beta)
    assert win_rate == pytest.approx(found.win_rate, abs=1e-8)
    assert reached == pytest.approx(kl, abs=1e-8)
    assert found.kl == pytest.approx(kl, abs=1e-8)


@pytest.mark.parametrize(("n", "kl"), [(2, 1.0), (4, 0.5), (8, 0.1)])
def test_worst_of_n_has_one_stationary_point(n, kl):
    # Every stationary point is a root of F(1) - 1 in log f(0), and f rises, so log f(0) <= 0.
    worst, beta = WorstOfN(n), optimum(WorstOfN(n), kl=kl).beta
    ends = [shoot(a, worst, worst, beta, rtol=1e-6)[0] for a in np.linspace(-n / beta - 5, 0, 80)]
    assert np.count_nonzero(np.diff(np.sign(np.array(ends) - 1))) == 1


# --- What the optimum promises. ---


@pytest.mark.parametrize("procedure", [Sampling(), BestOfN(4), BestOfN(32), WorstOfN(1)], ids=str)
@pytest.mark.parametrize("against", [None, Sampling(), WorstOfN(2)], ids=str)
@pytest.mark.parametrize("budget", [{"kl": 0.1}, {"kl": 2.0}, {"beta": 0.3}], ids=str)
def test_a_concave_optimum_is_certified(procedure, against, budget):
    assert 0 <= design(procedure, against=against, **budget).gap <= 1e-9


@pytest.mark.parametrize("tolerance", [0.3, 0.01])
def test_the_certificate_bounds_what_a_rough_solution_misses(tolerance):
    rough = solve(BestOfN(8), BestOfN(8), beta=0.2, tolerance=tolerance)
    best = design(BestOfN(8), beta=rough.beta)
    missed = (best.win_rate - rough.win_rate) - rough.beta * (best.kl - rough.kl)
    assert 1e-7 < missed <= rough.gap < 10 * missed


@pytest.mark.parametrize("n", [2, 8])
def test_worst_of_n_has_no_certificate(n):
    assert np.isnan(optimum(WorstOfN(n), kl=0.5).gap)


steps = st.lists(st.floats(0.01, 1), min_size=1, max_size=6)


def table(steps):
    """The transform that rises by `steps` over even pieces of [0, 1]."""
    return Tabulated(np.linspace(0, 1, len(steps) + 1), np.cumsum([0, *steps]))


@pytest.mark.parametrize("procedure", [Sampling(), BestOfN(8), WorstOfN(4)], ids=str)
@law
@given(steps=steps)
def test_no_other_transform_wins_more_at_the_same_kl(procedure, steps):
    best = optimum(procedure, kl=0.5)
    other = at_kl(table(steps), 0.5)
    assert other.kl == pytest.approx(0.5, abs=1e-9)
    assert other.win_rate(procedure) <= best.win_rate + 1e-7


@pytest.mark.parametrize("procedure", [BestOfN(4), WorstOfN(4)], ids=str)
@law
@given(steps=steps, beta=st.floats(0.02, 5))
def test_no_other_policy_has_a_larger_objective(procedure, steps, beta):
    best = optimum(procedure, beta=0.3)
    other = TiltedPolicy(table(steps), beta)
    objective = other.win_rate(procedure) - 0.3 * other.kl
    assert objective <= best.win_rate - 0.3 * best.kl + 1e-7


@pytest.mark.parametrize(
    ("procedure", "against"),
    [(BestOfN(8), None), (WorstOfN(4), None), (Sampling(), None), (BestOfN(4), Sampling())],
    ids=str,
)
@pytest.mark.parametrize("kl", [0.01, 0.5, 1.0])
def test_a_budget_and_its_strength_give_the_same_optimum(procedure, against, kl):
    budget = design(procedure, kl=kl, against=against)
    strength = design(procedure, beta=budget.beta, against=against)
    assert budget.kl == pytest.approx(kl, abs=1e-10)
    assert (strength.beta, strength.kl, strength.win_rate) == pytest.approx(
        (budget.beta, budget.kl, budget.win_rate), abs=1e-9
    )
    np.testing.assert_allclose(strength.transform(U), budget.transform(U), atol=1e-9)


@pytest.mark.parametrize(
    ("procedure", "kl"),
    [
        (BestOfN(4), 0.5),
        (BestOfN(8), 0.1),
        (WorstOfN(4), 0.5),
        (WorstOfN(8), 1.0),
        (BestOfN(32), 0.1),
        (BestOfN(32), 2.0),
        (BestOfN(128), 0.5),
    ],
    ids=str,
)
def test_training_on_the_transform_reaches_what_is_promised(procedure, kl):
    found = design(procedure, kl=kl)
    assert found.policy.kl == pytest.approx(found.kl, abs=1e-5)
    assert found.policy.win_rate(procedure) == pytest.approx(found.win_rate, abs=1e-5)


def test_the_transform_is_the_gradient_of_the_win_rate():
    # Φ(v) = ∫₀^v h(F) dG: against plain sampling G(u) = u, and h = 4 F³.
    found, u = optimum(BestOfN(4), kl=0.5, against=Sampling()), np.linspace(0, 1, 2001)
    expected = cumulative_trapezoid(4 * found.policy.cdf(u) ** 3, x=u, initial=0)
    np.testing.assert_allclose(found.transform(u), expected, atol=1e-5)


@pytest.mark.parametrize("procedure", [Sampling(), BestOfN(1), WorstOfN(1)], ids=repr)
def test_the_optimum_of_plain_sampling_is_the_identity(procedure):
    # h = g = 1, so Φ(v) = v whatever the policy: W is linear.
    found = design(procedure, beta=0.25)
    np.testing.assert_allclose(found.transform(U), U, atol=1e-12)
    plain = TiltedPolicy(Identity(), 0.25)
    assert (found.kl, found.win_rate) == pytest.approx((plain.kl, plain.win_rate(Sampling())))
    assert compare(procedure, [Identity()], kl=0.5)[1].loss == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("procedure", [BestOfN(4), WorstOfN(4)], ids=str)
def test_a_larger_budget_wins_more_at_a_smaller_strength(procedure):
    found = [design(procedure, kl=kl) for kl in (0.001, 0.01, 0.1, 0.5, 1.0)]
    assert (np.diff([0.5, *[d.win_rate for d in found]]) > 0).all()
    assert (np.diff([d.beta for d in found]) < 0).all()


# --- compare and at_kl. ---


def test_compare_puts_the_optimum_first_at_each_budget():
    rows = compare(BestOfN(8), [Identity(), Exponential(10)], kl=[0.1, 0.5])
    assert [c.transform for c in rows] == ["optimal", "identity", "exponential:10"] * 2
    assert [c.kl for c in rows] == pytest.approx([0.1] * 3 + [0.5] * 3, abs=1e-10)
    for first, row in zip([rows[0]] * 3 + [rows[3]] * 3, rows, strict=True):
        assert row.loss == first.win_rate - row.win_rate >= 0


def test_compare_by_hand():
    # F = u^k has KL log k - (k - 1)/k; under log it is reached at β = 1/(k - 1), W = k/(k + 1).
    kl = np.log(3) - 2 / 3
    best, log = compare(BestOfN(4), [Log()], kl=kl)
    expected = Candidate("log", kl, 1 / 2, 3 / 4, best.win_rate - 3 / 4)
    assert vars(log) == pytest.approx(vars(expected), abs=1e-10)


@pytest.mark.parametrize("transform", [Identity(), Exponential(-10), Exponential(10), Probit()])
@pytest.mark.parametrize("kl", [1e-4, 0.5, 3.0])
def test_at_kl_spends_the_budget(transform, kl):
    assert at_kl(transform, kl).kl == pytest.approx(kl, rel=1e-9, abs=1e-12)


def test_at_kl_does_not_mind_the_scale_of_a_transform():
    small, large = (at_kl(Tabulated((0, 1), (0, scale)), 0.5) for scale in (1e-7, 1e7))
    assert small.beta / 1e-7 == pytest.approx(large.beta / 1e7)


def test_a_plateau_limits_the_kl():
    # The upper half shares the maximum, so no β takes the KL beyond log 2 = .69.
    with pytest.raises(SolveError, match=r"`tabulated` does not reach kl=1 nats .* sharper"):
        at_kl(Tabulated((0, 0.5, 1), (0, 1, 1)), 1.0)


@pytest.mark.parametrize("neither_or_both", [{}, {"kl": 0.5, "beta": 0.1}])
def test_a_budget_or_a_strength_is_needed_and_not_both(neither_or_both):
    with pytest.raises(ValueError, match=r"Give exactly one of `kl` \(nats\) and `beta`"):
        design(BestOfN(4), **neither_or_both)


@pytest.mark.parametrize("name", ["kl", "beta"])
@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (0, "must be above 0; got 0"),
        (-0.5, "must be above 0; got -0.5"),
        (float("nan"), "must be a finite number; got nan"),
        (float("inf"), "must be a finite number; got inf"),
        ("0.5", "must be a finite number; got '0.5'"),
    ],
)
def test_budget_and_strength_must_be_above_zero(name, value, rule):
    with pytest.raises(ValueError, match=f"`{name}` {rule}"):
        design(BestOfN(4), **{name: value})


def test_a_stalled_solver_says_what_to_ask_for_instead():
    with pytest.raises(SolveError) as caught:
        solve(BestOfN(4), Sampling(), kl=0.5, tolerance=0)  # rounding forbids a residual of 0
    assert str(caught.value) == (
        "No optimum was found for BestOfN(n=4) against Sampling() with kl=0.5: it lies "
        "beyond double precision. Ask for a smaller `kl` or a larger `beta`."
    )
