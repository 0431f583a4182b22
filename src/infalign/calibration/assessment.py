"""Assessment of calibrators: the win rate of the policy that is trained on their quantiles.

Let û(u) be the quantile that a calibrator assigns to a response with true quantile u. Training on
Φ(û) gives a prompt's policy the density ∝ e^{Φ(û(u))/β} on the true quantile axis. All prompts
share the β at which the KL, averaged over prompts, equals the budget. The result is the win rate,
averaged over prompts. For plain ranks it equals that of `infalign.core.FewSamples`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from infalign import _check
from infalign._look import Shown
from infalign.core import (
    AbstractProcedure,
    AbstractTransform,
    NoRoot,
    RankProcedure,
    falling_root,
    finite_rewards,
)
from infalign.errors import SolveError

from .interface import AbstractCalibrator, AbstractFitted

__all__ = [
    "AbstractWorld",
    "Assessment",
    "KnownWorld",
    "SampledWorld",
    "Truth",
    "achieved",
    "assess",
    "graded_edges",
]

REACH = 12.0
"""How far log β may fall below its first guess; at that point the KL of few samples reaches its
limit."""

LEAST = 1e-300
"""Replaces 0 where a logarithm is taken."""


@dataclass(frozen=True)
class Truth(Shown):
    """The true reward distribution of every prompt, in cells of the quantile axis."""

    rewards: np.ndarray = field(repr=False)
    """Reward in each cell, shape (prompts, cells), not decreasing; cells of equal reward form one
    atom."""

    edges: np.ndarray = field(repr=False)
    """Ends of the cells on the quantile axis, from 0 to 1, shape (cells + 1,)."""

    def __post_init__(self):
        rewards = finite_rewards("rewards", self.rewards)
        edges = _check.unit_interval("edges", self.edges)
        if (np.diff(rewards, axis=1) < 0).any() or edges.shape != (rewards.shape[1] + 1,):
            raise ValueError(
                f"`rewards` must not decrease along a prompt, and `edges` have one entry more; got "
                f"shapes {rewards.shape} and {edges.shape}. Sort the rewards."
            )

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the true quantile interval of each cell's atom, (prompts, cells). For a cell
        without ties, both ends are its midpoint."""
        new = np.diff(self.rewards, axis=1) > 0
        pad = np.ones((len(new), 1), bool)
        first, last = np.hstack([pad, new]), np.hstack([new, pad])
        low = np.maximum.accumulate(np.where(first, self.edges[:-1], 0), axis=1)
        high = np.minimum.accumulate(np.where(last, self.edges[1:], 1)[:, ::-1], axis=1)[:, ::-1]
        alone = first & last
        middle = (self.edges[:-1] + self.edges[1:]) / 2
        return np.where(alone, middle, low), np.where(alone, middle, high)

    def shaped(self, fitted: AbstractFitted | None, transform: AbstractTransform) -> np.ndarray:
        """The training reward in each cell, (prompts, cells); None means exact calibration."""
        if fitted is None:
            return transform.average(*self.ends())
        return fitted.shaped(np.arange(len(self.rewards)), self.rewards, transform)

    def win_rates(
        self, exponents: np.ndarray, procedure: RankProcedure, against: AbstractProcedure
    ) -> np.ndarray:
        """Win rate of each prompt's policy ∝ e^exponent.

        It sums over rewards v the chance to select v, times the opponent's chance of a lower reward
        plus half its chance of the same reward.
        """
        mass = _tilt(np.diff(self.edges), exponents)[0]
        cdf = np.hstack([np.zeros((len(mass), 1)), np.cumsum(mass, axis=1)])
        cdf[:, -1] = 1
        ours, theirs = procedure.cdf(np.clip(cdf, 0, 1)), against.cdf(self.edges)
        # Within an atom the CDF stays at its value before the atom, and jumps at the atom's end.
        real = np.ones(cdf.shape, bool)
        real[:, 1:-1] = np.diff(self.rewards, axis=1) > 0
        ours = np.maximum.accumulate(np.where(real, ours, 0), axis=1)
        theirs = np.maximum.accumulate(np.where(real, theirs, 0), axis=1)
        return np.sum(np.diff(ours, axis=1) * (theirs[:, 1:] + theirs[:, :-1]) / 2, axis=1)

    def kls(self, exponents: np.ndarray) -> np.ndarray:
        """KL in nats of each prompt's policy ∝ e^exponent."""
        mass, log_z = _tilt(np.diff(self.edges), exponents)
        return np.sum(mass * exponents, axis=1) - log_z


class AbstractWorld(ABC):
    """Prompts with known reward distributions, from which reference samples are drawn."""

    @abstractmethod
    def draw(
        self, samples: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, Truth, np.ndarray | None]:
        """`samples` reference rewards per prompt, the true distribution, and features or None."""


@dataclass(frozen=True)
class KnownWorld(AbstractWorld):
    """Prompts with known quantile functions."""

    quantile: Callable[[np.ndarray], np.ndarray]
    """Rewards at true quantiles u in (0, 1): (prompts, m) to (prompts, m)."""

    prompts: int
    features: np.ndarray | None = field(default=None, repr=False)

    def draw(self, samples, rng):
        edges = graded_edges()
        middle = np.broadcast_to((edges[:-1] + edges[1:]) / 2, (self.prompts, edges.size - 1))
        rewards = self.quantile(rng.random((self.prompts, samples)))
        return rewards, Truth(self.quantile(middle), edges), self.features


