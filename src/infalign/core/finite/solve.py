"""The best policy for a procedure, exact on a finite outcome set, from its coupled reward."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce

import numpy as np

from infalign import _check
from infalign._look import Shown
from infalign.core._roots import NoRoot, falling_root
from infalign.errors import ArgumentError, SolveError

from .ascent import Ascent, Climber, Columns
from .bound import TINY, bound
from .functionals import Input, PerPrompt, Rows, as_numbers
from .problem import Problem, Procedure
from .within_jump import SMALLEST_BETA as SMALLEST_WITHIN_A_JUMP
from .within_jump import within_jump
from .world import World, probabilities

__all__ = ["Solution", "solve"]

ARRIVED = 1e-7
"""Largest residual of a solution; most are below 1e-13."""

CERTIFIED = 1e-8
"""Largest gap of a certified optimum."""

FEW = 8
"""Largest number of levels for which a branch and bound certifies the optimum."""

CORNER = 20.0
"""Log-density of a start's upper levels over its lower ones."""

CORNERS = 32
"""Maximum number of such starts."""

SMALLEST_BETA = 1e-8
"""Smallest β that is tried for a budget."""

SHORT = 1e-6
"""Penalty on the objective per unit of residual, when two climbs are compared."""


@dataclass(frozen=True, eq=False)
class Solution(Shown):
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
    """Upper bound on how much larger the objective of any policy can be; nan where there is none:
    for a W that is not known to be concave, with more than 8 levels or outcomes. For a `kl`
    over which the optimum jumps, the same for the mean win rate of policies of that mean KL."""

    certified: bool
    """Whether `gap` shows that no policy is better, by at most 1e-8 in every prompt."""


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
    and the law selected from it, the tilt by the win chances against the opponent, for a
    rank-based procedure all mass from some level up, for a majority vote each of the 8 likeliest
    labels, and `starts`. For a rank-based procedure and at most 8 levels a branch and bound then
    certifies the optimum. Where `certified` is False, another maximum may be better.

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
        top, gap = hills.certified(beta, hills.highest(beta))
    else:
        beta, top, gap = _spend(hills, _check.positive("kl", kl))
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
        certified=bool((gap <= CERTIFIED).all()),
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
            psis += self._corners()
            psis += [_log_ratio(p, reference) for p in [*problem.starts(), *self.given]]
        top = self._climb(beta, psis)
        lost = np.flatnonzero(~(top.residual <= ARRIVED))
        if lost.size:
            raise SolveError(
                f"No optimum was found for {self.procedure} with beta={beta:g}: prompt {lost[0]} "
                f"stopped at a residual of {top.residual[lost[0]]:.1e} ({lost.size} of "
                f"{top.residual.size} prompts). Ask for a larger `beta`, or give a policy near "
                "the optimum in `starts`; of a `Custom`, check that `pullback` is the derivative."
            )
        return top

    def _climb(self, beta: float, psis: Sequence[Columns]) -> Climber:
        """Each prompt's highest point of those that starts lead to."""
        problem, count = self.problem, len(psis)
        if not problem.by_rank:
            return reduce(_higher, (Ascent(problem, beta).climb(psi) for psi in psis))
        # Rows do not interact: all starts climb at once, as rows of one larger problem.
        columns = (np.tile(c, (count, 1)) for c in (problem.utility, problem.reference))
        tops = Ascent(Problem(problem.world, problem.map, *columns), beta).climb(np.vstack(psis))
        rows = np.split(np.arange(len(tops.kl)), count)
        parts = [Climber(**{n: v[r] for n, v in vars(tops).items()}) for r in rows]
        return reduce(_higher, parts)

    def _corners(self) -> list[Columns]:
        """Log-densities of policies with nearly all mass on the levels from some level up."""
        if not self.problem.by_rank:
            return []
        levels = self.problem.reference.shape[1]
        first = np.unique(np.linspace(1, levels - 1, min(levels - 1, CORNERS)).round().astype(int))
        return [
            np.broadcast_to(CORNER * (np.arange(levels) >= a), self.problem.reference.shape)
            for a in first
        ]

    def certified(self, beta: float, top: Climber) -> tuple[Climber, np.ndarray]:
        """The highest points, and for each prompt an upper bound on how much higher any point is.

        The bound comes from concavity or, for procedures that select by rank among few levels, from
        a branch and bound, which also reaches maxima that no start leads to.
        """
        problem = self.problem
        if problem.map.concave:
            return top, beta * np.maximum(top.bound, 0)
        gap = np.full(len(top.kl), np.nan)
        if not problem.by_rank:
            return top, gap
        ascent = Ascent(problem, beta)
        for row in np.flatnonzero((problem.reference > 0).sum(1) <= FEW):
            limit = bound(problem, int(row), beta, float(top.objective[row]))
            if limit.policy is not None:
                psi = top.psi.copy()
                psi[row] = _log_ratio(np.maximum(limit.policy, TINY), problem.reference[row])
                top = _higher(top, ascent.climb(psi))
            gap[row] = max(limit.largest - top.objective[row], 0)
        return top, gap


