"""Every procedure keeps the laws of its interface; each is what its name says."""

import pickle
from itertools import combinations, pairwise
from math import comb

import numpy as np
import pytest
from contracts import PROCEDURES, implementations, keep, law, procedures, rank_procedures
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from infalign import (
    AbstractProcedure,
    BestOfN,
    BestOfPoisson,
    DataError,
    Mixture,
    OrderStatistic,
    RankProcedure,
    Rewind,
    Sampling,
    SoftBestOfN,
    WorstOfN,
    parse_procedure,
)
from infalign.core import procedure_forms

U = np.linspace(0, 1, 101)
quantile = st.floats(0, 1)
place = quantile.map(lambda q: round(q, 12))
"""An end of an interval of quadrature, which subnormal lengths make meaningless."""
every_procedure = pytest.mark.parametrize("procedure", procedures, ids=repr)
by_rank = pytest.mark.parametrize("procedure", rank_procedures, ids=repr)
fixed = [p for p in rank_procedures if p.draws <= 4 and not isinstance(p, Mixture | BestOfPoisson)]


def test_every_procedure_has_examples():
    assert implementations(AbstractProcedure) == set(PROCEDURES)


@every_procedure
@law
@given(quantile, quantile)
def test_the_law_rises_from_0_to_1(procedure, a, b):
    low, high = procedure.cdf([min(a, b), max(a, b)])
    assert 0 <= low <= high + 1e-15 and high <= 1 + 1e-14
    assert procedure.cdf([0, 1]).tolist() == pytest.approx([0, 1], abs=1e-14)


@every_procedure
@law
@given(place, place)
def test_density_is_the_derivative_of_the_law(procedure, a, b):
    low, high = sorted([a, b])
    inside = [x for x in procedure.breaks if low < x < high]
    area, _ = quad(procedure.density, low, high, points=inside or None)
    assert area == pytest.approx(float(procedure.cdf(high) - procedure.cdf(low)), abs=1e-9)


@by_rank
@law
@given(place, place)
def test_slope_is_the_derivative_of_the_density(procedure, a, b):
    area, _ = quad(procedure.slope, a, b)
    assert area == pytest.approx(float(procedure.density(b) - procedure.density(a)), abs=1e-9)


@by_rank
@law
@given(quantile, st.floats(0, 0.2))
def test_the_range_of_the_slope_holds_it_and_tightens(procedure, a, width):
    b = min(a + width, 1)
    inside = procedure.slope(np.linspace(a, b, 33))
    rounding = 1e-9 * (1 + np.abs(inside).max())
    least, most = procedure.slope_range(np.array([a]), np.array([b]))
    assert least[0] - rounding <= inside.min() and inside.max() <= most[0] + rounding
    point = procedure.slope_range(np.array([a]), np.array([a]))
    assert np.array(point)[:, 0] == pytest.approx(float(procedure.slope(a)), abs=rounding)


@pytest.mark.parametrize("n, k", [(5, 2), (40, 1), (40, 40), (40, 17), (100, 99)])
def test_the_range_of_an_order_statistic_s_slope_is_exact(n, k):
    procedure, grid = OrderStatistic(n, k), np.linspace(0.1, 0.9, 200_001)
    slopes = procedure.slope(grid)
    bounds = np.array(procedure.slope_range(np.array([0.1]), np.array([0.9])))[:, 0]
    assert bounds == pytest.approx([slopes.min(), slopes.max()], rel=1e-6, abs=1e-9)


@every_procedure
def test_the_density_is_one_distribution(procedure):
    assert (procedure.density(U) >= 0).all()
    area, _ = quad(procedure.density, 0, 1, points=procedure.breaks or None)
    assert area == pytest.approx(1, abs=1e-12)


@every_procedure
def test_shapes_are_kept(procedure):
    u = np.full((2, 3), 0.5)
    for function in (procedure.cdf, procedure.density):
        assert function(u).shape == (2, 3)
        assert np.shape(function(0.5)) == ()


