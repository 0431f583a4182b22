"""What a reward function logs beside its rewards: raw ones, quantiles, and what they would win."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from infalign.calibration import StoreCalibration
from infalign.core import RankProcedure, Tabulated, group_win_rate
from infalign.stores import CalibrationStore

from .groups import whole_groups

NODES = (1 - np.cos(np.pi * np.linspace(0, 1, 4001))) / 2
"""Quantiles at which an opponent's law is tabulated, finer towards both ends."""


@dataclass(frozen=True)
class Chances:
    """Chance of a kept response with a given reward to beat the opponent's, ties counting half.

    With plain ranks it is estimated without bias from the prompt's reference rewards (all
    n-subsets), which must be as many as the opponent draws.
    """

    store: CalibrationStore
    against: RankProcedure
    calibration: StoreCalibration | None = None

    @cached_property
    def _law(self) -> Tabulated:
        return Tabulated(NODES, self.against.cdf(NODES))

    def __call__(self, prompt_ids: Sequence[str], rewards: np.ndarray) -> np.ndarray:
        """One chance per reward, in [0, 1]."""
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


@dataclass(frozen=True)
class Monitor:
    """Logs the mean raw reward, the mean quantile and the share outside all reference samples; and
    with a `procedure`, from whole groups of at least as many as it draws, its win rate."""

    store: CalibrationStore
    calibration: StoreCalibration | None = None
    procedure: RankProcedure | None = None
    against: RankProcedure | None = None

    def log(self, log_metric: Callable | None, prompt_ids: Sequence[str], raw: np.ndarray) -> None:
        """Log of one batch, to TRL's `log_metric(name, value)` if there is one."""
        if log_metric is None:
            return
        rank = self.store.quantiles(prompt_ids, raw)
        read = self.calibration
        quantile = rank if read is None else read.quantiles(prompt_ids, raw)
        log_metric("infalign/raw_reward", float(raw.mean()))
        log_metric("infalign/quantile", float(quantile.mean()))
        log_metric("infalign/saturated", float(np.mean((rank == 0) | (rank == 1))))
        if self.procedure is not None:
            found = self.win_rate(prompt_ids, raw)
            if found is not None:
                log_metric("infalign/win_rate", found)

    @cached_property
    def chances(self) -> Chances:
        """The chance of a kept response to win."""
        return Chances(self.store, self.against or self.procedure, self.calibration)

    def win_rate(self, prompt_ids: Sequence[str], raw: np.ndarray) -> float | None:
        """Mean over groups; None where they are smaller than what the procedure draws."""
        m = whole_groups(prompt_ids)
        counted = self.calibration is None
        if not m or m < self.procedure.draws:
            return None
        if counted and self.store.samples < self.chances.against.draws:
            return None
        wins = self.chances(prompt_ids, raw)
        return float(group_win_rate(raw.reshape(-1, m), wins.reshape(-1, m), self.procedure).mean())
