"""Tilted policies against closed forms, scipy's quadrature and simulation."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
from contracts import law, procedures, transforms
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import ndtr

from infalign import (
    BestOfN,
    Exponential,
    Identity,
    Log,
    Probit,
    Sampling,
    Tabulated,
    TiltedPolicy,
    WorstOfN,
)

U = np.linspace(0, 1, 101)
bounded = [t for t in transforms if t.bounded]
name = {"ids": lambda t: repr(t)[:40]}


@pytest.mark.parametrize("n", [2, 4, 8, 64])
def test_log_at_one_over_n_minus_one_is_best_of_n(n):
    # f ∝ e^{(n - 1) log u} = u^{n - 1}: Z = 1/n, F = uⁿ, KL = log n - (n - 1)/n.
    policy, u = TiltedPolicy(Log(), 1 / (n - 1)), U[1:-1]
    assert policy.log_partition == pytest.approx(-np.log(n), abs=1e-12)
    np.testing.assert_allclose(policy.density(u), n * u ** (n - 1), rtol=1e-11)
    np.testing.assert_allclose(policy.cdf(u), u**n, atol=1e-12)
    assert policy.kl == pytest.approx(np.log(n) - (n - 1) / n, abs=1e-12)
    assert policy.win_rate(Sampling()) == pytest.approx(n / (n + 1), abs=1e-12)


@pytest.mark.parametrize("k", [1.5, 2, 3, 7.25])
@pytest.mark.parametrize("n", [1, 2, 8, 32])
def test_a_power_law_beats_best_of_n_alike_for_every_n(k, n):
    # F = u^k: W = 1 - ∫ u^{kn} n u^{n-1} du = k / (k + 1).
    policy = TiltedPolicy(Log(), 1 / (k - 1))
    assert policy.win_rate(BestOfN(n)) == pytest.approx(k / (k + 1), abs=1e-12)


@pytest.mark.parametrize("kl", [0.1, 0.5, 2.0])
def test_probit_shifts_a_normal_reward(kl):
    # A normal reward tilted by 1/β moves by δ = 1/β standard deviations, and KL = δ²/2. Two
    # normal rewards δ apart: W = Φ(δ / √2) = Φ(√KL).
    policy = TiltedPolicy(Probit(), 1 / np.sqrt(2 * kl))
    assert policy.kl == pytest.approx(kl, abs=1e-8)
    assert policy.win_rate(Sampling()) == pytest.approx(ndtr(np.sqrt(kl)), abs=1e-8)
    np.testing.assert_allclose(
        policy.cdf(U[1:-1]), ndtr(Probit()(U[1:-1]) - np.sqrt(2 * kl)), atol=1e-8
    )


@pytest.mark.parametrize("beta", [0.05, 0.3, 4.0])
def test_identity_against_its_closed_form(beta):
    # f = e^{u/β} / Z, Z = β (e^{1/β} - 1), KL = E[u]/β - log Z, and W under sampling is E[u].
    policy, a = TiltedPolicy(Identity(), beta), 1 / beta
    mean = 1 / -np.expm1(-a) - 1 / a
    log_z = a + np.log(-np.expm1(-a) / a)
    assert policy.log_partition == pytest.approx(log_z, abs=1e-12)
    assert policy.win_rate(Sampling()) == pytest.approx(mean, abs=1e-12)
    assert policy.kl == pytest.approx(mean * a - log_z, abs=1e-11)
    np.testing.assert_allclose(policy.cdf(U), np.expm1(a * U) / np.expm1(a), atol=1e-12)


@pytest.mark.parametrize("transform", bounded, **name)
@pytest.mark.parametrize("beta", [0.2, 1.0])
def test_integrals_against_scipy(transform, beta):
    policy = TiltedPolicy(transform, beta)
    # A cubic has kinks at its knots: scipy is told where, the policy's panels are not.
    table = isinstance(transform, Tabulated)
    knots, within = (list(transform.u), 1e-5) if table else ([0, 1], 1e-10)

    def integral(function, end=1.0):
        edges = [*[k for k in knots if k < end], end]
        return sum(quad(function, a, b, epsabs=1e-12, epsrel=1e-12)[0] for a, b in pairwise(edges))

    z = integral(lambda u: float(np.exp(transform(u) / beta)))
    assert policy.log_partition == pytest.approx(np.log(z), abs=within)
    assert integral(policy.density) == pytest.approx(1, abs=within)
    kl = integral(lambda u: float(policy.density(u) * np.log(policy.density(u))))
    assert policy.kl == pytest.approx(kl, abs=within)
    for u in (0.01, 0.3, 0.77, 0.999):
        assert policy.cdf(u) == pytest.approx(integral(policy.density, u), abs=within)


@pytest.mark.parametrize("transform", transforms, **name)
def test_the_distribution_starts_at_0_and_ends_at_1(transform):
    np.testing.assert_allclose(TiltedPolicy(transform, 0.5).cdf([0, 1]), [0, 1], atol=1e-12)


@pytest.mark.parametrize("transform", transforms, **name)
@law
@given(log_beta=st.floats(-4, 8))
def test_kl_is_never_negative_and_the_distribution_never_falls(transform, log_beta):
    policy = TiltedPolicy(transform, float(np.exp(log_beta)))
    assert policy.kl >= 0
    values = policy.cdf(U[1:])
    assert (np.diff(values) >= -1e-15).all()
    assert values[-1] == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("beta", [1e4, 1e8, 1e11])
def test_a_kl_next_to_0_has_its_digits(beta):
    # KL → Var(Φ) / 2β², and the identity has a variance of 1/12.
    assert TiltedPolicy(Identity(), beta).kl * 24 * beta**2 == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("procedure", procedures, ids=repr)
def test_the_reference_ties_with_itself(procedure):
    # A constant transform tilts nothing: f = 1, KL = 0, W = 1/2.
    reference = TiltedPolicy(Tabulated((0, 1), (3, 3)), 0.1)
    np.testing.assert_allclose(reference.density(U), 1, rtol=1e-13)
    assert reference.kl == pytest.approx(0, abs=1e-14)
    assert reference.win_rate(procedure) == pytest.approx(0.5, abs=1e-12)


@law
@given(scale=st.floats(0.01, 100), shift=st.floats(-50, 50))
def test_an_affine_map_of_the_transform_only_rescales_beta(scale, shift):
    u, phi = np.linspace(0, 1, 6), np.array([0, 0.1, 0.1, 0.4, 0.5, 2.0])
    plain = TiltedPolicy(Tabulated(u, phi), 0.4)
    mapped = TiltedPolicy(Tabulated(u, scale * phi + shift), 0.4 * scale)
    np.testing.assert_allclose(mapped.density(U), plain.density(U), rtol=1e-9)
    assert mapped.kl == pytest.approx(plain.kl, abs=1e-9)


@pytest.mark.parametrize("transform", [Exponential(5.0), Exponential(-5.0)], ids=repr)
@pytest.mark.parametrize(
    ("procedure", "against"),
    [(BestOfN(4), BestOfN(4)), (WorstOfN(4), WorstOfN(4)), (BestOfN(4), Sampling())],
)
def test_win_rate_against_simulation(transform, procedure, against):
    rng, draws = np.random.default_rng(0), 40_000
    policy = TiltedPolicy(transform, 0.4)
    keep = {BestOfN: np.max, WorstOfN: np.min, Sampling: np.mean}  # of one sample

    # Rejection: a uniform proposal is accepted with chance e^{(Φ - max Φ)/β}.
    proposed = rng.random(40 * draws)
    accepted = proposed[rng.random(proposed.size) < np.exp((transform(proposed) - 1) / 0.4)]
    ours = accepted[: draws * procedure.draws].reshape(draws, -1)
    theirs = rng.random((draws, against.draws))
    wins = keep[type(procedure)](ours, axis=1) > keep[type(against)](theirs, axis=1)

    stderr = wins.std() / np.sqrt(draws)
    assert abs(policy.win_rate(procedure, against) - wins.mean()) < 4 * stderr
    log_density = np.log(policy.density(ours))
    stderr = log_density.std() / np.sqrt(log_density.size)
    assert abs(policy.kl - log_density.mean()) < 4 * stderr


def test_the_opponent_has_the_same_procedure_unless_given():
    policy = TiltedPolicy(Identity(), 0.3)
    assert policy.win_rate(BestOfN(4)) == policy.win_rate(BestOfN(4), BestOfN(4))
    assert policy.win_rate(BestOfN(4), Sampling()) > policy.win_rate(BestOfN(4))


def test_a_strong_tilt_neither_overflows_nor_loses_mass():
    # e^{Φ/β} is e^{100000} at u = 1. The mass sits within β of it: f ≈ e^{(u - 1)/β} / β, an
    # exponential law with mean distance β, and KL = log(1/β) - 1.
    policy = TiltedPolicy(Identity(), 1e-5)
    assert policy.kl == pytest.approx(np.log(1e5) - 1, abs=1e-9)
    assert policy.win_rate(Sampling()) == pytest.approx(1 - 1e-5, abs=1e-12)


def test_a_policy_is_a_value():
    policy = TiltedPolicy(Exponential(2.0), 0.3)
    before = policy.kl
    assert pickle.loads(pickle.dumps(policy)) == policy == TiltedPolicy(Exponential(2.0), 0.3)
    assert pickle.loads(pickle.dumps(policy)).kl == before


@pytest.mark.parametrize(
    ("beta", "message"),
    [
        (0, "`beta` must be above 0; got 0"),
        (-1.0, "`beta` must be above 0; got -1"),
        (float("nan"), "`beta` must be a finite number; got nan"),
        ("1", "`beta` must be a finite number; got '1'"),
    ],
)
def test_beta_must_be_above_zero(beta, message):
    with pytest.raises(ValueError, match=message):
        TiltedPolicy(Identity(), beta)


def test_a_steep_piece_of_a_table_between_two_nodes_of_a_quadrature_is_seen():
    u = (0.0, 0.3729, 0.4684, 0.4985, 0.5013, 0.9836, 1.0)
    phi = (-0.9479, -0.0118, 0.4067, 0.4250, 0.8426, 0.8771, 1.3127)
    policy = TiltedPolicy(Tabulated(u, phi), 0.2)
    exponent = lambda v: float(policy.transform(v)) / 0.2  # noqa: E731
    pieces = [
        (quad(lambda v: np.exp(exponent(v)), *ends)[0], quad(_weighted(exponent), *ends)[0])
        for ends in pairwise(u)
    ]
    mass, mean = np.sum(pieces, axis=0)
    assert policy.kl == pytest.approx(mean / mass - np.log(mass), rel=1e-10)


def _weighted(exponent):
    return lambda v: exponent(v) * np.exp(exponent(v))
