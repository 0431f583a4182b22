"""Transforms side by side: the win rate of each at a KL budget, compared with the optimum's."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, overload, runtime_checkable

import numpy as np

from infalign import _check
from infalign.errors import ArgumentError, SolveError

from ._design import designs
from ._few_samples import FewSamples
from ._interface import AbstractProcedure, require_by_rank, require_procedure
from ._policies import TiltedPolicy
from ._roots import NoRoot, falling_root
from ._shapes import Float
from ._transforms import AbstractTransform, Exponential, Power

WEAKEST_TILT = 30.0
"""How far below its first guess log β is searched. Beyond that, Φ/β overflows or no longer
distinguishes responses."""

T = TypeVar("T", bound=AbstractTransform)


@runtime_checkable
class Policy(Protocol):
    """A policy, with its KL and win rates."""

    @property
    def beta(self) -> float: ...

    @property
    def kl(self) -> float: ...

    def win_rate(
        self, procedure: AbstractProcedure, against: AbstractProcedure | None = None
    ) -> float: ...


@runtime_checkable
class Tilting(Protocol):
    """A candidate that is not a transform of the quantile, such as `RawRewards`."""

    @property
    def spec(self) -> str:
        """The candidate's name in tables."""

    @property
    def middle(self) -> Float[np.ndarray, "_"]:
        """Rewards whose spread sets the first guess of β."""

    def tilted(self, beta: float) -> Policy:
        """The policy trained on this candidate with strength β."""


Family = Callable[[AbstractProcedure, float, AbstractProcedure], AbstractTransform]
"""Chooses a transform for a procedure, a KL budget and an opponent, as `best_exponential` does."""


@dataclass(frozen=True)
class Candidate:
    """One transform at one KL budget."""

    transform: str
    kl: float
    beta: float
    win_rate: float
    loss: float
    """Shortfall of the win rate from the optimum at the same budget."""

    stderr: float = 0.0
    """Standard error of `win_rate`; above 0 for a finite number of calibration samples."""


def compare(
    procedure: AbstractProcedure,
    transforms: Sequence[AbstractTransform | Tilting | Family],
    *,
    kl: float | Sequence[float],
    against: AbstractProcedure | None = None,
    samples: int | None = None,
) -> list[Candidate]:
    """The optimum at each KL budget, then the win rate of each transform at that budget.

    - `transforms`: transforms, or `RawRewards`; `best_exponential` and `best_power` stand for their
      best member at each budget.
    - `samples`: calibration samples per prompt, as for `design`. `RawRewards` are not calibrated,
      so their win rate does not depend on it.

    >>> from infalign import BestOfN, Identity
    >>> [f"{c.transform} {c.win_rate:.4f}" for c in compare(BestOfN(8), [Identity()], kl=0.5)]
    ['optimal 0.9299', 'identity 0.8036']
    """
    require_procedure("procedure", procedure)
    against = procedure if against is None else require_procedure("against", against)
    budgets = _check.entries("kl", kl) if isinstance(kl, Iterable) else [kl]
    budgets = [_check.positive("kl", budget) for budget in budgets]
    candidates = _candidates(transforms)
    rows = []
    for budget, best in zip(budgets, designs(procedure, against, budgets, samples), strict=True):
        rows.append(Candidate("optimal", best.kl, best.beta, best.win_rate, 0.0, best.stderr))
        for candidate in candidates:
            if not isinstance(candidate, AbstractTransform | Tilting):
                candidate = candidate(procedure, budget, against)
            if samples is None or not isinstance(candidate, AbstractTransform):
                policy = at_kl(candidate, budget)
                kl_, strength, stderr = policy.kl, policy.beta, 0.0
                win = policy.win_rate(procedure, against)
            else:
                few = FewSamples(samples)
                strength, exponents = few.at_kl(candidate, budget)
                achieved = few.achieved(exponents, require_by_rank("procedure", procedure), against)
                kl_, win, stderr = achieved.kl, achieved.win_rate, achieved.stderr
            loss = best.win_rate - win
            rows.append(Candidate(candidate.spec, kl_, strength, win, loss, stderr))
    return rows


