"""Designs: `ia.design` by shooting, its policy and its transform by quadrature."""

from dataclasses import dataclass

import numpy as np
from scipy.special import kl_div

import infalign as ia
from infalign.errors import SolveError

from .check import Errors, Family, OutOfReach, OutOfTime
from .laws import Law
from .procedures import Pair, by_rank, opponent
from .quadrature import Tilt
from .shooting import DOUBT, SCANNED, Stationary, at_budget, of_budget, stationary

MOST_DRAWS = 200

COARSE = 50
"""Shots of a coarse scan."""

NO_KL = 1e-13
"""KL in nats below which errors are absolute: shots have log f, of which KL is the square, to
1e-14."""

ANOTHER = 1e-3
"""Relative difference in KL beyond which a solution is another one."""

STATIONARY = 1e-6
"""Residual of log f below which a policy is stationary."""

UNDECIDED = 1e-7
"""Distance of a win rate from a bound within which it is the best."""

AT_MOST = "W below the bound of that KL"

BEYOND_DOUBLE = 1e-12
"""1 − W below which double precision cannot hold a win rate's digits."""


@dataclass(frozen=True)
class Question:
    """A call of `design`."""

    procedure: Pair
    against: Pair
    asked: dict[str, float]

    def __repr__(self) -> str:
        asked = ", ".join(f"{k}={v!r}" for k, v in self.asked.items())
        return f"design({self.procedure}, against={self.against}, {asked})"

    @property
    def one_solution(self) -> bool:
        """Whether every β has one stationary policy: h rises, or g falls."""
        u = np.linspace(0, 1, 4001)
        h, g = self.procedure.law.density(u), self.against.law.density(u)
        return bool((np.diff(h) >= -1e-9 * h.max()).all() or (np.diff(g) <= 1e-9 * g.max()).all())


def draw(rng: np.random.Generator) -> Question:
    """Any procedures of up to 200 draws, budgets from 1e-3 to 4 nats, or a β from 1e-3 to 1."""
    procedure = by_rank(rng, MOST_DRAWS)
    against = opponent(rng, procedure, MOST_DRAWS)
    if rng.random() < 0.2:
        return Question(procedure, against, {"beta": float(f"{10 ** rng.uniform(-3, 0):.4g}")})
    kl = np.exp(rng.uniform(np.log(1e-3), np.log(4)))
    return Question(procedure, against, {"kl": float(f"{kl:.4g}")})


def answer(question: Question) -> ia.Design:
    procedure, against = question.procedure.procedure, question.against.procedure
    return ia.design(procedure, against=against, **question.asked)


def judge(question: Question, design: ia.Design) -> Errors:
    """Errors of the numbers, of the gap, of the policy and of the transform."""
    tilt = Tilt.of(lambda u: design.transform(u) / design.beta, question.against.law)
    known, asked = design.gap, question.asked
    errors = {
        "1 − W below 0 or KL below 0": max(design.win_rate - 1, -design.kl, 0.0),
        "what was asked, relative": abs(
            design.kl / asked["kl"] - 1 if "kl" in asked else design.beta / asked["beta"] - 1
        ),
    }
    try:
        solutions = _shots(question, design, tilt)
    except (OutOfReach, OutOfTime) as end:
        return errors | _without_shots(question, design, tilt, end)
    same = min(solutions, key=lambda s: abs(s.kl - design.kl))
    errors |= {
        "win rate": abs(same.win_rate - design.win_rate),
        "KL, relative": abs(design.kl - same.kl) / max(same.kl, NO_KL),
    }
    best = max(solutions, key=lambda s: s.objective)
    short = best.objective - (design.win_rate - design.beta * design.kl)
    if np.isfinite(known):
        errors["J beyond the gap"] = max(short - known, 0.0)
    if "beta" in asked:
        name = "J below the best, certified" if np.isfinite(known) else "J below the best"
        errors[name] = max(short, 0.0)
    elif short > 1e-9:  # the budget may lie in a jump; or there is a better policy of that KL
        laws = question.procedure.law, question.against.law
        if (lead := bound_of_kl(*laws, design.kl) - design.win_rate) <= UNDECIDED:
            errors[AT_MOST] = max(lead, 0.0)
        else:
            others = of_budget(*laws, asked["kl"], design.beta)
            most = max([s.win_rate for s in others], default=0.0)
            errors["W below the best of that KL"] = max(most - design.win_rate, 0.0)
    return errors | _as_trained(question, design, tilt, same.loss)


def _shots(question: Question, design: ia.Design, tilt: Tilt) -> list[Stationary]:
    """The stationary policies at the design's β, by shooting.

    Raises OutOfReach if double precision does not fix them, or if the shots show by themselves that
    they are not complete: two solutions where theory has one, or none where the design's policy is
    stationary by quadrature.
    """
    laws = question.procedure.law, question.against.law
    # One solution by theory, and shots through jumps one at a time: a coarse scan.
    coarse = question.one_solution or question.against.law.breaks
    ends = tuple(float(y) for y in tilt.exponent(np.array([0.0, 1.0])) - tilt.log_mass)
    solutions = stationary(
        *laws, design.beta, scanned=COARSE if coarse else SCANNED, ends=None if coarse else ends
    )
    sure = [s for s in solutions if s.doubt <= DOUBT]
    if not sure:
        raise OutOfReach(f"β = {design.beta:.3g}: double precision does not fix the shot")
    if any(abs(s.kl - design.kl) <= max(ANOTHER * s.kl, NO_KL) for s in sure):
        return sure
    if question.one_solution and len(solutions) > 1:
        raise OutOfReach(f"β = {design.beta:.3g}: shots from both ends contradict each other")
    if tilt.residual(*laws, design.beta) < STATIONARY:
        raise OutOfReach(f"β = {design.beta:.3g}: the scan of shots misses a stationary policy")
    return sure


