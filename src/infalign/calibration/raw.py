"""The raw reward's own theory, from a calibration store."""

from collections.abc import Sequence

import numpy as np

from infalign import _check
from infalign.design import at_kl
from infalign.errors import SolveError
from infalign.procedures import AbstractProcedure
from infalign.raw import RawRewards
from infalign.raw import log_weights as log_weights

from .store import CalibrationStore


def raw_rewards(store: CalibrationStore, source: str = "") -> RawRewards:
    """The store's rewards as a candidate; DataError if they are constant on every prompt."""
    return RawRewards(rectangle(list(store.rewards.values())), source)


def require_spread(store: CalibrationStore) -> None:
    """Raise DataError if the reward is constant on every prompt."""
    raw_rewards(store)


def raw_kl(store: CalibrationStore, beta: float) -> float:
    """KL of the tilt, in nats, averaged over prompts."""
    return raw_rewards(store).tilted(beta).kl


def raw_beta(store: CalibrationStore, kl: float) -> float:
    """The β, in units of raw reward per nat, at which the average KL is `kl` nats.

    Raises SolveError when K samples cannot express that much: log K is the most they can.
    """
    raw = raw_rewards(store)
    if _check.positive("kl", kl) >= raw.most_kl:
        raise SolveError(
            f"{store.samples} reference samples per prompt reach {raw.most_kl:.3g} nats at most, "
            f"not kl={kl:g}. Calibrate with more samples."
        )
    return at_kl(raw, kl).beta


def raw_win_rate(
    store: CalibrationStore, beta: float, procedure: AbstractProcedure, against=None
) -> float:
    """Win rate of the tilt, averaged over prompts."""
    return raw_rewards(store).tilted(beta).win_rate(procedure, against)


def rectangle(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of one length, the shorter ones filled with nan."""
    filled = np.full((len(rows), max(map(len, rows))), np.nan)
    for own, row in zip(filled, rows, strict=True):
        own[: len(row)] = row
    return filled
