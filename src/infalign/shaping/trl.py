"""Reward functions for TRL's `RLOOTrainer` and `GRPOTrainer`: a raw reward and a shaper."""

from collections.abc import Callable, Sequence

from infalign import _check
from infalign._look import Shown
from infalign.core import AbstractTransform, RankProcedure, Smoothing
from infalign.errors import ArgumentError, DataError
from infalign.stores import CalibrationStore
from infalign.text import text_of

from .doubts import Doubts
from .group_shaper import GroupShaper
from .monitor import Monitor
from .reward_function import call, checked_output, reward_name
from .rivals import MaxAtK, RiskSensitive
from .shaper import AbstractShaper, Calibrator, Shaper, Unshaped, calibrated

__all__ = [
    "GroupShapedReward",
    "MaxAtKReward",
    "MonitoredReward",
    "RiskSensitiveReward",
    "ShapedReward",
    "TrainingReward",
]

Reward = Callable[..., Sequence[float]]
"""A TRL reward function, `(prompts, completions, **columns) -> list[float]`."""


class TrainingReward(Shown):
    """A shaper of a raw reward, as a TRL reward function.

    Calls `reward` once per batch with what TRL passes, as far as its signature takes it. The data
    set's column `key` names the prompt of each completion.
    Logs the metrics of the shaper and the monitor, and warns once of batches from which nothing can
    be learned. Picklable when `reward` is.

    Raises DataError when called without that column, with unknown prompts or incomplete groups, or
    when `reward` returns anything but one finite number per completion.
    """

    def __init__(
        self,
        reward: Reward,
        shaper: AbstractShaper,
        monitor: Monitor,
        *,
        key: str = "prompt_id",
        prefix: str = "",
    ):
        if not callable(reward):
            raise ArgumentError(
                "reward",
                "must be a TRL reward function, called with prompts and completions; got "
                f"{_check.short(reward)}.",
            )
        self.reward, self.shaper, self.monitor = reward, shaper, monitor
        self.doubts = Doubts()
        self.key = _check.instance("key", key, str, 'a column of the data set, such as "prompt_id"')
        self.__name__ = prefix + reward_name(reward)

    def __call__(self, prompts, completions, *, log_metric=None, **columns) -> list[float]:
        """One training reward per completion; completions of a group are consecutive.

        - `log_metric`: called with the name and the value of each metric.
        """
        if self.key not in columns:
            raise DataError(
                f"The data set has no column `{self.key}`, which names each prompt of the "
                f"calibration store; its columns are {sorted(columns)}. Add it, or pass `key=`."
            )
        ids = columns[self.key]
        given, named = _check.entries("completions", completions), _check.entries(self.key, ids)
        if len(given) != len(named):
            raise ValueError(
                f"`completions` and `{self.key}` must have one entry per response each; got "
                f"{len(given)} and {len(named)} entries."
            )
        if log_metric is not None:
            _check.function("log_metric", log_metric)
        self._require_stripped(completions)
        more = {} if log_metric is None else {"log_metric": log_metric}
        arguments = {"prompts": prompts, "completions": completions, **columns, **more}
        output = call(self.reward, arguments)
        raw = checked_output(output, completions, reward_name(self.reward), ids)
        shaped = self.shaper(ids, raw)
        self.doubts.consider(shaped, self.monitor)
        if log_metric is not None:
            metrics = {**self.monitor.metrics(shaped.batch), **shaped.metrics}
            for name, value in metrics.items():
                log_metric(name, value)
        return shaped.value.tolist()

    def _require_stripped(self, completions) -> None:
        """Raise DataError for white space that was removed before the store's responses were
        scored."""
        if not self.shaper.store.strip:
            return
        texts = [text_of(c) for c in completions]
        bad = [i for i, text in enumerate(texts) if text != text.strip()]
        if bad:
            raise DataError(
                "`completions` must have no white space at their ends, as the responses of the "
                f"calibration store, which were stripped; got {_check.short(texts[bad[0]])} at "
                f"completion {bad[0]} ({len(bad)} of {len(texts)} have some). Calibrate again "
                "without `sampling.strip`, or strip them with `AsCalibrated(reward, {}, "
                "strip=True)` of infalign.shaping."
            )


