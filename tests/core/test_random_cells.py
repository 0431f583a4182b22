"""Expectations over random cells, against closed forms, brute integration and simulation."""

import numpy as np
import pytest
from scipy.integrate import quad

from infalign.core import _random_cells

expected = _random_cells.expected


def test_two_cells_by_brute_integration():
    # One sample: the lower cell has width w, uniform on (0, 1).
    low, high = -0.3, 1.9
    expectation = expected(np.array([low, high]))

    def z(w):
        return w * np.exp(low) + (1 - w) * np.exp(high)

    mass = quad(lambda w: w * np.exp(low) / z(w), 0, 1, epsabs=1e-13)[0]
    log_z = quad(lambda w: np.log(z(w)), 0, 1, epsabs=1e-13)[0]
    assert expectation.mass == pytest.approx([mass, 1 - mass], abs=1e-12)
    assert expectation.log_z == pytest.approx(log_z, abs=1e-12)
    assert expectation.kl == pytest.approx(mass * low + (1 - mass) * high - log_z, abs=1e-12)


@pytest.mark.parametrize("samples", [1, 3, 64, 1000])
def test_no_tilt_and_all_the_tilt(samples):
    flat = expected(np.full(samples + 1, 7.0))
    assert flat.mass == pytest.approx(np.full(samples + 1, 1 / (samples + 1)), abs=1e-14)
    assert (flat.log_z, flat.kl) == pytest.approx((7, 0), abs=1e-13)
    # The ceiling of docs/maths.md: E[−log w] = 1 + 1/2 + … + 1/K.
    top = expected(np.append(np.zeros(samples), 300.0))
    assert top.kl == pytest.approx(np.sum(1 / np.arange(1, samples + 1)), abs=1e-11)


@pytest.mark.parametrize("samples", [2, 16, 200])
@pytest.mark.parametrize("spread", [0.5, 5.0, 40.0])
def test_a_simulation_of_prompts_agrees(samples, spread):
    # The cells that uniform samples cut, with density proportional to e^exponent in each.
    rng = np.random.default_rng(samples)
    exponents = np.sort(rng.normal(size=samples + 1)) * spread
    edges = np.sort(rng.random((4000, samples)), axis=1)
    widths = np.diff(edges, axis=1, prepend=0.0, append=1.0)
    with np.errstate(divide="ignore"):
        logs = np.log(widths) + exponents
    log_z = np.logaddexp.reduce(logs, axis=1)
    mass = np.exp(logs - log_z[:, None])
    expectation = expected(exponents)
    assert expectation.mass.sum() == pytest.approx(1, abs=1e-13)
    kl = mass @ exponents - log_z
    for simulated, exact in ((kl, expectation.kl), (log_z, expectation.log_z)):
        assert abs(simulated.mean() - exact) < 4.5 * simulated.std() / np.sqrt(len(simulated))
    error = mass.std(0) / np.sqrt(len(mass))
    assert (abs(mass.mean(0) - expectation.mass) < 4.5 * error + 1e-6).all()


def test_half_the_step_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    tables = [np.sort(rng.normal(size=k + 1)) * s for k in (1, 7, 700) for s in (0.01, 3, 50)]
    coarse = [expected(table).kl for table in tables]
    monkeypatch.setattr(_random_cells, "STEP", 0.125)
    assert [expected(table).kl for table in tables] == pytest.approx(coarse, abs=1e-12)
