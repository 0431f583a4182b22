"""The paper's iteration: where it converges it agrees with `design`; where it does not is known."""

import numpy as np
import pytest

import infalign as ia
from infalign import (
    BestOfN,
    BestOfPoisson,
    Mixture,
    OrderStatistic,
    Sampling,
    WorstOfN,
    fixed_point,
)

FEW = {"cells": 400}


def contraction(end):
    """Ratio of successive residuals at the end, above rounding: 1 is no progress."""
    residuals = end.residuals[end.residuals > 1e-11]
    return (residuals[-1] / residuals[-6]) ** 0.2


def objectives(procedure, beta, steps, **kwargs):
    """W − β KL after each number of steps."""
    runs = [fixed_point(procedure, beta=beta, max_steps=k, **kwargs) for k in range(steps)]
    return np.array([r.win_rate - beta * r.kl for r in runs])


def test_two_cells_by_hand():
    # Sampling on two cells: F = (0, f₁/2, 1), W = 1 − (0 + 2 f₁/2 + 1)/4, so Φ differs by 1/2
    # between the cells and f₂/f₁ = e^{1/(2β)}: at β = 1/2 that is e.
    end = fixed_point(Sampling(), beta=0.5, cells=2)
    low = 2 / (1 + np.e)
    assert end.density == pytest.approx([low, 2 - low], rel=1e-14)
    assert end.win_rate == pytest.approx(3 / 4 - low / 4, rel=1e-14)
    assert end.kl == pytest.approx((low * np.log(low) + (2 - low) * np.log(2 - low)) / 2)
    assert end.quantiles.tolist() == [0.25, 0.75]
    # The gradient of plain sampling does not depend on the policy: one step is all it takes.
    assert end.steps == 1 and end.converged and end.residuals.shape == (2,)


@pytest.mark.parametrize("procedure", [Sampling(), BestOfN(7), WorstOfN(7), OrderStatistic(5, 2)])
@pytest.mark.parametrize("cells", [1, 2, 333])
def test_the_reference_ties_with_itself(procedure, cells):
    start = fixed_point(procedure, beta=1.0, cells=cells, max_steps=0)
    assert start.win_rate == pytest.approx(0.5, abs=1e-15)
    assert start.kl == start.steps == 0 and (start.density == 1).all()


@pytest.mark.parametrize(
    ("procedure", "against", "beta"),
    [
        (Sampling(), None, 0.3),
        (BestOfN(2), None, 0.1),
        (BestOfN(4), None, 0.3),
        (BestOfN(8), None, 0.5),
        (WorstOfN(2), None, 0.1),
        (WorstOfN(4), None, 0.1),
        (WorstOfN(16), None, 0.5),
        (OrderStatistic(5, 2), None, 0.3),
        (BestOfPoisson(2.5), None, 0.4),
        (BestOfN(4), Sampling(), 0.3),
        (WorstOfN(4), BestOfN(4), 0.35),
        (Mixture((BestOfN(4), WorstOfN(2)), (0.5, 0.5)), Sampling(), 0.3),
    ],
    ids=repr,
)
def test_agrees_with_design_at_second_order(procedure, against, beta):
    exact = ia.design(procedure, beta=beta, against=against)
    sizes = 400, 800, 1600
    runs = [fixed_point(procedure, beta=beta, against=against, cells=c, damping=0.5) for c in sizes]
    assert all(r.converged for r in runs)
    wins = np.array([r.win_rate for r in runs]) - exact.win_rate
    kls = np.array([r.kl for r in runs]) - exact.kl
    assert wins[:-1] / wins[1:] == pytest.approx(4, rel=0.05)
    # Richardson: with the leading term gone, what is left is of fourth order.
    for errors in (wins, kls):
        assert abs(4 * errors[2] - errors[1]) / 3 < 1e-2 * abs(errors[2]) + 1e-10


def test_undamped_best_of_n_ends_in_a_cycle_of_two_policies():
    beta = ia.design(BestOfN(8), kl=0.5).beta
    cycle = [fixed_point(BestOfN(8), beta=beta, max_steps=k, **FEW) for k in (200, 201, 202)]
    assert not any(c.converged for c in cycle)
    assert np.array_equal(cycle[0].density, cycle[2].density)
    # From the reference to all its mass at the top and back again.
    assert cycle[0].win_rate < 0.51 and cycle[0].kl < 1e-6
    assert cycle[1].win_rate > 0.99 and cycle[1].kl > 4
    assert cycle[0].residuals[-100:] == pytest.approx(cycle[0].residuals[-1], rel=1e-12)


