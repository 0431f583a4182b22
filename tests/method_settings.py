"""Settings of training methods, made without a run."""

import numpy as np

from infalign import BestOfN, CalibrationStore
from infalign.calibration import Counting
from infalign.calibration.outlook import outlook_of
from infalign.methods import Setting, TrainingDesign, training_design


def design_of(transform, beta, target_kl) -> TrainingDesign:
    """A design that nobody computed."""
    return TrainingDesign(transform, beta, target_kl, float("nan"))


def setting_of(
    reward,
    rewards,
    *,
    ids=None,
    procedure=None,
    calibrator=None,
    design=None,
    target_kl=0.5,
    group=8,
) -> Setting:
    """The inputs of a method with these reference rewards, (prompts, K); by default with the best
    design for best-of-4."""
    procedure, calibrator = procedure or BestOfN(4), calibrator or Counting()
    rewards = np.asarray(rewards, float)
    learned = calibrator.fit(rewards)
    outlook = outlook_of(learned, rewards)
    return Setting(
        reward=reward,
        store=CalibrationStore.from_rewards(ids or [str(i) for i in range(len(rewards))], rewards),
        learned=learned,
        outlook=outlook,
        procedure=procedure,
        against=procedure,
        design=design
        or training_design(
            procedure, procedure, "optimal", kl=target_kl, beta=None, outlook=outlook
        ),
        group=group,
    )
