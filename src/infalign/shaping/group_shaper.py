"""The exact online objective: training rewards from whole groups, without a transform."""

from infalign.core import RankProcedure, group_rewards, group_win_rate, require_by_rank
from infalign.errors import DataError
from infalign.stores import CalibrationStore

from .grouping import group_size, require_group
from .shaper import AbstractShaper, Batch, Calibrator, Shaped, calibrated

__all__ = ["GroupShaper"]


class GroupShaper(AbstractShaper):
    """Rewards whose leave-one-out policy gradient is the gradient of the inference-time win rate.

    The reward of a response is the loss of its group's win rate if the response is left out,
    averaged over all subsets that the procedure could have drawn (`infalign.core.group_rewards`).
    Plain ranks estimate the chance to beat the opponent without bias, from all subsets of the
    prompt's reference rewards, so a prompt needs at least as many of them as the opponent draws.
    Picklable.

    - `store`: reference rewards of the prompts.
    - `procedure`: how the policy will be decoded; it must select by rank.
    - `group`: responses per prompt in a step, m; more than the procedure draws. Default: inferred
      from each batch, where uniformly incomplete groups pass unnoticed; in a training of several
      processes (WORLD_SIZE) it must be given.
    - `against`: how the reference is decoded. Default: `procedure`.
    - `calibrator`: as in `Shaper`.
    """

    def __init__(
        self,
        store: CalibrationStore,
        procedure: RankProcedure,
        *,
        group: int | None = None,
        against: RankProcedure | None = None,
        calibrator: Calibrator | None = None,
    ):
        self.procedure = require_by_rank("procedure", procedure)
        self.against = procedure if against is None else require_by_rank("against", against)
        self.group = require_group(group, procedure)
        super().__init__(calibrated(store, calibrator))
        if self.calibration.most_draws < self.against.draws:
            raise DataError(
                f"The calibration store has {store.samples} reference samples of a prompt, fewer "
                f"than the {self.against.draws} that {self.against.spec} draws. Calibrate with "
                "more, or with `calibrator=Pooled()`."
            )

    def _shaped(self, batch: Batch) -> Shaped:
        m = group_size(batch.prompt_ids, self.group)
        chances = batch.placement.win_chance(self.against).reshape(-1, m)
        raw = batch.raw.reshape(-1, m)
        win_rate = group_win_rate(raw, chances, self.procedure).mean()
        value = group_rewards(raw, chances, self.procedure).ravel()
        return Shaped(batch, value, {"infalign/win_rate": float(win_rate)})
