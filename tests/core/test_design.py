"""The optimum against published figures, an independent solver, and whatever else could win."""

import pickle
from functools import lru_cache
from math import exp

import numpy as np
import pytest
from contracts import law
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import cumulative_trapezoid, solve_ivp, trapezoid
from scipy.optimize import brentq
from scipy.special import beta as beta_function
from scipy.special import betainc, ndtr

import infalign as ia
from infalign import (
    BestOfN,
    BestOfPoisson,
    Candidate,
    Exponential,
    Identity,
    Log,
    OrderStatistic,
    Probit,
    RawRewards,
    Rewind,
    Sampling,
    SoftBestOfN,
    SolveError,
    Tabulated,
    TiltedPolicy,
    WorstOfN,
    best_exponential,
    best_power,
    compare,
    design,
    samples_needed,
)
from infalign.core import FewSamples, at_kl
from infalign.core._certificates import displacement_gap, mixture_gap
from infalign.core._policies import Curve
from infalign.core._solvers.point import Optimum
from infalign.core._solvers.rank import solve
from infalign.core._solvers.shots import stationary_points

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


# --- A second solver: shooting, in coordinates of its own. ---

LAWS = {
    Sampling: (lambda s, p: s, lambda s, p: 1.0),
    BestOfN: (lambda s, p: s**p.n, lambda s, p: p.n * s ** (p.n - 1)),
    WorstOfN: (lambda s, p: 1 - (1 - s) ** p.n, lambda s, p: p.n * (1 - s) ** (p.n - 1)),
    OrderStatistic: (
        lambda s, p: betainc(p.n - p.k + 1, p.k, s),
        lambda s, p: s ** (p.n - p.k) * (1 - s) ** (p.k - 1) / beta_function(p.n - p.k + 1, p.k),
    ),
    BestOfPoisson: (
        lambda s, p: s * np.exp(p.mu * (s - 1)),
        lambda s, p: (1 + p.mu * s) * np.exp(p.mu * (s - 1)),
    ),
}
"""H and h, written out once more."""


def shoot(log_top, procedure, against, beta, rtol=1e-13):
    """(1 − v, s, losses, KL) where a shot from v = s = 1 with log f(1) = `log_top` has run so far
    that 1 − v + 1 − s = 2; a root has s = 0 there.

    Along x = 1 − v + 1 − s, with y = log f: d(1 − v) = dx/(1 + f), ds = −f dx/(1 + f).
    """
    big_h, h = LAWS[type(procedure)]
    g = LAWS[type(against)][1]

    def right_side(x, state):
        away, s, y = state[0], min(max(state[1], 0.0), 1.0), state[2]
        if y < -80:  # neither mass nor losses are left, and f log f - f + 1 is 1
            return [1.0, 0.0, 0.0, 0.0, 1.0]
        fast = 1 / (1 + exp(-y))
        slow = 1 / (1 + exp(y)) if y < 700 else 0.0
        v = min(max(1 - away, 0.0), 1.0)
        rate = g(v, against)
        return [
            slow,
            -fast,
            -h(s, procedure) * rate / beta * slow,
            big_h(s, procedure) * rate * slow,
            (y - 1) * fast + slow,  # ∫ (f log f - f + 1) dv
        ]

    start = [0.0, 1.0, log_top, 0.0, 0.0]
    return solve_ivp(right_side, (0, 2), start, "DOP853", rtol=rtol, atol=1e-16).y[:, -1]


def shooting(procedure, against, beta, near):
    """Win rate and KL of the stationary point with log f(1) near a guess."""

    top = brentq(
        lambda top: shoot(top, procedure, against, beta)[1], near - 1e-6, near + 1e-6, xtol=1e-15
    )
    losses, kl = shoot(top, procedure, against, beta)[3:]
    return 1 - losses, kl


