"""The exact online objective as a reward function for TRL: no transform, whole groups."""

from collections.abc import Callable, Sequence

import numpy as np

from infalign import _check
from infalign.calibration.calibrators import AbstractCalibrator, AbstractFitted, StoreCalibration
from infalign.calibration.calibrators.counting import FittedCounting
from infalign.calibration.store import CalibrationStore
from infalign.errors import DataError
from infalign.groups import group_rewards, group_win_rate
from infalign.procedures import RankProcedure
from infalign.transforms import Tabulated

from .raw import log_calibration, raw_rewards, reward_name

NODES = (1 - np.cos(np.pi * np.linspace(0, 1, 4001))) / 2
"""Quantiles at which an opponent's law is tabulated, finer towards both ends."""


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
        self.calibration = None if counted else StoreCalibration(store, calibrator)
        self._law = None if counted else Tabulated(NODES, against.cdf(NODES))
        self.__name__ = f"group_shaped_{reward_name(reward)}"

    def __call__(self, prompts, completions, *, log_metric=None, **columns) -> list[float]:
        """One training reward per completion; completions of a group must follow each other."""
        raw, ids = raw_rewards(self.reward, prompts, completions, columns, self.key)
        m = group_size(ids, self.group)
        wins, rewards = self.chances(ids, raw).reshape(-1, m), raw.reshape(-1, m)
        log_calibration(self.store, ids, raw, log_metric, self.calibration)
        if log_metric is not None:
            found = group_win_rate(rewards, wins, self.procedure)
            log_metric("infalign/win_rate", float(found.mean()))
        return group_rewards(rewards, wins, self.procedure).ravel().tolist()

    def chances(self, prompt_ids: Sequence[str], rewards: np.ndarray) -> np.ndarray:
        """Chance of a kept response with each reward to beat the opponent's, ties counting half."""
        if self.calibration is not None:
            return self.calibration.shaped(prompt_ids, rewards, self._law)
        below, up_to, counts = self.store.rewards.ranks(
            self.store.positions(prompt_ids), rewards[:, None]
        )
        wins = np.empty(len(rewards))
        for k in np.unique(counts):
            own, law = counts == k, self.against.subset_cdf(int(k))
            wins[own] = (law[below[own, 0]] + law[up_to[own, 0]]) / 2
        return wins


def group_size(prompt_ids: Sequence[str], group: int | None = None) -> int:
    """Responses in a group: as said, or as the shortest run of one prompt has.

    Raises DataError unless all groups are whole, one after the other.
    """
    ids = list(prompt_ids)
    starts = [i for i in range(len(ids)) if i == 0 or ids[i] != ids[i - 1]]
    runs = np.diff([*starts, len(ids)])  # a prompt may come twice in a row
    m = group or int(runs.min())
    for start, run in zip(starts, runs, strict=True):
        if run % m:
            raise DataError(
                f"Groups of {m} completions of one prompt are needed, one after the other; "
                f"prompt {ids[start]!r} has {run}, from completion {start} of {len(ids)} on. "
                "Let `num_generations` be the size of a group, and "
                "`per_device_train_batch_size` a multiple of it, so that none is split "
                "between processes."
            )
    return m
