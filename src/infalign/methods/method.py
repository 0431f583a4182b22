"""A training method: its row in the table, its inputs and its results."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from infalign._look import Shown
from infalign.calibration import AbstractFitted
from infalign.calibration.outlook import AbstractOutlook
from infalign.core import AbstractTransform, RankProcedure
from infalign.errors import ConfigError, SolveError
from infalign.stores import CalibrationStore

from .requirements import Budget, nothing
from .training_design import TrainingDesign

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AbstractMethod", "Objective", "Offline", "OnPolicy", "Setting", "Task"]

DESIGN: Literal["design"] = "design"
"""Trained on the design's transform of the calibrated reward."""

RAW: Literal["raw"] = "raw"
"""Trained on the raw reward."""

OTHER: Literal["other"] = "other"
"""Trained on an objective whose optimum is not a tilt by a transform, so it has no theoretical win
rate."""


@dataclass(frozen=True)
class Setting:
    """The inputs of a method, as available when training begins."""

    reward: Callable
    """The raw reward, a TRL reward function."""

    store: CalibrationStore
    learned: AbstractFitted
    """The run's calibrator, fitted to the store."""

    outlook: AbstractOutlook
    """Win rates and KLs that theory expects with that calibrator and number of samples."""

    procedure: RankProcedure
    against: RankProcedure
    design: TrainingDesign
    group: int
    """Responses per prompt in an on-policy step."""


@dataclass(frozen=True)
class Objective:
    """max E[reward] − beta KL, whose optimum is π ∝ π_ref e^{reward/beta}."""

    reward: Callable
    """A TRL reward function, which also logs the policy's win rate."""

    beta: float
    """KL strength at which theory reaches the target KL, in reward units per nat."""

    tilt: Callable[[np.ndarray], np.ndarray]
    """log dπ*/dπ_ref of reference samples, from their raw rewards; both of shape (prompts, K)."""

    estimate: str = ""
    """Metric that estimates the objective before the KL term. Default: the mean reward."""


@dataclass(frozen=True)
class Task(Shown):
    """The rows of a training set, and their loss."""

    samples: np.ndarray
    """Responses of each row, shape (rows, responses per row): prompt · K + sample."""

    columns: Mapping[str, np.ndarray]
    """Numbers that the loss reads for each row, shape (rows,)."""

    loss: "Callable[[Tensor, Mapping[str, Tensor]], Tensor]"
    """Mean loss of a batch, from log-ratios, shape (batch, responses per row), and the columns.

    The column `reference_logprob`, in the shape of the log-ratios, is always there."""


@dataclass(frozen=True)
class AbstractMethod:
    """A row of the table."""

    name: str
    """Value of `train.method`."""

    label: str
    """Name in reports."""

    summary: str
    """The objective, for help and docs."""

    trained_on: AbstractTransform | Literal["design", "raw", "other"] = field(kw_only=True)
    """The transform whose tilt is the optimum, or `DESIGN`, `RAW` or `OTHER`."""

    source: str = field(default="", kw_only=True)
    """The source of the method, for docs."""

    needs: Callable[[Budget], None] = field(default=nothing, kw_only=True)
    """Raises ConfigError or SolveError for a budget that it cannot be trained to, whatever the
    rewards are; the error says why."""

    @property
    def reads_transform(self) -> bool:
        """Whether its training depends on the design's transform."""
        return self.trained_on == DESIGN

    def require_trainable(self, budget: Budget) -> None:
        """Raise ConfigError or SolveError if it cannot be trained to the budget."""
        try:
            self.needs(budget)
        except (ConfigError, SolveError) as error:
            raise type(error)(f"The method `{self.name}` cannot be trained: {error}") from error


@dataclass(frozen=True)
class OnPolicy(AbstractMethod):
    """Maximizes an objective on samples of the policy, in a trainer of TRL."""

    objective: Callable[[Setting], Objective] = field(kw_only=True)
    trainer: Literal["rloo", "grpo"] = field(default="rloo", kw_only=True)
    whole_groups: bool = field(default=False, kw_only=True)
    """Whether it needs groups of more responses than the procedure draws."""

    starts_on_design: bool = field(default=False, kw_only=True)
    """Whether its warm start is toward the tilt by the design's transform, not by its own."""

    @property
    def reads_transform(self) -> bool:
        return self.starts_on_design or super().reads_transform


@dataclass(frozen=True)
class Offline(AbstractMethod):
    """Minimizes a loss on the calibration samples alone."""

    task: Callable[[Setting, np.ndarray], Task] = field(kw_only=True)
    """Makes the task from the setting and the samples' raw rewards, shape (prompts, K)."""


Method = OnPolicy | Offline
