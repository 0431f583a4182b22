"""The results of a study: every method at every KL, over prompts and seeds, beside its rivals."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from infalign._look import Shown
from infalign.comparison.comparison import SELECTING, theory_pairs
from infalign.comparison.summary import as_json, best_possible
from infalign.config import Cell, StudyTask
from infalign.core import AbstractProcedure, RankProcedure, design, families, family
from infalign.errors import DataError
from infalign.evaluation.over_seeds import over_prompts_and_seeds, pooled
from infalign.methods import labels

from .folder import StudyFolder
from .origin import origin
from .quantities import JUDGE, RELIABILITY, Arm, Pair, Quantity, complete, shared

__all__ = ["SCHEMA_VERSION", "summarize"]

SCHEMA_VERSION = 1
POINTS = 16
"""Number of points of a frontier."""

LARGEST = 32
"""Largest n of the curves."""


def summarize(study: StudyFolder, failed: Mapping[str, str]) -> dict:
    """The results of the cells that are finished.

    - `failed`: path of each cell that failed in this call → why.
    """
    tasks = [_Task.of(study, task, failed).results() for task in study.tasks]
    settings = study.grid.study
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "study",
        "made": origin(study),
        "evidence": all(task.config.evidence for task in study.tasks),
        "seeds": list(settings.seeds),
        "rivals": list(settings.rivals),
        "seed_variance": settings.seed_variance,
        "cells": len(list(study.grid.cells)),
        "finished": sum(len(arm["seeds"]) for task in tasks for arm in task["arms"]),
        "tasks": tasks,
    }


@dataclass(frozen=True)
class _Task(Shown):
    """One task of a study."""

    study: StudyFolder
    task: StudyTask
    arms: Sequence[Arm]
    cells: Mapping[tuple[str, float], Sequence[dict]]

    @classmethod
    def of(cls, study: StudyFolder, task: StudyTask, failed: Mapping[str, str]) -> "_Task":
        if study.archive:
            study.require_one_origin(task)
        arms, cells = [], {}
        for kl in task.kls:
            for method in task.methods:
                own = [c for c in task.cells if (c.method, c.kl) == (method, kl)]
                done = {c.seed: c for c in own if study.is_finished(c)}
                measured = {seed: study.measured(cell) for seed, cell in done.items()}
                arms.append(Arm(method, kl, measured))
                cells[method, kl] = [_cell(study, c, c.seed in done, failed) for c in own]
        return cls(study, task, arms, cells)

    @cached_property
    def pairs(self) -> Mapping[str, Pair]:
        """Spec → how policy and reference are decoded, as the task's configuration says."""
        return self.study.pairs(self.task)

    @property
    def theory(self) -> Mapping[str, tuple[AbstractProcedure, AbstractProcedure]]:
        """Those of the pairs that theory knows."""
        return theory_pairs(self.pairs)

    @cached_property
    def curves(self) -> Mapping[str, Sequence[tuple[int, Pair]]]:
        """Family → n and both sides, for every n that the samples allow."""
        largest = min(LARGEST, self.task.config.evaluate.samples)
        return {
            name: [(n, (family(name, n), family(name, n))) for n in range(1, largest + 1)]
            for name in families()
        }

    @property
    def rewards(self) -> list[str]:
        """The reward that procedures select by, then the gold rewards."""
        return [SELECTING, *self.task.config.evaluate.gold]

    def results(self) -> dict:
        """Everything about the task."""
        config = self.task.config
        return {
            "task": self.task.name,
            "model": config.model,
            "reward": config.reward,
            "gold": dict(config.evaluate.gold),
            "judge": config.evaluate.judge,
            "procedure": next(iter(self.pairs)),
            "procedures": {spec: against.spec for spec, (_, against) in self.pairs.items()},
            "prompts": self._prompts,
            "samples": config.evaluate.samples,
            "methods": list(self.task.methods),
            "candidates": list(self._candidates),
            "kls": list(self.task.kls),
            "frontier": self._frontier(),
            "arms": [self._arm(arm) for arm in self.arms],
            "ranks": {
                reward: {
                    spec: {
                        f"{kl:g}": self._quantity(pair, reward).ranks(self._at(kl))
                        for kl in self.task.kls
                        if len(self._at(kl)) > 2
                    }
                    for spec, pair in self._pairs(reward).items()
                }
                for reward in (*self.rewards, *([JUDGE] if config.evaluate.judge else []))
            },
        }

    @property
    def _prompts(self) -> int | None:
        """Number of held-out prompts; None where the archive has no cell of the task, and the
        prompts are elsewhere."""
        known = [own.shape[0] for arm in self.arms for own in arm.measured.values()]
        if known:
            return known[0]
        try:
            return len(self.study.runs[self.task.name].test_prompts)
        except DataError:
            if self.study.archive is None:
                raise
            return None

    def _pairs(self, reward: str) -> Mapping[str, Pair]:
        """The procedures that a reward judges; the judge reads what the first one selects."""
        return dict(list(self.pairs.items())[:1]) if reward == JUDGE else self.pairs

    def _at(self, kl: float) -> list[Arm]:
        """The arms at a KL that have finished cells."""
        return [arm for arm in self.arms if arm.kl == kl and arm.measured]

    def _frontier(self) -> dict[str, list[float]]:
        """The highest win rate that any policy can reach, from KL 0 to beyond all policies."""
        procedure, against = next(iter(self.pairs.values()))
        if not (isinstance(procedure, RankProcedure) and isinstance(against, RankProcedure)):
            return {"kl": [], "win_rate": []}
        kls = _grid(max(self.task.kls))
        return {"kl": list(kls), "win_rate": _best(procedure, against, kls)}

    def _arm(self, arm: Arm) -> dict:
        kls = arm.kls()
        kl = None if kls is None else over_prompts_and_seeds(kls)
        known = {
            "method": arm.method,
            "label": labels().get(arm.method, arm.method),
            "target_kl": arm.kl,
            "seeds": list(arm.measured),
            "seed_variance": self._seed_variance(arm.measured),
            "not_compared": [r.method for r in self._rivals(arm) if not shared(arm, r)],
            "cells": self.cells[arm.method, arm.kl],
            # No KL is below 0, which the interval does not know.
            "kl": kl and as_json(replace(kl, low=max(kl.low, 0.0))),
        }
        if not arm.measured:
            return known
        return known | {
            "win_rates": {
                reward: {spec: self._rates(arm, p, reward) for spec, p in self.pairs.items()}
                for reward in self.rewards
            },
            "by_n": {
                reward: {
                    name: [{"n": n} | self._rates(arm, pair, reward) for n, pair in members]
                    for name, members in self.curves.items()
                }
                for reward in self.rewards
            },
            "best_possible": {
                spec: None if kl is None else best_possible(*pair, kl.value)
                for spec, pair in self.theory.items()
            },
            "judge": self._judged(arm) if self.task.config.evaluate.judge else None,
        }

    def _judged(self, arm: Arm) -> dict:
        """Win rates by the judge, which reads pairs that the first procedure selects, and how
        reliable it is."""
        reliability = {
            name: Quantity({id(arm): arm.judged(name)}, None, bounds).estimate(arm)
            for name, bounds in zip(RELIABILITY, ((-0.5, 0.5), (0, 1)), strict=True)
        }
        return {
            "win_rates": {
                spec: self._rates(arm, pair, JUDGE) for spec, pair in self._pairs(JUDGE).items()
            },
            "pairs": sum(own.pairs for own in arm.verdicts.values()),
            "excluded": sum(own.excluded for own in arm.verdicts.values()),
            **{name: as_json(own) for name, own in reliability.items()},
        }

    def _rates(self, arm: Arm, pair: Pair, reward: str) -> dict:
        """The win rate of an arm, and its differences to its rivals."""
        quantity = self._quantity(pair, reward)
        rivals = [rival for rival in self._rivals(arm) if shared(arm, rival)]
        candidates = [a for a in self._at(arm.kl) if a.method in self._candidates]
        compared = quantity.to_rivals(arm, rivals, candidates)
        if compared["to_best"]:
            fewest = min((shared(arm, rival) for rival in rivals), key=len)
            compared["to_best"]["seed_variance"] = self._seed_variance(fewest)
        return as_json(quantity.estimate(arm)) | compared

    def _seed_variance(self, seeds: Collection[int]) -> str | None:
        """Where an interval over these seeds takes the variance between seeds from: own or pooled;
        None if it lacks that variance."""
        setting = self.study.grid.study.seed_variance
        repeated = max((len(arm.measured) for arm in self.arms), default=0) > 1
        known = bool(seeds) and (len(seeds) > 1 or (setting == "pooled" and repeated))
        return setting if known else None

    def _quantity(self, pair: Pair, reward: str) -> "Quantity":
        key = (*pair, reward)
        if key not in self._quantities:
            values = {id(arm): arm.values(pair, reward) for arm in self.arms if arm.measured}
            shared = self.study.grid.study.seed_variance == "pooled"
            means = (complete(own.values()).mean(1) for own in values.values())
            self._quantities[key] = Quantity(values, pooled(means) if shared else None)
        return self._quantities[key]

    @cached_property
    def _quantities(self) -> dict:
        return {}

    @property
    def _candidates(self) -> Sequence[str]:
        """The methods of which one is to beat the rivals."""
        return self.study.grid.study.candidates or self.task.methods

    def _rivals(self, arm: Arm) -> list[Arm]:
        """The arms that one is to be compared with: at the same KL."""
        names = self.study.grid.study.rivals or self.task.methods
        return [
            other
            for other in self.arms
            if other.kl == arm.kl and other.method in names and other.method != arm.method
        ]


def _grid(largest: float) -> tuple[float, ...]:
    """KLs up to beyond the largest one; win rates rise like √KL at first."""
    return tuple(1.5 * largest * (i / POINTS) ** 2 for i in range(1, POINTS + 1))


@cache
def _best(procedure: RankProcedure, against: RankProcedure, kls: tuple[float, ...]) -> list[float]:
    return [design(procedure, kl=kl, against=against).win_rate for kl in kls]


def _cell(study: StudyFolder, cell: Cell, finished: bool, failed: Mapping[str, str]) -> dict:
    """What is known of a cell."""
    known: dict = {"seed": cell.seed, "folder": f"tasks/{cell.path}", "finished": finished}
    if cell.path in failed:
        known["error"] = failed[cell.path]
    if finished:
        known |= {key: study.summary(cell)[key] for key in ("kl", "win_rates")}
    return known
