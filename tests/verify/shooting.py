"""All stationary policies of W − β KL on the quantile axis, by shooting.

The optimum's density f and CDF F solve

    (log f)′(u) = h(F) g(u) / β,     F(0) = 0,     F(1) = 1,

with h and g the densities of the procedure's and the opponent's law. One number is unknown, log f
at one end. With t = u + F as the time that runs from 0 to 2, the equations have no stiff end,

    du/dt = 1 / (1 + f),     d(log f)/dt = h(t − u) g(u) / (β (1 + f)),

however small or large f is, and a start is a solution where u(2) = 1. Shots go up from u = 0 and
down from u = 1: where f(0) = e^-1000000, only log f(1) fixes the solution in double precision, and
where f(1) is huge, only log f(0). Nothing is shared with the package's solvers, which work on the
panels of a quadrature with Newton's method.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.special import expit

from .check import OutOfReach
from .laws import Law

SCANNED = 200
"""Number of shots from each end in a scan for all solutions."""

ROUGH, EXACT = 1e-7, 3e-14
"""Relative errors of the integration in a scan, and of a solution."""

ROWS = 5
"""Numbers of a shot's state: u, log f, 1 − W, KL and F. t − u would have F without its digits where
it is small, and h(F) may be its thirtieth power."""

TINY = 1e-20
"""F below which its error is absolute."""

SAME = 1e-4
"""Relative difference of starts and KLs up to which two solutions are the same."""

NEAREST = 30.0 ** np.arange(-7, 0)
"""Relative distances from a start within which its solution is looked for, one after the other."""

NEAR = 1.0
"""Change of log β within which Newton's method looks for a budget."""

DOUBT = 1e-6
"""Doubt of a solution that double precision does not fix."""


@dataclass(frozen=True)
class Stationary:
    """A stationary policy."""

    loss: float
    """1 − W, which keeps its digits where W is nearly 1."""

    kl: float
    beta: float
    start: float
    """log f at the end that the shot starts from."""

    up: bool
    """Whether that is u = 0."""

    doubt: float
    """How far one rounding of `start` moves the KL or the win rate."""

    @property
    def win_rate(self) -> float:
        return 1 - self.loss

    @property
    def objective(self) -> float:
        return self.win_rate - self.beta * self.kl


@dataclass(frozen=True)
class Shots:
    """A procedure against an opponent, from one end."""

    procedure: Law
    against: Law
    sign: float
    """1 for shots from u = 0; −1 for mirrored laws, from u = 1."""

    losses: bool = True
    """Whether 1 − W is integrated, whose law may be a sum of many terms; a scan has no use of
    it."""

    @classmethod
    def of(cls, procedure: Law, against: Law, up: bool) -> "Shots":
        """Shots up from 0, or down from 1."""
        if up:
            return cls(procedure, against, 1.0)
        return cls(_mirrored(procedure), _mirrored(against), -1.0)

    def ends(
        self, starts: np.ndarray, betas: np.ndarray | float, accuracy: float = EXACT
    ) -> np.ndarray:
        """(u(2) − 1, 1 − W, KL) of each start, shape (3, shots)."""
        starts, betas = np.broadcast_arrays(np.asarray(starts, float), betas)
        size = starts.size
        state = np.concatenate([np.zeros(size), starts, np.zeros(3 * size)])
        if self.against.breaks:  # every shot meets a jump at a time of its own
            states = [
                self._across(own, beta, accuracy)
                for own, beta in zip(state.reshape(ROWS, -1).T, betas, strict=True)
            ]
            state = np.array(states).T
        else:
            state = self._integrated(state, betas, 0.0, accuracy).y[:, -1]
        u, _, loss, kl, _ = state.reshape(ROWS, size)
        return np.array([u - 1, loss, kl])

    def rates(self, t: float, state: np.ndarray, betas: np.ndarray) -> np.ndarray:
        u, log_f, _, _, reached = state.reshape(ROWS, -1)
        slow, fast = expit(-log_f), expit(log_f)  # du/dt and dF/dt
        reached = np.clip(reached, 0, 1)
        opponent = self.against.density(np.clip(u, 0, 1)) * slow
        tilt = self.sign * self.procedure.density(reached) * opponent / betas
        loss = self.procedure.cdf(reached) * opponent if self.losses else np.zeros_like(u)
        # ∫ f log f = ∫ (f log f − f + 1), never negative; f − 1 by expm1 where f is next to 1.
        low = np.minimum(log_f, 1)
        near = slow * (np.exp(low) * low - np.expm1(low))
        kl = np.where(log_f < 1, near, fast * (log_f - 1) + slow)
        return np.concatenate([slow, tilt, loss, kl, fast])

    def _integrated(self, state, betas, start, accuracy, events=None):
        run = solve_ivp(
            self.rates,
            (start, 2.0),
            state,
            "DOP853",
            args=(betas,),
            rtol=accuracy,
            atol=np.repeat([*[accuracy / 10] * (ROWS - 1), TINY], betas.size),
            events=events,
        )
        if not run.success:
            raise OutOfReach(run.message)
        return run

    def _across(self, state: np.ndarray, beta: float, accuracy: float) -> np.ndarray:
        """One shot through the jumps of g, from jump to jump."""
        time, betas = 0.0, np.array([beta])
        for jump in self.against.breaks:

            def reached(_: float, y: np.ndarray, *__: object, jump: float = jump) -> float:
                return y[0] - jump

            reached.terminal = True
            before = replace(self, against=_without_jump(self.against, jump))
            run = before._integrated(state, betas, time, accuracy, reached)
            time, state = float(run.t[-1]), run.y[:, -1]
        return self._integrated(state, betas, time, accuracy).y[:, -1] if time < 2 else state

    def solution(self, beta: float, low: float, high: float) -> Stationary | None:
        """The solution whose start lies between two numbers, or just outside; None if it is not
        there after all."""
        try:
            miss = replace(self, losses=False)._miss
            rough = brentq(miss, low, high, args=(beta, ROUGH), xtol=1e-300, rtol=1e-9)
        except ValueError:  # a crossing that rough integration places wrongly
            rough = (low + high) / 2
        return self.near(beta, rough)

    def near(self, beta: float, start: float) -> Stationary | None:
        """The solution next to a start; None if there is none within `NEAREST`."""
        for share in NEAREST:
            step = share * max(abs(start), 1e-3)
            low, high = start - step, start + step
            if np.prod(self.ends(np.array([low, high]), beta)[0]) <= 0:
                break
        else:
            return None
        miss = replace(self, losses=False)._miss
        root = brentq(miss, low, high, args=(beta, EXACT), xtol=1e-300, rtol=1e-15)
        return self.stationary(root, beta)

    def _miss(self, start: float, beta: float, accuracy: float) -> float:
        """u(2) − 1."""
        return float(self.ends(np.array([start]), beta, accuracy)[0, 0])

    def stationary(self, start: float, beta: float) -> Stationary:
        """The solution of this start."""
        nearby = np.array([start, start * (1 + 4e-16), start * (1 - 4e-16)])
        _, losses, kls = self.ends(nearby, beta)
        doubt = max(np.ptp(losses), np.ptp(kls))
        return Stationary(float(losses[0]), float(kls[0]), beta, start, self.sign > 0, float(doubt))


