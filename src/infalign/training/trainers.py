"""The trainers of TRL that on-policy steps run in, each made to follow E[R] − β KL.

Where the KL of the whole sequence stands in the reward, with k1 = Σ_t log π/π_ref, the expected
gradient is that of the objective itself (arXiv:2512.21852); as a loss of each token it is not.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from .sequence_kl import SequenceKL


class AbstractSteps(ABC):
    """How one trainer is told of β, and tells of the KL."""

    trainer_type: type
    arguments_type: type
    trainer = None
    """Set once it has been made."""

    @abstractmethod
    def options(self, beta: float) -> dict:
        """Arguments that make it follow the objective."""

    @abstractmethod
    def rewards(self, reward: Callable) -> list[Callable]:
        """Its reward functions, `reward` first."""

    @abstractmethod
    def steer(self, beta: float) -> None:
        """Set β for the steps to come."""

    @abstractmethod
    def sequence_kl(self, logs: Mapping[str, float], prefix: str = "") -> float | None:
        """Nats per sequence, of what it logged; None of a log without."""


class RLOOSteps(AbstractSteps):
    """RLOO as it is: it subtracts β k1 from the reward before the leave-one-out baseline."""

    trainer_type, arguments_type = RLOOTrainer, RLOOConfig

    def options(self, beta):
        return {"beta": beta}

    def rewards(self, reward):
        return [reward]

    def steer(self, beta):
        self.trainer.beta = beta

    def sequence_kl(self, logs, prefix=""):
        if f"{prefix}kl" not in logs:
            return None
        # TRL logs the mean per token; the objective is per sequence.
        return logs[f"{prefix}kl"] * logs[f"{prefix}completions/mean_length"]


class GRPOSteps(AbstractSteps):
    """GRPO without what changes the objective: its own KL, a loss of each token, is replaced by k1
    as a second reward of weight −β; rewards are not divided by their spread, and tokens are summed.

    Its baseline is the mean of the whole group, which makes all advantages (m − 1)/m times RLOO's.
    """

    trainer_type, arguments_type = GRPOTrainer, GRPOConfig

    def __init__(self, divergence: SequenceKL):
        self.divergence = divergence

    def options(self, beta):
        return {
            "beta": 0.0,
            "reward_weights": [1.0, -beta],
            "scale_rewards": "none",
            "loss_type": "dr_grpo",
        }

    def rewards(self, reward):
        return [reward, self.divergence]

    def steer(self, beta):
        self.divergence.trainer = self.trainer
        self.trainer.reward_weights[1] = -beta

    def sequence_kl(self, logs, prefix=""):
        return logs.get(f"{prefix}rewards/{self.divergence.__name__}/mean")
