"""Every procedure keeps the laws of its interface; each is what its name says."""

import pickle
from itertools import combinations, pairwise
from math import comb

import numpy as np
import pytest
from contracts import KEEPS, PROCEDURES, implementations, law, procedures
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from infalign import AbstractProcedure, BestOfN, Sampling, WorstOfN, parse_procedure

U = np.linspace(0, 1, 101)
quantile = st.floats(0, 1)
every_procedure = pytest.mark.parametrize("procedure", procedures, ids=repr)
small = [p for p in procedures if p.draws <= 4]


def test_every_procedure_has_examples():
    assert implementations(AbstractProcedure) == set(PROCEDURES) == set(KEEPS)


@every_procedure
@law
@given(quantile, quantile)
def test_the_law_rises_from_0_to_1(procedure, a, b):
    low, high = procedure.cdf([min(a, b), max(a, b)])
    assert 0 <= low <= high <= 1
    assert procedure.cdf([0, 1]).tolist() == [0, 1]


@every_procedure
@law
@given(quantile, quantile)
def test_density_is_the_derivative_of_the_law(procedure, a, b):
    area, _ = quad(procedure.density, a, b)
    assert area == pytest.approx(float(procedure.cdf(b) - procedure.cdf(a)), abs=1e-9)


@every_procedure
@law
@given(quantile, quantile)
def test_slope_is_the_derivative_of_the_density(procedure, a, b):
    area, _ = quad(procedure.slope, a, b)
    assert area == pytest.approx(float(procedure.density(b) - procedure.density(a)), abs=1e-9)


@every_procedure
def test_the_density_is_one_distribution(procedure):
    assert (procedure.density(U) >= 0).all()
    assert quad(procedure.density, 0, 1)[0] == pytest.approx(1, abs=1e-12)


@every_procedure
def test_the_win_rate_is_called_concave_where_the_law_is_convex(procedure):
    assert procedure.concave == bool((procedure.slope(U) >= 0).all())


@every_procedure
def test_shapes_are_kept(procedure):
    u = np.full((2, 3), 0.5)
    for function in (procedure.cdf, procedure.density, procedure.slope):
        assert function(u).shape == (2, 3)
        assert np.shape(function(0.5)) == ()


@pytest.mark.parametrize("procedure", small, ids=repr)
@pytest.mark.parametrize("m", [4, 7])
def test_subset_cdf_against_every_subset(procedure, m):
    keep = KEEPS[type(procedure)]
    kept = np.array([keep(s) for s in combinations(range(m), procedure.draws)])
    # Samples 0 … m - 1 in rising order: the kept one is among the j lowest if it is below j.
    expected = [(kept < j).mean() for j in range(m + 1)]
    np.testing.assert_allclose(procedure.subset_cdf(m), expected, atol=1e-12)


@every_procedure
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
    # Logarithms near 10⁶ carry rounding of 10⁻¹⁰.
    assert BestOfN(n).subset_cdf(m)[j] == pytest.approx(expected, rel=1e-8, abs=1e-300)
    assert WorstOfN(n).subset_cdf(m)[m - j] == pytest.approx(1 - expected, abs=1e-8)


@pytest.mark.parametrize("procedure", [Sampling(), BestOfN(1024), WorstOfN(1024)], ids=repr)
def test_subset_cdf_of_a_large_case_is_a_law(procedure):
    chances = procedure.subset_cdf(100_000)
    assert chances.shape == (100_001,)
    assert chances[0] == 0 and chances[-1] == 1
    assert (np.diff(chances) >= 0).all()


@pytest.mark.parametrize("procedure", small, ids=repr)
def test_the_law_against_simulation(procedure):
    rng = np.random.default_rng(0)
    keep = KEEPS[type(procedure)]
    kept = np.array([keep(row) for row in rng.random((20_000, procedure.draws)).tolist()])
    for u in (0.2, 0.7):
        below = kept <= u
        stderr = below.std() / np.sqrt(below.size)
        assert abs(below.mean() - procedure.cdf(u)) < 4 * stderr


@every_procedure
def test_spec_and_pickle_bring_the_same_procedure_back(procedure):
    assert parse_procedure(procedure.spec) == procedure
    assert pickle.loads(pickle.dumps(procedure)) == procedure
    assert len({procedure, parse_procedure(procedure.spec)}) == 1


@every_procedure
@pytest.mark.parametrize("value", [3.2, -0.1, float("nan")])
def test_a_raw_reward_in_place_of_a_quantile_is_refused(procedure, value):
    for function in (procedure.cdf, procedure.density, procedure.slope):
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
    assert one.concave and plain.concave


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
    "text", ["", "best", "best-of-n", "best-of-n:", "best-of-n:x", "best-of-n:0", "sampling:2"]
)
def test_an_unknown_procedure_is_refused_with_the_known_ones(text):
    with pytest.raises(ValueError) as caught:
        parse_procedure(text)
    assert str(caught.value) == (
        "`procedure` must be sampling, best-of-n:N or worst-of-n:N with N at least 1; "
        f"got {text!r}."
    )