def _mirrored(law: Law) -> Law:
    """The same functions of 1 − s."""
    return Law(
        lambda s: law.cdf(1 - s),
        lambda s: law.density(1 - s),
        tuple(1 - b for b in law.breaks[::-1]),
    )


def _without_jump(law: Law, jump: float) -> Law:
    """A law whose density does not jump yet."""
    below = jump * (1 - 1e-15)
    return Law(law.cdf, lambda s: law.density(np.minimum(s, below)))


def stationary(
    procedure: Law,
    against: Law,
    beta: float,
    *,
    scanned: int = SCANNED,
    ends: tuple[float, float] | None = None,
) -> list[Stationary]:
    """Every solution at a β, by KL.

    Two scans, from both ends. Of a solution that both see, the shot that fixes it better counts.

    - `ends`: log f at 0 and at 1 of a policy next to which there is a solution too, if it is one.
    """
    solutions: list[Stationary] = []
    for shots, low, high in _crossings(procedure, against, beta, scanned):
        _keep(solutions, shots.solution(beta, low, high))
    for up, start in zip((True, False), ends or (), strict=False):
        _keep(solutions, Shots.of(procedure, against, up).near(beta, start))
    return sorted(solutions, key=lambda s: s.kl)


def _keep(solutions: list[Stationary], here: Stationary | None) -> None:
    """Add a solution, or join it with the same one from another shot. By what the two differ,
    beyond the doubt of the worse one, the better one is in doubt too."""
    if here is None:
        return
    same = next((i for i, s in enumerate(solutions) if _same(s, here)), None)
    if same is None:
        solutions.append(here)
        return
    better, worse = sorted((solutions[same], here), key=lambda s: s.doubt)
    apart = max(abs(better.kl - worse.kl), abs(better.loss - worse.loss)) - worse.doubt
    solutions[same] = replace(better, doubt=max(better.doubt, apart))


def _same(one: Stationary, other: Stationary) -> bool:
    slack = one.doubt + other.doubt
    return (
        abs(one.kl - other.kl) <= SAME * one.kl + 3 * slack
        and abs(one.loss - other.loss) <= SAME * one.loss + 3 * slack
    )


def _crossings(
    procedure: Law, against: Law, beta: float, scanned: int
) -> Iterator[tuple[Shots, float, float]]:
    for up in (True, False):
        shots = Shots.of(procedure, against, up)
        starts = _starts(procedure, against, beta, up, scanned)
        miss = replace(shots, losses=False).ends(starts, beta, ROUGH)[0]
        for i in np.flatnonzero(np.sign(miss[1:]) != np.sign(miss[:-1])):
            yield shots, float(starts[i]), float(starts[i + 1])


