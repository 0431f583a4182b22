"""Transforms side by side: the win rate of each at a KL budget, compared with the optimum's."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, overload, runtime_checkable

import numpy as np

from infalign import _check
from infalign._look import Rows, Shown, label
from infalign.errors import ArgumentError, SolveError

from ._design import Design, designs
from ._few_samples import CELLS, ROUGH_CELLS, FewSamples
from ._interface import AbstractProcedure, require_by_rank, require_procedure
from ._policies import HALVINGS, TiltedPolicy
from ._quadrature import graded
from ._roots import NoRoot, falling_root, falling_root_by_slope
from ._shapes import Float
from ._transforms import AbstractTransform, Exponential, Power

WEAKEST_TILT = 30.0
"""How far below its first guess log β is searched. Beyond that, Φ/β overflows or no longer
distinguishes responses."""

RESOLVED = 1e-10
"""Smallest β of a bounded transform, in units of its range: its rounding errors over β stay below
1e-6."""

SPIKE = 10.0
"""log 1/ε for the narrowest spikes of interest."""

PATIENCE = 3
"""Number of members in a row without a higher win rate after which a search turns back."""

ENOUGH = 1e-12
"""Differences of win rates that do not count: rounding may cause them."""

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


Family = Callable[..., AbstractTransform]
"""Chooses a transform for a procedure, a KL budget and an opponent, as `best_exponential` does;
with `samples=K`, for K calibration samples."""


@dataclass(frozen=True)
class Candidate(Shown):
    """One transform at one KL budget."""

    transform: str
    kl: float
    beta: float
    win_rate: float
    loss: float
    """Shortfall of the win rate from the optimum at the same budget."""

    stderr: float = 0.0
    """Standard error of `win_rate` at this `kl`, which is exact; above 0 for a finite number of
    calibration samples."""


class Candidates(Rows[Candidate]):
    """The rows of `compare`, a list that is shown as a table."""

    __slots__ = ()

    def _draw(self, axes: Any) -> None:
        lines: dict[str, list[Candidate]] = {}
        for row in self:
            lines.setdefault(row.transform, []).append(row)
        named = {_check.visible(name[:40]): rows for name, rows in lines.items()}
        if all(len(rows) == 1 for rows in named.values()):
            heights = range(len(named))
            axes.barh(heights, [rows[0].win_rate for rows in named.values()])
            axes.set_yticks(heights, list(named), parse_math=False)
            axes.invert_yaxis()
            label(axes, x="win rate", y="", title=f"at {self[0].kl:.3g} nats" if self else "")
            return
        for name, rows in named.items():
            ordered = sorted(rows, key=lambda row: row.kl)
            kls, rates = [r.kl for r in ordered], [r.win_rate for r in ordered]
            axes.plot(kls, rates, marker="o", markersize=3, label=name)
        for text in axes.legend(frameon=False).get_texts():
            text.set_parse_math(False)
        label(axes, x="KL, nats", y="win rate")


def compare(
    procedure: AbstractProcedure,
    transforms: Sequence[AbstractTransform | Tilting | Family],
    *,
    kl: float | Sequence[float],
    against: AbstractProcedure | None = None,
    samples: int | None = None,
) -> "Candidates":
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
    rows = Candidates()
    for budget, best in zip(budgets, designs(procedure, against, budgets, samples), strict=True):
        rows.append(Candidate("optimal", best.kl, best.beta, best.win_rate, 0.0, best.stderr))
        rows += [_beside(best, budget, candidate, samples) for candidate in candidates]
    return rows


def beside(
    best: Design,
    transforms: Sequence[AbstractTransform | Tilting | Family],
    *,
    samples: int | None = None,
) -> list[Candidate]:
    """Each transform at the KL of a design, as `compare` states it.

    - `samples`: calibration samples per prompt, to a tenth of a point of win rate. Default: those
      of the design. `loss` still refers to the design, so if the design's quantiles are exact, it
      bounds the loss to the best that these samples permit.
    """
    cells = CELLS if samples is None else ROUGH_CELLS
    samples = best.samples if samples is None else _check.count("samples", samples)
    return [_beside(best, best.kl, c, samples, cells) for c in _candidates(transforms)]


def _beside(
    best: Design,
    kl: float,
    candidate: AbstractTransform | Tilting | Family,
    samples: int | None,
    cells: int = CELLS,
) -> Candidate:
    procedure, against = best.procedure, best.against
    if not isinstance(candidate, AbstractTransform | Tilting):
        limited = {} if samples is None else {"samples": samples}
        candidate = candidate(procedure, kl, against, **limited)
    if samples is None or not isinstance(candidate, AbstractTransform):
        policy = at_kl(candidate, kl)
        kl_, strength, stderr = policy.kl, policy.beta, 0.0
        win = policy.win_rate(procedure, against)
    else:
        few = FewSamples(samples, cells)
        strength, exponents = few.at_kl(candidate, kl)
        achieved = few.achieved(exponents, require_by_rank("procedure", procedure), against)
        kl_, win, stderr = achieved.kl, achieved.win_rate, achieved.stderr
    return Candidate(candidate.spec, kl_, strength, win, best.win_rate - win, stderr)


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

    start = float(np.log(_first_beta(transform, kl)))
    low = start - WEAKEST_TILT
    try:
        if not isinstance(transform, AbstractTransform):
            return transform.tilted(_beta_of_rewards(transform, kl, start, low))
        if transform.bounded:
            low = max(low, float(np.log(RESOLVED * np.ptp(transform(np.array([0.0, 1.0]))))))
        return TiltedPolicy(transform, _beta_of_transform(transform, kl, start, low))
    except NoRoot:
        raise SolveError(
            f"`{transform.spec}` does not reach kl={kl:g} nats at any β that can be computed. "
            "Ask for a smaller KL or a sharper transform."
        ) from None


def _beta_of_transform(transform: AbstractTransform, kl: float, start: float, low: float) -> float:
    """The β that reaches `kl`, from a guess of its logarithm; NoRoot below another."""

    def excess(log_beta: float) -> tuple[float, float]:
        policy = TiltedPolicy(transform, float(np.exp(log_beta)))
        reached = max(policy.kl, 1e-300)
        return float(np.log(reached / kl)), policy.kl_slope / reached

    return float(np.exp(falling_root_by_slope(excess, start, low=low, xtol=1e-13)))


def _beta_of_rewards(rewards: Tilting, kl: float, start: float, low: float) -> float:
    """The same for a candidate whose KL has no slope."""

    def excess(log_beta: float) -> float:
        return float(np.log(max(rewards.tilted(float(np.exp(log_beta))).kl, 1e-300) / kl))

    return float(np.exp(falling_root(excess, start, low=low, xtol=1e-13)))


def _first_beta(transform: AbstractTransform | Tilting, kl: float) -> float:
    """A β at or above the one that reaches `kl`, which is cheaper to compute than one below."""
    if not isinstance(transform, AbstractTransform):
        return max(float(np.std(transform.middle)), 1e-300) / np.sqrt(2 * kl)
    grid = graded(HALVINGS, HALVINGS)
    upper = grid.nodes > 0.5
    phi = np.empty_like(grid.nodes)
    phi[~upper], phi[upper] = transform(grid.nodes[~upper]), transform.below_1(grid.from_1[upper])
    variance = grid.integrate((phi - grid.integrate(phi)) ** 2)
    # A weak tilt has a KL of Var(Φ)/(2 β²) nats. A spike of Φ on a share ε of the responses costs
    # κ nats at a β of about its height / (κ + log 1/ε).
    weak = np.sqrt(variance / (2 * kl))
    spike = np.ptp(phi) / (kl + SPIKE) if transform.bounded else 0.0
    return max(weak, spike, 1e-300)


def best_exponential(
    procedure: AbstractProcedure,
    kl: float,
    against: AbstractProcedure | None = None,
    samples: int | None = None,
) -> Exponential:
    """The exponential transform with the best t for a procedure and a KL budget.

    - `against`: how the reference is decoded. Default: `procedure`.
    - `samples`: calibration samples per prompt, for which t is optimized. Default: exact
      calibration, which prefers a larger t.
    """
    return _best_member(Exponential, np.arcsinh, np.sinh, procedure, kl, against, samples)


def best_power(
    procedure: AbstractProcedure,
    kl: float,
    against: AbstractProcedure | None = None,
    samples: int | None = None,
) -> Power:
    """The power transform with the best a for a procedure and a KL budget.

    - `against`: how the reference is decoded. Default: `procedure`.
    - `samples`: calibration samples per prompt, for which a is optimized. Default: exact
      calibration.
    """
    return _best_member(Power, np.log, np.exp, procedure, kl, against, samples, low=0.02)


def _best_member(
    family: Callable[[float], T],
    squeeze: Callable[[float], float],
    stretch: Callable[[float], float],
    procedure: AbstractProcedure,
    kl: float,
    against: AbstractProcedure | None,
    samples: int | None,
    low: float | None = None,
) -> T:
    """The member of a one-parameter family with the highest win rate, searched on a compressed
    scale from the identity, at 0, outward."""
    from scipy.optimize import minimize_scalar  # slow to import

    require_procedure("procedure", procedure)
    against = procedure if against is None else require_procedure("against", against)
    _check.positive("kl", kl)
    few = None if samples is None else FewSamples(samples, ROUGH_CELLS)
    # Sharper members do not win much more: laws with n draws are concentrated within 1/n of the
    # ends of the axis.
    reach = 100.0 * max(procedure.draws, 4)
    ends = squeeze(-reach if low is None else low), squeeze(reach)
    step = (ends[1] - ends[0]) / 24

    def loss(x: float) -> float:
        member = family(float(stretch(x)))
        try:
            if few is None:
                return 1 - at_kl(member, kl).win_rate(procedure, against)
            _, exponents = few.at_kl(member, kl)
            by_rank = require_by_rank("procedure", procedure)
            return 1 - few.achieved(exponents, by_rank, against).win_rate
        except SolveError:
            return 1.0

    losses = {0.0: loss(0.0)}
    for end in ends:
        falls, direction = 0, float(np.sign(end))
        for number in range(1, int(abs(end) / step) + 1):
            best, x = min(losses.values()), direction * number * step
            losses[x] = loss(x)
            falls = falls + 1 if losses[x] >= best - ENOUGH else 0
            if falls == PATIENCE or losses[x] <= ENOUGH:
                break
    least = min(losses.values())
    x = min((x for x in losses if losses[x] <= least + ENOUGH), key=abs)
    if least > ENOUGH:
        around = max(x - step, ends[0]), min(x + step, ends[1])
        inner = minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-3})
        x = float(inner.x) if inner.fun < losses[x] else x
    # Four digits are enough, except for a win rate near 1, where four digits may be out of reach.
    rounded = family(float(f"{stretch(x):.4g}"))
    try:
        at_kl(rounded, kl)
    except SolveError:
        return family(float(stretch(x)))
    return rounded
