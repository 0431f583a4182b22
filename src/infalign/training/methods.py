"""The methods of `train.method`: what each maximises, in one table.

All are trained alike, to the same KL: they differ in the reward that RLOO is given, in the β at
which theory gives the KL, and in the optimum that a warm start may aim at where it is known.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from infalign.calibration import AbstractFitted, Counting
from infalign.calibration.expected import AbstractExpected, Counted
from infalign.config import Method
from infalign.core import (
    AbstractTransform,
    ExponentialUtility,
    Identity,
    Log,
    RankProcedure,
    SelectedReward,
    coupled_tilt,
    design,
    first_tilt,
)
from infalign.shaping import GroupShapedReward, MaxAtKReward, RiskSensitiveReward
from infalign.stores import CalibrationStore

from .objectives import Objective, raw_objective, shaped_objective

RISK = 2.0
"""Strength of the exponential utility, in units of one over the spread within a prompt."""

CLOSE = 0.01
"""Nats to which the optima of the rivals are found: more than training will notice."""


@dataclass(frozen=True)
class Setting:
    """What a run knows when training begins."""

    reward: Callable
    store: CalibrationStore
    learned: AbstractFitted
    """What the run's calibrator learned from the store."""

    expected: AbstractExpected
    procedure: RankProcedure
    against: RankProcedure
    transform: AbstractTransform
    beta: float
    """Of the transform."""

    kl: float
    """Target, in nats."""

    group: int
    """Responses per prompt in a step."""


def objective(method: Method, setting: Setting) -> Objective:
    """What `method` maximises in this setting."""
    return METHODS[method](setting)


def _shaped(s: Setting) -> Objective:
    return _of_quantiles(s, s.learned, s.transform, s.beta)


def _identity(s: Setting) -> Objective:
    found = s.expected.achieved(Identity(), s.procedure, s.against, kl=s.kl)
    return _of_quantiles(s, s.learned, Identity(), found.beta)


def _log_quantile(s: Setting) -> Objective:
    """E[log C] − β KL: at β = 1/(n − 1) its optimum is the best-of-n distribution (vBoN, Amini et
    al., arXiv:2407.06057; BOND, arXiv:2407.14622); here β is that of the target KL."""
    counted = Counting().fit(np.zeros((1, 1)))  # log 0 needs smoothed ranks
    found = Counted(s.store.samples).achieved(Log(), s.procedure, s.against, kl=s.kl)
    return _of_quantiles(s, counted, Log(), found.beta)


def _of_quantiles(s: Setting, learned, transform: AbstractTransform, beta: float) -> Objective:
    return shaped_objective(
        s.reward,
        s.store,
        learned,
        transform,
        beta,
        s.kl,
        procedure=s.procedure,
        against=s.against,
    )


def _group(s: Setting) -> Objective:
    """The win rate itself; its optimum at the target KL is the design's, with the β there."""
    reward = GroupShapedReward(
        s.reward, s.store, s.procedure, group=s.group, against=s.against, calibrator=s.learned
    )
    best = design(s.procedure, kl=s.kl, against=s.against)
    return Objective(reward, best.beta, _shaped(s).tilt, "infalign/win_rate")


def _raw(s: Setting) -> Objective:
    return raw_objective(s.reward, s.store, s.kl, procedure=s.procedure, against=s.against)


def _max_at_k(s: Setting) -> Objective:
    reward = MaxAtKReward(s.reward, s.store, s.procedure, s.against)
    utility = SelectedReward(s.procedure)

    def tilted(rewards):
        return coupled_tilt(rewards, utility, s.kl, close=CLOSE)

    beta, _ = tilted(_stored(s.store))
    return Objective(reward, beta, lambda rewards: tilted(rewards)[1], "infalign/kept_reward")


def _risk(s: Setting) -> Objective:
    """Risk is sought for procedures that keep the better ones, and avoided for others."""
    sign = 1 if s.procedure.cdf(np.array([0.5]))[0] <= 0.5 else -1
    strength = sign * RISK / spread(s.store)
    reward = RiskSensitiveReward(s.reward, s.store, strength, s.procedure, s.against)
    utility = ExponentialUtility(strength)
    # An averse utility is convex in the policy; its coupled optimum may not exist.
    solve = partial(coupled_tilt, close=CLOSE) if sign > 0 else first_tilt
    beta, _ = solve(_stored(s.store), utility, s.kl)
    return Objective(
        reward, beta, lambda rewards: solve(rewards, utility, s.kl)[1], "infalign/utility"
    )


METHODS: dict[Method, Callable[[Setting], Objective]] = {
    "rloo": _shaped,
    "grpo": _shaped,
    "group": _group,
    "identity": _identity,
    "rlhf": _raw,
    "vbon": _log_quantile,
    "pkpo": _max_at_k,
    "rs-grpo": _risk,
}
"""A method is a function from a setting to an objective."""


def spread(store: CalibrationStore) -> float:
    """Standard deviation of rewards within a prompt, averaged."""
    return float(np.sqrt(np.mean([np.var(row) for row in store.rewards.values()])))


def _stored(store: CalibrationStore) -> np.ndarray:
    """Rewards of all prompts, as many of each as all have, at random."""
    rng = np.random.default_rng(0)  # stored rewards are sorted
    return np.array([rng.permutation(row)[: store.samples] for row in store.rewards.values()])
