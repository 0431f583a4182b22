"""How success grows with attempts, beyond the attempts that there are.

pass@n, the attack success rate and the win rate of best-of-n on rewards of 0 and 1 are one
quantity: the mean over prompts of 1 − (1 − p)^n, where p is a prompt's chance of success. Up to the
attempts there are, it has an unbiased estimate. Beyond them it depends on how many prompts have a
tiny p, which counts of zero hardly tell. So a forecast needs an assumption, and this is the whole
of it: among prompts with few successes, p follows a log-F or a logit-normal law, perhaps beside a
group of easier prompts, and perhaps with a share that can never succeed. The odds of a log-F law
are those of a beta law times a constant, so either tail may be the long one; 1 − pass@n then decays
like n^(−a). With a logit-normal law it decays faster at larger n. Without the easier group, its
prompts would stretch the law at its other end too, where nothing is seen. The laws are averaged by
how well they explain the counts.

Prompts with more than `WINDOW` successes do not enter the fit, and each has a p of its own: they
succeed at any larger n, and their shape would only bend the law where it matters.

Attempts that stopped at the first success have the same likelihood p^c (1 − p)^(m − c), whatever
made them stop. Sources: Haldane, On a method of estimating frequencies, Biometrika 33 (1945), for
stopped attempts; Kazdan et al., arXiv:2510.05197, for forecasts by a beta law.
"""

from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
from scipy.special import betainc, betaln, expit, gammaln, log_expit, ndtr

from infalign import _check
from infalign._look import Pictured, Shown, label
from infalign.errors import ArgumentError

from .selected import zero_or_one

__all__ = ["Budget", "Forecast", "Growth", "Stopping", "fit_growth", "stopping"]

WINDOW = 10
"""Largest number of successes of a prompt that enters the fit."""

IMPOSSIBLE = 0.4
"""Prior probability that some prompts can never succeed."""

SHARES = np.array([0.0, 0.05, 0.12, 0.22, 0.35, 0.55, 0.8])
"""Shares of prompts that can never succeed, the first one none."""

GROUPED = 0.5
"""Prior probability of an easier group of prompts."""

GROUPS = np.array([0.1, 0.3, 0.6])
"""Shares of such a group among the prompts that can succeed."""

LOG_ODDS = np.linspace(-23.0, 14.0, 186)
"""Grid of log p/(1 − p)."""

START = LOG_ODDS[0] - (LOG_ODDS[1] - LOG_ODDS[0]) / 2
"""Where the grid begins."""

DRAWS = 2000
"""Draws of the law, for the intervals."""

FARTHEST = 1e9
"""Largest n of a forecast: the grid holds no smaller p."""

SIZES = np.unique(np.rint(np.geomspace(1, FARTHEST, 91)))
"""The values of n between which a budget is interpolated."""

UNLIKELY = 1e-3
"""Probability under exchangeable attempts below which a log counts as stopped."""

TINY = 1e-300
"""Smallest likelihood, whose logarithm is finite."""

FEWEST_SUCCESSES = 10
"""Number of prompts with few successes below which a forecast has a reservation."""


@dataclass(frozen=True)
class Forecast(Shown):
    """Success at one n, with 95 % intervals."""

    n: int
    value: float
    low: float
    """Lower end for other prompts of the same kind."""

    high: float
    these_low: float
    """Lower end for these prompts: the share of them that n new attempts succeed on."""

    these_high: float


@dataclass(frozen=True)
class Budget(Shown):
    """Number of attempts for a target, with a 95 % interval; infinite where no number reaches it,
    or none up to 10⁹."""

    target: float
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        ends = [
            f"{x:,.0f}" if np.isfinite(x) else "unknown" if np.isnan(x) else "∞"
            for x in (self.value, self.low, self.high)
        ]
        return f"{ends[0]} [{ends[1]}, {ends[2]}]"


