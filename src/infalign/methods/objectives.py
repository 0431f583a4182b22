"""The on-policy methods: each is a function from a setting to an objective.

All are trained to the same KL. They differ in the reward given to RLOO, in the β at which theory
reaches the KL, and in the optimum that a warm start targets.
"""

import logging
from collections.abc import Callable
from functools import partial

import numpy as np

from infalign._launched import processes
from infalign.calibration import AbstractFitted, Counting, StoreCalibration
from infalign.calibration.outlook import RankOutlook
from infalign.calibration.raw_reward import raw_beta
from infalign.core import (
    AbstractTransform,
    ExponentialUtility,
    Identity,
    Log,
    RawRewards,
    SelectedReward,
    at_kl,
    coupled_tilt,
    design,
    first_tilt,
    log_weights,
    quantiles,
)
from infalign.errors import SolveError
from infalign.shaping import (
    GroupShapedReward,
    MaxAtKReward,
    MonitoredReward,
    RiskSensitiveReward,
    ShapedReward,
)
from infalign.stores import CalibrationStore

from .method import DESIGN, OTHER, RAW, Objective, OnPolicy, Setting
from .requirements import own_optimum, stored_tilt, transform_of_quantiles, transform_of_ranks

__all__ = [
    "calibrated",
    "exponential_utility",
    "group_win_rate",
    "identity_beta",
    "log_quantile",
    "max_at_k",
    "raw",
    "shaped",
    "spread",
    "transformed",
]

LOG = logging.getLogger(__name__)

RISK = 2.0
"""Strength of the exponential utility, in units of 1 over the spread within a prompt."""

CLOSE = 0.01
"""Accuracy of the rivals' optima, in nats: finer than training can resolve."""


def transformed(s: Setting) -> Objective:
    """InfAlign-CTRL: the calibrated reward under the design's transform."""
    return shaped(s, s.learned, s.design.transform, s.design.beta)


def calibrated(s: Setting) -> Objective:
    """The calibrated reward itself."""
    return shaped(s, s.learned, Identity(), identity_beta(s))


def identity_beta(s: Setting) -> float:
    """β of the calibrated reward at the target KL."""
    kl = s.design.target_kl
    return s.outlook.achieved(Identity(), s.procedure, s.against, kl=kl).beta


def log_quantile(s: Setting) -> Objective:
    """E[log C] − β KL: at β = 1/(n − 1) its optimum is the best-of-n distribution (vBoN, Amini et
    al., arXiv:2407.06057; BOND, arXiv:2407.14622); here β is the one at the target KL."""
    counted = Counting().fit(np.zeros((1, 1)))  # log 0 needs smoothed ranks
    few = RankOutlook(s.store.samples)
    outcome = few.achieved(Log(), s.procedure, s.against, kl=s.design.target_kl)
    return shaped(s, counted, Log(), outcome.beta)


def shaped(
    s: Setting, learned: AbstractFitted, transform: AbstractTransform, beta: float
) -> Objective:
    """A transform of the quantiles that a calibrator learned to estimate."""
    reward = ShapedReward(
        s.reward,
        s.store,
        transform,
        calibrator=learned,
        smoothing="none" if transform.bounded else "add-half",
        procedure=s.procedure,
        against=s.against,
    )
    kl = s.design.target_kl
    counted = StoreCalibration(s.store, learned).plain
    return Objective(
        reward, beta, _counted_tilt(transform, kl) if counted else _tilt(learned, transform, kl)
    )


def _counted_tilt(transform: AbstractTransform, kl: float) -> Callable:
    # When ranked among themselves, the stored samples have no calibration error, so their β
    # differs. These ranks cannot be 0 or 1 either, so an unbounded transform stays finite.
    tilted = at_kl(transform, kl)
    return lambda rewards: np.log(tilted.density(quantiles(rewards, rewards)))


def _tilt(learned: AbstractFitted, transform: AbstractTransform, kl: float) -> Callable:
    def tilt(rewards):
        values = learned.on(rewards).shaped(np.arange(len(rewards)), rewards, transform)
        # All prompts share one normalization: the few samples of a prompt say little about its mean
        # weight, but on the quantile axis all prompts have the same mean weight.
        pooled = values.reshape(1, -1)
        return log_weights(pooled, at_kl(RawRewards(pooled), kl).beta).reshape(values.shape)

    return tilt


def group_win_rate(s: Setting) -> Objective:
    """The win rate itself; its optimum at the target KL is that of the exact design, at the
    design's β."""
    reward = GroupShapedReward(
        s.reward, s.store, s.procedure, group=s.group, against=s.against, calibrator=s.learned
    )
    optimum = design(s.procedure, kl=s.design.target_kl, against=s.against)
    return Objective(reward, optimum.beta, transformed(s).tilt, "infalign/win_rate")


def raw(s: Setting) -> Objective:
    """Plain RLHF."""
    beta = raw_beta(s.store, s.design.target_kl)
    reward = MonitoredReward(s.reward, s.store, procedure=s.procedure, against=s.against)
    return Objective(reward, beta, lambda rewards: log_weights(rewards, beta))


