"""Optima of utilities that depend on the policy, on a prompt's own samples.

The mean of the best of n raw rewards, or an exponential utility, is no E[R] for a fixed reward R:
what a response is worth, the derivative ψ of the utility in its probability, depends on the policy.
The optimum of utility − β KL is still a tilt of the reference, π ∝ π_ref e^{ψ(π)/β}, coupled to
itself (InfAlign, arXiv:2412.19792, theorem 1, with another utility than the win rate). Here it is
solved on reference samples, equally likely before.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, logsumexp

from infalign import _check
from infalign.errors import SolveError

from ._inputs import finite_rewards
from ._procedures import RankProcedure
from ._roots import bracketed_root

ROUNDS = 2000


class AbstractUtility(ABC):
    """What is maximised, beside the KL."""

    @abstractmethod
    def worth(self, rewards: np.ndarray, logs: np.ndarray) -> np.ndarray:
        """ψ of each sample, up to a constant per prompt, (prompts, K).

        - `rewards`: increasing, (prompts, K).
        - `logs`: log-probability of each sample under the policy.
        """


@dataclass(frozen=True)
class SelectedReward(AbstractUtility):
    """Mean raw reward of what a procedure keeps: max@n for best-of-n."""

    procedure: RankProcedure

    def worth(self, rewards, logs):
        cdf = np.clip(np.cumsum(np.exp(logs), axis=1)[:, :-1], 0, 1)
        # More mass at j takes away from each gap above it: ∫ H(F) dr falls by h(F) dr.
        gaps = self.procedure.density(cdf) * np.diff(rewards, axis=1)
        rising = np.cumsum(gaps, axis=1)
        return np.hstack([np.zeros((len(rewards), 1)), rising])


@dataclass(frozen=True)
class ExponentialUtility(AbstractUtility):
    """(1/s) log E[e^{s r}]."""

    strength: float

    def worth(self, rewards, logs):
        scaled = self.strength * rewards
        return np.exp(scaled - logsumexp(scaled + logs, axis=1, keepdims=True)) / self.strength


def coupled_tilt(
    rewards, utility: AbstractUtility, kl: float, *, close: float = 1e-6
) -> tuple[float, np.ndarray]:
    """β at which the KL averages to `kl` nats, and log dπ/dπ_ref of every sample, (prompts, K).

    - `rewards`: reference rewards, (prompts, K), finite, any order.
    - `close`: nats by which a log-ratio may still move from one round to the next.

    Raises SolveError where K samples cannot express that much KL, or the iteration does not settle:
    utilities that are convex in the policy, such as the mean of the worst of n, have policies that
    push themselves further, on some prompts at the cost of others.
    """
    ranked, logs, order = _ranked(rewards, kl)
    step, before, log_beta = 0.5, np.inf, None
    for _ in range(ROUNDS):
        # At the KL that is wanted, not at a β: utilities that feed back on themselves have several
        # policies, or none nearby, at one β.
        worth = utility.worth(ranked, logs)
        log_beta = _log_beta(worth, kl, log_beta)
        move = log_softmax(worth * np.exp(-log_beta), axis=1) - logs
        size = float(np.abs(move).max())
        if size < close:
            break
        step = max(0.7 * step, 0.02) if size > 0.98 * before else min(1.02 * step, 1.0)
        # A nat at a time: far from the solution the worth says little about where it is.
        logs, before = log_softmax(logs + min(step, 1 / size) * move, axis=1), size
    else:
        raise SolveError(
            f"The policy coupled to this utility at {kl:g} nats was not found in {ROUNDS} rounds; "
            f"it still moves by {size:.2g} nats. Ask for a smaller `kl`, or a larger `close`."
        )
    return float(np.exp(log_beta)), _ratios(logs, order)


def first_tilt(rewards, utility: AbstractUtility, kl: float) -> tuple[float, np.ndarray]:
    """The same by what samples are worth under the reference, not under the policy itself: the
    first step towards the optimum, which always exists."""
    ranked, logs, order = _ranked(rewards, kl)
    worth = utility.worth(ranked, logs)
    log_beta = _log_beta(worth, kl, None)
    return float(np.exp(log_beta)), _ratios(log_softmax(worth * np.exp(-log_beta), axis=1), order)


def _ranked(rewards, kl: float):
    """Increasing rewards, log-probabilities of equally likely samples, and the order."""
    rewards = finite_rewards("rewards", rewards)
    most = np.log(rewards.shape[1])
    if _check.positive("kl", kl) >= most:
        raise SolveError(
            f"{rewards.shape[1]} samples per prompt reach {most:.3g} nats at most, not "
            f"kl={kl:g}. Calibrate with more samples."
        )
    order = np.argsort(rewards, axis=1, kind="stable")
    ranked = np.take_along_axis(rewards, order, axis=1)
    return ranked, np.full(ranked.shape, -most), order


def _ratios(logs, order):
    """log dπ/dπ_ref in the order in which the rewards came."""
    found = np.empty_like(logs)
    np.put_along_axis(found, order, logs + np.log(logs.shape[1]), axis=1)
    return found


def _log_beta(worth: np.ndarray, kl: float, near: float | None) -> float:
    """log β at which tilts by a fixed worth have the KL wanted, from equally likely samples."""

    def excess(log_beta):
        logs = log_softmax(worth * np.exp(-log_beta), axis=1)
        mean = np.mean(np.sum(np.exp(logs) * (logs + np.log(logs.shape[1])), axis=1))
        return np.log(max(mean, 1e-300) / kl)

    if near is None:
        near = float(np.log(np.sqrt(np.mean(worth.var(1)) / (2 * kl))))
    low = high = near
    reach = 0.01
    while excess(low) < 0:
        low, reach = low - reach, 2 * reach
        if low < near - 60:
            raise SolveError(f"kl={kl:g} nats is out of reach of this utility on these samples.")
    reach = 0.01
    while excess(high) > 0:
        high, reach = high + reach, 2 * reach
    return bracketed_root(excess, low, high, xtol=1e-10) if low < high else low