@pytest.mark.parametrize(
    ("procedure", "against", "kl"),
    [
        (Sampling(), None, 0.5),
        *[(BestOfN(n), None, kl) for n in (2, 8) for kl in (1e-4, 0.1, 2.0, 6.0)],
        *[(BestOfN(n), None, kl) for n in (32, 128) for kl in (1e-4, 0.1, 0.5)],
        (BestOfN(1024), None, 1e-4),
        (BestOfN(1024), None, 0.1),
        *[(WorstOfN(n), None, kl) for n in (2, 8) for kl in (1e-4, 0.1, 1.0)],
        (WorstOfN(128), None, 1e-3),
        (WorstOfN(1024), None, 1e-4),
        (Sampling(), BestOfN(4), 0.5),
        (BestOfN(4), Sampling(), 0.5),
        (WorstOfN(4), Sampling(), 0.5),
        (BestOfN(8), WorstOfN(2), 0.1),
        (OrderStatistic(9, 5), None, 0.5),
        (OrderStatistic(64, 5), None, 0.1),
        (BestOfPoisson(6.0), None, 0.5),
    ],
    ids=str,
)
def test_the_optimum_against_shooting(procedure, against, kl):
    best, against = design(procedure, kl=kl, against=against), against or procedure
    top = -best.optimum.curve.log_partition  # of e^y, with y = 0 at v = 1
    win_rate, reached = shooting(procedure, against, best.beta, top)
    assert best.kl == pytest.approx(kl, rel=1e-12)
    # At the same β. Where f(1) is large, shooting from it keeps only the digits it can hold.
    steep = isinstance(procedure, BestOfN) and procedure.n * kl > 40
    assert reached == pytest.approx(kl, rel=1e-7 if steep else 1e-9)
    assert win_rate == pytest.approx(best.win_rate, rel=1e-9)


@pytest.mark.parametrize(
    ("n", "kl"),
    [
        *[(n, kl) for n in (2, 4, 8, 32, 128) for kl in (1e-4, 0.01, 0.5, 2.0, 6.0)],
        *[(1024, kl) for kl in (1e-4, 0.01, 0.5, 1.0)],  # 6 nats hold too, in some seconds
    ],
)
def test_best_of_n_wins_what_its_density_at_the_top_says(n, kl):
    # dW = ∫ H(F) dG by parts, with f' = f h(F) g / β: W = β (f(1) - 1) / n against best-of-n.
    solution = solve(BestOfN(n), BestOfN(n), kl=kl)
    top = np.exp(-solution.curve.log_partition)
    assert solution.beta * (top - 1) / n == pytest.approx(solution.win_rate, rel=1e-9)
    assert solution.kl == pytest.approx(kl, rel=1e-11)


@pytest.mark.parametrize("n", [2, 4, 8, 32, 128, 1024])
@pytest.mark.parametrize("kl", [1e-4, 0.01, 0.5, 2.0, 6.0])
def test_worst_of_n_loses_what_its_density_at_the_bottom_says(n, kl):
    # 1 - W = β (1 - f(0)) / n against worst-of-n, with all its digits where W is next to 1.
    try:
        solution = solve(WorstOfN(n), WorstOfN(n), kl=kl)
    except SolveError as error:
        assert n * kl > 500, "losses of about e^{-n κ} are held by double precision"
        assert "exceeds double precision" in str(error)
        return
    curve, procedure = solution.curve, WorstOfN(n)
    rate = procedure.density(curve.cdf) * procedure.density(curve.grid.nodes) / solution.beta
    bottom = np.exp(-curve.grid.integrate(rate) - curve.log_partition)
    assert solution.losses == pytest.approx(solution.beta * (1 - bottom) / n, rel=1e-8)
    assert solution.kl == pytest.approx(kl, rel=1e-11)


def test_finer_panels_do_not_move_the_optimum(monkeypatch):
    for procedure, kl in ((BestOfN(32), 2.0), (WorstOfN(8), 2.0), (WorstOfN(2), 6.0)):
        usual = solve(procedure, procedure, kl=kl)
        monkeypatch.setattr("infalign.core._solvers.point.RESOLUTION", 1e-10)
        fine = solve(procedure, procedure, kl=kl)
        monkeypatch.undo()
        assert usual.beta == pytest.approx(fine.beta, rel=1e-9)
        assert len(fine.curve.grid) > len(usual.curve.grid)