def max_at_k(s: Setting) -> Objective:
    """The mean raw reward of the selected response."""
    reward = MaxAtKReward(s.reward, s.store, s.procedure, s.against, group=_stated(s))
    solve = partial(_toward, utility=SelectedReward(s.procedure), kl=s.design.target_kl)
    beta, _ = solve(_stored(s.store))
    return Objective(reward, beta, lambda rewards: solve(rewards)[1], "infalign/kept_reward")


def _stated(s: Setting) -> int | None:
    """The size of a group where it cannot be inferred from a batch. In one process it can be, and
    validation may draw groups of another size."""
    return s.group if processes() > 1 else None


def _toward(rewards, utility: SelectedReward, kl: float) -> tuple[float, np.ndarray]:
    """The coupled optimum of a utility, or the first step toward it, which always exists.

    The mean of the worst of n is convex in the policy, so there may be no optimum.
    """
    try:
        return coupled_tilt(rewards, utility, kl, close=CLOSE)
    except SolveError:
        first = first_tilt(rewards, utility, kl)  # raises again if the samples do not allow the KL
        LOG.warning(
            "No policy at %g nats was found that is its own optimum for this utility on the stored "
            "samples. The warm start and beta take the first step toward it instead: the optimum "
            "for the advantages under the reference.",
            kl,
        )
        return first


def exponential_utility(s: Setting) -> Objective:
    """Seeks risk for procedures that select high rewards, and avoids it for the others."""
    sign = 1 if s.procedure.cdf(np.array([0.5]))[0] <= 0.5 else -1
    strength = sign * RISK / spread(s.store)
    reward = RiskSensitiveReward(
        s.reward, s.store, strength, s.procedure, s.against, group=_stated(s)
    )
    # A risk-averse utility is convex in the policy, and its coupled optimum may not exist.
    solver = partial(coupled_tilt, close=CLOSE) if sign > 0 else first_tilt
    solve = partial(solver, utility=ExponentialUtility(strength), kl=s.design.target_kl)
    beta, _ = solve(_stored(s.store))
    return Objective(reward, beta, lambda rewards: solve(rewards)[1], "infalign/utility")


def spread(store: CalibrationStore) -> float:
    """Standard deviation of rewards within a prompt, averaged."""
    return float(np.sqrt(np.mean([np.var(row) for row in store.rewards.values()])))


def _stored(store: CalibrationStore) -> np.ndarray:
    """Rewards of all prompts: from each, a random sample of the size that the prompt with the
    fewest has."""
    rng = np.random.default_rng(0)  # stored rewards are sorted
    return np.array([rng.permutation(row)[: store.samples] for row in store.rewards.values()])


ON_POLICY = (
    OnPolicy(
        "rloo",
        "InfAlign-CTRL",
        "InfAlign-CTRL: the transformed calibrated reward",
        objective=transformed,
        trained_on=DESIGN,
        source="InfAlign, arXiv:2412.19792",
    ),
    OnPolicy(
        "grpo",
        "InfAlign-CTRL, by GRPO",
        "the objective of `rloo`, with GRPO's settings changed to match it",
        objective=transformed,
        trained_on=DESIGN,
        trainer="grpo",
    ),
    OnPolicy(
        "group",
        "exact group objective",
        "the inference-time win rate itself, estimated from each group",
        objective=group_win_rate,
        trained_on=OTHER,
        whole_groups=True,
        starts_on_design=True,
        source="ours",
        needs=own_optimum,
    ),
    OnPolicy(
        "identity",
        "RLHF on the calibrated reward",
        "the calibrated reward",
        objective=calibrated,
        trained_on=Identity(),
        source="InfAlign",
        needs=partial(transform_of_quantiles, Identity()),
    ),
    OnPolicy(
        "rlhf",
        "RLHF on the raw reward",
        "the raw reward",
        objective=raw,
        trained_on=RAW,
        needs=stored_tilt,
    ),
    OnPolicy(
        "vbon",
        "log-quantile reward (vBoN)",
        "the logarithm of the calibrated reward",
        objective=log_quantile,
        trained_on=Log(),
        source="vBoN, arXiv:2407.06057; BOND, arXiv:2407.14622",
        needs=partial(transform_of_ranks, Log()),
    ),
    OnPolicy(
        "pkpo",
        "max@k policy gradient (PKPO)",
        "the mean raw reward of the selected response (max@n)",
        objective=max_at_k,
        trained_on=OTHER,
        whole_groups=True,
        source="PKPO, arXiv:2505.15201",
        needs=stored_tilt,
    ),
    OnPolicy(
        "rs-grpo",
        "exponential utility (RS-GRPO)",
        "an exponential utility of the raw reward",
        objective=exponential_utility,
        trained_on=OTHER,
        source="RS-GRPO, arXiv:2509.24261",
        needs=stored_tilt,
    ),
)
"""Each maximizes its reward minus β KL."""
