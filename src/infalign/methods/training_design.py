"""The design of a run: the transform to train on, with its β and KL."""

from dataclasses import dataclass

from infalign.calibration.outlook import AbstractOutlook
from infalign.core import AbstractTransform, RankProcedure, parse_transform, transform_from_json

__all__ = ["TrainingDesign", "training_design"]


@dataclass(frozen=True)
class TrainingDesign:
    """The transform that a run trains on, with its theoretical results for the run's number of
    samples."""

    transform: AbstractTransform
    beta: float
    target_kl: float
    """Nats per sequence, averaged over prompts; every method is brought to this KL."""

    win_rate: float
    """Averaged over prompts."""

    def to_json(self) -> dict:
        """The fields as JSON values."""
        return {
            "transform": self.transform.to_json(),
            "beta": self.beta,
            "kl": self.target_kl,
            "win_rate": self.win_rate,
        }

    @classmethod
    def from_json(cls, data: dict) -> "TrainingDesign":
        """The design that `to_json` wrote."""
        transform = transform_from_json(data["transform"])
        return cls(transform, data["beta"], data["kl"], data["win_rate"])


def training_design(
    procedure: RankProcedure,
    against: RankProcedure,
    transform: str,
    *,
    kl: float | None,
    beta: float | None,
    outlook: AbstractOutlook,
) -> TrainingDesign:
    """The design for one of `kl` and `beta`, calibrated from few samples.

    The best transform for exact quantiles is not the best for estimated ones: `optimal` is the
    best table for the number of samples, and β is larger than with exact quantiles at the same KL.
    """
    if transform == "optimal":
        chosen = outlook.best(procedure, against, kl=kl, beta=beta)
    else:
        chosen = parse_transform(transform)
    outcome = outlook.achieved(chosen, procedure, against, kl=kl, beta=beta)
    return TrainingDesign(chosen, outcome.beta, outcome.kl, outcome.win_rate)
