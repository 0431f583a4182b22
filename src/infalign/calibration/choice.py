"""Which calibrator a reward is best served by, for its own held-out reference samples to say.

One sample of each prompt is held out in turn and each calibrator, fitted on the others, says how
likely it is to lie below each of them and below two points beyond them. The squared error of such
a chance is least for the true one (Brier, Monthly Weather Review 78, 1950), whatever the reward's
law, so a lower one is a better calibration. Counting is left only for what is surely better.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from .counting import Counting
from .interface import AbstractCalibrator, sorted_rewards
from .pooled import EXTREME, Pooled
from .scores import NormalScores
from .tail import TailExtrapolation

ECDF = "ecdf"

CALIBRATORS: Mapping[str, AbstractCalibrator] = {
    ECDF: Counting(),
    "tail": TailExtrapolation(),
    "pooled": Pooled(),
    "pooled-ranks": NormalScores(Pooled()),
}
"""Those that read rewards alone, by the names they have in a configuration."""

CANDIDATES = {name: CALIBRATORS[name] for name in (ECDF, "pooled", "pooled-ranks")}
"""What `choose` chooses from, unless told otherwise."""

PROMPTS = 128
"""Prompts that choose, evenly spaced, at most: 3 % less error is then seven standard errors."""

HELD_OUT = 512
"""Samples that are held out in all, about: 4 of each of 128 prompts, more of each of fewer."""

SURE = 2.0
"""Standard errors by which a calibrator must be better than counting."""

STRIDE = 7
"""Ranks from one prompt's first held-out sample to the next prompt's, around the circle."""


@dataclass(frozen=True)
class HeldOut:
    """How a calibrator predicts held-out samples, beside counting."""

    error: float
    """Mean squared error of the chances, each in units of its variance."""

    better: float
    """Share of counting's error that it saves; below 0 it adds to it."""

    stderr: float
    """Standard error of `better`: prompts are random."""

    tails: tuple[float, float]
    """The same share among the lowest and among the highest samples of each prompt."""

    @property
    def safe(self) -> bool:
        """Surely better than counting as a whole, and worse in neither tail."""
        return self.better > SURE * self.stderr and min(self.tails) >= 0


@dataclass(frozen=True)
class Choice:
    """A calibrator, and why."""

    name: str
    calibrator: AbstractCalibrator
    prompts: int
    """Prompts with samples to hold out."""

    held_out: Mapping[str, HeldOut] = field(repr=False)

    @property
    def reason(self) -> str:
        """One sentence for a log or a report."""
        if not self.prompts:
            return f"{self.name}: no prompt has two samples, so nothing can be compared"
        others = {name: h for name, h in self.held_out.items() if name != ECDF}
        if self.name != ECDF:
            found = others[self.name]
            return (
                f"{self.name}: it predicts held-out samples of {self.prompts} prompts with "
                f"{_percent(found)} less error than the ecdf"
            )
        if not others:
            return f"{self.name}: nothing else was asked for"
        best = max(others, key=lambda name: others[name].better)
        found = others[best]
        where = "" if min(found.tails) >= 0 else ", and more in a tail"
        told = "no less error" if found.better <= 0 else f"{_percent(found)} less error"
        unsure = "" if not 0 < found.better <= SURE * found.stderr else ", which chance explains"
        return (
            f"{self.name}: on held-out samples of {self.prompts} prompts {best} has {told}"
            f"{unsure}{where}"
        )


def _percent(found: HeldOut) -> str:
    return f"{100 * found.better:.1f} ± {100 * found.stderr:.1f} %"


