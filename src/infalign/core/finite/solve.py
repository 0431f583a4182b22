"""The best policy for a procedure, exact on a finite outcome set, from its coupled reward."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import reduce

import numpy as np

from infalign import _check
from infalign.core._roots import NoRoot, falling_root
from infalign.errors import ArgumentError, SolveError

from .ascent import Ascent, Climber, Columns
from .functionals import Input, PerPrompt, Rows, as_numbers
from .problem import Problem, Procedure
from .world import World, probabilities

ARRIVED = 1e-7
"""Largest residual of a solution; most are below 1e-13."""

SMALLEST_BETA = 1e-8
"""Smallest β in the search for a KL budget."""

SHORT = 1e-6
"""Penalty on the objective per unit of residual, when two climbs are compared."""


@dataclass(frozen=True, eq=False)
class Solution:
    """A best policy and its coupled reward.

    Policies and rewards have the shape of the `reward` argument. Numbers per prompt are floats for
    a single prompt without a prompt axis.
    """

    policy: Rows
    """π ∝ π_ref e^{R/β}. Probabilities below the smallest double are 0."""

    coupled_reward: Rows
    """R = ∂W/∂π at the policy, shifted so that its mean under the policy is the win rate; then the
    objective is β log Σ π_ref e^{R/β}."""

    calibrated_reward: Rows
    """C, the mid-rank quantile under the reference."""

    win_rate: PerPrompt
    kl: PerPrompt
    """KL(policy ‖ reference) in nats."""

    beta: float
    """KL strength in units of win rate per nat, one for all prompts."""

    objective: PerPrompt
    """W − β KL."""

    residual: PerPrompt
    """Total variation between the policy and π_ref e^{R/β} / Z, computed from its own R."""

    gap: PerPrompt
    """Upper bound on how much larger the objective of any policy can be; nan where W is not known
    to be concave in the policy."""


def solve(
    reward: Input,
    reference: Input,
    procedure: Procedure,
    beta: float | None = None,
    *,
    kl: float | None = None,
    against: Procedure | None = None,
    starts: Sequence[Input] = (),
) -> Solution:
    """The policy of largest W_T(π) − β KL(π ‖ π_ref) for each prompt, with its coupled reward.

    It solves ordinary KL-regularized RL for the reward R = ∂W_T/∂π at that policy: InfAlign,
    arXiv:2412.19792, theorem 1.

    - `reward`: (outcomes,) or (prompts, outcomes); any scale, ties allowed.
    - `reference`: probabilities of the same shape. If prompts have different numbers of outcomes,
      pad with outcomes of probability 0: they stay at 0.
    - `procedure`: how one response is selected out of several: a rank-based procedure such as
      `BestOfN(4)`, a `MajorityVote`, or your own map as a `Custom`.
    - `beta`: KL strength; or `kl`: the mean KL over prompts in nats, at one β for all prompts, as
      in training. Give exactly one.
    - `against`: how the reference, the policy's opponent, is decoded. Default: `procedure`.
    - `starts`: further policies to start from.

    The result is a stationary point, up to `residual`. If W is concave in the policy (sampling,
    best-of-n), it is the only one and the optimum, up to `gap`. Otherwise it is the best of the
    points that monotone ascents reach from several starts: the reference, the mean of the reference
    and the law selected from it, the tilt by the win chances against the opponent, for a majority
    vote each of the 8 likeliest labels, and `starts`. Another maximum may be better.

    Raises ValueError for bad arguments and SolveError if no optimum or no β is found.

    Odds of 3 : 1 by hand: C = (1/4, 3/4) and e^{(3/4 - 1/4)/β} = 3.

    >>> from infalign import BestOfN, Sampling
    >>> best = solve([0, 1], [0.5, 0.5], Sampling(), beta=0.5 / np.log(3))
    >>> best.policy.round(9).tolist(), round(best.win_rate, 9)
    ([0.25, 0.75], 0.625)
    >>> round(solve([0, 1, 1, 5], [0.4, 0.3, 0.2, 0.1], BestOfN(4), kl=0.5).win_rate, 6)
    0.795641
    """
    _check.budget(kl, beta)
    world = World.of(reward, reference)
    problem = Problem.of(world, procedure, against)
    shape = world.as_given(world.reward).shape
    starts = _check.entries("starts", starts)
    given = [problem.columns(_start(world, start, shape)) for start in starts]
    hills = _Hills(problem, given, procedure)
    if kl is None:
        beta = _check.positive("beta", beta)
        top = hills.highest(beta)
    else:
        beta, top = _spend(hills, _check.positive("kl", kl))
    gap = beta * np.maximum(top.bound, 0) if problem.map.concave else np.nan * top.kl
    return Solution(
        policy=world.as_given(_policy(problem, top)),
        coupled_reward=world.as_given(problem.at_outcomes(top.gradient)),
        calibrated_reward=world.as_given(world.at_outcomes(world.mid_rank(world.reference))),
        win_rate=as_numbers(world, top.win_rate),
        kl=as_numbers(world, top.kl),
        beta=beta,
        objective=as_numbers(world, top.objective),
        residual=as_numbers(world, top.residual),
        gap=as_numbers(world, gap),
    )


@dataclass(frozen=True)
class _Hills:
    """The stationary points that a problem's starts lead to."""

    problem: Problem
    given: list[Columns]
    """Starts given by the caller."""

    procedure: Procedure

    def highest(self, beta: float, near: Columns | None = None) -> Climber:
        """Each prompt's highest point; `near` is one more start, in log-densities."""
        problem, reference = self.problem, self.problem.reference
        psis = [] if near is None else [near]
        if near is None or not problem.map.concave:
            psis.append(np.zeros_like(reference))
        if not problem.map.concave:
            psis.append(problem.utility / beta)
            psis += [_log_ratio(p, reference) for p in [*problem.starts(), *self.given]]
        ascent = Ascent(problem, beta)
        top = reduce(_higher, (ascent.climb(psi) for psi in psis))
        lost = np.flatnonzero(~(top.residual <= ARRIVED))
        if lost.size:
            raise SolveError(
                f"No optimum was found for {self.procedure} with beta={beta:g}: prompt {lost[0]} "
                f"stopped at a residual of {top.residual[lost[0]]:.1e} ({lost.size} of "
                f"{top.residual.size} prompts). Ask for a larger `beta`, or give a policy near "
                "the optimum in `starts`; of a `Custom`, check that `pullback` is the derivative."
            )
        return top


