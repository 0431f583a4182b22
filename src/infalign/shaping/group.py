"""The exact online objective as a reward function for TRL: no transform, whole groups."""

from collections.abc import Callable, Sequence

from infalign import _check
from infalign.calibration import AbstractCalibrator, AbstractFitted, StoreCalibration
from infalign.calibration.counting import FittedCounting
from infalign.core import RankProcedure, group_rewards, group_win_rate
from infalign.errors import DataError
from infalign.stores import CalibrationStore

from .groups import group_size
from .monitor import Chances, Monitor
from .raw import raw_rewards, reward_name


class GroupShapedReward:
    """Rewards whose policy gradient is that of the inference-time win rate, for `RLOOTrainer`.

    No transform is fixed: what a response is worth is what its group loses without it, over all
    subsets that the procedure could have drawn (`groups`). With RLOO's own KL term the expected
    gradient is exactly that of W − β KL, the objective of `design`, at any policy. Must be the
    trainer's only reward, since scaling a group's rewards by their spread, as GRPO does by default,
    changes the objective.

    With plain ranks the chance to beat the opponent is estimated without bias from the prompt's
    reference rewards (all n-subsets), so it needs at least as many as the opponent draws.

    - `reward`: a TRL reward function, `(prompts, completions, **columns) -> list[float]`.
    - `store`: reference rewards of the same prompts under the same reward.
    - `procedure`: how the policy will be decoded; it must keep by rank.
    - `group`: responses per prompt in a step, m, TRL's `num_generations`; more than are drawn.
      Unless given it is read off each batch, where half a group of all looks like a whole one.
    - `against`: how the reference it must beat is decoded; `procedure` unless given.
    - `calibrator`: as of `ShapedReward`.
    - `key`: name of the data set's column of prompt ids.

    Raises DataError when called with incomplete groups, unknown prompts, or when `reward` returns
    something else than one finite number per completion.
    """

    def __init__(
        self,
        reward: Callable[..., Sequence[float]],
        store: CalibrationStore,
        procedure: RankProcedure,
        *,
        group: int | None = None,
        against: RankProcedure | None = None,
        calibrator: AbstractCalibrator | AbstractFitted | None = None,
        key: str = "prompt_id",
    ):
        against = against or procedure
        for name, value in (("procedure", procedure), ("against", against)):
            if not isinstance(value, RankProcedure):
                raise ValueError(f"`{name}` must keep by rank, such as BestOfN(4); got {value!r}.")
        if group is not None and _check.count("group", group) <= procedure.draws:
            raise ValueError(
                f"`group` must be more than the {procedure.draws} responses that {procedure.spec} "
                f"draws, so that each can be left out; got {group}. Raise `num_generations`."
            )
        if isinstance(calibrator, AbstractCalibrator):
            calibrator = StoreCalibration.fit(store, calibrator).learned
        counted = calibrator is None or isinstance(calibrator, FittedCounting)
        if counted and store.samples < against.draws:
            raise DataError(
                f"The calibration store has {store.samples} reference samples of a prompt, fewer "
                f"than the {against.draws} that {against.spec} draws. Calibrate with more, or "
                "with `calibrator=Pooled()`."
            )
        self.reward, self.store, self.procedure, self.against = reward, store, procedure, against
        self.group, self.key = group, key
        calibration = None if counted else StoreCalibration(store, calibrator)
        self.chances = Chances(store, against, calibration)
        self.monitor = Monitor(store, calibration)
        self.__name__ = f"group_shaped_{reward_name(reward)}"

    def __call__(self, prompts, completions, *, log_metric=None, **columns) -> list[float]:
        """One training reward per completion; completions of a group must follow each other."""
        raw, ids = raw_rewards(self.reward, prompts, completions, columns, self.key)
        m = group_size(ids, self.group)
        wins, rewards = self.chances(ids, raw).reshape(-1, m), raw.reshape(-1, m)
        self.monitor.log(log_metric, ids, raw)
        if log_metric is not None:
            found = group_win_rate(rewards, wins, self.procedure)
            log_metric("infalign/win_rate", float(found.mean()))
        return group_rewards(rewards, wins, self.procedure).ravel().tolist()
