"""Verifiable rewards: an answer passes or fails, with nothing in between.

With two rewards there is no real quantile axis, but the inference-time problem has a single
unknown, the policy's pass rate p. For a reference that passes with chance p₀,

    W = ½ + ½ [G(1 − p₀) − H(1 − p)],     KL = p log(p/p₀) + (1 − p) log((1 − p)/(1 − p₀)).

With best-of-n, W exceeds one half by ½ [(1 − p₀)ⁿ − (1 − p)ⁿ]: InfAlign is then pass@n training
(docs/maths.md, section 14).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from scipy.special import expit, logit, rel_entr

from infalign import _check
from infalign._look import Shown
from infalign.errors import ArgumentError, SolveError

from ._interface import AbstractProcedure, RankProcedure, require_by_rank, require_procedure
from ._roots import NoRoot, bracketed_root, falling_root
from ._shapes import ArrayLike, Float, Real
from ._solvers.binary import maxima

__all__ = ["VerifiableOptimum", "solve", "win_rate"]

LOG_BETAS = (-690.0, 60.0)
"""Limits of the search for a KL budget."""

MOST_CHANGE = 1500.0
"""A change of the log-odds that makes any pass rate a double can hold 1."""

BRANCH = 4.0
"""Change of log β within which a maximum on one side of a jump is looked for."""

SPENT = 1e-9
"""Relative error of the KL below which a budget counts as spent."""

PerPrompt = Float[np.ndarray, "prompts"]


@dataclass(frozen=True)
class VerifiableOptimum(Shown):
    """The best policy for a reward that passes or fails, prompt by prompt."""

    pass_rate: Float[np.ndarray, "prompts"] = field(repr=False)
    """p."""

    reward_gap: Float[np.ndarray, "prompts"] = field(repr=False)
    """Training reward for a pass minus that for a failure, in units of win rate, ½ h(1 − p): with
    this reward and `beta`, KL-regularized RL solves the inference-time problem."""

    win_rate: float
    """Mean over prompts; ties count one half."""

    kl: float
    """Mean over prompts, in nats."""

    beta: float
    """KL strength in units of win rate per nat; 0 where it is below the smallest number."""

    gap: float = 0.0
    """Upper bound on how much larger the mean win rate of any policy of the same mean KL is. 0 but
    for budgets of several prompts over which the optimum jumps as β falls."""


def win_rate(
    pass_rate: Real[ArrayLike, "*any"],
    reference: Real[ArrayLike, "*any"],
    procedure: RankProcedure,
    against: AbstractProcedure | None = None,
) -> Float[np.ndarray, "*any"]:
    """Chance to beat the reference, elementwise; ties count one half.

    - `pass_rate`, `reference`: chance that the policy, and the reference, passes; in [0, 1].
    - `against`: how the reference is decoded. Default: `procedure`.

    >>> from infalign import BestOfN
    >>> round(float(win_rate(0.5, 0.2, BestOfN(4))), 5)      # ½ + ½ (.8⁴ - .5⁴)
    0.67355
    """
    procedure, against = _laws(procedure, against)
    failing = 1 - _check.unit_interval("pass_rate", pass_rate)
    reference_failing = 1 - _check.unit_interval("reference", reference)
    shapes = failing.shape, reference_failing.shape
    if shapes[0] != shapes[1] and () not in shapes:
        raise ValueError(
            "`pass_rate` and `reference` must have the same shape, or one must be a number; got "
            f"{shapes[0]} and {shapes[1]}."
        )
    return 0.5 + 0.5 * (against.cdf(reference_failing) - procedure.cdf(failing))


def solve(
    reference: Real[ArrayLike, "prompts"] | float,
    procedure: RankProcedure,
    *,
    kl: float | None = None,
    beta: float | None = None,
    against: AbstractProcedure | None = None,
) -> VerifiableOptimum:
    """The pass rates with the largest mean win rate, at a KL budget or at a strength β.

    - `reference`: the reference's chance to pass, one per prompt, in [0, 1]. Training cannot change
      a chance of 0 or 1; no KL is spent on such a prompt.
    - `kl`: budget in nats, as a mean over prompts; it is best spent with a single β.
    - `against`: how the reference, the policy's opponent, is decoded. Default: `procedure`.

    At a β the result is exact: the best of all solutions of log-odds(p) − log-odds(p₀) = ½ h(1 −
    p)/β, of which bounds on h′ prove that there are no others. Two solutions may be equally good;
    then the mean KL jumps as β falls. A budget within the jump is answered too: exactly for one
    prompt, and with a certified `gap` for several.

    Raises ValueError for arguments out of range, SolveError for a budget that cannot be spent, and
    DataError for a procedure of more than 16 draws whose law has no `slope_range`.

    >>> from infalign import BestOfN
    >>> best = solve([0.2], BestOfN(4), beta=0.5)
    >>> [round(float(x), 4) for x in (best.pass_rate[0], best.win_rate, best.kl)]
    [0.3864, 0.6339, 0.0917]
    """
    procedure, against = _laws(procedure, against)
    start = np.atleast_1d(_check.unit_interval("reference", reference))
    if start.ndim != 1 or not start.size:
        raise ArgumentError(
            "reference", f"must be a non-empty list of pass rates; got shape {start.shape}."
        )
    _check.budget(kl, beta)

    problem = _Binary(start, procedure, against)
    if kl is not None:
        return _spend(problem, _check.positive("kl", kl))
    beta = _check.positive("beta", beta)
    return problem.optimum(problem.changes(beta), beta)


@dataclass(frozen=True)
class _Binary:
    """Pass rates of a policy, by the change of the log-odds of each prompt that can change."""

    start: PerPrompt
    """The reference's pass rates."""

    procedure: RankProcedure
    against: AbstractProcedure

    @cached_property
    def free(self) -> np.ndarray:
        """Indices of the prompts whose pass rate can change."""
        return np.flatnonzero((self.start > 0) & (self.start < 1))

    @cached_property
    def origin(self) -> PerPrompt:
        """Log-odds of the reference on those prompts."""
        return logit(self.start[self.free])

    @property
    def most(self) -> float:
        """Mean KL of the policy that passes wherever the reference can pass."""
        return float(np.abs(np.log(self.start[self.free])).sum() / self.start.size)

    def changes(self, beta: float, near: PerPrompt | None = None) -> PerPrompt:
        """The highest maxima of W − β KL, or those nearest to `near`."""
        tops = maxima(self.start[self.free], self.procedure, beta)
        return tops.best() if near is None else tops.nearest(near)

    def beta(self, prompt: int, change: float) -> float:
        """The β at which the change of one prompt is stationary."""
        failing = expit(-self.origin[prompt] - change)
        return float(0.5 * self.procedure.density(failing) / change)

    def kl(self, changes: PerPrompt) -> float:
        """Mean KL over all prompts, those that cannot change included."""
        start = self.start[self.free]
        passing, failing = expit(self.origin + changes), expit(-self.origin - changes)
        total = (rel_entr(passing, start) + rel_entr(failing, 1 - start)).sum()
        return float(total / self.start.size)

    def optimum(self, changes: PerPrompt, beta: float) -> VerifiableOptimum:
        """The policy with these changes."""
        failing = 1 - self.start
        failing[self.free] = expit(-self.origin - changes)
        passing = self.start.copy()
        passing[self.free] = expit(self.origin + changes)
        opponent = self.against.cdf(1 - self.start)
        return VerifiableOptimum(
            passing,
            reward_gap=0.5 * self.procedure.density(failing),
            win_rate=float(np.mean(0.5 + 0.5 * (opponent - self.procedure.cdf(failing)))),
            kl=self.kl(changes),
            beta=beta,
        )


