"""The law of a procedure over a prompt's samples, averaged over all subsets it could draw.

Every estimate of this package is computed from these laws, so no subset is ever drawn. Prompts may
have different numbers of samples: rows with equally many samples form a rectangle, and a ragged
table is a few rectangles.
"""

from collections.abc import Callable, Iterator

import numpy as np

from infalign.core import AbstractProcedure, RankProcedure, finite_rewards, quantiles
from infalign.errors import ArgumentError

from .soft_laws import selected_by_quantile

__all__ = ["calibrated", "drawn", "law", "rectangles", "subset_cdf"]


def drawn(rewards: np.ndarray) -> np.ndarray:
    """Number of samples of each prompt, without nan entries."""
    missing = np.isnan(rewards)
    if not missing.any():  # the usual case, ten times as fast
        return np.full(len(rewards), rewards.shape[1])
    return rewards.shape[1] - np.count_nonzero(missing, axis=1)


def calibrated(
    calibration, rewards: np.ndarray, *procedures: AbstractProcedure
) -> np.ndarray | None:
    """The checked calibration rewards, or None if no procedure reads them.

    - `rewards`: the rewards that are judged, from other samples.
    """
    readers = [p for p in procedures if not isinstance(p, RankProcedure)]
    if not readers:
        return None
    if calibration is None:
        raise ArgumentError(
            "calibration",
            f"must be given with `{readers[0]!r}`, which reads calibrated rewards; "
            "got None. Pass rewards of reference samples drawn for that, shape (prompts, K).",
        )
    calibration = finite_rewards("calibration", calibration)
    if len(calibration) != len(rewards):
        raise ArgumentError(
            "calibration",
            "must have one row per prompt; "
            f"got {len(calibration)} rows for {len(rewards)} prompts.",
        )
    if calibration.shape == rewards.shape and (calibration == rewards).all():
        raise ArgumentError(
            "calibration",
            "must hold other samples than those that are judged, which would be "
            "their own yardstick; got the same rewards. Draw more reference samples, or set some "
            "of them aside.",
        )
    return calibration


def rectangles(*sides: np.ndarray) -> Iterator[tuple[np.ndarray | slice, list[np.ndarray]]]:
    """Groups of rows with the same numbers of samples: the row indices, and both sides without
    nan."""
    known = [~np.isnan(side) for side in sides]
    if all(k.all() for k in known):
        yield slice(None), list(sides)
        return
    sizes, group = np.unique([drawn(side) for side in sides], axis=1, return_inverse=True)
    for index in range(sizes.shape[1]):
        rows = np.flatnonzero(group.ravel() == index)
        parts = [s[rows][k[rows]].reshape(rows.size, -1) for s, k in zip(sides, known, strict=True)]
        yield rows, parts


def subset_cdf(procedure: RankProcedure, m: int) -> np.ndarray:
    """The law of a rank procedure. Ragged tables cache it, since many rows have the same m."""
    return procedure.subset_cdf(m)


def law(
    procedure: AbstractProcedure,
    rewards: np.ndarray,
    calibration: np.ndarray | None,
    by_rank: Callable[[RankProcedure, int], np.ndarray] = subset_cdf,
) -> np.ndarray:
    """Chance that the selected sample is among a prompt's j lowest, for j = 0 … m.

    - `rewards`: shape (rows, m), no nan.
    - `calibration`: rewards of reference samples, (rows, K), for procedures that read quantiles.
    - `by_rank`: `subset_cdf`, or a cached version of it.

    Has shape (m + 1,) if it is the same for every prompt, else (rows, m + 1).
    """
    if isinstance(procedure, RankProcedure):
        return by_rank(procedure, rewards.shape[1])
    if calibration is None:
        raise ArgumentError("calibration", f"must be given for {procedure!r}; got None.")
    chances = selected_by_quantile(quantiles(np.sort(rewards, axis=1), calibration), procedure)
    return np.pad(np.cumsum(chances, axis=1), ((0, 0), (1, 0)))
