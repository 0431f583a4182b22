"""Offline methods: losses on numbers worked out by hand, their optima, and what rows they take."""

import math

import numpy as np
import pytest
import torch
from method_settings import design_of, setting_of

from infalign import BestOfN, Exponential, WorstOfN
from infalign.calibration.outlook import RankOutlook
from infalign.config import Training
from infalign.errors import ConfigError
from infalign.methods import METHODS, Offline, losses
from infalign.methods.tasks import TOWARD_TILT

T = lambda *x: torch.tensor(x, dtype=torch.float64)  # noqa: E731


def test_losses_on_numbers_worked_out_by_hand():
    # ρ = 2 and 1, w = 4 and 1: (2 − 4 log 2 + 1)/2.
    loss = losses.tilt_loss(T(math.log(2), 0), T(4, 1), 4.0)
    assert loss == pytest.approx(1.5 - 2 * math.log(2))
    # ρ = 2e, beyond the largest weight 2: its tangent there is 2 (1 + 1); w = 1.
    loss = losses.tilt_loss(T(math.log(2) + 1), T(1), 2.0)
    assert loss == pytest.approx(4 - (math.log(2) + 1))
    # log w − log ρ = log 2 and 0; v = (1 + 4)/2 at balance ½.
    arguments = T(math.log(2), 0), T(math.log(4), 0)
    assert losses.regression_loss(*arguments, 0.0) == pytest.approx(math.log(2) ** 2 / 2)
    assert losses.regression_loss(*arguments, 0.5) == pytest.approx(1.25 * math.log(2) ** 2)
    # h = 3 and −1, 1/2τ = 2.
    assert losses.ipo_loss(T(1, 0), T(-2, 1), 0.25) == pytest.approx((1 + 9) / 2)
    # h = 0 and log 3 / β: −log ½ and −log ¾.
    loss = losses.dpo_loss(T(0, math.log(3) / 0.1), T(0, 0), 0.1)
    assert loss == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    # n = 3: 2 (1 + ½) = 3.
    assert losses.bonbon_margin(3) == 3 and losses.bonbon_margin(2) == 1
    loss = losses.bonbon_loss(T(2, 0), T(1, 0), T(-5, -7), 3, 0.1)
    assert loss == pytest.approx(0.1 * 6 + 0.9 * ((1 - 3) ** 2 + 3**2) / 2)


def minimum(loss, size, steps=400):
    """Log-ratios of a policy over equally likely outcomes at which a loss is least."""
    logits = torch.zeros(size, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [logits],
        max_iter=steps,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
    )

    def closure():
        search.zero_grad()
        value = loss(logits.log_softmax(0) + math.log(size))
        value.backward()
        return value

    search.step(closure)
    return (logits.log_softmax(0) + math.log(size)).detach().numpy()


def test_every_loss_of_the_warm_start_leads_to_the_tilt():
    tilt = np.log([[0.1, 0.4, 1.0, 2.5]])  # of mean 1
    assert Training.model_json_schema()["properties"]["warm_start_loss"]["enum"] == [*TOWARD_TILT]
    for name, toward in TOWARD_TILT.items():
        task = toward(tilt)
        rows = {key: torch.as_tensor(column) for key, column in task.columns.items()}
        found = minimum(lambda ratio, t=task, r=rows: t.loss(ratio[:, None], r), 4)
        np.testing.assert_allclose(found, tilt[0], atol=1e-6, err_msg=name)