def _spend(problem: _Binary, budget: float) -> VerifiableOptimum:
    """The best policy of a mean KL `budget`."""
    if not 0 < budget < problem.most:
        raise SolveError(
            f"No pass rates cost kl={budget:g} nats on average from these `reference` rates: the "
            f"policy that always passes costs {problem.most:.4g}. Ask for a smaller `kl`."
        )
    if problem.free.size == 1:  # the pass rate that costs the budget is the only candidate
        return _only(problem, budget)
    by_log_beta: dict[float, PerPrompt] = {}

    def excess(log_beta: float) -> float:
        by_log_beta[log_beta] = problem.changes(float(np.exp(log_beta)))
        return problem.kl(by_log_beta[log_beta]) / budget - 1

    low, high = LOG_BETAS
    try:
        log_beta = falling_root(excess, 0.0, low=low, high=high, growth=1.5, xtol=1e-14)
    except NoRoot as end:
        raise SolveError(
            f"kl={budget:g} nats on average need a `beta` "
            + (
                f"below {np.exp(low):.0e}: with more KL the win rate rises by less than a number "
                "can hold. Ask for a smaller `kl`."
                if end.at < 0
                else f"above {np.exp(high):.0e}. Ask for a larger `kl`."
            )
        ) from None
    if abs(excess(log_beta)) <= SPENT:
        return problem.optimum(by_log_beta[log_beta], float(np.exp(log_beta)))
    below = max(b for b, changes in by_log_beta.items() if problem.kl(changes) > budget)
    above = min(b for b, changes in by_log_beta.items() if problem.kl(changes) < budget)
    beta = float(np.exp(log_beta))
    return _within_jump(problem, budget, by_log_beta[above], by_log_beta[below], beta)


