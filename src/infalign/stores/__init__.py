"""Calibration stores: reference rewards of each prompt on disk, verified, merged and exchanged."""

from .store import CalibrationStore, read_samples
from .writer import StoreWriter

__all__ = ["CalibrationStore", "StoreWriter", "read_samples"]