def _higher(one: Climber, other: Climber) -> Climber:
    """The better point of each row; a climb that stopped early loses to one that converged."""
    better = other.objective - SHORT * other.residual > one.objective - SHORT * one.residual

    def chosen(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.where(better if a.ndim == 1 else better[:, None], b, a)

    names = [field.name for field in fields(Climber)]
    return Climber(**{name: chosen(getattr(one, name), getattr(other, name)) for name in names})


def _spend(hills: _Hills, budget: float) -> tuple[float, Climber]:
    """The β whose optimum has a mean KL of `budget`, and the optimum."""
    problem, reference = hills.problem, hills.problem.reference
    if problem.by_rank:
        # With a procedure that selects by rank, the extreme policy has all mass on the top level.
        top = np.where(reference > 0, np.arange(reference.shape[1]), -1).argmax(1)
        most = -np.log(np.take_along_axis(reference, top[:, None], 1)).mean()
        if budget >= most:
            raise ArgumentError(
                "kl",
                f"must be below {most:g} nats, the mean KL of the policy that always answers "
                f"with the highest reward; got {budget:g}.",
            )
    coupled = problem.gradient(reference, np.zeros(len(reference)))  # of mean 0
    # A small tilt has KL = var(R) / (2 β²).
    guess = np.sqrt((reference * coupled**2).sum(1).mean() / (2 * budget))
    if guess == 0:
        raise SolveError(
            "No KL can be spent: at the reference the win rate does not depend on the policy. "
            "Leave out prompts whose rewards are all equal."
        )
    optima: dict[float, Climber] = {}

    def excess(log_beta: float) -> float:
        near = optima[min(optima, key=lambda b: abs(b - log_beta))].psi if optima else None
        optima[log_beta] = hills.highest(float(np.exp(log_beta)), near)
        return float(optima[log_beta].kl.mean() - budget)

    try:
        lowest = float(np.log(SMALLEST_BETA))
        log_beta = falling_root(excess, float(np.log(guess)), low=lowest, xtol=1e-11)
    except NoRoot:
        raise SolveError(
            f"No beta above {SMALLEST_BETA:g} spends kl={budget:g}; the largest KL reached is "
            f"{max(c.kl.mean() for c in optima.values()):g} nats. Ask for a smaller `kl`."
        ) from None
    spent = optima[log_beta].kl.mean()
    if abs(spent / budget - 1) > 1e-6:
        kls = [climber.kl.mean() for climber in optima.values()]
        raise SolveError(
            f"No beta spends kl={budget:g}: at beta={np.exp(log_beta):g} the optimum jumps from "
            f"{max(k for k in kls if k <= budget):g} to {min(k for k in kls if k >= budget):g} "
            "nats, from one maximum to another. Ask for a `kl` outside that interval, or give "
            "`beta`."
        )
    return float(np.exp(log_beta)), optima[log_beta]


def _start(world: World, start: Input, shape: tuple[int, ...]) -> np.ndarray:
    rows = np.atleast_2d(probabilities("starts", start, shape))
    missing = (rows == 0) & (world.reference > 0)
    if missing.any():
        raise ArgumentError(
            "starts",
            "must be above 0 wherever the reference is: an ascent cannot raise an outcome from 0; "
            f"got 0 at {missing.sum()} of {missing.size} entries. Mix in a little of the "
            "reference.",
        )
    return rows


def _log_ratio(policy: Columns, reference: Columns) -> Columns:
    """log(policy / reference), 0 where the reference has no mass."""
    inside = reference > 0
    return np.log(np.where(inside, policy, 1)) - np.log(np.where(inside, reference, 1))


def _policy(problem: Problem, top: Climber) -> Rows:
    """The policy on the outcomes; outcomes of one column share its mass in proportion to the
    reference."""
    return problem.world.reference * np.exp(problem.at_outcomes(top.psi))