@pytest.mark.parametrize("procedure", fixed, ids=repr)
@pytest.mark.parametrize("m", [4, 7])
def test_subset_cdf_against_every_subset(procedure, m):
    subsets = combinations(range(m), procedure.draws)
    selected = np.array([keep(procedure, iter(s), None) for s in subsets])
    # Samples 0 … m - 1 in rising order: the selected one is among the j lowest if it is below j.
    expected = [(selected < j).mean() for j in range(m + 1)]
    np.testing.assert_allclose(procedure.subset_cdf(m), expected, atol=1e-12)


@by_rank
@law
@given(quantile)
def test_subset_cdf_is_an_unbiased_estimate_of_the_law(procedure, u):
    # Of m uniform samples J ~ Binomial(m, u) fall below u, and E[subset_cdf(m)[J]] = H(u).
    m = 40
    chances = [comb(m, j) * u**j * (1 - u) ** (m - j) for j in range(m + 1)]
    mean = chances @ procedure.subset_cdf(m)
    assert mean == pytest.approx(float(procedure.cdf(u)), abs=1e-9)


@pytest.mark.parametrize("j", [0, 1023, 1024, 50_000, 99_000, 99_999, 100_000])
def test_subset_cdf_of_a_large_case_against_whole_numbers(j):
    m, n = 100_000, 1024  # C(m, n) has 2,485 digits
    expected = comb(j, n) / comb(m, n)
    assert BestOfN(n).subset_cdf(m)[j] == pytest.approx(expected, rel=1e-11, abs=1e-300)
    assert WorstOfN(n).subset_cdf(m)[m - j] == pytest.approx(1 - expected, abs=1e-13)


@pytest.mark.parametrize("k", [1, 2, 300, 1024])
def test_a_large_order_statistic_against_whole_numbers(k):
    # Kept among the j lowest of m: more than n - k of the n are. Whole numbers, then one division.
    m, n = 4_000, 1024
    chances = OrderStatistic(n, k).subset_cdf(m)
    for j in (n - k, int(m * (1 - k / n)), m - k + 1, m):
        ways = sum(comb(j, i) * comb(m - j, n - i) for i in range(n - k + 1, n + 1))
        assert chances[j] == pytest.approx(ways / comb(m, n), rel=1e-10, abs=1e-13)


LARGE = [
    Sampling(),
    BestOfN(1024),
    WorstOfN(1024),
    OrderStatistic(1024, 300),
    OrderStatistic(1024, 1024),
    BestOfPoisson(100),
    Mixture((BestOfN(1024), OrderStatistic(1024, 512)), (0.5, 0.5)),
]


@pytest.mark.parametrize("procedure", LARGE, ids=repr)
def test_subset_cdf_of_a_large_case_is_a_law(procedure):
    chances = procedure.subset_cdf(100_000)
    assert chances.shape == (100_001,)
    assert chances[0] == 0 and chances[-1] == 1
    assert (np.diff(chances) >= 0).all()


@every_procedure
def test_the_law_against_simulation(procedure):
    rng = np.random.default_rng(0)
    drawn = iter(rng.random, None)
    selected = np.array([keep(procedure, drawn, rng) for _ in range(20_000)])
    for u in (0.2, 0.7, 0.95):
        chance = float(procedure.cdf(u))
        stderr = np.sqrt(chance * (1 - chance) / selected.size)
        assert abs((selected <= u).mean() - chance) <= 4 * stderr + 1e-9


@every_procedure
def test_spec_and_pickle_bring_the_same_procedure_back(procedure):
    assert parse_procedure(procedure.spec) == procedure
    assert pickle.loads(pickle.dumps(procedure)) == procedure
    assert len({procedure, parse_procedure(procedure.spec)}) == 1


@every_procedure
@pytest.mark.parametrize("value", [3.2, -0.1, float("nan")])
def test_a_raw_reward_in_place_of_a_quantile_is_refused(procedure, value):
    for function in (procedure.cdf, procedure.density):
        with pytest.raises(ValueError) as caught:
            function([0.5, value])
        assert str(caught.value) == (
            f"`u` must lie in [0, 1]; got {value:g} (1 of 2 entries are outside). "
            "Raw rewards become quantiles with `infalign.quantiles`."
        )


