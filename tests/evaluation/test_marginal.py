"""The KL of the quantile marginal, against closed forms, exact optima and simulation."""

import numpy as np
import pytest
from contracts import law
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from infalign import BestOfN, Probit, WorstOfN, design
from infalign.core import at_kl
from infalign.evaluation.marginal import _rank_moments, marginal_kl


def drawn(cdf, prompts, m, rng):
    """Quantiles of a policy, by inversion of its CDF."""
    grid = np.linspace(0, 1, 20_001)
    return np.interp(rng.random((prompts, m)), cdf(grid), grid)


def test_rank_moments_are_unbiased():
    # Ranks are binomial in the quantile: Σ_j Bin(j; K, u) C(j, a)/C(K, a) = u^a, by hand for K = 2.
    moments = _rank_moments(2, np.array([1, 2]))
    np.testing.assert_allclose(moments, [[0, 0, 1], [0.5, 0, 0], [1, 1, 0]], atol=1e-12)
    u = 0.3
    chances = np.array([(1 - u) ** 2, 2 * u * (1 - u), u**2])
    np.testing.assert_allclose(chances @ moments, [u, u**2, (1 - u) ** 2], atol=1e-12)


def test_one_reference_sample_tells_the_mean_alone():
    # Then the least KL is that of e^{θu}/Z with this mean, found by another road.
    rng = np.random.default_rng(0)
    prompts = 4_000
    found = marginal_kl(rng.random((prompts, 4)) ** 0.5, rng.random((prompts, 1)))

    def mean(t):
        return 1 / (1 - np.exp(-t)) - 1 / t

    t = brentq(lambda t: mean(t) - 2 / 3, 0.1, 20)
    assert found == pytest.approx(t * 2 / 3 - np.log(np.expm1(t) / t), abs=0.02)


CASES = [
    *((BestOfN(8), kl) for kl in (0.1, 0.5, 1.0)),
    *((WorstOfN(4), kl) for kl in (0.5, 1.0)),
]


@pytest.mark.parametrize(("procedure", "kl"), CASES, ids=str)
def test_the_exact_optimum_shows_its_whole_kl(procedure, kl):
    """As many samples as a run evaluates on: 128 prompts, 32 of either side. Its error is a tenth
    of a nat at most; counting in 33 cells shows 69 % at best-of-8 and 0.5 nats."""
    rng, runs = np.random.default_rng(1), 24
    cdf = design(procedure, kl=kl).policy.cdf
    found = [marginal_kl(drawn(cdf, 128, 32, rng), rng.random((128, 32))) for _ in range(runs)]
    bias = np.mean(found) / kl - 1
    assert abs(bias) < 0.07 + 4 * np.std(found) / kl / np.sqrt(runs)
    assert np.std(found) < 0.1


def test_more_samples_see_a_sharper_density():
    policy = design(BestOfN(32), kl=0.5).policy
    rng = np.random.default_rng(2)
    seen = [
        marginal_kl(drawn(policy.cdf, 300, 32, rng), rng.random((300, k))) for k in (8, 32, 256)
    ]
    assert seen == sorted(seen) and seen[0] < 0.3 and 0.4 < seen[-1] < 0.55


def test_a_policy_that_is_the_reference_shows_next_to_nothing():
    rng = np.random.default_rng(3)
    found = [marginal_kl(rng.random((128, 32)), rng.random((128, 32))) for _ in range(20)]
    assert np.mean(found) < 0.015 and max(found) < 0.05


def test_it_is_that_of_the_probit_whatever_the_scale_of_rewards():
    policy = at_kl(Probit(), 0.5)
    rng = np.random.default_rng(4)
    u, v = drawn(policy.cdf, 400, 32, rng), rng.random((400, 32))
    found = marginal_kl(u, v)
    assert found == pytest.approx(0.5, abs=0.05)
    assert marginal_kl(np.exp(3 * u), np.exp(3 * v)) == pytest.approx(found)


@law
@given(st.integers(0, 2**32 - 1))
def test_marginal_kl_ignores_increasing_maps_and_is_not_negative(seed):
    rng = np.random.default_rng(seed)
    policy, reference = rng.integers(0, 5, (3, 4)), rng.integers(0, 5, (3, 6))
    found = marginal_kl(policy, reference)
    assert found >= -1e-12 and np.isfinite(found)
    assert marginal_kl(np.exp(policy)[:, ::-1], np.exp(reference)) == pytest.approx(found)


@pytest.mark.parametrize("k", [1, 2, 33])
def test_what_is_wholly_above_or_tied_has_a_value(k):
    assert 0 < marginal_kl([[5.0, 5.0]], [[1.0] * k]) < 10
    assert marginal_kl([[1.0]], [[1.0] * k]) == pytest.approx(0, abs=1e-9)


def test_rows_must_match():
    with pytest.raises(ValueError, match="one row per prompt each; got 1 and 2 rows"):
        marginal_kl([[1.0]], [[1.0], [2.0]])
    with pytest.raises(ValueError, match="`reference_rewards` must hold finite rewards; got nan"):
        marginal_kl([[1.0]], [[float("nan")]])
