"""The best policy for a procedure, exact on a finite outcome set, by its coupled reward."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from infalign import _check
from infalign.core._roots import bracketed_root
from infalign.errors import SolveError

from .ascent import Ascent, Climber
from .functionals import as_numbers
from .problem import Problem
from .world import World, probabilities

ARRIVED = 1e-7
"""Largest residual of a solution; most are below 1e-13."""

SMALLEST_BETA = 1e-8
"""Where the search for a KL budget gives up."""


@dataclass(frozen=True, eq=False)
class Solution:
    """A best policy and the reward that it is coupled to.

    Policies and rewards have the shape of the `reward` that was asked about; what is one number per
    prompt is a float where there was one prompt without an axis.
    """

    policy: np.ndarray
    """π ∝ π_ref e^{R/β}. What is below the smallest double is 0."""

    coupled_reward: np.ndarray
    """R = ∂W/∂π at the policy, shifted so that its mean under the policy is the win rate; then the
    objective is β log Σ π_ref e^{R/β}."""

    calibrated_reward: np.ndarray
    """C, the mid-rank quantile under the reference."""

    win_rate: float | np.ndarray
    kl: float | np.ndarray
    """KL(policy ‖ reference) in nats."""

    beta: float
    """KL strength in units of win rate per nat, one for all prompts."""

    objective: float | np.ndarray
    """W − β KL."""

    residual: float | np.ndarray
    """Total variation between the policy and π_ref e^{R/β} / Z, computed from its own R."""

    gap: float | np.ndarray
    """No policy has a larger objective by more than this; nan where W is not known to be concave
    in the policy."""


def solve(
    reward,
    reference,
    procedure,
    beta: float | None = None,
    *,
    kl: float | None = None,
    against=None,
    starts: Sequence[np.ndarray] = (),
) -> Solution:
    """The policy of largest W_T(π) − β KL(π ‖ π_ref) for each prompt, with its coupled reward.

    It solves ordinary KL-regularized RL for the reward R = ∂W_T/∂π taken at itself: InfAlign,
    arXiv:2412.19792, theorem 1.

    - `reward`: (outcomes,) or (prompts, outcomes); any scale, ties allowed.
    - `reference`: probabilities of the same shape. Where prompts have different numbers of
      outcomes, fill up with outcomes of probability 0: they stay at 0.
    - `procedure`: what keeps one response out of several: a rank-based procedure such as
      `BestOfN(4)`, a `MajorityVote`, or your own map as a `Custom`.
    - `beta`: KL strength; or `kl`: the mean KL over prompts, in nats, which is to be spent by one
      β for all of them, as in training. Exactly one.
    - `against`: how the reference that it must beat is decoded; `procedure` unless given.
    - `starts`: policies to start from besides those tried anyway.

    What is guaranteed: the result is a stationary point, to `residual`. Where W is concave in the
    policy (sampling, best-of-n) it is the only one and the optimum, to `gap`. Elsewhere it is the
    best of the points to which monotone climbs lead from the reference, the mean of the reference
    and its kept law, the tilt by the win chances against the opponent, for a majority vote each of
    the 8 likeliest labels, and `starts`: none of these is better, but another hill might be.

    Raises ValueError for bad arguments and SolveError where no optimum or no β is found.

    Odds of 3 : 1 by hand: C = (1/4, 3/4) and e^{(3/4 - 1/4)/β} = 3.

    >>> from infalign import BestOfN, Sampling
    >>> found = solve([0, 1], [0.5, 0.5], Sampling(), beta=0.5 / np.log(3))
    >>> found.policy.round(9).tolist(), round(found.win_rate, 9)
    ([0.25, 0.75], 0.625)
    >>> round(solve([0, 1, 1, 5], [0.4, 0.3, 0.2, 0.1], BestOfN(4), kl=0.5).win_rate, 6)
    0.795641
    """
    if (beta is None) == (kl is None):
        raise ValueError("Give exactly one of `beta` and `kl` (nats).")
    world = World.of(reward, reference)
    problem = Problem.of(world, procedure, against)
    shape = world.as_given(world.reward).shape
    given = [problem.columns(_start(world, start, shape)) for start in starts]
    hills = _Hills(problem, given, procedure)
    if kl is None:
        beta = _check.positive("beta", beta)
        found = hills.highest(beta)
    else:
        beta, found = _spend(hills, _check.positive("kl", kl))
    gap = beta * np.maximum(found.bound, 0) if problem.map.concave else np.nan * found.kl
    return Solution(
        policy=world.as_given(_policy(problem, found)),
        coupled_reward=world.as_given(problem.at_outcomes(found.gradient)),
        calibrated_reward=world.as_given(world.at_outcomes(world.mid_rank(world.reference))),
        win_rate=as_numbers(world, found.win_rate),
        kl=as_numbers(world, found.kl),
        beta=beta,
        objective=as_numbers(world, found.objective),
        residual=as_numbers(world, found.residual),
        gap=as_numbers(world, gap),
    )


@dataclass
class _Hills:
    """The stationary points of a problem that its starts lead to."""

    problem: Problem
    given: list[np.ndarray]
    procedure: object

    def highest(self, beta: float, near: np.ndarray | None = None) -> Climber:
        """Each prompt's highest hilltop; `near` is one more start, in log-densities."""
        ascent, reference = Ascent(self.problem, beta), self.problem.reference
        psis = [] if near is None else [near]
        if near is None or not self.problem.map.concave:
            psis.append(np.zeros_like(reference))
        if not self.problem.map.concave:
            psis.append(self.problem.utility / beta)
            psis += [_log_ratio(p, reference) for p in [*self.problem.starts(), *self.given]]
        best = None
        for psi in psis:
            there = ascent.climb(psi)
            best = there if best is None else _higher(best, there)
        lost = np.flatnonzero(~(best.residual <= ARRIVED))
        if lost.size:
            raise SolveError(
                f"No optimum was found for {self.procedure} with beta={beta:g}: prompt {lost[0]} "
                f"stopped at a residual of {best.residual[lost[0]]:.1e} ({lost.size} of "
                f"{best.residual.size} prompts). Ask for a larger `beta`, or give a policy near "
                "the optimum in `starts`; of a `Custom`, check that `pullback` is the derivative."
            )
        return best


