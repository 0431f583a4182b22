"""Finite outcome sets: `ia.finite.solve` by brute force over the simplex."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import minimize

import infalign as ia
from infalign.errors import SolveError

from .check import Errors, Family
from .procedures import Pair, by_rank

MOST_DRAWS = 64

DRAWN = 6000
"""Random policies that are tried."""

CLIMBED = 6
"""The best of them, from which a climb starts."""


@dataclass(frozen=True)
class Question:
    """A call of `finite.solve`."""

    reward: tuple[int, ...]
    reference: tuple[float, ...]
    procedure: Pair
    against: Pair
    asked: dict[str, float]

    def __repr__(self) -> str:
        asked = ", ".join(f"{k}={v!r}" for k, v in self.asked.items())
        return (
            f"finite.solve({list(self.reward)}, {list(self.reference)}, {self.procedure}, "
            f"against={self.against}, {asked})"
        )

    @cached_property
    def level(self) -> np.ndarray:
        """The level of each outcome, in increasing order of the reward."""
        return np.unique(self.reward, return_inverse=True)[1]

    def masses(self, policy: np.ndarray) -> np.ndarray:
        """The mass on each level."""
        return np.bincount(self.level, weights=policy)

    @cached_property
    def start(self) -> np.ndarray:
        return self.masses(np.array(self.reference))

    @cached_property
    def wins(self) -> np.ndarray:
        """Chance of each level to beat the opponent's selected response; ties count one half."""
        reached = self.against.law.cdf(np.minimum(np.cumsum(self.start), 1.0))
        below = np.append(0.0, reached[:-1])
        return (below + reached) / 2

    def win_rate(self, masses: np.ndarray) -> np.ndarray:
        """W of policies, rows of masses."""
        reached = np.clip(np.cumsum(masses, axis=-1), 0, 1)
        reached[..., -1] = 1.0
        selected = np.diff(self.procedure.law.cdf(reached), prepend=0.0, axis=-1)
        return (selected * self.wins).sum(-1)

    def gradient(self, masses: np.ndarray) -> np.ndarray:
        """∂W/∂mass but for a constant: W = Σ H(P_i) (wins_i − wins_{i+1}) + wins_top."""
        reached = np.clip(np.cumsum(masses), 0, 1)[:-1]
        steps = self.procedure.law.density(reached) * -np.diff(self.wins)
        return np.append(np.cumsum(steps[::-1])[::-1], 0.0)

    def kl(self, masses: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(masses > 0, np.log(masses / self.start), 0)
        return (masses * logs).sum(-1)


def draw(rng: np.random.Generator) -> Question:
    """Two to six levels, up to three outcomes on each; β from 0.003 to 1, or a budget."""
    levels = int(rng.integers(2, 7))
    procedure = by_rank(rng, MOST_DRAWS)
    against = procedure if rng.random() < 0.6 else by_rank(rng, MOST_DRAWS)
    ties = rng.integers(1, 4, size=levels) if rng.random() < 0.5 else np.ones(levels, int)
    reward = rng.permutation(np.repeat(np.arange(levels), ties))
    reference = rng.dirichlet(np.full(reward.size, rng.choice([0.3, 1, 5]))) + 1e-6
    reference = np.round(reference / reference.sum(), 9)
    reference[0] += 1 - reference.sum()
    parts = tuple(reward.tolist()), tuple(reference.tolist()), procedure, against
    if rng.random() < 0.6:
        return Question(*parts, {"beta": float(f"{10 ** rng.uniform(-2.5, 0):.4g}")})
    top = reference[reward == reward.max()].sum()
    return Question(*parts, {"kl": float(f"{-np.log(top) * rng.uniform(0.02, 1.02):.4g}")})


def answer(question: Question) -> ia.finite.Solution:
    return ia.finite.solve(
        question.reward,
        question.reference,
        question.procedure.procedure,
        against=question.against.procedure,
        **question.asked,
    )


def judge(question: Question, solution: ia.finite.Solution) -> Errors:
    policy, reference = np.asarray(solution.policy), np.array(question.reference)
    masses, asked = question.masses(policy), question.asked
    tilt = reference * np.exp(
        (solution.coupled_reward - solution.coupled_reward.max()) / solution.beta
    )
    objective = solution.win_rate - solution.beta * solution.kl
    rounding = 10 * np.finfo(float).eps / solution.beta  # of the coupled reward, whose mean is W
    errors = {
        "sum of the policy": abs(policy.sum() - 1),
        "W of the policy": abs(question.win_rate(masses) - solution.win_rate),
        "KL of the policy": abs(question.kl(masses) - solution.kl),
        "policy and the tilt by its coupled reward": max(
            np.abs(policy - tilt / tilt.sum()).sum() / 2 - rounding, 0.0
        ),
    }
    if "kl" in asked:
        errors["budget, relative"] = abs(solution.kl / asked["kl"] - 1)
        lead = best_of_budget(question, asked["kl"]) - solution.win_rate
        kind = "W below the best"
    else:
        lead = best_policy(question, asked["beta"])[0] - objective
        kind = "J below the best"
    kind += ", certified" if solution.certified else ", not certified"
    errors[kind] = max(lead, 0.0)
    if np.isfinite(solution.gap):
        errors["lead beyond the gap"] = max(lead - solution.gap, 0.0)
    return errors


def tries(question: Question) -> np.ndarray:
    """Random policies: tilts of the reference, weak and strong, and policies near corners."""
    rng, levels = np.random.default_rng(1), question.start.size
    strength = rng.choice([0.3, 1, 3, 10, 40], size=(DRAWN, 1))
    tilts = np.log(question.start) + strength * rng.normal(size=(DRAWN, levels))
    above = np.arange(levels) >= rng.integers(0, levels, size=(DRAWN, 1))
    tilts[::2] += 30.0 * above[::2]
    mass = np.exp(tilts - tilts.max(1, keepdims=True))
    return mass / mass.sum(1, keepdims=True)


def best_policy(question: Question, beta: float) -> tuple[float, np.ndarray]:
    """max W − β KL and its masses: climbs from the best of many random policies."""
    masses = tries(question)
    values = question.win_rate(masses) - beta * question.kl(masses)
    order = np.argsort(-values)

    def minus(logits: np.ndarray) -> tuple[float, np.ndarray]:
        mass = np.exp(logits - logits.max())
        mass /= mass.sum()
        log_ratio = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        log_ratio = log_ratio - np.log(question.start)
        slope = question.gradient(mass) - beta * log_ratio
        value = question.win_rate(mass) - beta * (mass * log_ratio).sum()
        return -float(value), -mass * (slope - (mass * slope).sum())

    best = float(values[order[0]]), masses[order[0]]
    for place in order[np.linspace(0, 60, CLIMBED).astype(int)]:
        climb = minimize(
            minus,
            np.log(np.maximum(masses[place], 1e-300)),
            jac=True,
            method="L-BFGS-B",
            options={"ftol": 1e-16, "gtol": 1e-12, "maxiter": 2000},
        )
        if -climb.fun > best[0]:
            mass = np.exp(climb.x - climb.x.max())
            best = -float(climb.fun), mass / mass.sum()
    return best


def best_of_budget(question: Question, budget: float) -> float:
    """The largest W of a KL budget: random policies, mixed with the reference until they cost it,
    and climbs from the best."""
    masses = tries(question)
    masses = masses[question.kl(masses) >= budget]
    low, high = np.zeros(len(masses)), np.ones(len(masses))
    for _ in range(50):  # KL rises along the way from the reference
        share = (low + high) / 2
        costs = question.kl(question.start + share[:, None] * (masses - question.start))
        low, high = np.where(costs < budget, share, low), np.where(costs < budget, high, share)
    mixed = question.start + low[:, None] * (masses - question.start)
    values = question.win_rate(mixed)
    best = float(values.max(initial=0.0))
    for place in np.argsort(-values)[: 40 : 40 // CLIMBED]:
        climb = minimize(
            lambda m: -question.win_rate(m),
            mixed[place],
            jac=lambda m: -question.gradient(m),
            method="SLSQP",
            bounds=[(1e-12, 1)] * question.start.size,
            constraints=[
                {"type": "eq", "fun": lambda m: m.sum() - 1},
                {"type": "ineq", "fun": lambda m: budget - question.kl(m)},
            ],
            options={"ftol": 1e-14, "maxiter": 300},
        )
        mass = np.clip(climb.x, 0, None) / np.clip(climb.x, 0, None).sum()
        if question.kl(mass) <= budget * (1 + 1e-9):
            best = max(best, float(question.win_rate(mass)))
    return best


def refusal(question: Question, error: SolveError) -> bool | None:
    """Whether the budget is more than all mass on the top level costs, or than the best policy
    spends at the smallest β that is tried, 1e-8."""
    if "kl" not in question.asked:
        return False
    budget = question.asked["kl"]
    if budget >= -np.log(question.start[-1]) * (1 - 1e-9):
        return True
    _, masses = best_policy(question, 1e-8)
    return True if question.kl(masses) < budget else None


FINITE = Family(
    "finite outcome sets",
    "`finite.solve` for two to six levels of the reward with up to three tied outcomes each, "
    "random references, procedures of up to 64 draws, β from 0.003 to 1, or budgets up to all mass "
    "on the top level. By sums over the levels; the optimum by climbs from the best of thousands "
    "of random policies.",
    draw,
    answer,
    judge,
    {
        "sum of the policy": 1e-12,
        "W of the policy": 1e-11,
        "KL of the policy": 1e-10,
        "policy and the tilt by its coupled reward": 1e-6,
        "budget, relative": 1e-7,
        "J below the best, certified": 3e-8,
        "J below the best, not certified": float("inf"),
        "W below the best, certified": 1e-7,
        "W below the best, not certified": float("inf"),
        "lead beyond the gap": 1e-7,
    },
    share=2,
    refusal=refusal,
)
