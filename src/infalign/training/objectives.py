"""What each method maximises: a reward, its KL strength, and the tilt they imply.

KL-regularised RL on a reward R with strength β has the optimum π ∝ π_ref e^{R/β}. Methods differ
in R alone: the trainer, the steps and the target KL are the same for all.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from infalign.calibration.ranks import quantiles
from infalign.calibration.raw import log_weights, raw_beta
from infalign.calibration.store import CalibrationStore
from infalign.design import at_kl, design
from infalign.few_samples import FewSamples
from infalign.procedures import RankProcedure
from infalign.shaping import MonitoredReward, ShapedReward
from infalign.specs import parse_transform
from infalign.transforms import AbstractTransform


@dataclass(frozen=True)
class Objective:
    """max E[reward] − beta KL."""

    reward: Callable
    """A TRL reward function."""

    beta: float
    """KL strength at which theory gives the target KL, in units of the reward per nat."""

    tilt: Callable[[np.ndarray], np.ndarray]
    """log dπ*/dπ_ref of reference samples, from their raw rewards; both of shape (prompts, K)."""


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
    samples: int,
) -> Plan:
    """The transform to train on with `samples` calibration samples per prompt.

    What is best for exact quantiles is not for counted ones: the optimum is the best table for so
    many samples, and β is larger than with exact quantiles for the same KL.
    """
    if transform == "optimal":
        best = design(procedure, kl=kl, beta=beta, against=against, samples=samples)
        return Plan(best.transform, best.beta, best.kl, best.win_rate)
    chosen, few = parse_transform(transform), FewSamples(samples)
    if kl is None:
        exponents = few.values(chosen) / beta
    else:
        beta, exponents = few.at_kl(chosen, kl)
    achieved = few.achieved(exponents, procedure, against)
    return Plan(chosen, beta, achieved.kl, achieved.win_rate)


def shaped_objective(
    reward, store: CalibrationStore, transform: AbstractTransform, beta: float, kl: float
) -> Objective:
    """InfAlign-CTRL: the calibrated and transformed reward, by `plan` at `beta` for `kl` nats."""
    smoothing = "none" if transform.bounded else "add-half"
    # Among themselves the stored samples have no errors of calibration, and need another β.
    tilted = at_kl(transform, kl)

    def tilt(rewards):
        # Among K samples of its own prompt a reference sample never falls on 0 or 1.
        return np.log(tilted.density(quantiles(rewards, rewards)))

    return Objective(ShapedReward(reward, store, transform, smoothing=smoothing), beta, tilt)


def raw_objective(reward, store: CalibrationStore, kl: float) -> Objective:
    """Plain RLHF: the raw reward."""
    beta = raw_beta(store, kl)
    return Objective(
        MonitoredReward(reward, store), beta, lambda rewards: log_weights(rewards, beta)
    )