@dataclass(frozen=True)
class Stopping(Shown):
    """Attempts that end at the first success: evidence that this was their rule."""

    prompts: int
    """Prompts with a success, each the only and the last one of its attempts."""

    probability: float
    """Chance of that if the order of attempts meant nothing."""

    reach: int
    """Attempts on the prompt without success that has the fewest; n may not be larger without a
    forecast."""

    def __str__(self) -> str:
        return (
            f"attempts stop at the first success: on all {self.prompts:,} prompts with a success, "
            f"it is the only and the last one (probability {self.probability:.1g} if the order "
            "meant nothing)"
        )


def stopping(successes, *, ordered: bool = True) -> Stopping | None:
    """Whether attempts stopped at the first success; None unless the data show it.

    - `successes`: 0 or 1, shape (prompts, attempts), in the order in which they were made; nan
      after the last one.
    - `ordered`: whether the order is known. If it is not, as in counts, the evidence is that
      exactly the prompts with a success have fewer attempts.

    >>> log = np.array([[0, 1, np.nan], [1, np.nan, np.nan], [0, 0, 0]])
    >>> stopping(np.repeat(log, 20, axis=0)).reach
    3
    """
    table = zero_or_one("successes", successes)
    made, won = (~np.isnan(table)).sum(1), np.nansum(table, axis=1).astype(int)
    hit = won > 0
    if not hit.any() or won.max() > 1 or made.min() == made.max():
        return None
    rank = np.cumsum(~np.isnan(table), axis=1)
    at = np.where(table == 1, rank, 0).max(1)
    if ordered:
        if (at[hit] != made[hit]).any():
            return None
        logs = -np.log(made[hit]).sum()
    else:
        short = made < made.max()
        if won[short].min() == 0:
            return None
        s, k, prompts = int(short.sum()), int(hit.sum()), len(table)
        # All prompts with fewer attempts are among those with a success: C(k, s)/C(P, s).
        logs = _log_choose(k, s) - _log_choose(prompts, s)
    if np.exp(logs) >= UNLIKELY:
        return None
    reach = int(made[~hit].min()) if not hit.all() else int(made.max())
    return Stopping(int(hit.sum()), float(np.exp(logs)), reach)


