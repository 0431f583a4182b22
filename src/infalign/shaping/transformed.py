"""The shaped reward: raw reward → quantile → transform, as a reward function for TRL."""

from collections.abc import Callable, Sequence

from infalign.calibration import AbstractCalibrator, AbstractFitted, StoreCalibration
from infalign.calibration.counting import FittedCounting
from infalign.core import AbstractTransform, RankProcedure, Smoothing
from infalign.stores import CalibrationStore

from .monitor import Monitor
from .raw import raw_rewards, reward_name


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
    - `procedure`, `against`: how the policy will be decoded and what it must beat, itself unless
      given; its win rate is then logged, from whole groups of as many responses as it draws.
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
        procedure: RankProcedure | None = None,
        against: RankProcedure | None = None,
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
        self.monitor = Monitor(store, calibration, procedure, against)
        self.__name__ = f"shaped_{reward_name(reward)}"

    def __call__(self, prompts, completions, *, log_metric=None, **columns) -> list[float]:
        """One shaped reward per completion."""
        raw, ids = raw_rewards(self.reward, prompts, completions, columns, self.key)
        self.monitor.log(log_metric, ids, raw)
        if self.calibration is not None:
            return self.calibration.shaped(ids, raw, self.transform).tolist()
        low, high = self.store.intervals(ids, raw, smoothing=self.smoothing)
        return self.transform.average(low, high).tolist()


class MonitoredReward:
    """The raw reward as it is, logging what `ShapedReward` does: for baselines."""

    def __init__(
        self,
        reward,
        store: CalibrationStore,
        *,
        procedure: RankProcedure | None = None,
        against: RankProcedure | None = None,
        key: str = "prompt_id",
    ):
        self.reward, self.key = reward, key
        self.monitor = Monitor(store, None, procedure, against)
        self.__name__ = reward_name(reward)

    def __call__(self, prompts, completions, *, log_metric=None, **columns) -> list[float]:
        """One raw reward per completion."""
        raw, ids = raw_rewards(self.reward, prompts, completions, columns, self.key)
        self.monitor.log(log_metric, ids, raw)
        return raw.tolist()
