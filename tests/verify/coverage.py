"""Intervals: a part of the grid of benchmarks/intervals.py, with other seeds."""

import importlib.util
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

from .check import Errors, Family

GRID = Path(__file__).parents[2] / "benchmarks" / "intervals.py"

RUNS = 300
"""Simulated evaluations of a problem."""

LEAST = 0.93
"""Coverage that every case of the grid must have."""


@dataclass(frozen=True)
class Question:
    """A case of the grid, the number of prompts, and a seed."""

    case: str
    prompts: int
    seed: int


@cache
def grid() -> ModuleType:
    """benchmarks/intervals.py."""
    spec = importlib.util.spec_from_file_location("verified_intervals", GRID)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.LARGE = 50_000
    return module


def draw(rng: np.random.Generator) -> Question:
    case = str(rng.choice(list(grid().CASES)))
    return Question(case, int(rng.choice([20, 50, 100, 200])), int(rng.integers(2**31)))


def answer(question: Question) -> dict[str, float]:
    (bounds, default), make = grid().CASES[question.case]
    rng = np.random.default_rng(question.seed)
    estimate, truth = make(rng, RUNS * question.prompts)
    runs = estimate.per_prompt.reshape(RUNS, question.prompts)
    return grid().covering(runs, truth, bounds, default)


def judge(question: Question, coverage: dict[str, float]) -> Errors:
    spread = np.sqrt(LEAST * (1 - LEAST) / RUNS)
    return {"coverage below 93 %, standard errors": max((LEAST - coverage["holds"]) / spread, 0.0)}


COVERAGE = Family(
    "intervals",
    "Coverage of the default intervals on the cases of `benchmarks/intervals.py` with 20 to 200 "
    "prompts: 300 simulated evaluations each, whose truth is known. The whole grid is in "
    "[benchmarks](benchmarks.md).",
    draw,
    answer,
    judge,
    {"coverage below 93 %, standard errors": 4.5},
    share=0.3,
    runs=(GRID,),
)
