"""The KL of the quantile marginal, against closed forms and simulation."""

import numpy as np
import pytest
from contracts import law
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betaln, gammaln

from infalign.evaluation.marginal import marginal_kl


def cell_chances(k: float, samples: int) -> np.ndarray:
    """Chance of each of the K + 1 cells when F(u) = u^k: C(K, j) k B(j + k, K - j + 1)."""
    j = np.arange(samples + 1)
    choose = gammaln(samples + 1) - gammaln(j + 1) - gammaln(samples - j + 1)
    return np.exp(choose + np.log(k) + betaln(j + k, samples - j + 1))


def test_marginal_kl_by_hand():
    # Two prompts, cells of one half. Three of four samples in the upper: ½ log ½ + 3/2 log 3/2,
    # over two cells.
    f = np.array([0.5, 1.5])
    found = marginal_kl([[0.0, 9.0], [8.0, 9.0]], [[1.0], [5.0]])
    assert found == pytest.approx(np.mean(f * np.log(f)))
    # A tie goes half into either cell: nothing is known of it.
    assert marginal_kl([[1.0]], [[1.0]]) == 0


@pytest.mark.parametrize("k", [1.0, 2.0, 5.0])
def test_marginal_kl_of_a_power_law_against_its_closed_form(k):
    # F(u) = u^k, one sample a prompt so that all are independent. Counting N samples in K + 1
    # cells adds K / 2N (Miller, Note on the bias of information estimates, 1955).
    rng, runs, prompts, samples = np.random.default_rng(0), 40, 1_000, 16
    found = [
        marginal_kl(rng.random((prompts, 1)) ** (1 / k), rng.random((prompts, samples)))
        for _ in range(runs)
    ]
    p = cell_chances(k, samples)
    truth = p @ np.log(p * (samples + 1)) + samples / (2 * prompts)
    assert p.sum() == pytest.approx(1)
    assert abs(np.mean(found) - truth) < 4 * np.std(found) / np.sqrt(runs)


def test_cells_blur_the_density_from_below():
    # ∫ f log f = log k - (k - 1)/k for CDF u^k; more reference samples see more of it.
    truth = np.log(5) - 4 / 5
    seen = [p @ np.log(p * p.size) for p in (cell_chances(5, samples) for samples in (4, 32, 1024))]
    assert seen == sorted(seen) and seen[-1] < truth < seen[-1] + 0.01


@law
@given(st.integers(0, 2**32 - 1))
def test_marginal_kl_ignores_increasing_maps_and_is_not_negative(seed):
    rng = np.random.default_rng(seed)
    policy, reference = rng.integers(0, 5, (3, 4)), rng.integers(0, 5, (3, 6))
    found = marginal_kl(policy, reference)
    assert found >= -1e-12
    assert marginal_kl(np.exp(policy)[:, ::-1], np.exp(reference)) == pytest.approx(found)


def test_rows_must_match():
    with pytest.raises(ValueError, match="one row per prompt each; got 1 and 2 rows"):
        marginal_kl([[1.0]], [[1.0], [2.0]])
    with pytest.raises(ValueError, match="`reference_rewards` must hold finite rewards; got nan"):
        marginal_kl([[1.0]], [[float("nan")]])