@dataclass(frozen=True, eq=False)
class Growth(Shown, Pictured):
    """Success by number of attempts, for any number from the attempts that there are."""

    prompts: int
    made: int
    """Attempts on the prompt with the fewest; for stopped attempts, `Stopping.reach`."""

    stopped: Stopping | None
    reservations: tuple[str, ...]
    """Reasons to distrust the forecasts; empty if there are none."""

    apart: np.ndarray = field(repr=False)
    """Prompts with too many successes for the fit: attempts, successes and number of prompts of
    each kind, shape (3, kinds)."""

    kinds: np.ndarray = field(repr=False)
    """Number of prompts in the fit with the same attempts and successes, shape (kinds,)."""

    likelihood: np.ndarray = field(repr=False)
    """Of their outcomes at each p, shape (kinds, grid + 1); the last p is 0."""

    drawn: np.ndarray = field(repr=False)
    """Laws of p that were drawn from their posterior, shape (different laws, grid + 1)."""

    draws: np.ndarray = field(repr=False)
    """The law of each draw, an index into `drawn`."""

    seed: int = 0

    @property
    def fitted(self) -> bool:
        """Whether there is a forecast: some but not all attempts succeed."""
        return bool(len(self.drawn))

    def forecast(self, n: int) -> Forecast:
        """Success at n, which may be far above the attempts that there are.

        Its intervals cover the attempts, the prompts and the choice among the laws; they take for
        granted that one of the laws holds for small p.
        """
        n = _n(n)
        if not self.fitted:
            return Forecast(n, *[float("nan")] * 5)
        chances = (self.drawn * _success(n)) @ self.likelihood.T / self._evidence
        rng = np.random.default_rng(self.seed)
        chances = np.minimum(chances, 1)[self.draws]
        known = _of_its_own(self.apart, n)
        value = float(chances.mean(0) @ self.kinds + known @ self.apart[2]) / self.prompts
        won = rng.binomial(self.kinds, chances).sum(1)
        won += rng.binomial(self.apart[2], known, (DRAWS, known.size)).sum(1)
        # If n attempts succeed on k of P prompts, the share among all prompts is about Beta.
        others = rng.beta(won + 0.5, self.prompts - won + 0.5)
        low = float(np.quantile(others, 0.025))
        # Where all prompts succeed, nothing speaks against others that all do.
        high = float(np.quantile(np.where(won == self.prompts, 1, others), 0.975))
        these = np.quantile(won / self.prompts, [0.025, 0.975])
        return Forecast(n, value, min(low, value), max(high, value), *map(float, these))

    @cached_property
    def _evidence(self) -> np.ndarray:
        """Likelihood of each drawn law by the outcomes of a kind of prompt, shape (laws, kinds)."""
        return self.drawn @ self.likelihood.T

    def budget_for(self, target: float) -> Budget:
        """Smallest number of attempts with which success reaches `target`, strictly between 0 and
        1: the inverse of the forecasts, and of their intervals for other prompts. Infinite if no
        number up to 10⁹ does; nan without a fit."""
        target = _check.real("target", target)
        if not 0 < target < 1:
            raise ArgumentError("target", f"must lie strictly between 0 and 1; got {target:g}.")
        if not self.fitted:
            return Budget(target, *[float("nan")] * 3)
        return Budget(target, *(_first(target, rate) for rate in self._at_sizes))

    @cached_property
    def _at_sizes(self) -> tuple[np.ndarray, ...]:
        """Success at `SIZES`, and the high and the low end of its interval."""
        rows = [self.forecast(int(n)) for n in SIZES]
        return tuple(
            np.array([getattr(row, end) for row in rows]) for end in ("value", "high", "low")
        )

    def _columns(self):
        rows = [self.forecast(n) for n in self._sizes()]
        names = ("n", "value", "low", "high", "these_low", "these_high")
        return {name: [getattr(row, name) for row in rows] for name in names}

    def _sizes(self) -> list[int]:
        return np.unique(np.rint(np.geomspace(1, 100 * self.made, 40)).astype(int)).tolist()

    def _draw(self, axes):
        columns = self._columns()
        axes.fill_between(columns["n"], columns["low"], columns["high"], alpha=0.25, lw=0)
        axes.plot(columns["n"], columns["value"])
        axes.axvline(self.made, color="0.4", lw=0.8, ls="--")
        axes.set_xscale("log")
        label(axes, x="n", y="success", title="dashed: forecasts begin")


def fit_growth(
    successes, *, stopped: Stopping | bool | None = None, seed: int = 0, ordered: bool = True
) -> Growth:
    """The growth of success with attempts, from 0/1 outcomes of attempts.

    - `successes`: 0 or 1, shape (prompts, attempts); nan marks an attempt that was not made.
    - `stopped`: whether attempts ended at the first success. Default: as `stopping` reads it.
    - `ordered`: as for `stopping`.

    With only successes, or only failures, there is no forecast, and `reservations` says so.

    >>> rng = np.random.default_rng(0)
    >>> tries = rng.random((300, 100)) < rng.beta(0.3, 8, (300, 1))
    >>> growth = fit_growth(tries)
    >>> f = growth.forecast(10_000)
    >>> bool(f.low < 1 - np.exp(betaln(0.3, 10_008) - betaln(0.3, 8)) < f.high)
    True
    """
    table = zero_or_one("successes", successes)
    made, won = (~np.isnan(table)).sum(1), np.nansum(table, axis=1).astype(int)
    _check.enough_samples("successes", made, 1, "a prompt")
    if stopped is None:
        stopped = stopping(table, ordered=ordered)
    elif stopped is True:
        reach = int(made[won == 0].min(initial=made.max()))
        stopped = Stopping(int((won > 0).sum()), float("nan"), reach)
    rule = stopped or None
    reach = rule.reach if rule else int(made.min())
    pairs, kinds = np.unique(np.stack([made, won]), axis=1, return_counts=True)
    few = np.full(len(kinds), True) if rule else pairs[1] <= WINDOW
    apart = np.vstack([pairs, kinds])[:, ~few]
    reservations = _reservations(won, made, rule)
    nothing = np.zeros((0, LOG_ODDS.size + 1))
    fitted = nothing, nothing, nothing[:, 0]
    if won.any() and (won < made).any() and len(table) > 1:
        rng = np.random.default_rng(_check.seed("seed", seed))
        m, c = pairs[:, few]
        fitted = _fitted(m, c, kinds[few], not few.all(), rng)
    return Growth(len(table), reach, rule, reservations, apart, kinds[few], *fitted, seed=seed)