# --- Certificates. ---


@pytest.mark.parametrize("procedure", [WorstOfN(2), WorstOfN(8), OrderStatistic(5, 3)], ids=str)
@pytest.mark.parametrize("against", [WorstOfN(4), Sampling()], ids=str)
@pytest.mark.parametrize("kl", [0.05, 1.0])
def test_a_concave_opponent_certifies_any_procedure(procedure, against, kl):
    best = design(procedure, kl=kl, against=against)
    assert 0 <= best.gap <= 1e-9
    assert "quantile function" in best.certificate


@pytest.mark.parametrize(
    ("procedure", "gap_of"),
    [(BestOfN(8), mixture_gap), (WorstOfN(4), displacement_gap)],
    ids=["mixture", "displacement"],
)
@law
@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.floats(0.05, 2))
def test_the_certificate_bounds_what_another_policy_misses(procedure, gap_of, steps, strength):
    # Any policy at all: its gap at β = .2 is at least what the optimum has more.
    beta = 0.2
    curve = TiltedPolicy(table(steps), strength).curve(procedure)
    grid = curve.grid
    rate = procedure.density(curve.cdf) * procedure.density(grid.nodes)
    gradient = -grid.cumulate_down(rate)[0]
    other = Optimum(curve, gradient, gradient / beta, beta, 0.0, curve.kl)
    gap = gap_of(other) if gap_of is mixture_gap else gap_of(other, procedure, procedure)
    best = optimum(procedure, beta=beta)
    objective = curve.win_rate(procedure, procedure) - beta * curve.kl
    assert gap >= best.win_rate - beta * best.kl - objective - 1e-9


def test_several_stationary_points_are_all_found_and_the_best_is_taken():
    # Worst-of-4 against best-of-4: neither convex nor concave, and the reference's side of the
    # frontier is not the best.
    worst, best, beta = WorstOfN(4), BestOfN(4), 0.327
    points = stationary_points(worst, best, beta)
    assert len(points) == 3
    designed = design(worst, beta=beta, against=best)
    objectives = [p.win_rate - beta * p.kl for p in points]
    assert designed.win_rate - beta * designed.kl == pytest.approx(max(objectives), abs=1e-9)
    assert designed.gap == pytest.approx(0, abs=1e-9)
    assert designed.certificate == "enumeration: 3 stationary points in a scan of shots"
    assert max(objectives) - min(objectives) > 0.01


@pytest.mark.parametrize("procedure", [OrderStatistic(9, 5), OrderStatistic(16, 12)], ids=str)
def test_order_statistics_are_certified_by_enumeration(procedure):
    best = design(procedure, kl=0.3)
    assert best.gap == pytest.approx(0, abs=1e-9)
    assert best.certificate == "enumeration: 1 stationary point in a scan of shots"


# --- Procedures that read the calibrated reward. ---

SOFTENED = [SoftBestOfN(4, 0.1), SoftBestOfN(2, 1.0), Rewind(0.9, 8), Rewind(0.5, 3)]


@pytest.mark.parametrize("procedure", SOFTENED, ids=str)
@pytest.mark.parametrize("against", [None, Sampling(), BestOfN(2)], ids=str)
def test_the_gradient_of_a_softened_procedure_against_differences(procedure, against):
    against = against or procedure
    curve = TiltedPolicy(Exponential(2.0), 0.7).curve(procedure, against)
    grid, opponent = curve.grid, against.cdf(curve.grid.nodes)
    gradient = procedure.gradient(grid, curve.density, opponent)
    rng = np.random.default_rng(0)
    for _ in range(3):
        a, b = rng.normal(size=2)
        bump = np.cos(3 * a * grid.nodes) + b * grid.nodes
        bump -= grid.integrate(curve.density * bump)  # of mass 0
        moved = [Curve(grid, curve.log_density + np.log1p(e * bump)) for e in (1e-4, -1e-4)]
        difference = np.subtract(*[m.win_rate(procedure, against) for m in moved]) / 2e-4
        assert difference == pytest.approx(
            grid.integrate(gradient * curve.density * bump), abs=1e-6
        )


