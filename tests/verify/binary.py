"""Verifiable rewards: `ia.verifiable.solve` by a dense scan of the log-odds."""

from dataclasses import dataclass

import numpy as np

from infalign.core import verifiable
from infalign.errors import SolveError

from .check import Errors, Family
from .procedures import Pair, by_rank

MOST_DRAWS = 200

SCANNED = 4000
"""Changes of the log-odds in a scan."""

REFINED = 60
"""Steps of a golden section."""

GOLDEN = (np.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Question:
    """A call of `verifiable.solve`."""

    reference: tuple[float, ...]
    procedure: Pair
    against: Pair
    asked: dict[str, float]

    def __repr__(self) -> str:
        asked = ", ".join(f"{k}={v!r}" for k, v in self.asked.items())
        return (
            f"verifiable.solve({list(self.reference)}, {self.procedure}, "
            f"against={self.against}, {asked})"
        )

    @property
    def rates(self) -> np.ndarray:
        return np.array(self.reference)

    def win_rates(self, failing: np.ndarray, start: np.ndarray) -> np.ndarray:
        """W of policies that fail with these chances, against references that pass with `start`."""
        opponent = self.against.law.cdf(1 - start)
        return 0.5 + 0.5 * (opponent - self.procedure.law.cdf(failing))


def kls(passing: np.ndarray, failing: np.ndarray, start: np.ndarray) -> np.ndarray:
    """KL of a coin from both chances; 0 log 0 = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        up = np.where(passing > 0, passing * np.log(passing / start), 0)
        down = np.where(failing > 0, failing * np.log(failing / (1 - start)), 0)
    return up + down


def tilted(start: np.ndarray, change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Chances to pass and to fail after a change of the log-odds."""
    odds = np.log(start) - np.log1p(-start) + change
    small = np.exp(-np.abs(odds))
    more, less = 1 / (1 + small), small / (1 + small)
    return np.where(odds > 0, more, less), np.where(odds > 0, less, more)


def best_value(question: Question, start: float, beta: float) -> float:
    """max W − β KL over all pass rates: a scan of the log-odds, and a golden section at each of
    its local maxima. Every maximum has a change of at most n/2β."""
    reach = 4 * question.procedure.procedure.draws / beta
    out = np.geomspace(1e-9, reach, SCANNED)
    near = np.linspace(-60, 60, SCANNED)
    changes = np.unique(np.concatenate([-out[:: SCANNED // 200], near, out, [0.0]]))
    start = np.array(start)

    def value(change: np.ndarray) -> np.ndarray:
        passing, failing = tilted(start, change)
        return question.win_rates(failing, start) - beta * kls(passing, failing, start)

    values = value(changes)
    tops = np.flatnonzero((values[1:-1] >= values[:-2]) & (values[1:-1] >= values[2:])) + 1
    tops = tops[np.argsort(-values[tops])][:20]
    low, high = changes[tops - 1], changes[tops + 1]
    for _ in range(REFINED):
        a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        left = value(a) >= value(b)
        low, high = np.where(left, low, a), np.where(left, b, high)
    return float(max(values.max(), value((low + high) / 2).max(initial=-np.inf)))


def draw(rng: np.random.Generator) -> Question:
    """One prompt or a few, pass rates from 1e-9 to 1 − 1e-9 and sometimes 0 or 1; β from 1e-3 to
    3, or budgets up to what the prompts can spend."""
    procedure = by_rank(rng, MOST_DRAWS)
    against = procedure if rng.random() < 0.6 else by_rank(rng, MOST_DRAWS)
    prompts = 1 if rng.random() < 0.5 else int(rng.integers(2, 6))
    odds = rng.normal(size=prompts) * rng.choice([1, 3, 8])
    rates = np.clip(1 / (1 + np.exp(-odds)), 1e-9, 1 - 1e-9)
    if prompts > 1 and rng.random() < 0.2:
        rates[rng.integers(prompts)] = rng.integers(2)
    rates = tuple(float(f"{r:.12g}") for r in rates)
    if rng.random() < 0.5:
        return Question(
            rates, procedure, against, {"beta": float(f"{10 ** rng.uniform(-3, 0.5):.4g}")}
        )
    most = -np.mean([np.log(r) if 0 < r < 1 else 0 for r in rates])
    share = rng.uniform(0.001, 1.02) if rng.random() < 0.7 else 10 ** rng.uniform(-4, 0)
    return Question(rates, procedure, against, {"kl": float(f"{max(most, 1e-6) * share:.4g}")})


def answer(question: Question) -> verifiable.VerifiableOptimum:
    return verifiable.solve(
        question.reference,
        question.procedure.procedure,
        against=question.against.procedure,
        **question.asked,
    )


def judge(question: Question, found: verifiable.VerifiableOptimum) -> Errors:
    start, passing = question.rates, np.asarray(found.pass_rate)
    stuck = (start == 0) | (start == 1)
    # The pass rate alone loses a failure below 1e-16; W and KL then still have 15 digits.
    win_rate = question.win_rates(1 - passing, start).mean()
    kl = np.where(stuck, 0, kls(passing, 1 - passing, np.where(stuck, 0.5, start))).mean()
    errors = {
        "W of the pass rates": abs(found.win_rate - win_rate),
        "KL of the pass rates": abs(found.kl - kl),
        "pass rates of 0 and 1 moved": float(np.abs(passing - start)[stuck].max(initial=0)),
    }
    asked = question.asked
    if "kl" in asked:
        # A KL of two nearly equal coins has an absolute error of a rounding.
        errors["budget, relative"] = abs(found.kl - asked["kl"]) / max(asked["kl"], 1e-6)
    own = found.win_rate - found.beta * found.kl
    if found.beta > 0:
        best = sum(best_value(question, s, found.beta) for s in start[~stuck])
        best = (best + question.win_rates(1 - start[stuck], start[stuck]).sum()) / start.size
        errors["J above the best"] = max(own - best, 0.0)
        if "beta" in asked:
            return errors | {"J below the best": max(best - own, 0.0)}
        if best - own <= 1e-9:  # then no policy of this KL has a higher win rate
            return errors
    lead = _best_split(question) - found.win_rate
    alone = "W below the best, one prompt" if (~stuck).sum() == 1 else "W below the best split"
    return errors | {alone: max(lead, 0.0), "lead over W beyond the gap": max(lead - found.gap, 0)}


def _best_split(question: Question) -> float:
    """The best W of a budget among many splits over the prompts: of one prompt the only one, of
    two a dense scan, of more at random."""
    start = question.rates
    free = start[(start > 0) & (start < 1)]
    budget = question.asked["kl"] * start.size
    most = -np.log(free)
    if free.size == 1:
        splits = np.array([[budget]])
    elif free.size == 2:
        first = np.linspace(max(budget - most[1], 0), min(budget, most[0]), 4001)
        splits = np.stack([first, budget - first], 1)
    else:
        rng = np.random.default_rng(0)
        splits = budget * rng.dirichlet(np.full(free.size, 0.3), 20_000)
        splits = splits[(splits < most).all(1)]
        if not len(splits):
            return 0.0
    # KL rises with the change of the log-odds: a table inverts it.
    changes = np.concatenate([[0.0], np.geomspace(1e-7, 800, 40_000)])
    wins = 0.0
    for own, kl in zip(free, splits.T, strict=True):
        passing, failing = tilted(np.array(own), changes)
        change = np.interp(kl, kls(passing, failing, np.array(own)), changes)
        wins = wins + question.win_rates(tilted(np.array(own), change)[1], np.array(own))
    fixed = start[(start == 0) | (start == 1)]
    return float((np.max(wins) + question.win_rates(1 - fixed, fixed).sum()) / start.size)


def refusal(question: Question, error: SolveError) -> bool | None:
    """Whether the budget is beyond all that can be spent, or what it buys below any number."""
    if "kl" not in question.asked:
        return False
    start = question.rates
    free = start[(start > 0) & (start < 1)]
    most = -np.log(free).sum() / start.size
    if question.asked["kl"] >= most * (1 - 1e-12):
        return True
    if free.size == 1:  # only one pass rate costs the budget
        return False
    fixed = start[(start == 0) | (start == 1)]
    limit = question.win_rates(np.zeros(free.size), free).sum()
    limit = (limit + question.win_rates(1 - fixed, fixed).sum()) / start.size
    return True if _best_split(question) >= limit - 1e-13 else None


BINARY = Family(
    "verifiable rewards",
    "`verifiable.solve` for procedures of up to 200 draws, one to five prompts, references that "
    "pass with chances from 1e-9 to 1 − 1e-9 or of 0 and 1, β from 0.001 to 3, or budgets up to "
    "all that can be spent. By a dense scan of the log-odds over ±4n/β with a golden section at "
    "each local maximum. A budget's answer is compared with the bound max J + β KL and, where it "
    "is below, with the best of many splits of the budget.",
    draw,
    answer,
    judge,
    {
        "W of the pass rates": 1e-12,
        "KL of the pass rates": 1e-10,
        "pass rates of 0 and 1 moved": 0,
        "budget, relative": 1e-8,
        "J above the best": 1e-10,
        "J below the best": 1e-11,
        "W below the best, one prompt": 1e-6,
        "W below the best split": float("inf"),
        "lead over W beyond the gap": 1e-6,
    },
    refusal=refusal,
)
