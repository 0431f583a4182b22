"""Metrics of a batch, which are the same for every training reward."""

from dataclasses import dataclass

import numpy as np

from infalign.core import RankProcedure, group_win_rate, require_by_rank
from infalign.errors import ArgumentError

from .grouping import whole_groups
from .shaper import Batch

__all__ = ["Monitor"]


@dataclass(frozen=True)
class Monitor:
    """The mean raw reward, the mean quantile, and the share of rewards outside all reference
    samples. With a procedure, also the win rate, from complete groups of at least as many responses
    as it draws.

    - `procedure`: how the policy will be decoded; it must select by rank.
    - `against`: how the reference is decoded. Default: `procedure`.
    """

    procedure: RankProcedure | None = None
    against: RankProcedure | None = None

    def __post_init__(self):
        for name in ("procedure", "against"):
            if getattr(self, name) is not None:
                require_by_rank(name, getattr(self, name))
        if self.procedure is None and self.against is not None:
            raise ArgumentError("against", "must come with `procedure`; got `against` alone.")

    def metrics(self, batch: Batch) -> dict[str, float]:
        """Metrics, by the names under which they are logged."""
        placement = batch.placement
        metrics = {
            "infalign/raw_reward": batch.raw.mean(),
            "infalign/quantile": placement.unsmoothed.quantile.mean(),
            "infalign/saturated": placement.outside.mean(),
            **self._win_rate(batch),
        }
        return {name: float(value) for name, value in metrics.items()}

    def _win_rate(self, batch: Batch) -> dict[str, np.floating]:
        """The mean win rate of the groups. Empty if a group or the reference has fewer samples than
        the procedures draw."""
        if self.procedure is None:
            return {}
        opponent, m = self.against or self.procedure, whole_groups(batch.prompt_ids)
        if m < self.procedure.draws or batch.calibration.most_draws < opponent.draws:
            return {}
        chances = batch.placement.win_chance(opponent).reshape(-1, m)
        win_rates = group_win_rate(batch.raw.reshape(-1, m), chances, self.procedure)
        return {"infalign/win_rate": win_rates.mean()}