@pytest.mark.parametrize("procedure", SOFTENED, ids=str)
@pytest.mark.parametrize("against", [None, Sampling()], ids=str)
@settings(law, max_examples=12)
@given(steps=st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=1, max_size=6))
def test_no_other_policy_beats_the_softened_optimum(procedure, against, steps):
    best = optimum(procedure, kl=0.5, against=against)
    shape = Tabulated(np.linspace(0, 1, len(steps) + 1), np.cumsum([0, *steps]), increasing=False)
    other = TiltedPolicy(shape, 0.4)
    objective = other.win_rate(procedure, against) - best.beta * other.kl
    assert objective <= best.win_rate - best.beta * best.kl + 1e-8


@pytest.mark.parametrize("procedure", SOFTENED, ids=str)
def test_a_softened_budget_and_its_strength_give_the_same_optimum(procedure):
    budget = optimum(procedure, kl=0.5)
    strength = design(procedure, beta=budget.beta)
    assert (strength.kl, strength.win_rate) == pytest.approx((0.5, budget.win_rate), abs=1e-8)
    assert budget.policy.kl == pytest.approx(0.5, abs=1e-6)
    assert budget.policy.win_rate(procedure) == pytest.approx(budget.win_rate, abs=1e-6)


def test_one_soft_draw_and_one_try_are_plain_sampling():
    plain = design(Sampling(), kl=0.5)
    for one in (SoftBestOfN(1, 0.3), Rewind(0.4, 1)):
        best = design(one, kl=0.5)
        assert (best.win_rate, best.beta) == pytest.approx((plain.win_rate, plain.beta), rel=1e-9)


def test_what_just_passes_a_threshold_is_worse_than_another_draw():
    best = design(Rewind(0.9, 8), kl=0.5)
    below, at = best.transform([0.9 - 1e-9, 0.9])
    assert at < below
    assert best.gap == pytest.approx(0, abs=1e-12)
    assert np.isnan(design(SoftBestOfN(4, 0.1), kl=0.5).gap)


# --- What the optimum promises. ---


@pytest.mark.parametrize("procedure", [Sampling(), BestOfN(4), BestOfN(32), WorstOfN(1)], ids=str)
@pytest.mark.parametrize("against", [None, Sampling(), WorstOfN(2)], ids=str)
@pytest.mark.parametrize("budget", [{"kl": 0.1}, {"kl": 2.0}, {"beta": 0.3}], ids=str)
def test_a_concave_optimum_is_certified(procedure, against, budget):
    assert 0 <= design(procedure, against=against, **budget).gap <= 1e-9


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
    best = design(procedure, kl=kl)
    assert best.policy.kl == pytest.approx(best.kl, abs=1e-5)
    assert best.policy.win_rate(procedure) == pytest.approx(best.win_rate, abs=1e-5)


def test_the_transform_is_the_gradient_of_the_win_rate():
    # Φ(v) = ∫₀^v h(F) dG: against plain sampling G(u) = u, and h = 4 F³.
    solution, u = optimum(BestOfN(4), kl=0.5, against=Sampling()), np.linspace(0, 1, 2001)
    expected = cumulative_trapezoid(4 * solution.policy.cdf(u) ** 3, x=u, initial=0)
    np.testing.assert_allclose(solution.transform(u), expected, atol=1e-5)


@pytest.mark.parametrize("procedure", [Sampling(), BestOfN(1), WorstOfN(1)], ids=repr)
def test_the_optimum_of_plain_sampling_is_the_identity(procedure):
    # h = g = 1, so Φ(v) = v whatever the policy: W is linear.
    best = design(procedure, beta=0.25)
    np.testing.assert_allclose(best.transform(U), U, atol=1e-12)
    plain = TiltedPolicy(Identity(), 0.25)
    assert (best.kl, best.win_rate) == pytest.approx((plain.kl, plain.win_rate(Sampling())))
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