def _only(problem: _Binary, budget: float) -> VerifiableOptimum:
    """The pass rate of a single prompt that costs the budget."""
    change = bracketed_root(
        lambda c: problem.kl(np.full(1, c)) / budget - 1, 0.0, MOST_CHANGE, xtol=1e-15
    )
    return problem.optimum(np.full(1, change), problem.beta(0, change))


def _within_jump(
    problem: _Binary, budget: float, lower: PerPrompt, upper: PerPrompt, beta: float
) -> VerifiableOptimum:
    """A policy of a mean KL `budget` where the optimum jumps over it, at `beta`, from `lower` to
    `upper`.

    Best are pass rates that are stationary for one common β: with the prompts that jump all below,
    all above, or one of them between.
    """
    before, after = lower.copy(), lower.copy()
    for prompt in np.argsort(lower - upper):
        after[prompt] = upper[prompt]
        if problem.kl(after) >= budget:
            break
        before[prompt] = upper[prompt]
    between = _Between(problem, budget, before, after, int(prompt))
    candidates = [
        _one_side(problem, budget, before, beta),
        _one_side(problem, budget, after, beta),
        between.common(),
        between.alone(beta),
    ]
    spent = [c for c in candidates if c is not None and abs(c.kl / budget - 1) <= SPENT]
    best = max(spent, key=lambda c: c.win_rate)
    # No policy has a larger W − β KL than the ends of the jump.
    end = problem.optimum(lower, beta)
    bound = end.win_rate + beta * (budget - end.kl)
    return replace(best, gap=max(float(bound - best.win_rate), 0.0))


def _one_side(
    problem: _Binary, budget: float, near: PerPrompt, beta: float
) -> VerifiableOptimum | None:
    """Every prompt at its maximum nearest to `near`, at the β that spends the budget; None if these
    maxima end before."""

    def excess(log_beta: float) -> float:
        return problem.kl(problem.changes(float(np.exp(log_beta)), near)) / budget - 1

    start = float(np.log(beta))
    try:
        log_beta = falling_root(
            excess, start, step=0.1, growth=2.0, low=start - BRANCH, high=start + BRANCH, xtol=1e-14
        )
    except NoRoot:
        return None
    beta = float(np.exp(log_beta))
    return problem.optimum(problem.changes(beta, near), beta)


@dataclass(frozen=True)
class _Between:
    """Policies of a mean KL `budget` in which one prompt changes by less than from `before` to
    `after`, which differ in that prompt only."""

    problem: _Binary
    budget: float
    before: PerPrompt
    after: PerPrompt
    prompt: int

    def alone(self, beta: float) -> VerifiableOptimum:
        """The others change as at `beta`."""
        return self.problem.optimum(self._spending(self._moved), beta)

    def common(self) -> VerifiableOptimum | None:
        """The others are at their maxima nearest to `before` for the β of this prompt; None if that
        does not spend the budget."""
        try:
            changes = self._spending(self._with_others)
        except ValueError:  # the others' maxima at both ends do not enclose the budget
            return None
        return self.problem.optimum(changes, self._beta(changes[self.prompt]))

    def _spending(self, changes: Callable[[float], PerPrompt]) -> PerPrompt:
        ends = float(self.before[self.prompt]), float(self.after[self.prompt])
        excess = lambda change: self.problem.kl(changes(change)) / self.budget - 1  # noqa: E731
        return changes(bracketed_root(excess, *ends, xtol=1e-15))

    def _moved(self, change: float) -> PerPrompt:
        changes = self.before.copy()
        changes[self.prompt] = change
        return changes

    def _with_others(self, change: float) -> PerPrompt:
        if change == 0:  # stationary for β → ∞ only, where no other prompt changes either
            return np.zeros_like(self.before)
        changes = self.problem.changes(self._beta(change), self.before)
        changes[self.prompt] = change
        return changes

    def _beta(self, change: float) -> float:
        """The β at which the change of the prompt is stationary."""
        return self.problem.beta(self.prompt, change)


def _laws(
    procedure: RankProcedure, against: AbstractProcedure | None
) -> tuple[RankProcedure, AbstractProcedure]:
    """Both procedures, after a check."""
    remedy = "For other procedures, build the world with `infalign.finite`."
    procedure = require_by_rank("procedure", procedure, remedy)
    return procedure, procedure if against is None else require_procedure("against", against)
