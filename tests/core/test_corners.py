"""Designs at the corners: budgets, laws and opponents at which a solver may fail or be wrong."""

import math

import numpy as np
import pytest
from scipy.special import expit

import infalign as ia
from infalign import (
    BestOfN,
    BestOfPoisson,
    Mixture,
    OrderStatistic,
    Rewind,
    Sampling,
    SoftBestOfN,
    WorstOfN,
)
from infalign.core import objective, stationary_points
from infalign.core._policies import Curve
from infalign.core._roots import falling_root
from infalign.core._solvers import soft
from infalign.core._solvers.ascents import ascended, maxima
from infalign.core._solvers.rewind import RewindOptimum
from infalign.core._solvers.transport import Chain, Goal

HALF = (0.5, 0.5)


def random_problem(seed):
    """A procedure, an opponent and a budget, of any family that selects by rank."""
    rng = np.random.default_rng([15, seed])

    def law(mixed=True):
        n = int(np.exp(rng.uniform(np.log(2), np.log(200))))
        kind = rng.integers(4 if mixed else 3)
        if kind == 3:
            share = round(float(rng.uniform(0.05, 0.95)), 2)
            return Mixture((law(False), law(False)), (share, 1 - share))
        return (BestOfN(n), WorstOfN(n), OrderStatistic(n, int(rng.integers(1, n + 1))))[kind]

    procedure, against = law(), [law(), Sampling(), None][rng.integers(3)]
    return procedure, against or procedure, float(np.exp(rng.uniform(np.log(1e-3), np.log(4))))


def test_a_win_rate_whose_laws_change_fast_within_a_panel_has_its_digits():
    both = Mixture((WorstOfN(194), BestOfN(1)), (0.43, 0.57))
    best = ia.design(both, kl=0.0421)
    grid = best.optimum.curve.grid
    for _ in range(2):
        grid = grid.cut(np.ones(len(grid), bool))
    fine = Curve(grid, best.optimum.curve.grid.interpolate(best.optimum.exponent, grid))
    assert best.win_rate == pytest.approx(fine.win_rate(both, both), abs=1e-12)


def test_a_weak_tilt_against_an_opponent_that_always_loses_has_a_kl_above_0():
    best = ia.design(BestOfN(165), against=WorstOfN(18), beta=0.1273)
    assert 0 <= best.kl < 1e-30


def test_a_policy_that_lies_behind_the_last_node_of_a_start_is_reached():
    # 8.8 nats: all mass is within 2e-4 of 1, where the laws alone need no panels.
    procedure = Mixture((WorstOfN(91), BestOfPoisson(0.601)), (0.54, 0.46))
    best = ia.design(procedure, beta=0.001941, against=BestOfN(18))
    assert best.kl == pytest.approx(8.784045, rel=1e-6)
    assert best.gap < 1e-9
    assert best.policy.win_rate(procedure, BestOfN(18)) == pytest.approx(best.win_rate, abs=1e-9)


def test_a_strength_that_is_not_reached_is_named_in_the_error(monkeypatch):
    monkeypatch.setattr("infalign.core._solvers.rank.solve_near", lambda *_: None)
    with pytest.raises(ia.SolveError, match=r"with beta=0\.1; the solver does not converge"):
        ia.design(BestOfN(4), beta=0.1)


def test_a_budget_at_which_the_win_rate_is_1_is_refused_with_that_reason(monkeypatch):
    monkeypatch.setattr("infalign.core._solvers.rank.solve_near", lambda *_: None)
    with pytest.raises(
        ia.SolveError, match=r"loses less than \S+ of the time, so its win rate is 1"
    ):
        ia.design(OrderStatistic(162, 42), kl=2.597, against=WorstOfN(191))