def choose(
    rewards, features=None, *, candidates: Mapping[str, AbstractCalibrator] | None = None
) -> Choice:
    """The best calibrator that is safe: `ecdf`, unless another is surely better.

    Better by two standard errors or more at predicting held-out reference samples, over all of a
    prompt's range, and not worse at either end of it, where procedures and policies live. Of
    several, that with the least error.

    - `rewards`: reference rewards, (prompts, K), nan where a prompt has fewer; any order.
    - `features`: numbers that describe each prompt, (prompts, d), for calibrators that read them.
    - `candidates`: calibrators by name; counting is one of them, asked or not.

    >>> rng = np.random.default_rng(0)
    >>> choose(rng.normal(size=(200, 1)) + rng.normal(size=(200, 8))).name
    'pooled'
    >>> choose((rng.random((200, 8)) < 0.5) * 1.0).name  # pass or fail
    'ecdf'
    """
    candidates = {ECDF: Counting(), **(CANDIDATES if candidates is None else candidates)}
    rewards = sorted_rewards(rewards)
    chosen = evenly(np.isfinite(rewards).sum(1) >= 2, PROMPTS)
    if not chosen.size or len(candidates) == 1:
        return Choice(ECDF, candidates[ECDF], chosen.size, {})
    rewards = rewards[chosen]
    features = None if features is None else np.asarray(features, float)[chosen]
    errors = {name: _errors(rewards, features, c) for name, c in candidates.items()}
    base = errors[ECDF]
    held_out = {name: _compared(own, base) for name, own in errors.items()}
    safe = [name for name, found in held_out.items() if found.safe]
    name = min(safe, key=lambda name: held_out[name].error, default=ECDF)
    return Choice(name, candidates[name], chosen.size, held_out)


def evenly(usable: np.ndarray, most: int) -> np.ndarray:
    """Positions of at most so many usable prompts, evenly spaced."""
    found = np.flatnonzero(usable)
    return found[np.linspace(0, found.size - 1, min(found.size, most)).astype(int)]


def _compared(own: np.ndarray, base: np.ndarray) -> HeldOut:
    saved = 1 - own.mean(0) / base.mean(0)
    spread = (base[:, 0] - own[:, 0]).std(ddof=1) if len(own) > 1 else np.inf
    return HeldOut(
        float(own[:, 0].mean()),
        float(saved[0]),
        float(spread / np.sqrt(len(own)) / base[:, 0].mean()),
        (float(saved[1]), float(saved[2])),
    )


def _errors(rewards: np.ndarray, features, calibrator: AbstractCalibrator) -> np.ndarray:
    """Squared errors of each prompt: over its whole range, in its lower and in its upper tail;
    (prompts, 3).

    - `rewards`: increasing, nan last, two of each prompt or more.
    """
    counts = np.isfinite(rewards).sum(1)
    errors, folds = np.zeros((len(rewards), 3)), np.minimum(counts, -(-HELD_OUT // len(rewards)))
    numbers = np.arange(len(rewards))
    # Of two or three samples the one held out is dearly missed: half of the prompts at a time.
    parts = 2 if counts.max() <= 3 else 1
    for fold, half in itertools.product(range(folds.max()), range(parts)):
        # Every rank is held out as often, whatever K; prompts with fewer samples sit later folds
        # out, and only lend their rewards.
        out = (numbers // parts * STRIDE + fold * np.maximum(counts // folds, 1)) % counts
        part = (fold < folds) & (numbers % parts == half)
        rest = rewards.copy()
        rest[part, out[part]] = np.nan
        rest = np.sort(rest, axis=1)
        fitted = calibrator.fit(rest, features)
        for p in np.flatnonzero(part):
            errors[p] += _error(rewards[p, out[p]], rest[p, : counts[p] - 1], fitted, p) / folds[p]
    return errors


def _error(held: float, rest: np.ndarray, fitted, row: int) -> np.ndarray:
    """The three errors with which one held-out sample is predicted from the rest of its prompt."""
    points, chance = rest, np.arange(1, rest.size + 1) / (rest.size + 1)
    if rest.size >= 2:  # as far beyond the ends as the last gaps reach
        beyond = 2 * rest[[0, -1]] - rest[[1, -2]]
        points = np.concatenate([beyond[:1], rest, beyond[1:]])
        end = chance[0] / 2
        chance = np.concatenate([[end], chance, [1 - end]])
    told = fitted.quantiles(np.full(points.size, row), points)
    hit = np.heaviside(points - held, 0.5)
    error = (told - hit) ** 2 / (chance * (1 - chance))
    upper = chance >= min(EXTREME, chance[-1])
    return np.array([error.mean(), error[upper[::-1]].mean(), error[upper].mean()])