@pytest.mark.parametrize(("n", "damping"), [(4, 0.5), (8, 0.25), (32, 0.0625)])
def test_damping_cures_the_cycle_and_larger_n_need_more_of_it(n, damping):
    design = ia.design(BestOfN(n), kl=0.5)
    settings = {"beta": design.beta, "max_steps": 600, "cells": 4000}
    damped = fixed_point(BestOfN(n), damping=damping, **settings)
    assert damped.converged
    assert damped.win_rate == pytest.approx(design.win_rate, abs=4e-3)
    assert not fixed_point(BestOfN(n), damping=2 * damping, **settings).converged


@pytest.mark.parametrize("against", [None, Sampling(), BestOfN(4)], ids=repr)
@pytest.mark.parametrize("n", [2, 4, 16])
@pytest.mark.parametrize("beta", [0.02, 0.3, 1.0])
def test_undamped_worst_of_n_never_lowers_the_objective(n, beta, against):
    values = objectives(WorstOfN(n), beta, 30, against=against, **FEW)
    assert (np.diff(values) >= -1e-14).all()
    assert values[-1] > values[0]


def test_undamped_best_of_n_lowers_it():
    assert objectives(BestOfN(8), 0.17, 3, **FEW)[1] < 0.5


@pytest.mark.parametrize("n", [2, 4, 8, 32, 128])
@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
def test_undamped_worst_of_n_against_itself_is_fast(n, beta):
    end = fixed_point(WorstOfN(n), beta=beta)
    assert end.converged and end.steps < 30 and contraction(end) < 0.37


def test_it_crawls_where_two_stationary_points_meet():
    # Worst-of-4 against best-of-4 has a weak optimum and a strong one; the weak one vanishes near
    # β = 0.2849. Above it, the iteration's contraction factor tends to 1 like a square root.
    betas = np.array([0.30, 0.29, 0.286, 0.285])
    runs = [fixed_point(WorstOfN(4), against=BestOfN(4), beta=b, **FEW) for b in betas]
    assert all(r.converged for r in runs)
    factors = np.array([contraction(r) for r in runs])
    assert factors == pytest.approx([0.756, 0.856, 0.933, 0.979], abs=2e-3)
    assert runs[-1].steps > 10 * runs[0].steps
    # Below it, the way leads slowly past the place and on to the strong one.
    beyond = fixed_point(WorstOfN(4), against=BestOfN(4), beta=0.28485, **FEW)
    assert runs[-1].kl < 0.13 and beyond.kl > 1.9


def test_it_may_end_at_the_lesser_of_two_optima_where_design_does_not():
    beta, against = 0.29, BestOfN(4)
    end = fixed_point(WorstOfN(4), against=against, beta=beta)
    best = ia.design(WorstOfN(4), against=against, beta=beta)
    assert end.converged
    assert best.win_rate - beta * best.kl > end.win_rate - beta * end.kl + 0.05


def test_one_that_was_stopped_says_so():
    stopped = fixed_point(WorstOfN(4), beta=0.1, max_steps=3)
    assert not stopped.converged and stopped.steps == 3 and stopped.residuals.shape == (4,)
    assert not stopped.residuals[-1] <= 1e-12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": 0.0}, "`beta` must be above 0; got 0"),
        ({"cells": 0}, "`cells` must be a whole number of at least 1; got 0"),
        ({"damping": 0}, "`damping` must be above 0 and at most 1, undamped; got 0"),
        ({"damping": 1.5}, "`damping` must be above 0 and at most 1, undamped; got 1.5"),
        ({"tolerance": 0}, "`tolerance` must be above 0; got 0"),
        ({"max_steps": -1}, "`max_steps` must be a whole number of at least 0; got -1"),
        ({"procedure": ia.SoftBestOfN(4, 0.1)}, "selects by rank.*`infalign.design` solves"),
        ({"procedure": "best-of-n:4"}, "`procedure` must be a procedure"),
        ({"against": "best-of-n:4"}, "`against` must be a procedure such as BestOfN"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        fixed_point(**{"procedure": BestOfN(4), "beta": 0.2, **arguments})
