"""An objective: a reward, its KL strength, and the tilt they imply; and the main two.

KL-regularised RL on a reward R with strength β has the optimum π ∝ π_ref e^{R/β}. `methods` has
all objectives.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from infalign.calibration import AbstractFitted
from infalign.calibration.counting import FittedCounting
from infalign.calibration.expected import AbstractExpected
from infalign.calibration.raw_reward import raw_beta
from infalign.core import (
    AbstractTransform,
    RankProcedure,
    RawRewards,
    at_kl,
    log_weights,
    parse_transform,
    quantiles,
)
from infalign.shaping import MonitoredReward, ShapedReward
from infalign.stores import CalibrationStore


@dataclass(frozen=True)
class Objective:
    """max E[reward] − beta KL."""

    reward: Callable
    """A TRL reward function, which logs what the policy wins."""

    beta: float
    """KL strength at which theory gives the target KL, in units of the reward per nat."""

    tilt: Callable[[np.ndarray], np.ndarray]
    """log dπ*/dπ_ref of reference samples, from their raw rewards; both of shape (prompts, K)."""

    estimate: str = ""
    """Name of the metric that estimates what is maximised before the KL; the mean reward unless
    given."""


@dataclass(frozen=True)
class Plan:
    """What a run trains on, and what comes out by theory with its number of samples."""

    transform: AbstractTransform
    beta: float
    kl: float
    """Expected over prompts, in nats."""

    win_rate: float
    """Expected over prompts."""


def plan(
    procedure: RankProcedure,
    against: RankProcedure,
    transform: str,
    *,
    kl: float | None,
    beta: float | None,
    expected: AbstractExpected,
) -> Plan:
    """The transform to train on, and what comes out with a calibration from few samples.

    What is best for exact quantiles is not for those of few samples: the optimum is the best table
    for so many, and β is larger than with exact quantiles for the same KL.
    """
    if transform == "optimal":
        chosen = expected.best(procedure, against, kl=kl, beta=beta)
    else:
        chosen = parse_transform(transform)
    found = expected.achieved(chosen, procedure, against, kl=kl, beta=beta)
    return Plan(chosen, found.beta, found.kl, found.win_rate)


def shaped_objective(
    reward,
    store: CalibrationStore,
    learned: AbstractFitted,
    transform: AbstractTransform,
    beta: float,
    kl: float,
    *,
    procedure: RankProcedure | None = None,
    against: RankProcedure | None = None,
) -> Objective:
    """InfAlign-CTRL: the calibrated and transformed reward, by `plan` at `beta` for `kl` nats.

    - `learned`: what a calibrator learned from the store.
    - `procedure`, `against`: whose win rate is logged.
    """
    shaped = ShapedReward(
        reward,
        store,
        transform,
        calibrator=learned,
        smoothing="none" if transform.bounded else "add-half",
        procedure=procedure,
        against=against,
    )
    if isinstance(learned, FittedCounting):
        return Objective(shaped, beta, _counted_tilt(transform, kl))

    def tilt(rewards):
        own = learned.on(rewards).shaped(np.arange(len(rewards)), rewards, transform)
        # As rewards of one prompt: of each prompt few samples are known, and their mean weight says
        # little, but on the quantile axis all prompts have the same.
        together = own.reshape(1, -1)
        return log_weights(together, at_kl(RawRewards(together), kl).beta).reshape(own.shape)

    return Objective(shaped, beta, tilt)


def _counted_tilt(transform: AbstractTransform, kl: float):
    # Among themselves the stored samples have no errors of calibration, and need another β.
    tilted = at_kl(transform, kl)
    # Among K samples of its own prompt a reference sample never falls on 0 or 1.
    return lambda rewards: np.log(tilted.density(quantiles(rewards, rewards)))


def raw_objective(
    reward,
    store: CalibrationStore,
    kl: float,
    *,
    procedure: RankProcedure | None = None,
    against: RankProcedure | None = None,
) -> Objective:
    """Plain RLHF: the raw reward; `procedure`, `against`: whose win rate is logged."""
    beta = raw_beta(store, kl)
    monitored = MonitoredReward(reward, store, procedure=procedure, against=against)
    return Objective(monitored, beta, lambda rewards: log_weights(rewards, beta))
