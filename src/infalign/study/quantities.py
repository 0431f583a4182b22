"""What a study measures of its methods, over prompts and seeds, and their differences."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import numpy as np

from infalign._look import Shown
from infalign.comparison.measured import AbstractMeasured, Measured
from infalign.comparison.summary import as_json
from infalign.comparison.verdicts import read_verdicts
from infalign.decoding.selection import Decoder
from infalign.errors import DataError
from infalign.evaluation.judging import JudgeWinRate
from infalign.evaluation.over_seeds import SeedEstimate, SeedVariance, over_prompts_and_seeds
from infalign.evaluation.ranking import ranked

__all__ = ["JUDGE", "RELIABILITY", "Arm", "Pair", "Quantity", "complete", "shared"]

LEVEL = 0.95

JUDGE = "the judge"
"""Its win rates stand beside those by rewards, of which none has a name with a space."""

RELIABILITY = ("position_bias", "consistency")
"""What is known of a judge beside its win rates."""

Pair = tuple[Decoder, Decoder]


@dataclass(frozen=True)
class Arm(Shown):
    """One method at one KL: the values of its prompts under each finished seed."""

    method: str
    kl: float
    measured: Mapping[int, AbstractMeasured]
    """Seed → its samples, beside the reference's."""

    def values(self, pair: Pair, reward: str) -> Mapping[int, np.ndarray]:
        """Seed → the win rate of every prompt; nan without a verdict."""
        if reward == JUDGE:
            return self.judged("win_rate")
        rates = {s: m.win_rate(self.method, *pair, reward) for s, m in self.measured.items()}
        return {seed: rate.per_prompt for seed, rate in rates.items()}

    @cached_property
    def verdicts(self) -> Mapping[int, JudgeWinRate]:
        """Seed → what the judge says of its samples."""
        return {
            seed: read_verdicts(m, self.method)
            for seed, m in self.measured.items()
            if isinstance(m, Measured)  # archives are refused where there is a judge
        }

    def judged(self, name: str) -> Mapping[int, np.ndarray]:
        """Seed → an estimate from the judge's verdicts for every prompt; nan without a verdict."""
        values = {}
        for seed, own in self.verdicts.items():
            values[seed] = np.full(len(own.judged), np.nan)
            values[seed][own.judged] = getattr(own, name).per_prompt
        return values

    def kls(self) -> np.ndarray | None:
        """The KL of every prompt under each seed; None if it was not measured."""
        rows = [np.nanmean(m.column(self.method, "kl"), axis=1) for m in self.measured.values()]
        return None if not rows or np.isnan(rows).any() else np.array(rows)


def shared(arm: Arm, rival: Arm) -> Collection[int]:
    """The seeds that both have finished."""
    return arm.measured.keys() & rival.measured.keys()


@dataclass(frozen=True)
class Quantity(Shown):
    """A quantity of all arms, such as the win rates under one procedure by one reward."""

    values: Mapping[int, Mapping[int, np.ndarray]]
    """Arm → seed → the value of every prompt; nan where there is none."""

    between: SeedVariance | None
    """The variance between seeds that all arms share; None if each has its own."""

    bounds: tuple[float, float] = (0, 1)
    """The least and the greatest value."""

    def estimate(self, arm: Arm) -> SeedEstimate:
        """The mean of an arm, over the prompts that have a value under every seed."""
        rows = complete(self.values[id(arm)].values())
        return over_prompts_and_seeds(rows, between=self.between, bounds=self.bounds)

    def to_rivals(self, arm: Arm, rivals: Sequence[Arm], candidates: Collection[Arm]) -> dict:
        """Differences to rivals, paired by prompt and seed, and to the best of them.

        The difference to the best rival is the least of all. Its lower end is the least of the
        lower ends: it is too high only if that of the best rival is. Its upper end is the least of
        the upper ends at the level 1 − 0.05/R for R rivals, since each of them could be the best.
        The chance that the interval misses is at most 5 %, whichever rival is the best.

        `ahead` allows for the choice of the arm among the candidates: it is true where all lower
        ends are above 0 at the level 1 − 0.05/C for C candidates. The chance that any of them is
        called ahead of the best rival by mistake is at most 2.5 %. The number of rivals does not
        matter: who is called ahead of all is called ahead of the best.
        """
        if not rivals:
            return {"to_rivals": {}, "to_best": None}
        own = {r.method: self._difference(arm, r, LEVEL) for r in rivals}
        together = 1 - (1 - LEVEL) / len(rivals)
        highs = [self._difference(arm, r, together).high for r in rivals]
        chosen = 1 - (1 - LEVEL) / max(1, len(candidates))
        lows = [self._difference(arm, r, chosen).low for r in rivals]
        best = min(own, key=lambda name: own[name].value)
        return {
            "to_rivals": {name: as_json(d) for name, d in own.items()},
            "to_best": {
                "rival": best,
                "value": own[best].value,
                "low": _known(min(d.low for d in own.values())),
                "high": _known(min(highs)),
                "ahead": arm in candidates and bool(min(lows) > 0),
            },
        }

    def ranks(self, arms: Sequence[Arm]) -> dict[str, dict]:
        """Method → bounds of its rank and its tied sets. They hold together for all methods at the
        level: each pair has its interval at 1 − 0.05/P for P pairs. Methods without a common seed
        are not compared, so they tie."""
        level = 1 - (1 - LEVEL) / (len(arms) * (len(arms) - 1) / 2)
        above = {
            (a.method, b.method)
            for a, b in permutations(arms, 2)
            if shared(a, b) and self._difference(a, b, level).low > 0
        }
        own = {arm.method: self.estimate(arm) for arm in arms}
        return {row.policy: row.figures() for row in ranked(own, above)}

    def _difference(self, arm: Arm, rival: Arm, level: float) -> SeedEstimate:
        ours, theirs = self.values[id(arm)], self.values[id(rival)]
        rows = complete(ours[seed] - theirs[seed] for seed in ours if seed in theirs)
        # Seeds of two methods are independent, so the variances of both add up.
        between = self.between and self.between.times(2)
        return over_prompts_and_seeds(rows, between=between, level=level, bounds=(-1, 1))


def complete(rows: Iterable[np.ndarray]) -> np.ndarray:
    """Values as an array of shape (seeds, prompts), of the prompts that have one in every row.

    Raises DataError if there are none.
    """
    table = np.array(list(rows))
    complete = table[:, ~np.isnan(table).any(0)]
    if not complete.size:
        raise DataError(
            "No prompt has a verdict of the judge under every seed. Ask the judge again, or remove "
            "`evaluate.judge`."
        )
    return complete


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