def test_a_budget_beyond_double_precision_is_an_error():
    with pytest.raises(SolveError) as caught:
        design(WorstOfN(1024), kl=2.0)
    # Uniform above 1 - e^-2, it loses about e^(-2 * 1024) / 2 of the time.
    assert str(caught.value).startswith(
        "No optimum was found for WorstOfN(n=1024) against WorstOfN(n=1024) with kl=2; a policy "
        "that spends it on the best 0.14 of the responses alone already loses less than 1e-290"
    )
    assert "Ask for a smaller `kl` or a larger `beta`." in str(caught.value)


@pytest.mark.parametrize(
    ("procedure", "against", "kl"),
    [
        (BestOfN(128), None, 4.0),
        (BestOfN(195), None, 3.32),
        (BestOfN(100), None, 8.0),  # its mass lies nearer to 1 than floating-point numbers do
        (WorstOfN(8), None, 4.0),  # beta is 4e-14, Φ up to 64
        (WorstOfN(64), None, 2.5),  # 8e-69
        (WorstOfN(23), None, 1.1251),
        (WorstOfN(77), None, 1.86834),  # Φ/β is 1e16 next to the policy's mass
        (ia.Mixture((BestOfN(181), WorstOfN(154)), (0.25, 0.75)), None, 1.87616),
        (WorstOfN(60), BestOfN(60), 0.5),
        (OrderStatistic(119, 60), None, 3.65),
    ],
    ids=str,
)
def test_the_policy_of_the_transform_is_the_optimum(procedure, against, kl):
    best = design(procedure, kl=kl, against=against)
    for policy in (best.policy, TiltedPolicy(best.transform, best.beta)):
        assert policy.kl == pytest.approx(kl, abs=1e-8)
        losses = policy.curve(procedure, best.against)
        assert losses.win_rate(procedure, best.against) == pytest.approx(best.win_rate, rel=1e-9)
    assert best.rounding < 1e-8
    assert 0 <= best.win_rate <= 1


def test_a_policy_that_a_table_cannot_represent_is_refused(monkeypatch):
    monkeypatch.setattr(TiltedPolicy, "kl", 0.501)
    with pytest.raises(SolveError, match=r"has a KL of 0.501 nats in place of 0.5: a table"):
        _ = design(BestOfN(4), kl=0.5).policy


def test_text_in_place_of_a_procedure_is_refused():
    with pytest.raises(ValueError, match=r"`procedure` must be a procedure such as BestOfN\(4\)"):
        design("best-of-n:4", kl=0.5)


# --- Families at their best. ---


@pytest.mark.parametrize("procedure", [BestOfN(8), WorstOfN(4)], ids=str)
def test_the_best_exponential_is_better_than_its_neighbors(procedure):
    best = best_exponential(procedure, 0.5)
    assert np.sign(best.t) == (1 if isinstance(procedure, BestOfN) else -1)
    wins = [at_kl(Exponential(best.t * x), 0.5).win_rate(procedure) for x in (0.8, 1, 1.25)]
    assert wins[1] >= max(wins)
    assert wins[1] > optimum(procedure, kl=0.5).win_rate - 0.005


def test_the_best_exponential_for_few_samples_is_milder_and_better_there():
    exact, few = best_exponential(BestOfN(8), 0.5), best_exponential(BestOfN(8), 0.5, samples=32)
    assert few.t < 0.6 * exact.t
    rows = compare(BestOfN(8), [exact, best_exponential], kl=0.5, samples=32)
    assert rows[2].transform == few.spec
    assert rows[2].win_rate > rows[1].win_rate + 4 * (rows[1].stderr + rows[2].stderr)
    for factor in (0.7, 1.4):
        near = compare(BestOfN(8), [Exponential(factor * few.t)], kl=0.5, samples=32)[1]
        assert near.win_rate < rows[2].win_rate + 4 * rows[2].stderr


