"""Win rates with K calibration samples, against formulas and simulations of another kind."""

import math

import numpy as np
import pytest

from infalign import (
    BestOfN,
    Exponential,
    Identity,
    Mixture,
    OrderStatistic,
    Rewind,
    Sampling,
    SoftBestOfN,
    SolveError,
    WorstOfN,
    compare,
    design,
)
from infalign.core import FewSamples, _few_samples, best_exponential
from infalign.core._cell_integrals import Layout
from infalign.core._random_cells import expected


def win_rate_against_sampling(exponents, n: int) -> float:
    """W of best-of-n against sampling, exactly.

    The reference's response cuts its cell in two, which makes K + 2 cells with exponential widths g
    up to scale, and F = L/(L + R) with L = Σ g a over the cells on its left. Then E[Fⁿ] = ∫ s^{n−1}
    E[Lⁿ e^{−s(L+R)}] ds/Γ(n), where E[Lⁿ e^{−sL}] is n! times the complete homogeneous polynomial
    of the a/(1 + s a), times the product of the 1/(1 + s a).
    """
    tilt = np.exp(exponents - exponents.max())
    log_s = np.arange(-60, 60, 0.2)
    s = np.exp(log_s)
    product = np.exp(-np.sum(np.log1p(np.outer(tilt, s)), axis=0))
    complete = np.zeros((n + 1, len(s)))
    complete[0] = 1
    total = 0.0
    for a in tilt:
        for power in range(1, n + 1):
            complete[power] += a * s / (1 + a * s) * complete[power - 1]
        total += 0.2 * np.sum(n * complete[n] * product / (1 + a * s))
    return 1 - total / len(tilt)


EXACT = [
    # samples, procedure, transform, kl
    (1, BestOfN(4), Exponential(5), 0.1),
    (16, BestOfN(4), Exponential(10), 0.5),
    (64, BestOfN(4), Exponential(10), 3.0),
    (32, BestOfN(32), Exponential(40), 1.0),  # a fixed rule of 5 nodes was off by 2.4 errors
    (64, BestOfN(128), Exponential(100), 0.5),
    (32, WorstOfN(2), Exponential(-2), 1.0),
]


@pytest.mark.parametrize(("samples", "procedure", "transform", "kl"), EXACT)
def test_errors_are_as_large_as_stated(samples, procedure, transform, kl, monkeypatch):
    z = []
    for seed in range(8):
        monkeypatch.setattr(_few_samples, "SEED", seed)
        few = FewSamples(samples, 20_000)
        _, exponents = few.at_kl(transform, kl)
        achieved = few.achieved(exponents, procedure, Sampling())
        if procedure == WorstOfN(2):  # 1 − (1 − F)² = 2 F − F²
            once, twice = (win_rate_against_sampling(exponents, n) for n in (1, 2))
            truth = 2 * once - twice
        else:
            truth = win_rate_against_sampling(exponents, procedure.n)
        z.append((achieved.win_rate - truth) / achieved.stderr)
    assert abs(np.mean(z)) < 4 / np.sqrt(len(z))
    assert 0.3 < np.std(z) < 2.1


@pytest.mark.parametrize("samples", [4, 32, 256])
@pytest.mark.parametrize("kl", [0.01, 0.5, 1.5])
def test_a_budget_is_spent_to_the_last_digit(samples, kl):
    few = FewSamples(samples)
    beta, exponents = few.at_kl(Exponential(10), kl)
    assert few.achieved(exponents, BestOfN(4), BestOfN(4)).kl == pytest.approx(kl, rel=1e-9)
    assert exponents == pytest.approx(few.values(Exponential(10)) / beta)
    # Other prompts spend the same on average, within the error of their simulation.
    widths = np.random.default_rng(5).dirichlet(np.ones(samples + 1), 4000)
    mass = widths * np.exp(exponents)
    spent = mass @ exponents / mass.sum(1) - np.log(mass.sum(1))
    assert abs(spent.mean() - kl) < 4.5 * spent.std() / np.sqrt(len(spent))


LAWS = [
    (BestOfN(4), BestOfN(4)),
    (BestOfN(4), Sampling()),
    (BestOfN(200), BestOfN(60)),
    (WorstOfN(64), BestOfN(64)),
    (OrderStatistic(64, 32), OrderStatistic(100, 40)),
    (BestOfN(4), SoftBestOfN(8, 0.1)),
    (WorstOfN(16), Rewind(0.9, 8)),  # whose density jumps
]


@pytest.mark.parametrize("samples", [3, 40])
@pytest.mark.parametrize(("procedure", "against"), LAWS, ids=str)
def test_the_quadrature_within_cells_is_as_good_as_a_dense_one(procedure, against, samples):
    rng = np.random.default_rng(3)
    widths = rng.dirichlet(np.ones(samples + 1), 4)
    mass = widths * np.exp(np.linspace(0, 4, samples + 1) ** 1.5)
    mass /= mass.sum(1, keepdims=True)
    nodes, weights = np.polynomial.legendre.leggauss(20)
    at, weights = (1 + nodes) / 2, weights / 2
    ends = np.linspace(0, 1, 17)  # each cell in 16 parts
    place = (ends[:-1, None] + at * np.diff(ends)[:, None]).ravel()
    weight = np.tile(weights / 16, 16)
    cdf = (np.cumsum(mass, 1) - mass)[:, :, None] + place * mass[:, :, None]
    u = (np.cumsum(widths, 1) - widths)[:, :, None] + place * widths[:, :, None]
    rate = widths[:, :, None] * against.density(np.clip(u, 0, 1)) * weight
    cdf = np.clip(cdf, 0, 1)
    layout = Layout(widths, mass, procedure, against)
    near = 1e-2 if against.breaks else 2e-5  # of the dense rule, which cuts no cell
    losses = np.sum(procedure.cdf(cdf) * rate, axis=(1, 2))
    assert layout.losses() == pytest.approx(losses, abs=near)
    per_cell = procedure.density(cdf) * rate
    after = np.cumsum(per_cell.sum(2)[:, ::-1], axis=1)[:, ::-1] - per_cell.sum(2)
    phi = -after - np.sum(per_cell * place, axis=2)
    assert np.sum(mass * layout.marginal(), 1) == pytest.approx(
        np.sum(mass * phi, 1), abs=10 * near
    )


