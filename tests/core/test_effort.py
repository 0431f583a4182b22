"""How much the solver computes, by counts: panels that are eliminated, and states that are formed.

Times depend on the machine; these counts do not. Each limit is about twice what is needed.
"""

import numpy as np
import pytest

import infalign as ia
from infalign.core import _cell_integrals, _design, frontier, roughly
from infalign.core._order_statistics import power
from infalign.core._policies import TiltedPolicy
from infalign.core._solvers import ascents, rank
from infalign.core._solvers import frontier as frontiers
from infalign.core._solvers.newton import Linearization, State


@pytest.fixture
def effort(monkeypatch):
    """Counts of the states that are formed and of the panels that are eliminated."""
    counts = {"states": 0, "panels": 0}
    formed, eliminated = State.__init__, Linearization.__init__

    def form(self, *arguments):
        counts["states"] += 1
        formed(self, *arguments)

    def eliminate(self, state):
        counts["panels"] += len(state.grid)
        eliminated(self, state)

    monkeypatch.setattr(State, "__init__", form)
    monkeypatch.setattr(Linearization, "__init__", eliminate)
    return counts


BEST, WORST, PLAIN = ia.BestOfN, ia.WorstOfN, ia.Sampling()


@pytest.mark.parametrize(
    ("procedure", "against"),
    [(P(n), a) for P in (BEST, WORST) for n in (2, 8, 32, 128) for a in (P(n), PLAIN)]
    + [
        (BEST(1024), BEST(1024)),
        (BEST(8), WORST(4)),
        (ia.BestOfPoisson(20), PLAIN),
        (ia.OrderStatistic(9, 5), PLAIN),
    ],
    ids=str,
)
@pytest.mark.parametrize("kl", [0.3, 2.0])
def test_a_design_is_solved_from_its_first_start(procedure, against, kl, effort, monkeypatch):
    best = ia.design(procedure, against=against, kl=kl)
    if best.optimum.losses < 1e-9:
        pytest.skip("the win rate is 1 to nine digits")
    assert effort["states"] <= 25
    assert effort["panels"] <= 700
    # The second start is a solution on cells, which no case needs.
    monkeypatch.setattr(rank.Path, "_transported", None)
    assert ia.design(procedure, against=against, kl=kl).kl == pytest.approx(kl, abs=1e-10)


@pytest.mark.parametrize("procedure", [P(n) for P in (BEST, WORST) for n in (4, 32)], ids=str)
def test_a_frontier_solves_few_budgets_from_scratch(procedure, effort, monkeypatch):
    scratch = []

    def solve(*arguments, kl):
        scratch.append(kl)
        return rank.solve(*arguments, kl=kl)

    monkeypatch.setattr(frontiers, "solve", solve)
    kls = np.geomspace(0.01, 1, 32).tolist()
    optima = frontier(procedure, procedure, kls)
    assert len(scratch) <= 2
    assert effort["states"] <= 6 * len(kls)
    assert effort["panels"] <= 55 * len(kls)
    for kl, optimum in list(zip(kls, optima, strict=True))[::5]:
        alone = ia.design(procedure, kl=kl).optimum
        assert optimum.kl == pytest.approx(kl, rel=1e-11)
        assert optimum.losses == pytest.approx(alone.losses, rel=1e-10)
        assert optimum.beta == pytest.approx(alone.beta, rel=1e-10)


@pytest.mark.parametrize(
    "kls", [[0.5], [1.0, 0.01], [0.1, 0.1001, 2.0, 0.5, 0.5], [3.0, 0.3, 0.03]], ids=str
)
def test_a_frontier_takes_budgets_in_any_order(kls):
    optima = frontier(BEST(8), BEST(8), kls)
    for kl, optimum in zip(kls, optima, strict=True):
        alone = ia.design(BEST(8), kl=kl)
        assert (optimum.kl, optimum.win_rate) == pytest.approx((kl, alone.win_rate), abs=1e-12)


def test_a_prediction_that_overflows_leaves_the_budget_to_a_start_from_scratch(monkeypatch):
    monkeypatch.setattr(frontiers.Series, "_root", lambda *_: float("nan"))
    optima = frontier(BEST(8), BEST(8), [0.3, 0.4])
    assert [o.kl for o in optima] == pytest.approx([0.3, 0.4], rel=1e-10)


@pytest.mark.parametrize("procedure", [BEST(32), WORST(32)], ids=str)
@pytest.mark.parametrize("best", [ia.best_exponential, ia.best_power])
def test_the_best_member_of_a_family_needs_few_curves(procedure, best, monkeypatch):
    curves = []
    original = TiltedPolicy.curve

    def curve(self, *laws):
        curves.append(self.beta)
        return original(self, *laws)

    monkeypatch.setattr(TiltedPolicy, "curve", curve)
    best(procedure, 1.0)
    assert len(curves) <= 600


HALF = (0.5, 0.5)


@pytest.fixture
def ascended(monkeypatch):
    """Sizes of the chains on which ascents were made."""
    made, ascend = [], ascents.ascended

    def noted(link, goal):
        made.append(len(link.chain.logits))
        return ascend(link, goal)

    monkeypatch.setattr(ascents, "ascended", noted)
    return made


@pytest.mark.parametrize(
    "procedure",
    [ia.Mixture((BEST(n), WORST(n)), HALF) for n in (128, 1024)] + [ia.OrderStatistic(1024, 3)],
    ids=str,
)
def test_a_win_rate_next_to_its_limit_needs_ascents_only_once_and_no_walk(
    procedure, ascended, monkeypatch
):
    monkeypatch.setattr(rank.Path, "_walk", None)
    assert ia.design(procedure, kl=2.0).kl == pytest.approx(2.0, abs=1e-10)
    assert len(ascended) == ascents.ASCENTS


def test_no_ascent_is_made_twice_where_none_leads_to_a_solution(ascended, monkeypatch):
    monkeypatch.setattr(rank.Path, "on_steep_cells", lambda *_: None)
    mixture = ia.Mixture((BEST(128), WORST(128)), HALF)
    assert ia.design(mixture, kl=2.0).kl == pytest.approx(2.0, abs=1e-10)
    assert len(ascended) == 2 * ascents.ASCENTS  # from nearer and from farther ranks


def test_a_rough_design_starts_from_the_optimum_that_is_known(monkeypatch):
    best = ia.design(ia.OrderStatistic(5, 3), kl=0.5)
    monkeypatch.setattr(_design, "_optimum", None)
    rough = roughly(best, 16)
    assert best.win_rate - 0.05 < rough.win_rate < best.win_rate


@pytest.mark.parametrize("exponent", [0, 1, 7, 31, 1023])
def test_powers_that_underflow_are_0_and_others_are_exact(exponent):
    base = np.append(0.0, np.geomspace(1e-300, 1, 999))
    quick, exact = power(base, exponent), base**exponent
    assert (quick[exact > 1e-299] == exact[exact > 1e-299]).all()
    assert np.abs(quick - exact).max() <= 1e-299


def test_a_best_table_computes_the_nodes_of_a_quadrature_once(monkeypatch):
    computed, leggauss = [], np.polynomial.legendre.leggauss
    _cell_integrals._rule.cache_clear()
    monkeypatch.setattr(
        np.polynomial.legendre, "leggauss", lambda n: computed.append(n) or leggauss(n)
    )
    roughly(ia.design(BEST(8), kl=0.5), 4)
    assert len(computed) == len(set(computed)) > 1
