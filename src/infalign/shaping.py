"""The shaped reward: raw reward → quantile → transform, as a reward function for TRL."""

import math
from collections.abc import Callable, Sequence
from numbers import Real

import numpy as np

from .calibration.calibrators import AbstractCalibrator, AbstractFitted, StoreCalibration
from .calibration.calibrators.counting import FittedCounting
from .calibration.ranks import Smoothing
from .calibration.store import CalibrationStore
from .errors import DataError
from .transforms import AbstractTransform


def checked_rewards(values, completions: Sequence, name: str) -> np.ndarray:
    """`values` as one finite float per completion; DataError names what is wrong and where."""
    values = values.tolist() if hasattr(values, "tolist") else values  # arrays and tensors
    if not isinstance(values, list | tuple):
        raise DataError(
            f"The reward function `{name}` must return a list of one number per completion; "
            f"got a {type(values).__name__}."
        )
    if len(values) != len(completions):
        raise DataError(
            f"The reward function `{name}` must return one number per completion; got "
            f"{len(values)} for {len(completions)} completions."
        )
    bad = [i for i, v in enumerate(values) if not (isinstance(v, Real) and math.isfinite(v))]
    if bad:
        raise DataError(
            f"The reward function `{name}` must return finite numbers; got {values[bad[0]]!r} for "
            f"completion {bad[0]} ({len(bad)} of {len(values)} are not): "
            f"{str(completions[bad[0]])[:80]!r}. Repair the reward, or filter such completions."
        )
    return np.array(values, dtype=float)


class ShapedReward:
    """Φ(C(x, y)) as a TRL reward function, for `RLOOTrainer` and `GRPOTrainer`.

    Calls `reward` once per batch, turns each reward into its quantile under the prompt's own
    reference samples, and applies the transform; a reward that ties with reference rewards gets
    the transform's average over the quantiles they share. The data set's `prompt_id` column says
    which prompt a completion belongs to. Logs the raw reward, the quantile and the share of
    completions outside all reference samples. Picklable when `reward` is.

    - `reward`: a TRL reward function, `(prompts, completions, **columns) -> list[float]`.
    - `store`: reference rewards of the same prompts under the same reward.
    - `transform`: Φ; unbounded ones (`Log`, `Probit`) need `smoothing="add-half"`.
    - `calibrator`: what makes quantiles of the store's rewards, `Pooled()` for one: it learns from
      the store now, or has learned already (`calibrator.fit`). The plain rank unless given.
    - `key`: name of the data set's column of prompt ids.

    Raises DataError when called with unknown prompts or when `reward` returns something else than
    one finite number per completion.
    """

    def __init__(
        self,
        reward: Callable[..., Sequence[float]],
        store: CalibrationStore,
        transform: AbstractTransform,
        *,
        calibrator: AbstractCalibrator | AbstractFitted | None = None,
        smoothing: Smoothing = "none",
        key: str = "prompt_id",
    ):
        if isinstance(calibrator, AbstractCalibrator):
            calibrator = StoreCalibration.fit(store, calibrator).learned
        if isinstance(calibrator, FittedCounting):  # which the store does itself, and faster
            smoothing = smoothing if calibrator.smoothing == "none" else calibrator.smoothing
            calibrator = None
        calibration = None if calibrator is None else StoreCalibration(store, calibrator)
        if calibration is not None and not transform.bounded:
            raise ValueError(
                f"`{transform.spec}` is infinite at the ends of [0, 1], and this calibrator "
                "averages over quantiles up to them. Use a bounded transform, or leave "
                "`calibrator` out."
            )
        if smoothing == "none" and not transform.bounded:
            raise ValueError(
                f"`{transform.spec}` is infinite at the ends of [0, 1], where plain mid-ranks can "
                'fall. Use smoothing="add-half", or a bounded transform.'
            )
        self.reward, self.store, self.transform = reward, store, transform
        self.calibration, self.smoothing, self.key = calibration, smoothing, key
        self.__name__ = f"shaped_{reward_name(reward)}"

    def __call__(self, prompts, completions, *, log_metric=None, **columns) -> list[float]:
        """One shaped reward per completion."""
        raw, ids = raw_rewards(self.reward, prompts, completions, columns, self.key)
        log_calibration(self.store, ids, raw, log_metric, self.calibration)
        if self.calibration is not None:
            return self.calibration.shaped(ids, raw, self.transform).tolist()
        low, high = self.store.intervals(ids, raw, smoothing=self.smoothing)
        return self.transform.average(low, high).tolist()


class MonitoredReward:
    """The raw reward as it is, logging its quantiles as `ShapedReward` does: for baselines."""

    def __init__(self, reward, store: CalibrationStore, *, key: str = "prompt_id"):
        self.reward, self.store, self.key = reward, store, key
        self.__name__ = reward_name(reward)

    def __call__(self, prompts, completions, *, log_metric=None, **columns) -> list[float]:
        """One raw reward per completion."""
        raw, ids = raw_rewards(self.reward, prompts, completions, columns, self.key)
        log_calibration(self.store, ids, raw, log_metric)
        return raw.tolist()


def raw_rewards(reward, prompts, completions, columns, key) -> tuple[np.ndarray, Sequence[str]]:
    """Checked raw rewards and the prompt ids they belong to."""
    if key not in columns:
        raise DataError(
            f"The data set has no column `{key}`, which names each prompt of the calibration "
            f"store; its columns are {sorted(columns)}. Add it, or pass `key=`."
        )
    raw = reward(prompts=prompts, completions=completions, **columns)
    return checked_rewards(raw, completions, reward_name(reward)), columns[key]


def log_calibration(
    store: CalibrationStore, ids, raw: np.ndarray, log_metric, calibration=None
) -> None:
    """Log the mean raw reward and quantile, and the share outside all reference samples."""
    if log_metric is not None:
        rank = store.quantiles(ids, raw)
        quantile = rank if calibration is None else calibration.quantiles(ids, raw)
        log_metric("infalign/raw_reward", float(raw.mean()))
        log_metric("infalign/quantile", float(quantile.mean()))
        log_metric("infalign/saturated", float(np.mean((rank == 0) | (rank == 1))))


def reward_name(reward) -> str:
    """The name a reward function goes by in logs and messages."""
    return getattr(reward, "__name__", type(reward).__name__)