def test_a_cell_is_cut_where_the_opponents_density_jumps():
    # One cell, in which the policy is uniform: W of sampling is E[u] of the opponent.
    against = Rewind(0.9, 8)
    layout = Layout(np.ones((1, 1)), np.ones((1, 1)), Sampling(), against)
    u = (np.arange(200_000) + 0.5) / 200_000
    assert layout.losses()[0] == pytest.approx(np.mean(u * against.density(u)), abs=1e-6)


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_linear_win_rates_have_no_error(samples):
    # Sampling against sampling is linear in the masses of single samples, whose mean is known.
    few = FewSamples(samples)
    _, exponents = few.at_kl(Identity(), 0.2)
    achieved = few.achieved(exponents, Sampling(), Sampling())
    if samples == 1:
        upper = expected(exponents).mass[1]
        assert achieved.stderr < 1e-12
        # The mean quantile of mass m in the upper cell of width 1 − w, and 1 − m in the lower.
        w = (np.arange(4000) + 0.5) / 4000
        tilt = math.exp(exponents[1] - exponents[0])
        mass = (1 - w) * tilt / (w + (1 - w) * tilt)
        assert np.mean(mass) == pytest.approx(upper, abs=1e-6)
        truth = np.mean((1 - mass) * w / 2 + mass * (1 + w) / 2)
        assert achieved.win_rate == pytest.approx(truth, abs=1e-6)
    truth = win_rate_against_sampling(exponents, 1)
    assert abs(achieved.win_rate - truth) < 4.5 * achieved.stderr + 1e-12


def test_the_best_table_is_no_worse_than_the_best_of_a_family():
    rows = compare(WorstOfN(4), [Exponential(t) for t in (-14, -9, -4)], kl=0.5, samples=8)
    assert rows[0].win_rate > max(row.win_rate for row in rows[1:]) - 2e-4
    assert [row.kl for row in rows] == pytest.approx([0.5] * 4, rel=1e-9)


@pytest.mark.parametrize(
    ("procedure", "kl"), [(BestOfN(2), 4.6), (BestOfN(32), 4.0), (WorstOfN(8), 2.0)], ids=str
)
def test_large_budgets_are_spent_or_refused_with_the_reason(procedure, kl):
    # 64 samples express 4.74 nats on average.
    try:
        best = design(procedure, kl=kl, samples=64)
    except SolveError as error:
        assert f"not resolved at kl={kl:g}" in str(error)
    else:
        assert best.kl == pytest.approx(kl, rel=1e-9) and best.win_rate > 0.9


@pytest.mark.parametrize(
    ("draws", "samples", "kl"), [(11, 30, 1.74), (16, 30, 2.5), (32, 16, 1.6), (32, 16, 1.74)]
)
def test_tables_of_win_rates_close_to_1_are_the_best(draws, samples, kl):
    # The exact design's table, from which it starts, is flat at its top up to rounding.
    procedure = WorstOfN(draws)
    best = design(procedure, kl=kl, samples=samples)
    assert best.kl == pytest.approx(kl, rel=1e-9) and 1 - best.win_rate < 1e-6
    # No worse than all mass on some top cells, more on the highest of them.
    few = FewSamples(samples)
    for cells in range(1, 8):
        shape = np.where(few.quantiles > 1 - cells / samples, few.quantiles, -1e3)
        try:
            rival = few._spending(shape, kl, "rival")
        except SolveError:
            continue
        lead = few.achieved(rival, procedure, procedure).win_rate - best.win_rate
        assert lead < 5 * best.stderr + 0.05 * (1 - best.win_rate)


def test_a_win_rate_that_double_precision_does_not_tell_from_1_is_refused():
    with pytest.raises(SolveError, match=r"within \de-1\d of 1 already at a table with 2.\d+ nats"):
        design(WorstOfN(32), kl=2.5, samples=16)


@pytest.mark.parametrize(
    ("procedure", "kl"), [(BestOfN(8), 0.5), (BestOfN(8), 3.0), (WorstOfN(8), 0.5)]
)
def test_beta_is_what_a_nat_adds_to_the_win_rate(procedure, kl):
    less, best, more = (design(procedure, kl=k, samples=64) for k in (0.95 * kl, kl, 1.05 * kl))
    assert best.beta == pytest.approx(
        (more.win_rate - less.win_rate) / (more.kl - less.kl), rel=0.05
    )


def test_a_budget_inside_a_jump_has_its_best_table():
    procedure = Mixture((BestOfN(8), WorstOfN(8)), (0.5, 0.5))
    best = design(procedure, kl=1.0, samples=64)
    exact, (_, plain) = design(procedure, kl=1.0), compare(procedure, [Identity()], kl=1.0)
    # A table that is optimal for a price of KL is .734, like the identity.
    assert plain.win_rate + 0.004 < best.win_rate < exact.win_rate


def test_a_table_is_no_worse_than_the_best_exponential_at_large_budgets():
    for procedure, kl in ((BestOfN(16), 2.0), (BestOfN(32), 4.0)):
        best, other = compare(procedure, [best_exponential], kl=kl, samples=64)
        assert other.win_rate < best.win_rate + 3 * best.stderr
