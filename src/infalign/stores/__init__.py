"""Calibration stores: reference rewards of each prompt on disk, verified, merged and exchanged."""

from .samples import PromptSamples, by_prompt, read_samples, samples_of
from .store import CalibrationStore
from .writer import StoreWriter

__all__ = [
    "CalibrationStore",
    "PromptSamples",
    "StoreWriter",
    "by_prompt",
    "read_samples",
    "samples_of",
]