def test_ipo_over_all_pairs_is_the_tilt_by_the_calibrated_reward():
    size, tau = 7, 0.4
    best, worst = np.triu_indices(size, 1)[::-1]  # the higher number is the better outcome
    log_ratios = minimum(lambda r: losses.ipo_loss(r[best], r[worst], tau), size)
    # Each outcome is compared with every other, and with itself a tie: C counts ties by half.
    c = (np.arange(size) + 0.5) / size
    assert np.diff(log_ratios) == pytest.approx(np.diff(c) / tau, abs=1e-5)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_the_regression_has_the_tilt_as_its_optimum_however_it_is_weighted(balance):
    rng = np.random.default_rng(0)
    log_weight = rng.normal(size=8)
    log_weight -= np.log(np.exp(log_weight).mean())
    target = torch.tensor(log_weight)
    log_ratios = minimum(lambda r: losses.regression_loss(r, target, balance), 8)
    assert log_ratios == pytest.approx(log_weight, abs=1e-5)
    log_ratios = minimum(lambda r: losses.tilt_loss(r, target.exp(), float(target.exp().max())), 8)
    assert log_ratios == pytest.approx(log_weight, abs=1e-5)


def test_the_margin_of_bonbon_is_the_mean_log_ratio_of_the_best_of_n():
    # Best-of-n has density n u^(n−1): log-ratio of best and worst (n − 1) E[log u_best/u_worst].
    rng = np.random.default_rng(1)
    for n in (2, 4, 8):
        u = np.sort(rng.random((40_000, n)), axis=1)
        drawn = (n - 1) * np.log(u[:, -1] / u[:, 0])
        error = drawn.std() / 200
        assert abs(drawn.mean() - losses.bonbon_margin(n)) < 4 * error


def setting(procedure=BestOfN(4), samples=16):  # noqa: B008
    rng = np.random.default_rng(2)
    rewards = rng.normal(size=(30, 1)) + rng.normal(size=(30, samples))
    few = RankOutlook(samples).achieved(Exponential(5.0), procedure, procedure, kl=0.5)
    design = design_of(Exponential(5.0), few.beta, 0.5)
    return rewards, setting_of(len, rewards, procedure=procedure, design=design)


def task(name, setting, rewards):
    return METHODS[name].task(setting, rewards)


@pytest.mark.parametrize("method", [m.name for m in METHODS.values() if isinstance(m, Offline)])
def test_every_task_is_least_nearer_to_what_it_wants_than_at_the_reference(method):
    rewards, s = setting()
    made = task(method, s, rewards)
    flat = torch.tensor(rewards.ravel())[torch.tensor(made.samples)]
    columns = {name: torch.tensor(x) for name, x in made.columns.items()}
    columns["reference_logprob"] = torch.full(made.samples.shape, -20.0, dtype=torch.float64)

    # A tilt towards higher rewards, normalized prompt by prompt.
    def tilted(t):
        logs = t * rewards
        logs = logs - np.log(np.exp(logs).mean(1, keepdims=True))
        return torch.tensor(logs.ravel())[torch.tensor(made.samples)]

    at = [float(made.loss(tilted(t), columns)) for t in (0.0, 0.3, -0.3)]
    assert at[1] < at[0] < at[2]
    assert flat.shape == made.samples.shape and made.samples.min() >= 0
    if made.samples.shape[1] == 2:
        assert (flat[:, 0] > flat[:, 1]).all()
        assert (made.samples[:, 0] // 16 == made.samples[:, 1] // 16).all()
        assert len(np.unique(made.samples)) == made.samples.size  # disjoint groups
    else:
        assert len(made.samples) == rewards.size


def test_rows_of_bonbon_are_best_and_worst_of_groups_of_n():
    rewards, s = setting(samples=18)
    rows = task("bonbon", s, rewards).samples
    assert len(rows) == 30 * (18 // 4)
    ties = np.round(rewards)
    rows = task("dpo", s, ties).samples
    assert 0 < len(rows) < 30 * 9 and (ties.ravel()[rows[:, 0]] > ties.ravel()[rows[:, 1]]).all()


def test_what_a_method_cannot_learn_is_said():
    rewards, s = setting(WorstOfN(4))
    with pytest.raises(ConfigError, match=r"`bonbon` learns the best of n .* worst-of-n:4"):
        task("bonbon", s, rewards)
    rewards, s = setting()
    with pytest.raises(ConfigError, match="All stored rewards tie"):
        task("dpo", s, np.zeros((30, 16)))
