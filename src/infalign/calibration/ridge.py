"""Ridge regression whose penalty leave-one-out errors choose."""

from dataclasses import dataclass, field

import numpy as np

PENALTIES = (*np.geomspace(1e-4, 1e4, 33).tolist(), np.inf)
"""Tried, in units of a feature's variance; infinity takes no notice of features."""


@dataclass(frozen=True)
class Ridge:
    """y ≈ level + slopes · (features − middle)."""

    level: float
    middle: np.ndarray = field(repr=False)
    slopes: np.ndarray = field(repr=False)

    @classmethod
    def learned(cls, features: np.ndarray, y: np.ndarray) -> tuple["Ridge", np.ndarray]:
        """From features of about unit variance, (n, d), and y, (n,); and what is predicted of each
        y by the others' slopes, (n,).

        Those predictions, too, are around the mean of all y: the mean of the others falls short of
        an y that is above it, and would tell it.
        """
        level, middle = float(y.mean()), features.mean(0)
        u, s, vt = np.linalg.svd(features - middle, full_matrices=False)
        along, best = u.T @ (y - level), None
        for penalty in PENALTIES:
            shrink = s**2 / (s**2 + penalty * len(y))
            left = 1 - 1 / len(y) - u**2 @ shrink
            errors = (y - level - (u * shrink) @ along) / np.maximum(left, 1e-9)
            error = float(np.mean(errors**2))
            if best is None or error < best[0]:
                best = (error, y - errors, vt.T @ (s / (s**2 + penalty * len(y)) * along))
        _, predicted, slopes = best
        return cls(level, middle, slopes), predicted + (y - level) / max(len(y) - 1, 1)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Predictions for other features, (m, d) to (m,)."""
        return self.level + (features - self.middle) @ self.slopes
