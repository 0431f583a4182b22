"""Estimates from samples: every subset listed."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

import infalign as ia

from .check import Errors, Family
from .places import Law, Places, places, winner

MOST_DRAWS, MOST_SAMPLES = 4, 7


@dataclass(frozen=True)
class Question:
    """Rewards of some prompts; lists of one side have any lengths."""

    policy: list[list[float]]
    reference: list[list[float]]
    procedure: Places
    against: Places
    k: int

    def __repr__(self) -> str:
        return (
            f"policy={self.policy}, reference={self.reference}, {self.procedure}, "
            f"against={self.against}, k={self.k}"
        )


def draw(rng: np.random.Generator) -> Question:
    procedure = places(rng, MOST_DRAWS)
    against = procedure if rng.random() < 0.5 else places(rng, MOST_DRAWS)
    levels = int(rng.choice([2, 3, 5, 1000]))

    def rewards(fewest: int) -> list[list[float]]:
        counts = rng.integers(fewest, MOST_SAMPLES + 1, size=3)
        return [[float(r) for r in rng.integers(0, levels, size=c)] for c in counts]

    k = int(rng.integers(1, procedure.draws + 1))
    return Question(rewards(procedure.draws), rewards(against.draws), procedure, against, k)


def ragged(rows: list[list[float]]) -> np.ndarray:
    """Rows of one length, nan in place of samples that were not drawn."""
    table = np.full((len(rows), max(map(len, rows))), np.nan)
    for own, row in zip(table, rows, strict=True):
        own[: len(row)] = row
    return table


def answer(question: Question) -> dict[str, np.ndarray]:
    policy, reference = ragged(question.policy), ragged(question.reference)
    passed = np.where(np.isnan(policy), np.nan, policy > 0)
    procedure, against = question.procedure.procedure, question.against.procedure
    votes = np.where(np.isnan(policy), None, policy % 3)
    return {
        "win rate": ia.win_rate(policy, reference, procedure, against=against).per_prompt,
        "win rate of itself": ia.win_rate_difference(
            policy, policy, reference, procedure, against=against
        ).per_prompt,
        "selected reward": ia.selected_reward(policy, procedure).per_prompt,
        "best-of-k reward": ia.best_reward(policy, question.k).per_prompt,
        "worst-of-k reward": ia.worst_reward(policy, question.k).per_prompt,
        "pass@k": ia.pass_at(passed, question.k).per_prompt,
        "all k pass": ia.worst_reward(passed, question.k).per_prompt,
        "majority vote": ia.majority_vote(
            votes, np.where(np.isnan(policy), np.nan, policy % 3 == 1), question.k
        ).per_prompt,
    }


def expected(question: Question) -> dict[str, np.ndarray]:
    """The same by enumeration."""
    k = question.k
    of = {"win rate": [], "selected reward": [], "best-of-k reward": [], "worst-of-k reward": []}
    of |= {"pass@k": [], "all k pass": [], "majority vote": []}
    for ours, theirs in zip(question.policy, question.reference, strict=True):
        mine = question.procedure.of_subsets(ours)
        of["win rate"].append(_wins(mine, question.against.of_subsets(theirs)))
        of["selected reward"].append(sum(v * p for v, p in mine.items()))
        sets = list(combinations(ours, k))
        of["best-of-k reward"].append(np.mean([max(s) for s in sets]))
        of["worst-of-k reward"].append(np.mean([min(s) for s in sets]))
        of["pass@k"].append(np.mean([any(r > 0 for r in s) for s in sets]))
        of["all k pass"].append(np.mean([all(r > 0 for r in s) for s in sets]))
        votes = [winner([r % 3 for r in s]).get(1.0, 0.0) for s in sets]
        of["majority vote"].append(np.mean(votes))
    of["win rate of itself"] = [0.0] * len(question.policy)
    return {name: np.array(values) for name, values in of.items()}


def _wins(mine: Law, theirs: Law) -> float:
    return sum(p * q * ((a > b) + (a == b) / 2) for a, p in mine.items() for b, q in theirs.items())


def judge(question: Question, answers: dict[str, np.ndarray]) -> Errors:
    truth = expected(question)
    return {
        name: float(np.max(np.abs(own - truth[name]) / np.maximum(np.abs(truth[name]), 1)))
        for name, own in answers.items()
    }


ESTIMATORS = Family(
    "estimators",
    "`win_rate`, `win_rate_difference`, `selected_reward`, `best_reward`, `worst_reward`, "
    "`pass_at`, `worst_reward` of 0/1 rewards (all k pass) and `majority_vote` per prompt, for up "
    "to 7 samples with ties, different numbers of them, and procedures of up to 4 draws. By a list "
    "of all subsets.",
    draw,
    answer,
    judge,
    dict.fromkeys(
        (
            "win rate",
            "win rate of itself",
            "selected reward",
            "best-of-k reward",
            "worst-of-k reward",
            "pass@k",
            "all k pass",
            "majority vote",
        ),
        1e-12,
    ),
    share=0.2,
)