def _without_shots(question: Question, design: ia.Design, tilt: Tilt, why: Exception) -> Errors:
    """Errors where shots do not reach the policy, by quadrature: it is stationary at its β, and so
    the only one, or no policy of its KL can win more. Raises `why` if neither is known."""
    laws = question.procedure.law, question.against.law
    errors = _as_trained(question, design, tilt, tilt.loss(*laws))
    if "KL of the policy" not in errors:
        raise why
    errors["log f off Φ/β"] = tilt.residual(*laws, design.beta)
    if not question.one_solution:
        if "beta" in question.asked:
            raise why
        short = bound_of_kl(*laws, design.kl) - design.win_rate
        if short > UNDECIDED:
            raise why
        errors[AT_MOST] = max(short, 0.0)
    return errors


def bound_of_kl(procedure: Law, against: Law, kl: float) -> float:
    """A bound of the win rate of all policies with a KL: of two outcomes, below u and above, a
    policy has at least the KL of F(u) and u, so F(u) ≥ l with KL(l, u) = `kl`, and W = ∫ (1 − H(F))
    dG."""
    uniform = Tilt.of(np.zeros_like, against)
    u, low, high = uniform.u, np.zeros_like(uniform.u), uniform.u
    for _ in range(60):
        middle = (low + high) / 2
        spent = kl_div(middle, u) + kl_div(1 - middle, 1 - u)
        low, high = np.where(spent > kl, middle, low), np.where(spent > kl, high, middle)
    wins = (1 - procedure.cdf(low)) * against.density(u)
    return float((uniform.weights * wins).sum())


def _as_trained(question: Question, design: ia.Design, tilt: Tilt, loss: float) -> Errors:
    """The policy as a trainer gets it: the tilt by `transform` / `beta`."""
    laws = question.procedure.law, question.against.law
    procedure, against = question.procedure.procedure, question.against.procedure
    try:
        policy = design.policy
    except SolveError:  # as documented, where a table cannot represent it
        return {"policy refused at 1 − W": loss}
    slack = 10 * (design.rounding + tilt.rounding)
    return {
        "KL of the transform": max(abs(tilt.kl - design.kl) / max(design.kl, 1) - slack, 0.0),
        "W of the transform": max(abs(1 - tilt.loss(*laws) - design.win_rate) - slack, 0.0),
        "KL of the policy": max(abs(policy.kl - tilt.kl) / max(tilt.kl, 1) - slack, 0.0),
        "W of the policy": abs(policy.win_rate(procedure, against) - 1 + tilt.loss(*laws)),
    }


def refusal(question: Question, error: SolveError) -> bool | None:
    """Whether no policy of that budget has numbers that double precision can hold."""
    laws = question.procedure.law, question.against.law
    if "beta" in question.asked:
        best: Stationary | None = max(
            stationary(*laws, question.asked["beta"]), key=lambda s: s.objective, default=None
        )
    elif _loss_at_the_top(*laws, question.asked["kl"]) < BEYOND_DOUBLE:
        return True  # the best policy of that KL loses less
    elif question.one_solution:
        try:
            best = at_budget(*laws, question.asked["kl"])
        except ValueError:  # the shots have no digits left
            return None
        if best is None:
            return True
    else:
        tame = of_budget(*laws, question.asked["kl"], 1e-2)
        best = max(tame, key=lambda s: s.win_rate, default=None)
    if best is None or best.doubt > DOUBT:
        return None
    return best.loss < BEYOND_DOUBLE


def _loss_at_the_top(procedure: Law, against: Law, kl: float) -> float:
    """1 − W of the reference above the quantile 1 − e^−κ, whose KL is κ: ∫ H(s) g(v) e^−κ ds,
    v = 1 − e^−κ (1 − s)."""
    uniform = Tilt.of(np.zeros_like, against)
    at = 1 - np.exp(-kl) * (1 - uniform.u)
    lost = procedure.cdf(uniform.u) * against.density(at)
    return float(np.exp(-kl) * (uniform.weights * lost).sum())


DESIGNS = Family(
    "designs",
    "`design` for procedures of up to 200 draws that select by rank (best, worst, k-th best, best "
    "of a Poisson number, mixtures), against themselves, plain sampling, each other, `Rewind` and "
    "`SoftBestOfN`; 0.001 to 4 nats, or β from 0.001 to 1. By shooting from both ends, which gives "
    "all stationary policies: the numbers, the certified gap, and better policies of the same KL. "
    "The tilt by `transform` / `beta` and `policy` are integrated with adaptive panels. Where "
    "rounding of the table moves the log-density by r, errors of the policy are counted beyond "
    "10 r. Where double precision does not fix a shot, quadrature confirms the design: log f is "
    "Φ/β but for a constant, on average over f, and by theory no other policy is stationary, or "
    "the win rate is next to a bound for all policies of its KL.",
    draw,
    answer,
    judge,
    {
        "win rate": 1e-9,
        "KL, relative": 1e-7,
        "1 − W below 0 or KL below 0": 0,
        "what was asked, relative": 1e-9,
        "J beyond the gap": 1e-9,
        "J below the best, certified": 1e-8,
        "J below the best": float("inf"),
        "W below the best of that KL": 1e-7,
        "policy refused at 1 − W": 1e-9,
        "KL of the transform": 1e-7,
        "W of the transform": 1e-8,
        "KL of the policy": 1e-7,
        "W of the policy": 1e-8,
        "log f off Φ/β": STATIONARY,
        AT_MOST: UNDECIDED,
    },
    share=10,
    refusal=refusal,
)
