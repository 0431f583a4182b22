"""Policies that see the reward in part: the script's optimum is the package's."""

import importlib

import numpy as np
import pytest
from scipy.special import ndtri

import infalign as ia
from infalign.core.finite.maps import Ranked

CELLS = 50
U = (np.arange(CELLS) + 0.5) / CELLS


@pytest.fixture
def script(scripts):
    return importlib.import_module("worst_of_n.seen_in_part")


def world(script, rhos):
    laws = [script.gaussian(rho, CELLS) for rho in rhos]
    return script.World([1 / len(rhos)] * len(rhos), laws, ndtri(U))


@pytest.mark.parametrize("rhos", [(0.8,), (0.5, 0.9)])
@pytest.mark.parametrize("procedure", [ia.WorstOfN(4), ia.BestOfN(4)])
def test_the_best_policy_is_that_of_the_finite_solver(script, procedure, rhos):
    seen = world(script, rhos)
    laws, ranked = np.array(seen.conditional), Ranked(procedure)

    def on_quantiles(policy):
        return np.einsum("ps,psu->pu", policy, laws)

    sees = ia.finite.Custom(
        lambda policy: ranked.selected(on_quantiles(policy)),
        lambda policy, utility: np.einsum(
            "psu,pu->ps", laws, ranked.gradient(on_quantiles(policy), utility)
        ),
        ranked.concave,
    )
    shape = (len(rhos), CELLS)
    exact = ia.finite.solve(np.tile(U, (len(rhos), 1)), np.full(shape, 1 / CELLS), sees, kl=0.5)
    assert abs(np.mean(exact.win_rate) - seen.best(procedure, 0.5)) < 1e-8


def test_no_policy_that_is_tried_beats_it_at_its_kl(script):
    seen = world(script, (0.7,))
    best = seen.best(ia.WorstOfN(4), 0.5)
    rng = np.random.default_rng(0)
    rewards = [U, *(np.cumsum(rng.exponential(size=CELLS) ** 3) for _ in range(30))]
    assert all(
        seen.win_rate(seen.tilt([r], 0.5), ia.WorstOfN(4))[0] < best + 1e-12 for r in rewards
    )


def test_a_reward_that_is_hardly_seen_leaves_half(script):
    assert world(script, (0.01,)).best(ia.WorstOfN(4), 0.5) < 0.51
