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
from infalign.policies import TiltedPolicy
from infalign.procedures import AbstractProcedure
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


def plan(
    procedure: AbstractProcedure,
    against: AbstractProcedure,
    transform: str,
    *,
    kl: float | None,
    beta: float | None,
) -> tuple[AbstractTransform, TiltedPolicy]:
    """The transform to train on, and the policy that theory says comes out."""
    if transform == "optimal":
        best = design(procedure, kl=kl, beta=beta, against=against)
        return best.transform, best.policy
    chosen = parse_transform(transform)
    return chosen, TiltedPolicy(chosen, beta) if kl is None else at_kl(chosen, kl)


def shaped_objective(reward, store: CalibrationStore, policy: TiltedPolicy) -> Objective:
    """InfAlign-CTRL: the calibrated and transformed reward."""
    smoothing = "none" if policy.transform.bounded else "add-half"

    def tilt(rewards):
        # Among K samples of its own prompt a reference sample never falls on 0 or 1.
        return np.log(policy.density(quantiles(rewards, rewards)))

    return Objective(
        ShapedReward(reward, store, policy.transform, smoothing=smoothing), policy.beta, tilt
    )


def raw_objective(reward, store: CalibrationStore, kl: float) -> Objective:
    """Plain RLHF: the raw reward."""
    beta = raw_beta(store, kl)
    return Objective(
        MonitoredReward(reward, store), beta, lambda rewards: log_weights(rewards, beta)
    )