@pytest.mark.parametrize(
    "procedure, kl",
    [
        (BestOfN(32), 2.0),
        (BestOfN(100), 2.0),
        (BestOfN(1024), 4.0),
        (BestOfN(1024), 1e-3),
        (WorstOfN(32), 1.0),
        (WorstOfN(1024), 1e-3),
        (WorstOfN(64), 4.0),
        (WorstOfN(8), 3.0),
    ],
)
@pytest.mark.parametrize("search", [best_exponential, best_power])
def test_the_search_of_a_family_computes_few_panels(procedure, kl, search, monkeypatch):
    # Panels are the cost; the search once computed hundreds of times as many.
    panels = []
    made = Curve.__init__

    def counted(self, grid, exponent):
        panels.append(len(grid))
        made(self, grid, exponent)

    monkeypatch.setattr(Curve, "__init__", counted)
    member = search(procedure, kl)
    assert sum(panels) < 1_500_000
    assert at_kl(member, kl).kl == pytest.approx(kl, rel=1e-6)


def test_compare_takes_the_best_member_of_a_family():
    rows = compare(BestOfN(8), [best_exponential, best_power, Exponential(10)], kl=0.5)
    assert [r.transform.split(":")[0] for r in rows] == [
        "optimal",
        "exponential",
        "power",
        "exponential",
    ]
    assert rows[1].loss < rows[3].loss


# --- Few calibration samples. ---


def test_figures_of_few_samples():
    # docs/maths.md: exponential 10 and identity at best-of-4, 0.5 nats.
    expected = {16: (0.8305, 0.788), 32: (0.8484, 0.794), 64: (0.8586, 0.797), 128: (0.8652, 0.799)}
    for samples, figures in expected.items():
        for transform, figure in zip((Exponential(10), Identity()), figures, strict=True):
            few = FewSamples(samples)
            _, exponents = few.at_kl(transform, 0.5)
            outcome = few.achieved(exponents, BestOfN(4), BestOfN(4))
            assert outcome.kl == pytest.approx(0.5, abs=1e-9)
            assert abs(outcome.win_rate - figure) < 4 * np.hypot(outcome.stderr, 3e-4)


def test_few_samples_against_a_simulation_of_prompts():
    # Each prompt: K uniform reference quantiles; the policy's weight on a cell is its width times
    # e^{φ/β}; best of 2 draws against best of 2 of the reference.
    rng, samples, prompts = np.random.default_rng(1), 5, 60_000
    few = FewSamples(samples)
    exponents = np.array([0.0, 0.1, 0.3, 0.7, 1.0, 2.0])
    edges = np.sort(rng.random((prompts, samples)), axis=1)
    edges = np.hstack([np.zeros((prompts, 1)), edges, np.ones((prompts, 1))])
    mass = np.diff(edges) * np.exp(exponents)
    mass = np.cumsum(mass / mass.sum(1, keepdims=True), axis=1)

    def draw():
        cell = (rng.random((prompts, 1)) > mass).sum(1).clip(0, samples)
        rows = np.arange(prompts)
        low, high = edges[rows, cell], edges[rows, cell + 1]
        return low + rng.random(prompts) * (high - low)

    ours, theirs = np.maximum(draw(), draw()), rng.random((prompts, 2)).max(1)
    wins = ours > theirs
    outcome = few.achieved(exponents, BestOfN(2), BestOfN(2))
    stderr = np.hypot(outcome.stderr, wins.std() / np.sqrt(prompts))
    assert abs(outcome.win_rate - wins.mean()) < 4 * stderr


def test_the_reference_ties_with_itself_at_any_number_of_samples():
    outcome = FewSamples(7).achieved(np.zeros(8), BestOfN(4), BestOfN(4))
    assert (outcome.win_rate, outcome.kl) == pytest.approx((0.5, 0), abs=1e-9)