def _fitted(
    m: np.ndarray, c: np.ndarray, kinds: np.ndarray, selected: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`likelihood`, `drawn` and `draws` of a `Growth`.

    - `m`, `c`: attempts and successes of each kind of prompt in the fit.
    - `selected`: whether other prompts have too many successes for the fit.
    """
    kernel = events = np.hstack([_kernel(m, c), (c == 0)[:, None]])
    powers = kinds
    if selected:  # then counts in the fit are small ones by selection
        sizes, place = np.unique(m, return_inverse=True)
        events = np.vstack([kernel, *map(_few, sizes)])
        powers = np.append(kinds, -np.bincount(place, kinds))
    laws, groups, prior = _laws()
    log, never = np.log(prior), SHARES[:, None, None]
    for event, power in zip(events, powers, strict=True):
        chance = (1 - never) * _beside(laws @ event, groups @ event) + never * event[-1]
        log += power * np.log(np.maximum(chance, TINY))
    posterior = np.exp(log - log.max())
    # Systematic draws: each law is drawn as often as its probability says, up to rounding.
    total = np.cumsum(posterior)
    at = np.searchsorted(total, (np.arange(DRAWS) + rng.random()) / DRAWS * total[-1])
    drawn, draws = np.unique(at, return_inverse=True)
    place, law, group = np.unravel_index(drawn, posterior.shape)
    own = np.stack([_beside(laws[[i]], groups)[0, j] for i, j in zip(law, group, strict=True)])
    own *= 1 - SHARES[place][:, None]
    own[:, -1] += SHARES[place]
    return kernel, own, draws


def _beside(laws: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Each law alone, and beside each share of each group, shape (laws, 1 + mixtures, …)."""
    mixed = [(1 - share) * laws[:, None] + share * groups for share in GROUPS]
    return np.concatenate([laws[:, None], *mixed], axis=1)


def _of_its_own(apart: np.ndarray, n: float) -> np.ndarray:
    """Chance that one of n attempts succeeds on prompts that the laws say nothing about, with
    Jeffreys' prior, Beta(½, ½), for the p of each."""
    m, c, _ = apart
    return -np.expm1(betaln(c + 0.5, m - c + 0.5 + n) - betaln(c + 0.5, m - c + 0.5))


@cache
def _laws() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The laws and the easier groups on the grid, the last column p = 0, and the prior
    probabilities: of each share that can never succeed, each law, alone and beside each share of
    each group."""
    rates = np.geomspace(0.04, 20, 27), np.geomspace(0.15, 20, 6)
    families = (
        _log_f(*_grid(np.linspace(-12, 0, 9), *rates)),
        _logit_normal(*_grid(np.linspace(-16, 4, 33), np.geomspace(0.4, 6, 16))),
    )
    groups = _logit_normal(*_grid(np.linspace(-5, -2, 4), np.array([0.5, 1.2])))
    law = np.concatenate([np.full(len(own), 1 / len(own)) for own in families])
    mixtures = len(GROUPS) * len(groups)
    group = np.append(1 - GROUPED, np.full(mixtures, GROUPED / mixtures))
    never = np.where(SHARES == 0, 1 - IMPOSSIBLE, IMPOSSIBLE / (len(SHARES) - 1))
    return np.vstack(families), groups, never[:, None, None] * law[:, None] * group


def _log_f(place: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Odds e^place times those of Beta(a, b)."""
    moved = LOG_ODDS - place
    density = np.exp(a * log_expit(moved) + b * log_expit(-moved) - betaln(a, b))
    return _law(density, betainc(a, b, expit(START - place)))


def _logit_normal(middle: np.ndarray, spread: np.ndarray) -> np.ndarray:
    density = np.exp(-0.5 * ((LOG_ODDS - middle) / spread) ** 2)
    return _law(density, ndtr((START - middle) / spread))


def _grid(*axes: np.ndarray) -> list[np.ndarray]:
    """All combinations of parameters, as columns."""
    return [axis.reshape(-1, 1) for axis in np.meshgrid(*axes, indexing="ij")]


def _law(density: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Densities as probabilities on the grid; what lies below it counts as p = 0."""
    total = np.maximum(density.sum(1, keepdims=True), 1e-300)
    return np.hstack([density / total * (1 - below), below])


def _kernel(m: np.ndarray, c: np.ndarray) -> np.ndarray:
    """C(m, c) p^c (1 − p)^(m − c) on the grid, shape (kinds, grid)."""
    m, c = m[:, None], c[:, None]
    logs = c * np.log(expit(LOG_ODDS)) + (m - c) * np.log(expit(-LOG_ODDS))
    return np.exp(_log_choose(m, c) + logs)


def _few(m: int) -> np.ndarray:
    """Chance of at most `WINDOW` successes in m attempts, on the grid and at p = 0."""
    counts = np.arange(min(WINDOW, m) + 1)
    return np.append(_kernel(np.full(len(counts), m), counts).sum(0), 1.0)


def _log_choose(m, c):
    """log C(m, c)."""
    return gammaln(np.add(m, 1)) - gammaln(np.add(c, 1)) - gammaln(np.subtract(m, c) + 1)


def _success(n: float) -> np.ndarray:
    """1 − (1 − p)^n on the grid, and 0 at p = 0."""
    return np.append(-np.expm1(n * np.log(expit(-LOG_ODDS))), 0.0)


def _first(target: float, rates: np.ndarray) -> float:
    """Smallest whole n at which rates at `SIZES` reach the target; infinity if they do not."""
    rising = np.maximum.accumulate(rates)
    at = int(np.searchsorted(rising, target))
    if at in (0, SIZES.size):
        return 1.0 if at == 0 else float("inf")
    below, above = np.log(SIZES[at - 1 : at + 1])
    share = (target - rising[at - 1]) / (rising[at] - rising[at - 1])
    return float(np.ceil(np.exp(below + (above - below) * share) - 1e-6))


def _n(n) -> int:
    n = _check.count("n", n)
    if n > FARTHEST:
        raise ArgumentError("n", f"must be at most {FARTHEST:.0e}; got {n}.")
    return n


def _reservations(won: np.ndarray, made: np.ndarray, rule: Stopping | None) -> tuple[str, ...]:
    words = [] if rule is None else [str(rule)]
    if not won.any():
        words.append("nothing succeeded, so no number of attempts can be forecast")
    elif len(won) < 2:
        words.append("one prompt says nothing about others, so there is no forecast")
    elif (won == made).all():
        words.append("every attempt succeeded, so there is nothing to forecast")
    elif (own := int(((won > 0) & (won <= WINDOW)).sum())) < FEWEST_SUCCESSES:
        words.append(
            f"{own} of {len(won)} prompts have 1 to {WINDOW} successes, fewer than "
            f"{FEWEST_SUCCESSES}: too few to tell how the rate grows"
        )
    return tuple(words)
