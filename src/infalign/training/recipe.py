"""The settings that all trainings of a run share."""

from dataclasses import dataclass

from infalign.config import Config, SamplingSettings, Training
from infalign.models.precision import Dtype

__all__ = ["Recipe"]


@dataclass(frozen=True)
class Recipe:
    """The model to train, and how its trainers are set."""

    model_path: str
    """Folder or hub id of the reference policy, from which training starts."""

    train: Training
    sampling: SamplingSettings
    seed: int
    trust_remote_code: bool
    dtype: Dtype = "auto"

    @classmethod
    def of(cls, config: Config, model_path: str) -> "Recipe":
        """The recipe of a run's configuration."""
        return cls(
            model_path,
            config.train,
            config.sampling,
            config.training_seed,
            config.trust_remote_code,
            config.dtype,
        )