def _candidates(transforms: object) -> list[AbstractTransform | Tilting | Family]:
    candidates = _check.entries("transforms", transforms)
    for candidate in candidates:
        known = isinstance(candidate, AbstractTransform | Tilting) or callable(candidate)
        if isinstance(candidate, type) or not known:
            raise ArgumentError(
                "transforms",
                "must hold transforms such as Identity(), RawRewards, or best_exponential; got "
                f"{_check.short(candidate)}. Text becomes one with `infalign.parse_transform`.",
            )
    return candidates


@overload
def at_kl(transform: AbstractTransform, kl: float) -> TiltedPolicy: ...
@overload
def at_kl(transform: Tilting, kl: float) -> Policy: ...
def at_kl(transform: AbstractTransform | Tilting, kl: float) -> Policy:
    """The policy trained on `transform` whose KL is `kl` nats; SolveError if that KL is out of
    reach."""
    _check.positive("kl", kl)
    if isinstance(transform, AbstractTransform):
        middle = transform(np.linspace(0.005, 0.995, 199))
    else:
        middle = transform.middle

    def tilted(log_beta: float) -> Policy:
        beta = float(np.exp(log_beta))
        if isinstance(transform, AbstractTransform):
            return TiltedPolicy(transform, beta)
        return transform.tilted(beta)

    def excess(log_beta: float) -> float:
        return float(np.log(max(tilted(log_beta).kl, 1e-300) / kl))

    # A weak tilt has a KL of Var(Φ)/(2 β²) nats.
    start = float(np.log(max(np.std(middle), 1e-300)) - 0.5 * np.log(2 * kl))
    try:
        return tilted(falling_root(excess, start, low=start - WEAKEST_TILT, xtol=1e-13))
    except NoRoot:
        raise SolveError(
            f"`{transform.spec}` does not reach kl={kl:g} nats at any β that can be computed. "
            "Ask for a smaller KL or a sharper transform."
        ) from None


def best_exponential(
    procedure: AbstractProcedure, kl: float, against: AbstractProcedure | None = None
) -> Exponential:
    """The exponential transform with the best t for a procedure and a KL budget.

    - `against`: how the reference is decoded. Default: `procedure`.
    """
    return _best_member(Exponential, np.arcsinh, np.sinh, procedure, kl, against)


def best_power(
    procedure: AbstractProcedure, kl: float, against: AbstractProcedure | None = None
) -> Power:
    """The power transform with the best a for a procedure and a KL budget.

    - `against`: how the reference is decoded. Default: `procedure`.
    """
    return _best_member(Power, np.log, np.exp, procedure, kl, against, low=0.02)


def _best_member(
    family: Callable[[float], T],
    squeeze: Callable[[float], float],
    stretch: Callable[[float], float],
    procedure: AbstractProcedure,
    kl: float,
    against: AbstractProcedure | None,
    low: float | None = None,
) -> T:
    """The member of a one-parameter family with the highest win rate, searched on a compressed
    scale."""
    from scipy.optimize import minimize_scalar  # slow to import

    require_procedure("procedure", procedure)
    against = procedure if against is None else require_procedure("against", against)
    _check.positive("kl", kl)
    # Sharper members do not win more: laws with n draws are concentrated within 1/n of the ends of
    # the axis.
    reach = 100.0 * max(procedure.draws, 4)
    ends = squeeze(-reach if low is None else low), squeeze(reach)

    def loss(x: float) -> float:
        try:
            return 1 - at_kl(family(float(stretch(x))), kl).win_rate(procedure, against)
        except SolveError:
            return 1.0

    grid = np.linspace(*ends, 25)
    losses = [loss(x) for x in grid]
    best = int(np.argmin(losses))
    around = grid[max(best - 1, 0)], grid[min(best + 1, 24)]
    x = minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-4}).x
    # Four digits are enough, except for a win rate near 1, where four digits may be out of reach.
    rounded = family(float(f"{stretch(x):.4g}"))
    try:
        at_kl(rounded, kl)
    except SolveError:
        return family(float(stretch(x)))
    return rounded