class ShapedReward(TrainingReward):
    """Φ(C(x, y)) as a TRL reward function: `Shaper` for `RLOOTrainer` and `GRPOTrainer`.

    Calls `reward` once per batch, turns each reward into its quantile under the prompt's own
    reference samples, and applies the transform. The data set's `prompt_id` column names the prompt
    of each completion. Logs the raw reward, the quantile and the share of completions outside all
    reference samples. Picklable when `reward` is.

    - `reward`: a TRL reward function, `(prompts, completions, **columns) -> list[float]`.
    - `store`: reference rewards of the same prompts under the same reward.
    - `transform`, `calibrator`, `smoothing`: as in `Shaper`.
    - `procedure`, `against`: how the policy will be decoded, and its opponent (default: the same).
      If given, the win rate is logged, from complete groups of at least as many responses as the
      procedure draws.
    - `key`: the data set's column of prompt ids.

    Raises DataError when called with unknown prompts, or when `reward` returns anything but one
    finite number per completion.
    """

    def __init__(
        self,
        reward: Reward,
        store: CalibrationStore,
        transform: AbstractTransform,
        *,
        calibrator: Calibrator | None = None,
        smoothing: Smoothing = "none",
        procedure: RankProcedure | None = None,
        against: RankProcedure | None = None,
        key: str = "prompt_id",
    ):
        shaper = Shaper(store, transform, calibrator, smoothing=smoothing)
        super().__init__(reward, shaper, Monitor(procedure, against), key=key, prefix="shaped_")


class MonitoredReward(TrainingReward):
    """The unchanged raw reward with the metrics of `ShapedReward`, for baselines."""

    def __init__(
        self,
        reward: Reward,
        store: CalibrationStore,
        *,
        procedure: RankProcedure | None = None,
        against: RankProcedure | None = None,
        key: str = "prompt_id",
    ):
        super().__init__(reward, Unshaped(calibrated(store)), Monitor(procedure, against), key=key)


class GroupShapedReward(TrainingReward):
    """The exact online objective as a TRL reward function: `GroupShaper` for `RLOOTrainer`.

    With RLOO's own KL term the expected gradient is exactly that of W − β KL, the objective of
    `design`, at any policy. It must be the trainer's only reward. Scaling a group's rewards by
    their spread, as GRPO does by default, changes the objective.

    - `reward`: a TRL reward function, `(prompts, completions, **columns) -> list[float]`.
    - `store`: reference rewards of the same prompts under the same reward.
    - `procedure`, `against`, `calibrator`: as in `GroupShaper`.
    - `group`: responses per prompt in a step, m, TRL's `num_generations`; more than the procedure
      draws. Default: inferred from each batch, where uniformly incomplete groups pass unnoticed. In
      a training of several processes (WORLD_SIZE) it must be given, and a group that TRL splits
      between processes is an error.
    - `key`: the data set's column of prompt ids.

    Raises DataError when called with incomplete groups or unknown prompts, or when `reward` returns
    anything but one finite number per completion.
    """

    def __init__(
        self,
        reward: Reward,
        store: CalibrationStore,
        procedure: RankProcedure,
        *,
        group: int | None = None,
        against: RankProcedure | None = None,
        calibrator: Calibrator | None = None,
        key: str = "prompt_id",
    ):
        shaper = GroupShaper(store, procedure, group=group, against=against, calibrator=calibrator)
        super().__init__(reward, shaper, Monitor(), key=key, prefix="group_shaped_")


class MaxAtKReward(TrainingReward):
    """`MaxAtK` as a TRL reward function; arguments as in `GroupShapedReward`."""

    def __init__(
        self,
        reward: Reward,
        store: CalibrationStore,
        procedure: RankProcedure,
        against: RankProcedure | None = None,
        key: str = "prompt_id",
        *,
        group: int | None = None,
    ):
        shaper, monitor = MaxAtK(store, procedure, group=group), Monitor(procedure, against)
        super().__init__(reward, shaper, monitor, key=key, prefix="max_at_k_")


class RiskSensitiveReward(TrainingReward):
    """`RiskSensitive` as a TRL reward function; `group` as in `GroupShapedReward`, and the other
    arguments as in `ShapedReward`."""

    def __init__(
        self,
        reward: Reward,
        store: CalibrationStore,
        strength: float,
        procedure: RankProcedure | None = None,
        against: RankProcedure | None = None,
        key: str = "prompt_id",
        *,
        group: int | None = None,
    ):
        shaper = RiskSensitive(store, strength, group=group)
        monitor = Monitor(procedure, against)
        super().__init__(reward, shaper, monitor, key=key, prefix="risk_sensitive_")
