"""Ridge regression with a penalty chosen by leave-one-out errors."""

from dataclasses import dataclass, field

import numpy as np

__all__ = ["Ridge"]

PENALTIES = (*np.geomspace(1e-4, 1e4, 33).tolist(), np.inf)
"""Candidate penalties, in units of a feature's variance; infinity ignores the features."""

LEAST = 1e-9
"""Smallest 1 − hat_ii: below it a response determines its own prediction."""


@dataclass(frozen=True)
class Ridge:
    """y ≈ level + slopes · (features − middle)."""

    level: float
    middle: np.ndarray = field(repr=False)
    slopes: np.ndarray = field(repr=False)

    @classmethod
    def learned(cls, features: np.ndarray, y: np.ndarray) -> tuple["Ridge", np.ndarray]:
        """Learned from features of about unit variance, (n, d), and y, (n,). Also returns the
        prediction of each y from the slopes of the others, (n,).

        These predictions are centered on the mean of all y. The mean of the others would reveal y,
        since it is low if y is high.
        """
        level, middle = float(y.mean()), features.mean(0)
        # In the basis of the singular vectors the hat matrix is 1/n + U diag(shrink) Uᵀ, and the
        # leave-one-out error of y_i is its residual over 1 − hat_ii.
        u, s, vt = np.linalg.svd(features - middle, full_matrices=False)
        along, smallest = u.T @ (y - level), np.inf
        for penalty in PENALTIES:
            shrink = s**2 / (s**2 + penalty * len(y))
            left = 1 - 1 / len(y) - u**2 @ shrink
            errors = (y - level - (u * shrink) @ along) / np.maximum(left, LEAST)
            error = float(np.mean(errors**2))
            if error < smallest:
                smallest, predicted = error, y - errors
                slopes = vt.T @ (s / (s**2 + penalty * len(y)) * along)
        # The mean of the others is level − (y − level)/(n − 1): put back the mean of all.
        return cls(level, middle, slopes), predicted + (y - level) / max(len(y) - 1, 1)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Predictions for other features, (m, d) to (m,)."""
        return self.level + (features - self.middle) @ self.slopes