def _higher(one: Climber, other: Climber) -> Climber:
    """The better point of each row; a climb that stopped early loses to one that converged."""
    better = other.objective - SHORT * other.residual > one.objective - SHORT * one.residual

    def chosen(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.where(better if a.ndim == 1 else better[:, None], b, a)

    names = [field.name for field in fields(Climber)]
    return Climber(**{name: chosen(getattr(one, name), getattr(other, name)) for name in names})


def _spend(hills: _Hills, budget: float) -> tuple[float, Climber, np.ndarray]:
    """The β whose optimum has a mean KL of `budget`, the optimum, and each prompt's gap."""
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
        start = max(float(np.log(guess)), lowest + 1)
        log_beta = falling_root(excess, start, low=lowest, xtol=1e-11)
    except NoRoot:
        raise SolveError(
            f"No beta above {SMALLEST_BETA:g} spends kl={budget:g}; the largest KL reached is "
            f"{max(c.kl.mean() for c in optima.values()):g} nats. Ask for a smaller `kl`."
        ) from None
    beta, top = float(np.exp(log_beta)), optima[log_beta]
    if abs(top.kl.mean() / budget - 1) > 1e-6:
        below = [c for c in optima.values() if c.kl.mean() <= budget]
        above = [c for c in optima.values() if c.kl.mean() >= budget]
        lower = max(below, key=lambda c: float(c.kl.mean()))
        upper = min(above, key=lambda c: float(c.kl.mean()))
        return _jumped(hills, budget, beta, lower, upper)
    better, gap = hills.certified(beta, top)
    if (better.objective > top.objective + CERTIFIED).any():
        # A maximum that no start leads to: search again with it as a start.
        start = np.exp(better.psi) * reference
        return _spend(replace(hills, given=[*hills.given, start]), budget)
    return beta, top, gap


def _jumped(
    hills: _Hills, budget: float, beta: float, lower: Climber, upper: Climber
) -> tuple[float, Climber, np.ndarray]:
    """β, the policy and the gap for a budget over which the optimum jumps, at `beta`, from `lower`
    to `upper`."""
    problem = hills.problem
    within = within_jump(problem, budget, lower, upper, beta) if problem.by_rank else None
    if within is None:
        raise SolveError(
            f"No beta spends kl={budget:g}: at beta={beta:g} the optimum jumps from "
            f"{lower.kl.mean():g} to {upper.kl.mean():g} nats, from one maximum to another. Ask "
            "for a `kl` outside that interval, or give `beta`."
        )
    if within.beta < SMALLEST_WITHIN_A_JUMP:
        raise SolveError(
            f"The best policy of kl={budget:g} has beta={within.beta:g}, at which rounding of its "
            f"coupled reward is no longer small against beta. At beta={beta:g} the optimum jumps "
            f"from {lower.kl.mean():g} to {upper.kl.mean():g} nats: ask for a `kl` outside that "
            "interval."
        )
    ascent = Ascent(problem, within.beta)
    top = ascent.look(ascent.at(within.psi))
    # No policy has a larger W − β KL than the ends of the jump.
    end, gap = hills.certified(beta, lower)
    bound = (end.objective + gap).mean() + beta * budget
    return within.beta, top, np.full_like(gap, max(bound - top.win_rate.mean(), 0.0))


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
