"""Choice of a calibrator by how well it predicts held-out reference samples.

One sample of each prompt is held out in turn. Each calibrator is fitted on the other samples. It
predicts the chance that the held-out sample lies below each of these, and below two points beyond
them. The expected squared error of a predicted chance is smallest at the true chance, whatever the
reward's distribution (Brier, Monthly Weather Review 78, 1950), so a lower error means a better
calibration. Plain ranks are replaced only by a calibrator that is significantly better.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from infalign._look import Shown

from .counting import Counting
from .interface import AbstractCalibrator, AbstractFitted, sorted_rewards
from .pooled import EXTREME, Pooled
from .scores import NormalScores
from .tail import TailExtrapolation

__all__ = ["Choice", "HeldOut", "choose", "evenly"]

ECDF = "ecdf"

CALIBRATORS: Mapping[str, AbstractCalibrator] = {
    ECDF: Counting(),
    "tail": TailExtrapolation(),
    "pooled": Pooled(),
    "pooled-ranks": NormalScores(Pooled()),
}
"""Calibrators that read only rewards, by their names in a configuration."""

CANDIDATES = {name: CALIBRATORS[name] for name in (ECDF, "pooled", "pooled-ranks")}
"""The default candidates of `choose`."""

PROMPTS = 128
"""Maximum number of prompts, evenly spaced, on which the choice is made. A difference of 3 % in
error is then seven standard errors."""

HELD_OUT = 512
"""Approximate number of held-out samples: 4 from each of 128 prompts, or more per prompt if there
are fewer prompts."""

SAME = 5e-4
"""Relative difference of errors that is 0.0 %, such as that of calibrators that fall back to plain
ranks because rewards tie."""

SURE = 2.0
"""Standard errors by which a calibrator must be better than plain ranks."""

STRIDE = 7
"""Offset in rank between the first held-out samples of consecutive prompts, modulo K."""


@dataclass(frozen=True)
class HeldOut(Shown):
    """How well a calibrator predicts held-out samples, compared with plain ranks."""

    error: float
    """Mean squared error of the chances, each divided by its variance."""

    better: float
    """Relative reduction of the error of plain ranks; negative if the error is larger."""

    stderr: float
    """Standard error of `better` over prompts."""

    tails: tuple[float, float]
    """The same relative reduction among the lowest and among the highest samples of each prompt."""

    @property
    def safe(self) -> bool:
        """Whether it is significantly better than plain ranks overall and worse in neither tail."""
        return self.better > SURE * self.stderr and min(self.tails) >= 0


@dataclass(frozen=True)
class Choice(Shown):
    """The chosen calibrator, and the evidence."""

    name: str
    calibrator: AbstractCalibrator
    prompts: int
    """Number of prompts with held-out samples."""

    held_out: Mapping[str, HeldOut] = field(repr=False)

    constant: bool = False
    """Whether no prompt has two different rewards."""

    @property
    def reason(self) -> str:
        """One sentence for a log or a report."""
        if self.constant:
            return f"{self.name}: all rewards of a prompt are equal, so calibrators are too"
        if not self.prompts:
            return f"{self.name}: no prompt has two samples, so calibrators cannot be compared"
        others = {name: h for name, h in self.held_out.items() if name != ECDF}
        if self.name != ECDF:
            return (
                f"{self.name}: it predicts held-out samples of {self.prompts} prompts with "
                f"{_percent(others[self.name])} less error than the ecdf"
            )
        if not others:
            return f"{self.name}: the only candidate"
        name, best = max(others.items(), key=lambda item: item[1].better)
        if abs(best.better) < SAME:
            return (
                f"{self.name}: {name} has the same error on held-out samples of {self.prompts} "
                "prompts"
            )
        less = "no less error" if best.better <= 0 else f"{_percent(best)} less error"
        unsure = "" if not 0 < best.better <= SURE * best.stderr else ", which chance explains"
        where = "" if min(best.tails) >= 0 else ", and more in a tail"
        return (
            f"{self.name}: {name} has {less} on held-out samples of {self.prompts} prompts"
            f"{unsure}{where}"
        )


def _percent(held_out: HeldOut) -> str:
    return f"{100 * held_out.better:.1f} ± {100 * held_out.stderr:.1f} %"


def choose(
    rewards, features=None, *, candidates: Mapping[str, AbstractCalibrator] | None = None
) -> Choice:
    """The best safe calibrator: plain ranks (`ecdf`) unless another is significantly better.

    A calibrator is safe if it predicts held-out reference samples better by two standard errors
    over a prompt's whole range, and no worse at either end, where procedures and policies
    concentrate. Among safe calibrators, the one with the smallest error is chosen.

    - `rewards`: reference rewards, (prompts, K), nan where a prompt has fewer; any order.
    - `features`: numbers that describe each prompt, (prompts, d), for calibrators that read them.
    - `candidates`: calibrators by name; plain ranks are always included. Default: `CANDIDATES`.

    >>> rng = np.random.default_rng(0)
    >>> choose(rng.normal(size=(200, 1)) + rng.normal(size=(200, 8))).name
    'pooled'
    >>> choose((rng.random((200, 8)) < 0.5) * 1.0).name  # pass or fail
    'ecdf'
    """
    candidates = {ECDF: Counting(), **(CANDIDATES if candidates is None else candidates)}
    rewards = sorted_rewards(rewards)
    counts = np.isfinite(rewards).sum(1)
    constant = (counts >= 2) & (rewards[:, 0] == rewards[np.arange(len(rewards)), counts - 1])
    if (counts >= 2).any() and (constant | (counts < 2)).all():
        return Choice(ECDF, candidates[ECDF], 0, {}, constant=True)
    chosen = evenly(counts >= 2, PROMPTS)
    if not chosen.size or len(candidates) == 1:
        return Choice(ECDF, candidates[ECDF], chosen.size, {})
    rewards = rewards[chosen]
    features = None if features is None else np.asarray(features, float)[chosen]
    errors = {name: _errors(rewards, features, c) for name, c in candidates.items()}
    base = errors[ECDF]
    held_out = {name: _compared(own, base) for name, own in errors.items()}
    safe = [name for name, compared in held_out.items() if compared.safe]
    name = min(safe, key=lambda name: held_out[name].error, default=ECDF)
    return Choice(name, candidates[name], chosen.size, held_out)


def evenly(usable: np.ndarray, most: int) -> np.ndarray:
    """Positions of at most `most` usable prompts, evenly spaced."""
    positions = np.flatnonzero(usable)
    return positions[np.linspace(0, positions.size - 1, min(positions.size, most)).astype(int)]


def _compared(own: np.ndarray, base: np.ndarray) -> HeldOut:
    saved = _saved(own.mean(0), base.mean(0))
    spread = (base[:, 0] - own[:, 0]).std(ddof=1) if len(own) > 1 else np.inf
    return HeldOut(
        float(own[:, 0].mean()),
        float(saved[0]),
        float(spread / np.sqrt(len(own)) / base[:, 0].mean()) if base[:, 0].any() else np.inf,
        (float(saved[1]), float(saved[2])),
    )


def _saved(own: np.ndarray, base: np.ndarray) -> np.ndarray:
    """1 − own / base; where base is 0, such as for tied rewards, 0 if own is too and else −∞."""
    ratio = np.where(own > base, np.inf, 1.0)
    return 1 - np.divide(own, base, out=ratio, where=base > 0)


def _errors(rewards: np.ndarray, features, calibrator: AbstractCalibrator) -> np.ndarray:
    """Squared errors of each prompt, (prompts, 3): over its whole range, in its lower tail and in
    its upper tail.

    - `rewards`: increasing, nan last, at least two per prompt.
    """
    counts = np.isfinite(rewards).sum(1)
    errors, folds = np.zeros((len(rewards), 3)), np.minimum(counts, -(-HELD_OUT // len(rewards)))
    numbers = np.arange(len(rewards))
    # Losing one of two or three samples is a large loss, so half of the prompts keep all of theirs.
    parts = 2 if counts.max() <= 3 else 1
    for fold, half in itertools.product(range(folds.max()), range(parts)):
        # Every rank is held out equally often, for any K. Prompts with fewer samples skip the later
        # folds, and only contribute their rewards.
        out = (numbers // parts * STRIDE + fold * np.maximum(counts // folds, 1)) % counts
        part = (fold < folds) & (numbers % parts == half)
        rest = rewards.copy()
        rest[part, out[part]] = np.nan
        rest = np.sort(rest, axis=1)
        fitted = calibrator.fit(rest, features)
        for p in np.flatnonzero(part).tolist():
            errors[p] += _error(rewards[p, out[p]], rest[p, : counts[p] - 1], fitted, p) / folds[p]
    return errors


def _error(held: float, rest: np.ndarray, fitted: AbstractFitted, row: int) -> np.ndarray:
    """The three errors in predicting one held-out sample from the other samples of its prompt."""
    points, chance = rest, np.arange(1, rest.size + 1) / (rest.size + 1)
    if rest.size >= 2:  # as far beyond each end as the last gap is wide
        beyond = 2 * rest[[0, -1]] - rest[[1, -2]]
        points = np.concatenate([beyond[:1], rest, beyond[1:]])
        end = chance[0] / 2
        chance = np.concatenate([[end], chance, [1 - end]])
    predicted = fitted.quantiles(np.full(points.size, row), points)
    hit = np.heaviside(points - held, 0.5)
    error = (predicted - hit) ** 2 / (chance * (1 - chance))
    upper = chance >= min(EXTREME, chance[-1])
    return np.array([error.mean(), error[upper[::-1]].mean(), error[upper].mean()])