def _higher(one: Climber, other: Climber) -> Climber:
    """Row by row the better one; a climb that stopped short yields to one that arrived."""
    better = other.objective - 1e-6 * other.residual > one.objective - 1e-6 * one.residual

    def chosen(a, b):
        return np.where(better if a.ndim == 1 else better[:, None], b, a)

    rows = {f.name: chosen(getattr(one, f.name), getattr(other, f.name)) for f in fields(one)}
    return replace(one, **rows)


def _spend(hills: _Hills, budget: float) -> tuple[float, Climber]:
    """The β whose optimum has a mean KL of `budget`, and that optimum."""
    problem = hills.problem
    if problem.by_rank:
        # All weight on the top level is the most a rank can ask for.
        top = np.where(problem.reference > 0, np.arange(problem.reference.shape[1]), -1).argmax(1)
        most = -np.log(np.take_along_axis(problem.reference, top[:, None], 1)).mean()
        if budget >= most:
            raise ValueError(
                f"`kl` must be below {most:g} nats, the mean KL of the policy that always answers "
                f"with the highest reward; got {budget:g}."
            )
    coupled = problem.gradient(problem.reference, np.zeros(len(problem.reference)))  # of mean 0
    # A small tilt has KL = var(R) / (2 β²).
    guess = np.sqrt((problem.reference * coupled**2).sum(1).mean() / (2 * budget))
    if guess == 0:
        raise SolveError(
            "No KL can be spent: at the reference the win rate does not depend on the policy. "
            "Leave out prompts whose rewards are all equal."
        )
    found: dict[float, Climber] = {}

    def excess(log_beta):
        near = found[min(found, key=lambda b: abs(b - log_beta))].psi if found else None
        found[log_beta] = hills.highest(float(np.exp(log_beta)), near)
        return found[log_beta].kl.mean() - budget

    low = high = float(np.log(guess))
    while excess(low) < 0:
        high, low = low, low - 1
        if low < np.log(SMALLEST_BETA):
            raise SolveError(
                f"No beta above {SMALLEST_BETA:g} spends kl={budget:g}; the most that was spent is "
                f"{max(c.kl.mean() for c in found.values()):g} nats. Ask for a smaller `kl`."
            )
    while excess(high) > 0:
        low, high = high, high + 1
    log_beta = bracketed_root(excess, low, high, xtol=1e-11, rtol=1e-14)
    spent = found[log_beta].kl.mean()
    if abs(spent / budget - 1) > 1e-6:
        least = max(c.kl.mean() for c in found.values() if c.kl.mean() <= budget)
        most = min(c.kl.mean() for c in found.values() if c.kl.mean() >= budget)
        raise SolveError(
            f"No beta spends kl={budget:g}: at beta={np.exp(log_beta):g} the optimum jumps from "
            f"{least:g} to {most:g} nats, from one hill to another. Ask for a `kl` outside of "
            "that interval, or give `beta`."
        )
    return float(np.exp(log_beta)), found[log_beta]


def _start(world: World, start, shape) -> np.ndarray:
    rows = np.atleast_2d(probabilities("starts", start, shape))
    missing = (rows == 0) & (world.reference > 0)
    if missing.any():
        raise ValueError(
            "`starts` must be above 0 wherever the reference is: an ascent leaves no outcome that "
            f"it starts without; got 0 at {missing.sum()} of {missing.size} entries. "
            "Mix in a little of the reference."
        )
    return rows


def _log_ratio(policy, reference) -> np.ndarray:
    """log(policy / reference), 0 where the reference has no mass."""
    inside = reference > 0
    return np.log(np.where(inside, policy, 1)) - np.log(np.where(inside, reference, 1))


def _policy(problem: Problem, found: Climber) -> np.ndarray:
    """The policy on the outcomes: those that share a column share it like the reference."""
    return problem.world.reference * np.exp(problem.at_outcomes(found.psi))