def test_best_of_two_by_hand():
    # H = u², h = 2u, h' = 2. Of 3 samples, 3 pairs: one lies in the two lowest, all in three.
    best = BestOfN(2)
    assert best.cdf([0, 0.5, 1]).tolist() == [0, 0.25, 1]
    assert best.density([0, 0.5, 1]).tolist() == [0, 1, 2]
    assert best.slope([0, 0.5, 1]).tolist() == [2, 2, 2]
    np.testing.assert_allclose(best.subset_cdf(3), [0, 0, 1 / 3, 1], atol=1e-14)
    assert (best.draws, best.spec) == (2, "best-of-n:2")


@law
@given(n=st.integers(1, 64), u=quantile)
def test_worst_of_n_mirrors_best_of_n(n, u):
    worst, best = WorstOfN(n), BestOfN(n)
    assert worst.cdf(1 - u) == pytest.approx(1 - best.cdf(u), abs=1e-12)
    assert worst.density(1 - u) == pytest.approx(float(best.density(u)), rel=1e-9, abs=1e-9)
    assert worst.slope(1 - u) == pytest.approx(-float(best.slope(u)), rel=1e-9, abs=1e-9)
    m = n + 5
    np.testing.assert_allclose(worst.subset_cdf(m), 1 - best.subset_cdf(m)[::-1], atol=1e-12)


@pytest.mark.parametrize("one", [BestOfN(1), WorstOfN(1)], ids=repr)
def test_one_draw_is_plain_sampling(one):
    plain = Sampling()
    for law_of in ("cdf", "density", "slope"):
        np.testing.assert_allclose(getattr(one, law_of)(U), getattr(plain, law_of)(U), atol=1e-15)
    np.testing.assert_allclose(one.subset_cdf(9), plain.subset_cdf(9), atol=1e-14)
    assert one.draws == plain.draws == 1


@pytest.mark.parametrize("kind", [BestOfN, WorstOfN])
def test_more_draws_move_the_law_one_way(kind):
    for few, many in pairwise([1, 2, 4, 32]):
        difference = kind(many).cdf(U) - kind(few).cdf(U)
        assert (difference <= 0).all() if kind is BestOfN else (difference >= 0).all()


@pytest.mark.parametrize("kind", [BestOfN, WorstOfN])
@pytest.mark.parametrize("n", [0, -1, 2.0, True, "4", None])
def test_n_must_be_a_whole_number(kind, n):
    with pytest.raises(ValueError, match=f"`n` must be a whole number of at least 1; got {n!r}"):
        kind(n)


@pytest.mark.parametrize(
    "text", ["", "best", "best-of-n", "best-of-n:", "best-of-n:x", "sampling:2", "rewind:.5"]
)
def test_an_unknown_procedure_is_refused_with_the_known_ones(text):
    with pytest.raises(ValueError) as caught:
        parse_procedure(text)
    refused = f"`procedure` must be {procedure_forms()}; got {text!r}."
    nearest = " Did you mean best-of-n:N?" if text == "best" else ""
    assert str(caught.value) == refused + nearest


# --- Laws beyond best and worst. ---


@pytest.mark.parametrize("n", [1, 3, 40])
def test_the_first_and_last_order_statistic_are_best_and_worst(n):
    for k, same in ((1, BestOfN(n)), (n, WorstOfN(n))):
        statistic = OrderStatistic(n, k)
        for name in ("cdf", "density", "slope"):
            np.testing.assert_allclose(
                getattr(statistic, name)(U), getattr(same, name)(U), rtol=1e-10, atol=1e-10
            )
        np.testing.assert_allclose(statistic.subset_cdf(50), same.subset_cdf(50), atol=1e-12)


def test_an_order_statistic_of_many_neither_overflows_nor_vanishes():
    # The median of 1023: mean 1/2, standard deviation 1/(2 √1025).
    law, sd = OrderStatistic(1023, 512), 0.5 / np.sqrt(1025)
    assert law.cdf(0.5) == pytest.approx(0.5, abs=1e-12)
    assert law.density(0.5) == pytest.approx(1 / (sd * np.sqrt(2 * np.pi)), rel=1e-3)
    assert quad(law.density, 0.4, 0.6)[0] == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("mu", [0.5, 4.0, 30.0])