@dataclass(frozen=True)
class SampledWorld(AbstractWorld):
    """Prompts with many reference samples: some are used to calibrate, the others as ground
    truth."""

    rewards: np.ndarray = field(repr=False)
    """Shape (prompts, M), finite."""

    features: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self):
        finite_rewards("rewards", self.rewards)

    def draw(self, samples, rng):
        rewards = np.asarray(self.rewards, float)
        if not 0 < samples < rewards.shape[1]:
            raise ValueError(
                f"`samples` must leave some of the {rewards.shape[1]} rewards of a prompt as the "
                f"truth; got {samples}. Draw more rewards, or calibrate with fewer."
            )
        mixed = rng.permuted(rewards, axis=1)
        rest = np.sort(mixed[:, samples:], axis=1)
        edges = np.arange(rest.shape[1] + 1) / rest.shape[1]
        return mixed[:, :samples], Truth(rest, edges), self.features


@dataclass(frozen=True)
class Assessment(Shown):
    """The result of training on a calibrator at a KL budget, averaged over prompts and rounds."""

    win_rate: float
    stderr: float
    """Standard error of `win_rate`, over random prompts and samples."""

    beta: float
    kl: float
    """In nats, averaged over prompts."""

    prompts: np.ndarray = field(repr=False)
    """Win rate of each prompt, averaged over rounds: for paired differences."""


def assess(
    world: AbstractWorld,
    calibrators: Mapping[str, AbstractCalibrator | None],
    transform: AbstractTransform,
    procedure: RankProcedure,
    *,
    kl: float,
    samples: int,
    rounds: int,
    rng: np.random.Generator,
    against: AbstractProcedure | None = None,
) -> dict[str, Assessment]:
    """The win rate of training on each calibrator's quantiles, at `kl` nats on average.

    - `calibrators`: by name; None means exact calibration, the limit of many samples.
    - `transform`: Φ; it must be bounded, since quantiles may be 0 and 1.
    - `samples`: reference samples per prompt, K.
    - `rounds`: independent draws of the samples, each shared by all calibrators.
    - `against`: how the reference is decoded. Default: `procedure`.

    Raises SolveError if a calibrator cannot express that much KL.
    """
    against = procedure if against is None else against
    _check.count("rounds", rounds)
    _check.count("samples", samples)
    _check.positive("kl", kl)
    truths: list[Truth] = []
    values: dict[str, list[np.ndarray]] = {name: [] for name in calibrators}
    for _ in range(rounds):
        rewards, truth, features = world.draw(samples, rng)
        truths.append(truth)
        for name, calibrator in calibrators.items():
            fitted = None if calibrator is None else calibrator.fit(rewards, features)
            values[name].append(truth.shaped(fitted, transform))
    return {
        name: achieved(truths, shaped, procedure, against, kl=kl) for name, shaped in values.items()
    }


def achieved(
    truths: list[Truth],
    shaped: list[np.ndarray],
    procedure: RankProcedure,
    against: AbstractProcedure,
    *,
    kl: float | None = None,
    beta: float | None = None,
) -> Assessment:
    """The result of training on given rewards, one array per round, at `kl` nats or `beta`.

    Raises SolveError if these rewards cannot express that much KL.
    """
    pairs = list(zip(truths, shaped, strict=True))

    def mean_kl(beta: float) -> float:
        return float(np.mean([t.kls(v / beta).mean() for t, v in pairs]))

    _check.budget(kl, beta)
    if beta is None:
        beta = _beta(mean_kl, float(np.std(shaped[0])), _check.positive("kl", kl))
    wins = np.mean([t.win_rates(v / beta, procedure, against) for t, v in pairs], axis=0)
    stderr = float(wins.std(ddof=1) / np.sqrt(wins.size)) if wins.size > 1 else float("nan")
    return Assessment(float(wins.mean()), stderr, beta, mean_kl(beta), wins)


def _beta(mean_kl: Callable[[float], float], spread: float, kl: float) -> float:
    """The β at which the KL is `kl`."""

    def excess(log_beta: float) -> float:
        return float(np.log(max(mean_kl(np.exp(log_beta)), LEAST) / kl))

    # A tilt by rewards of standard deviation s has a KL of about s²/(2β²) nats.
    start = float(np.log(max(spread, LEAST)) - 0.5 * np.log(2 * kl))
    try:
        return float(np.exp(falling_root(excess, start, low=start - REACH, xtol=1e-10)))
    except NoRoot as stopped:
        raise SolveError(
            f"These quantiles do not reach kl={kl:g} nats: {mean_kl(np.exp(stopped.at)):.3g} at "
            "most. Use more samples, or a smaller kl."
        ) from None


def graded_edges() -> np.ndarray:
    """Edges of a few hundred cells, denser toward 0 and 1, where policies concentrate."""
    ends = np.geomspace(1e-4, 0.1, 80)
    return np.concatenate([[0], ends, np.linspace(0.1, 0.9, 162)[1:-1], 1 - ends[::-1], [1]])


def _tilt(widths, exponents):
    """Policy mass of each cell, and log Z of each prompt. The largest exponent is factored out to
    avoid overflow."""
    top = exponents.max(axis=1, keepdims=True)
    mass = widths * np.exp(exponents - top)
    total = mass.sum(1, keepdims=True)
    return mass / total, (np.log(total) + top)[:, 0]
