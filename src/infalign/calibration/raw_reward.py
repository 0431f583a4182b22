"""Theory of the raw reward, from a calibration store."""

from infalign import _check
from infalign.core import AbstractProcedure, RawRewards, at_kl
from infalign.errors import SolveError
from infalign.stores import CalibrationStore
from infalign.stores.ragged import rectangle

__all__ = ["raw_beta", "raw_rewards", "raw_win_rate", "require_spread"]


def raw_rewards(store: CalibrationStore, source: str = "") -> RawRewards:
    """The store's rewards as a candidate for `compare`; DataError if they are constant on every
    prompt."""
    return RawRewards(rectangle(list(store.rewards.values())), source)


def require_spread(store: CalibrationStore) -> None:
    """Raise DataError if the reward is constant on every prompt."""
    raw_rewards(store)


def raw_beta(store: CalibrationStore, kl: float) -> float:
    """The β, in units of raw reward per nat, at which the average KL is `kl` nats.

    Raises SolveError if K samples cannot express that KL; their limit is log K.
    """
    raw = raw_rewards(store)
    if _check.positive("kl", kl) >= raw.most_kl:
        raise SolveError(
            f"{store.samples} reference samples per prompt reach at most {raw.most_kl:.3g} nats, "
            f"not kl={kl:g}. Calibrate with more samples."
        )
    return at_kl(raw, kl).beta


def raw_win_rate(
    store: CalibrationStore,
    beta: float,
    procedure: AbstractProcedure,
    against: AbstractProcedure | None = None,
) -> float:
    """Win rate of the tilt, averaged over prompts."""
    return raw_rewards(store).tilted(beta).win_rate(procedure, against)
