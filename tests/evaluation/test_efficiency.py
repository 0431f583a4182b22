"""The KL efficiency of policies whose efficiency is known: its error, and when it is not stated."""

import numpy as np
import pytest

from infalign import BestOfN, design
from infalign.evaluation.efficiency import kl_efficiency
from infalign.evaluation.marginal import marginal_kl
from infalign.evaluation.uncertainty import over_prompts


def estimates(prompts, m, k, kl, runs, share=0.6):
    """Estimates for the optimum of best-of-8 with `kl` nats that spends `kl`/`share` nats."""
    cdf, rng = design(BestOfN(8), kl=kl).policy.cdf, np.random.default_rng(0)
    grid = np.linspace(0, 1, 4001)
    for _ in range(runs):
        policy = np.interp(rng.random((prompts, m)), cdf(grid), grid)
        spent = over_prompts(kl / share * rng.gamma(4, 0.25, prompts))
        yield policy, rng.random((prompts, k)), spent


def test_the_error_is_as_large_as_stated():
    shown = [kl_efficiency(*data) for data in estimates(128, 32, 32, 0.5, 16)]
    assert all(one.known for one in shown)
    assert np.mean([one.value for one in shown]) == pytest.approx(0.59, abs=0.05)
    assert np.mean([one.stderr for one in shown]) == pytest.approx(
        np.std([one.value for one in shown]), rel=0.6
    )
    assert np.mean([one.low < 0.6 < one.high for one in shown]) >= 0.75
    policy, reference, spent = next(estimates(60, 8, 16, 0.5, 1))
    value = kl_efficiency(policy, reference, spent).value
    assert value == pytest.approx(marginal_kl(policy, reference) / spent.value)


@pytest.mark.parametrize(
    "size", [(24, 8, 16, 0.1), (6, 4, 8, 0.05), (2, 4, 8, 0.5), (1, 4, 8, 0.5)]
)
def test_too_few_prompts_or_samples_are_not_known(size):
    assert not any(kl_efficiency(*data).known for data in estimates(*size, 8))