@pytest.mark.parametrize("seed", range(10, 40))
def test_a_random_design_is_stationary_at_its_budget_and_its_policy_is_the_same(seed):
    procedure, against, kl = random_problem(seed)
    best = ia.design(procedure, kl=kl, against=against)
    policy = best.policy
    assert best.kl == pytest.approx(kl, rel=1e-9)
    assert policy.kl == pytest.approx(kl, abs=1e-7)
    assert policy.win_rate(procedure, against) == pytest.approx(best.win_rate, rel=1e-7)
    # (log f)' = h(F) g / beta, by differences, where the policy has its mass.
    u = np.linspace(0.001, 0.999, 400)
    step = 1e-5
    density, rank = policy.density(u), policy.cdf(u)
    rate = procedure.density(rank) * against.density(u) / best.beta
    smooth = (density > 1e-6) & (rate < 100)
    u, rate = u[smooth], rate[smooth]
    rise = np.log(policy.density(u + step)) - np.log(policy.density(u - step))
    np.testing.assert_allclose(rise / (2 * step), rate, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", range(10, 22))
def test_no_policy_of_two_levels_wins_more(seed):
    # Densities of two levels that spend the budget, over all shares of the upper one.
    procedure, against, kl = random_problem(seed)
    best = ia.design(procedure, kl=kl, against=against)
    chain = Chain.over(procedure, against)
    for rank in np.linspace(-6, 6, 13):
        other = chain.coupled(1.0 * (np.append(chain.logits, 36.0) > rank), Goal(kl))
        assert other.kl <= 1.01 * kl
        assert other.win_rate <= best.win_rate * (1 + 1e-2) + 1e-9


@pytest.mark.parametrize(
    ("procedure", "against", "kl", "win_rate"),
    [
        (WorstOfN(112), Sampling(), 2.91, 0.94631340),
        (WorstOfN(39), Sampling(), 3.29371, 0.96438952),
        # The optimum jumps; followed from small budgets it would win .9432517 and .7099734.
        (Mixture((BestOfN(11), WorstOfN(103)), (0.94, 0.06)), None, 2.94283, 0.96170997),
        (
            Mixture((OrderStatistic(170, 87), ia.BestOfPoisson(68.414)), (0.29, 0.71)),
            BestOfN(65),
            0.99252,
            0.71749627,
        ),
        (WorstOfN(92), BestOfN(19), 2.8004, 0.3106),
    ],
    ids=str,
)
def test_the_best_of_several_maxima_is_returned(procedure, against, kl, win_rate):
    best = ia.design(procedure, kl=kl, against=against)
    assert best.win_rate == pytest.approx(win_rate, abs=1e-3 if win_rate == 0.3106 else 1e-8)


@pytest.mark.parametrize("kl", [0.9, 1.0, 1.1])
def test_a_best_and_worst_mixture_wins_more_with_each_budget(kl):
    # At most 1 - .5/2: the worst-of-n half ties with itself.
    mixture = Mixture((BestOfN(16), WorstOfN(16)), HALF)
    less, more = ia.design(mixture, kl=kl - 0.05), ia.design(mixture, kl=kl)
    assert less.win_rate < more.win_rate < 0.75
    # beta is the price of the budget, dW/dκ.
    mean = (less.beta + more.beta) / 2
    assert (more.win_rate - less.win_rate) / 0.05 == pytest.approx(mean, rel=0.01)


def test_a_win_rate_next_to_0_has_all_its_digits():
    # Worst-of-60 against best-of-60: W = ∫ G dS, far below the rounding of 1 - losses.
    best = ia.design(WorstOfN(60), kl=0.1, against=BestOfN(60))
    assert 0 < best.win_rate < 1e-20
    assert best.policy.win_rate(WorstOfN(60), BestOfN(60)) == pytest.approx(best.win_rate, rel=1e-6)
    # Against best-of-n, W = β (f(1) - 1) / n.
    top = float(best.policy.density(1.0))
    assert best.win_rate == pytest.approx(best.beta * (top - 1) / 60, rel=1e-6)


@pytest.mark.parametrize("kl", [2.0, 4.0])
def test_a_budget_whose_losses_underflow_is_refused_with_the_reason(kl):
    with pytest.raises(ia.SolveError, match=r"already loses less than 1e-290 of the time"):
        ia.design(WorstOfN(1024), kl=kl)


def test_ascents_never_fall_and_end_at_stationary_points():
    chain, goal = Chain.over(WorstOfN(4), BestOfN(4)), Goal(0.6)
    start = chain.coupled(expit(np.linspace(-9, 9, len(chain.widths))), goal)
    end = ascended(start, goal)
    assert end.win_rate > start.win_rate
    assert end.error(goal) < 1e-8
    best = maxima(chain, goal)[0]
    exact = ia.design(WorstOfN(4), kl=0.6, against=BestOfN(4))
    assert best.win_rate == pytest.approx(exact.win_rate, rel=1e-3)
    assert np.exp(-best.log_scale) == pytest.approx(exact.beta, rel=1e-2)


def test_shots_locate_maxima_and_the_saddle_between_them():
    for far in (False, True):
        points = stationary_points(WorstOfN(4), BestOfN(4), 0.3, far=far)
        assert [round(p.kl, 3) for p in points] == [0.059, 0.288, 1.806]
    best = ia.design(WorstOfN(4), beta=0.3, against=BestOfN(4))
    assert objective(best.optimum, 0.3) == pytest.approx(
        max(objective(p, 0.3) for p in points), abs=1e-12
    )


def test_a_sharp_soft_best_of_n_is_nearly_best_of_n():
    sharp, hard = ia.design(SoftBestOfN(16, 0.005), kl=0.3), ia.design(BestOfN(16), kl=0.3)
    assert sharp.kl == pytest.approx(0.3, rel=1e-9)
    assert sharp.win_rate == pytest.approx(hard.win_rate, abs=0.02)
    assert ia.design(SoftBestOfN(128, 0.02), kl=1.0).win_rate > 0.9999


@pytest.mark.parametrize(
    ("procedure", "kl"),
    [(SoftBestOfN(128, 0.02), 3.0), (SoftBestOfN(128, 0.02), 4.0), (SoftBestOfN(1024, 0.02), 0.7)],
    ids=str,
)
def test_a_softened_optimum_has_panels_that_resolve_it(procedure, kl, monkeypatch):
    # The policy has a tenth of its mass within 1e-10 of 1.
    best = ia.design(procedure, kl=kl)
    monkeypatch.setattr(soft, "FINE", (16, 40))
    monkeypatch.setattr(soft, "RESOLUTION", 1e-6)
    finer = ia.design(procedure, kl=kl)
    assert best.optimum.losses == pytest.approx(finer.optimum.losses, rel=1e-7)
    assert best.beta == pytest.approx(finer.beta, rel=1e-7)
    assert best.kl == pytest.approx(kl, rel=1e-9)
    assert best.policy.kl == pytest.approx(kl, rel=1e-4)


@pytest.mark.parametrize(
    ("procedure", "against", "beta"),
    [
        (SoftBestOfN(155, 0.1415), SoftBestOfN(155, 0.1415), 0.0156),
        (SoftBestOfN(158, 0.0677), BestOfN(81), 0.0268),
        (SoftBestOfN(90, 0.0275), WorstOfN(29), 0.0019),
    ],
    ids=str,
)
def test_a_softened_strength_gives_the_optimum_of_its_budget(procedure, against, beta):
    best = ia.design(procedure, beta=beta, against=against)
    assert best.beta == beta
    if best.kl > 1e-9:
        budget = ia.design(procedure, kl=best.kl, against=against)
        assert budget.beta == pytest.approx(beta, rel=1e-6)
        assert budget.win_rate == pytest.approx(best.win_rate, abs=1e-9)


def test_an_error_of_a_softened_design_says_how_far_it_came(monkeypatch):
    with pytest.raises(ia.SolveError, match="loses less than 1e-12 of the time"):
        ia.design(SoftBestOfN(58, 0.0138), kl=3.7, against=WorstOfN(75))
    monkeypatch.setattr(soft, "_newton", lambda state: None)
    with pytest.raises(ia.SolveError, match=r"a KL of 0.50\d+ nats and a win rate of 0.807"):
        ia.design(SoftBestOfN(4, 0.2), kl=0.5)


@pytest.mark.parametrize(
    ("procedure", "against", "kl"),
    [(Rewind(0.141, 31), BestOfN(42), 1.5374), (Rewind(0.359, 31), BestOfN(65), 0.3251)],
    ids=str,
)
def test_a_budget_within_a_jump_of_rewind_has_its_best_policy(procedure, against, kl):
    best = ia.design(procedure, kl=kl, against=against)
    assert best.kl == pytest.approx(kl, rel=1e-9)
    assert best.policy.kl == pytest.approx(kl, rel=1e-6)
    assert best.gap > 0.1, "at its β, both ends of the jump have a larger W − β KL"
    # Tilts e^{cG/β} with other masses below the threshold, of the same KL.
    grid = best.optimum.curve.grid
    opponent = against.cdf(grid.nodes)

    def win_rate(below):
        def excess(log_beta):
            policy = RewindOptimum(procedure, grid, opponent, np.exp(log_beta))
            return policy.curve(below).kl - kl

        beta = np.exp(falling_root(excess, 0.0, xtol=1e-10))
        return (
            RewindOptimum(procedure, grid, opponent, beta).curve(below).win_rate(procedure, against)
        )

    below = float(best.policy.cdf(procedure.threshold))
    assert win_rate(below) == pytest.approx(best.win_rate, abs=1e-7)
    others = [expit(np.log(below / (1 - below)) + step) for step in (-0.5, -0.1, 0.1)]
    assert max(win_rate(other) for other in others) < best.win_rate


def test_a_strong_budget_for_rewind_has_panels_that_resolve_it(monkeypatch):
    best = ia.design(Rewind(0.946, 38), kl=3.133, against=BestOfN(63))
    monkeypatch.setattr(soft, "FINEST", (20, 44))
    finer = ia.design(Rewind(0.946, 38), kl=3.133, against=BestOfN(63))
    assert best.win_rate == pytest.approx(finer.win_rate, abs=1e-12)
    assert best.beta == pytest.approx(finer.beta, rel=1e-9)


def test_rewind_against_a_law_next_to_0_spends_its_budget():
    # β is 2e-9: rounding of G must not look like a jump.
    best = ia.design(Rewind(0.19, 16), kl=0.00365, against=WorstOfN(93))
    assert best.kl == pytest.approx(0.00365, rel=1e-4)


def test_a_table_has_a_kink_where_the_opponent_s_law_jumps():
    best = ia.design(OrderStatistic(11, 6), kl=0.7, against=Rewind(0.74, 11))
    assert best.transform.jumps == (0.74,)
    assert best.policy.kl == pytest.approx(best.kl, abs=1e-9)


def test_a_narrow_maximum_that_no_ascent_reaches_is_returned():
    d = ia.design(ia.WorstOfN(158), against=ia.BestOfN(7), beta=0.176)
    assert d.win_rate - 0.176 * d.kl == pytest.approx(0.19266, abs=1e-5) and d.gap < 1e-9


def test_a_scan_that_misses_a_better_policy_certifies_nothing():
    against = ia.parse_procedure("best-of-poisson:8.087")
    d = ia.design(ia.WorstOfN(69), against=against, kl=0.01877)
    assert math.isnan(d.gap) or d.gap > 0.9  # a share e^-2 of the responses wins nearly always


def test_a_policy_has_the_mass_between_a_panel_s_last_node_and_its_edge():
    d = ia.design(ia.WorstOfN(77), kl=3.484)  # f rises by e^1e24 in one panel of a policy's grid
    assert d.policy.kl == pytest.approx(3.484, rel=1e-10)


def test_a_scan_whose_densities_fall_by_rounding_certifies_nothing():
    found = ia.design(ia.WorstOfN(173), against=ia.BestOfN(76), kl=0.3241)  # W is 3e-29
    assert math.isnan(found.gap) and "could not all be followed" in found.certificate


@pytest.mark.parametrize("n", [64, 95])
@pytest.mark.parametrize("beta", [0.003, 0.05])
def test_a_maximum_that_near_cells_blur_is_not_given_up(n, beta):
    """Newton's method led from the best maximum on cells to the policy that does nothing."""
    against = OrderStatistic(142, 93)
    found = ia.design(WorstOfN(n), against=against, beta=beta)
    at_budget = ia.design(WorstOfN(n), against=against, kl=found.kl)
    assert found.win_rate > 0.99 and at_budget.beta == pytest.approx(beta, rel=1e-6)
    assert found.gap < 1e-9