def test_best_of_poisson_is_a_mixture_over_n(mu):
    weights = [np.exp(-mu)]
    while sum(weights) < 1 - 1e-15 and len(weights) < 200:
        weights.append(weights[-1] * mu / len(weights))
    mixture = sum(w * BestOfN(1 + j).cdf(U) for j, w in enumerate(weights))
    np.testing.assert_allclose(BestOfPoisson(mu).cdf(U), mixture, atol=1e-12)
    assert sum(weights[: BestOfPoisson(mu).draws]) >= 1 - 1e-12


@law
@given(n=st.integers(1, 64), u=quantile)
def test_a_hot_choice_is_sampling_and_a_cold_one_the_best(n, u):
    # At temperature T a choice moves by O(1/T); below 1/(20 n) it is all but the best.
    assert SoftBestOfN(n, 1e4).cdf(u) == pytest.approx(u, abs=1e-4)
    if n <= 4:
        assert SoftBestOfN(n, 0.005).cdf(u) == pytest.approx(u**n, abs=0.02)


def test_rewind_by_hand():
    # τ = .5, two tries: below τ a response is selected if both fall there: H(.4) = .5 · .4 = .2,
    # and above it 1.5 as often as drawn.
    rewind = Rewind(0.5, 2)
    assert rewind.cdf([0.4, 0.5, 0.7, 1]).tolist() == pytest.approx([0.2, 0.25, 0.55, 1])
    assert rewind.density([0.4, 0.7]).tolist() == [0.5, 1.5]


@by_rank
def test_a_law_over_subsets_is_computed_once_and_needs_enough_samples(procedure):
    m = procedure.draws + 1
    law = procedure.subset_cdf(m)
    assert law is procedure.subset_cdf(m) and law.shape == (m + 1,)
    with pytest.raises(ValueError, match="read-only"):
        law[0] = 1
    for few in (0, procedure.fewest - 1):
        with pytest.raises(ValueError, match=r"`m` must be a whole number of at least"):
            procedure.subset_cdf(few)


class SecondOfThree(RankProcedure):
    """A procedure of somebody else's: the median of three, H(u) = 3u² − 2u³."""

    draws, spec = 3, "median-of-three"

    def cdf(self, u):
        return 3 * np.square(u) - 2 * np.power(u, 3)

    def density(self, u):
        return 6 * np.asarray(u) - 6 * np.square(u)

    def slope(self, u):
        return 6 - 12 * np.asarray(u)


def test_a_procedure_of_one_s_own_needs_its_law_only():
    own, same = SecondOfThree(), OrderStatistic(3, 2)
    np.testing.assert_allclose(own.subset_cdf(9), same.subset_cdf(9), atol=1e-9)


def test_a_law_that_is_no_law_of_so_many_draws_is_refused():
    class Wrong(SecondOfThree):
        draws = 2

        def __repr__(self):
            return "Wrong()"

    with pytest.raises(DataError, match=r"The law of `Wrong\(\)` is not a polynomial of degree 2"):
        Wrong().subset_cdf(5)

    class Many(Wrong):
        draws = 17

    with pytest.raises(DataError, match=r"draws 17 responses, too many .* `subset_law`"):
        Many().subset_cdf(50)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OrderStatistic(4, 5), r"`k` must be at most `n`; got k=5 of n=4"),
        (lambda: OrderStatistic(4, 0), r"`k` must be a whole number of at least 1; got 0"),
        (lambda: BestOfPoisson(-1.0), r"`mu` must be from 0 to 1,000,000; got -1"),
        (lambda: SoftBestOfN(4, 0), r"`temperature` must be above 0; got 0"),
        (lambda: SoftBestOfN(4, 0.001), r"at least 0.005; got 0.001. Use BestOfN\(4\)"),
        (lambda: Rewind(1.0, 4), r"`threshold` must lie strictly inside \(0, 1\)"),
        (lambda: Rewind(0.5, 0), r"`max_tries` must be a whole number of at least 1; got 0"),
        (lambda: Mixture((), ()), r"`procedures` must be one or more procedures"),
        (lambda: Mixture((Rewind(0.5, 2),), (1,)), r"that .* by rank; got Rewind"),
        (lambda: Mixture((Sampling(),), (0.9,)), r"`weights` must be .* sum 1; got \(0.9,\)"),
    ],
)
def test_arguments_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