def test_many_samples_approach_exact_calibration():
    exact = at_kl(Exponential(5), 0.5).win_rate(BestOfN(4))
    short = []
    for samples in (64, 256):
        few = FewSamples(samples)
        _, exponents = few.at_kl(Exponential(5), 0.5)
        short.append(exact - few.achieved(exponents, BestOfN(4), BestOfN(4)).win_rate)
    assert 0 < short[1] < 0.4 * short[0]  # first order in 1/K


@pytest.mark.parametrize("procedure", [BestOfN(8), WorstOfN(4)], ids=str)
def test_the_best_table_beats_every_transform_at_its_number_of_samples(procedure):
    rows = compare(
        procedure, [Identity(), Exponential(8), Exponential(-4), Probit()], kl=0.5, samples=12
    )
    assert rows[0].kl == pytest.approx(0.5, abs=1e-9)
    for row in rows[1:]:
        assert row.win_rate < rows[0].win_rate + 3 * np.hypot(row.stderr, rows[0].stderr)
    # Also the exact optimum's own Φ, evaluated at j/K.
    few = FewSamples(12)
    exact = design(procedure, kl=0.5)
    _, exponents = few.at_kl(exact.transform, 0.5)
    plain = few.achieved(exponents, procedure, procedure)
    assert rows[0].win_rate > plain.win_rate - 3 * plain.stderr
    assert rows[0].win_rate < exact.win_rate


def test_a_sampled_design_states_its_table():
    best = design(BestOfN(4), kl=0.3, samples=8)
    assert np.asarray(best.transform.u).tolist() == (np.arange(9) / 8).tolist()
    assert best.transform.phi[0] == 0 and best.samples == 8
    assert 0 < best.stderr < 1e-3 and np.isnan(best.gap)
    again = design(BestOfN(4), beta=best.beta, samples=8)
    assert again.kl == pytest.approx(0.3, rel=0.02)


def test_designs_have_one_type():
    exact, sampled = design(BestOfN(2), kl=0.3), design(BestOfN(2), kl=0.3, samples=8)
    assert type(exact) is type(sampled) is ia.Design is ia.SampledDesign
    assert (exact.samples, exact.stderr) == (None, 0.0)
    assert exact.policy.kl == pytest.approx(0.3) and exact.optimum.kl == exact.kl
    assert pickle.loads(pickle.dumps(sampled)) == sampled
    for asked in ("policy", "optimum"):
        with pytest.raises(ValueError, match=f"`samples` must be None for `{asked}`; got 8"):
            getattr(sampled, asked)


def test_raw_rewards_do_not_depend_on_the_calibration():
    raw = RawRewards(np.random.default_rng(0).normal(size=(3, 400)))
    exact, few = (compare(BestOfN(2), [raw], kl=0.3, samples=k)[1] for k in (None, 8))
    assert (exact.win_rate, exact.beta) == (few.win_rate, few.beta)
    assert few.loss < exact.loss


def test_the_smallest_number_of_samples_within_a_loss():
    exact = at_kl(Identity(), 0.5).win_rate(BestOfN(4))
    needed = samples_needed(BestOfN(4), Identity(), kl=0.5, loss=0.005, exact=exact)

    def short(samples):
        few = FewSamples(samples)
        return exact - few.achieved(few.at_kl(Identity(), 0.5)[1], BestOfN(4), BestOfN(4)).win_rate

    assert short(needed) <= 0.005 < short(needed - 1)


def test_few_samples_cannot_reach_any_kl():
    with pytest.raises(
        SolveError, match=r"`the optimum` does not reach kl=3 nats with 2 calibration"
    ):
        compare(Sampling(), [Identity()], kl=3.0, samples=2)
    with pytest.raises(
        ValueError, match=r"`samples` needs a procedure .* by rank.*Leave `samples`"
    ):
        design(Rewind(0.5, 3), kl=0.1, samples=8)
    with pytest.raises(ValueError, match="`samples` must be a whole number of at least 1; got 0"):
        design(BestOfN(4), kl=0.1, samples=0)