def _starts(procedure: Law, against: Law, beta: float, up: bool, scanned: int) -> np.ndarray:
    """All that log f can be at an end: it rises from at most 0 to at least 0, by ∫ h(F) dG / β ≤
    max h / β, and df/dF = h g / β, so f(1) ≤ 1 + max g / β."""
    grid = np.linspace(0, 1, 20001)
    if up:
        most = 1.001 * float(np.max(procedure.density(grid))) / beta
        return -np.geomspace(most, min(1e-9, most / 10), scanned)
    most = float(np.log1p(1.001 * np.max(against.density(grid)) / beta))
    return np.unique(
        np.concatenate([np.linspace(0, most, scanned // 2), np.geomspace(1e-9, most, scanned // 2)])
    )


def at_budget(
    procedure: Law, against: Law, kl: float, *, guess: float = 1.0, fewest: float = 1e-290
) -> Stationary | None:
    """The solution of a KL budget, where every β has only one; None if that needs β < `fewest`."""

    def rough(log_beta: float) -> tuple[float, Shots, float]:
        beta = float(np.exp(log_beta))
        best = None
        for shots, low, high in _crossings(procedure, against, beta, 100):
            start = brentq(
                lambda s, shots=shots: float(shots.ends(np.array([s]), beta, ROUGH)[0, 0]),
                low,
                high,
                rtol=1e-10,
            )
            best = (float(shots.ends(np.array([start]), beta, ROUGH)[2, 0]), shots, start)
        if best is None:
            raise OutOfReach(f"no solution at β = {beta}")
        return best

    low = high = float(np.log(guess))
    while rough(low)[0] < kl:
        low -= 2.0
        if low < np.log(fewest):
            return None
    while rough(high)[0] > kl:
        high += 2.0
    log_beta = brentq(lambda b: np.log(rough(b)[0] / kl), low, high, xtol=1e-6)
    inner = stationary(procedure, against, float(np.exp(log_beta)), scanned=100)
    near = min(inner, key=lambda s: abs(s.kl - kl))
    return _polished(Shots.of(procedure, against, near.up), kl, near.start, near.beta)


def of_budget(procedure: Law, against: Law, kl: float, beta: float) -> list[Stationary]:
    """The solutions of a KL budget at β from `beta` · 30 to `beta` / 30, where the KL may rise and
    fall with β, and a β may have several solutions."""
    solutions: list[Stationary] = []
    for up in (True, False):
        shots, before = Shots.of(procedure, against, up), None
        for beta_here in beta * np.geomspace(30, 1 / 30, 16):
            starts, kls = _branches(
                shots, beta_here, _starts(procedure, against, beta_here, up, 60)
            )
            if before is not None and before.size:
                for start, own in zip(starts, kls, strict=True):
                    # The neighbor on the same branch: budgets between are met between.
                    if (before[np.argmin(np.abs(before - kl))] - kl) * (own - kl) > 0:
                        continue
                    here = _of_budget_near(shots, kl, start, float(beta_here))
                    if here and not any(_same(here, s) for s in solutions):
                        solutions.append(here)
            before = kls
    return solutions


def _branches(shots: Shots, beta: float, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and KLs of the solutions between the shots, by linear interpolation."""
    miss, _, kl = replace(shots, losses=False).ends(starts, beta, ROUGH)
    i = np.flatnonzero(np.sign(miss[1:]) != np.sign(miss[:-1]))
    share = miss[i] / (miss[i] - miss[i + 1])
    return starts[i] + share * np.diff(starts)[i], kl[i] + share * np.diff(kl)[i]


def _of_budget_near(shots: Shots, kl: float, start: float, beta: float) -> Stationary | None:
    """The solution of a budget that Newton's method reaches from here, if any."""
    try:
        here = _polished(shots, kl, start, beta)
    except (OutOfReach, np.linalg.LinAlgError):
        return None
    fits = abs(here.kl / kl - 1) < 1e-6 and here.doubt < DOUBT and _ends(shots, here)
    return here if fits else None


def _ends(shots: Shots, solution: Stationary) -> bool:
    """Whether the shot ends at u = 1."""
    return abs(shots.ends(np.array([solution.start]), solution.beta)[0, 0]) < 1e-9


def _polished(shots: Shots, kl: float, start: float, beta: float) -> Stationary:
    """Newton's method for start and log β together."""
    at = np.array([start, np.log(beta)])
    for _ in range(8):
        steps = np.array([1e-6 * max(abs(at[0]), 1e-6), 1e-6])
        tries = at[:, None] + np.array([[0, steps[0], 0], [0, 0, steps[1]]])
        miss, _, kls = shots.ends(tries[0], np.exp(tries[1]))
        value = np.array([miss, kls / kl - 1])
        slope = (value[:, 1:] - value[:, :1]) / steps
        change = np.linalg.solve(slope, value[:, 0])
        at = at - change
        if not abs(at[1] - np.log(beta)) < NEAR or at[0] * start < 0:
            raise OutOfReach("Newton's method has left the neighborhood")
        if np.all(np.abs(change) <= 1e-14 * np.maximum(np.abs(at), 1)):
            break
    return shots.stationary(float(at[0]), float(np.exp(at[1])))
