"""Optima of policy-dependent utilities, on a prompt's own samples.

The mean of the best of n raw rewards, or an exponential utility, is not E[R] for any fixed reward
R: the advantage ψ of a response, the derivative of the utility in its probability, depends on the
policy. The optimum of utility − β KL is still a tilt of the reference, π ∝ π_ref e^{ψ(π)/β},
coupled to itself (InfAlign, arXiv:2412.19792, theorem 1, with this utility in place of the win
rate). Here it is solved on reference samples, which are equally likely under the reference.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, logsumexp

from infalign import _check
from infalign.errors import SolveError

from ._inputs import finite_rewards
from ._interface import RankProcedure
from ._roots import NoRoot, falling_root
from ._shapes import ArrayLike, Float, Real

ROUNDS = 2000
"""Maximum number of rounds of the iteration."""

REACH = 60.0
"""How far above its guess log β is searched."""

SMALLEST = -700.0
"""Smallest log β: below it, 1 / β overflows."""

STEEPEST = 1e100
"""Largest ψ / β. The tilts by all larger ones are the same."""


class AbstractUtility(ABC):
    """The utility to be maximized, apart from the KL penalty."""

    @abstractmethod
    def advantage(
        self, rewards: Float[np.ndarray, "prompts k"], logs: Float[np.ndarray, "prompts k"]
    ) -> Float[np.ndarray, "prompts k"]:
        """ψ of each sample, up to a constant per prompt.

        - `rewards`: increasing in each row.
        - `logs`: log-probability of each sample under the policy.
        """


@dataclass(frozen=True)
class SelectedReward(AbstractUtility):
    """Mean raw reward of the response that a procedure selects: max@n for best-of-n."""

    procedure: RankProcedure

    def advantage(
        self, rewards: Float[np.ndarray, "prompts k"], logs: Float[np.ndarray, "prompts k"]
    ) -> Float[np.ndarray, "prompts k"]:
        cdf = np.clip(np.cumsum(np.exp(logs), axis=1)[:, :-1], 0, 1)
        # The utility is r_K − Σ_j H(F_j) (r_{j+1} − r_j): mass at k raises F_j for all j ≥ k, each
        # at a cost of h(F_j) (r_{j+1} − r_j). Up to a constant, ψ_k is the sum of these costs below
        # k.
        gaps = self.procedure.density(cdf) * np.diff(rewards, axis=1)
        return np.hstack([np.zeros((len(rewards), 1)), np.cumsum(gaps, axis=1)])


@dataclass(frozen=True)
class ExponentialUtility(AbstractUtility):
    """(1/s) log E[e^{s r}]."""

    strength: float
    """s."""

    def advantage(
        self, rewards: Float[np.ndarray, "prompts k"], logs: Float[np.ndarray, "prompts k"]
    ) -> Float[np.ndarray, "prompts k"]:
        scaled = self.strength * rewards
        return np.exp(scaled - logsumexp(scaled + logs, axis=1, keepdims=True)) / self.strength


def coupled_tilt(
    rewards: Real[ArrayLike, "prompts k"],
    utility: AbstractUtility,
    kl: float,
    *,
    close: float = 1e-6,
) -> tuple[float, Float[np.ndarray, "prompts k"]]:
    """β at which the KL averages to `kl` nats, and log dπ/dπ_ref of every sample.

    - `rewards`: reference rewards, finite, in any order.
    - `close`: change of a log-ratio between rounds, in nats, at which the iteration ends. Samples
      that the policy hardly draws may still move after the last round: what counts then is the
      policy's mean change, on the prompt where it is largest.

    Raises SolveError if K samples cannot express that much KL, or if the iteration does not settle:
    utilities that are convex in the policy, such as the mean of the worst of n, may reinforce
    themselves on some prompts at the expense of others.
    """
    samples = _Samples.of(rewards, kl)
    logs = samples.uniform
    step, before, log_beta = 0.5, np.inf, None
    for _ in range(ROUNDS):
        # Solved at a KL, not at a β: for a self-reinforcing utility, one β may have several
        # policies, or none nearby.
        advantage = utility.advantage(samples.rewards, logs)
        try:
            log_beta = _log_beta(advantage, kl, log_beta)
        except NoRoot:  # prompts whose advantages have vanished, for now, spend nothing
            if log_beta is None:
                raise samples.unspent(kl) from None
        move = _tilt(advantage, log_beta) - logs
        size = float(np.abs(move).max())
        if size < close:
            return float(np.exp(log_beta)), samples.log_ratios(logs)
        # Steps become shorter if the last one did not help, and otherwise slowly longer.
        step = max(0.7 * step, 0.02) if size > 0.98 * before else min(1.02 * step, 1.0)
        # At most one nat at a time, since far from the solution the advantages say little about its
        # location.
        logs, before = log_softmax(logs + min(step, 1 / size) * move, axis=1), size
    moving = float(np.sum(np.exp(logs) * np.abs(move), axis=1).max())
    if log_beta is not None and moving < close:
        return float(np.exp(log_beta)), samples.log_ratios(logs)
    raise SolveError(
        f"The policy coupled to this utility at {kl:g} nats did not converge in {ROUNDS} rounds; "
        f"it still moves by {moving:.2g} nats. Ask for a smaller `kl`."
    )


def first_tilt(
    rewards: Real[ArrayLike, "prompts k"], utility: AbstractUtility, kl: float
) -> tuple[float, Float[np.ndarray, "prompts k"]]:
    """Like `coupled_tilt`, but with the advantages under the reference, not under the policy
    itself.

    This first step toward the optimum always exists.
    """
    samples = _Samples.of(rewards, kl)
    advantage = utility.advantage(samples.rewards, samples.uniform)
    try:
        log_beta = _log_beta(advantage, kl, None)
    except NoRoot:
        raise samples.unspent(kl) from None
    logs = _tilt(advantage, log_beta)
    return float(np.exp(log_beta)), samples.log_ratios(logs)


@dataclass(frozen=True)
class _Samples:
    """Equally likely samples of each prompt, in increasing order of their rewards."""

    rewards: Float[np.ndarray, "prompts k"]
    order: np.ndarray
    """Indices of the ranked samples in the given rows."""

    @classmethod
    def of(cls, rewards: ArrayLike, kl: float) -> "_Samples":
        """Checks the rewards; there must be enough samples to express `kl` nats."""
        rewards = finite_rewards("rewards", rewards)
        top = (rewards == rewards.max(axis=1, keepdims=True)).sum(1)
        most = np.log(rewards.shape[1] / top).mean()
        if _check.positive("kl", kl) >= most:
            ties = " with these ties" if (top > 1).any() else ""
            raise SolveError(
                f"{rewards.shape[1]} samples per prompt{ties} reach at most {most:.3g} nats, "
                f"with all mass on the highest rewards, not kl={kl:g}. Ask for a smaller `kl`, or "
                "calibrate with more samples."
            )
        order = np.argsort(rewards, axis=1, kind="stable")
        return cls(np.take_along_axis(rewards, order, axis=1), order)

    def unspent(self, kl: float) -> SolveError:
        """The reason why no tilt by the advantages under the reference has that KL."""
        return SolveError(
            f"No beta spends kl={kl:g} nats on these samples: the utility's advantages are 0 to "
            "double precision, or differ too much between prompts. Select out of fewer draws, ask "
            "for a smaller `kl`, or leave out prompts that nearly always get the highest reward."
        )

    @property
    def uniform(self) -> Float[np.ndarray, "prompts k"]:
        """Log-probabilities under the reference."""
        return np.full(self.rewards.shape, -np.log(self.rewards.shape[1]))

    def log_ratios(self, logs: np.ndarray) -> Float[np.ndarray, "prompts k"]:
        """log dπ/dπ_ref in the order of the given rows."""
        ratios = np.empty_like(logs)
        np.put_along_axis(ratios, self.order, logs + np.log(logs.shape[1]), axis=1)
        return ratios


def _tilt(advantage: np.ndarray, log_beta: float) -> np.ndarray:
    """Log-probabilities of the tilt of equally likely samples by ψ / β."""
    with np.errstate(over="ignore", under="ignore"):
        exponents = advantage * np.exp(min(-log_beta, -SMALLEST))
    return log_softmax(np.clip(exponents, -STEEPEST, STEEPEST), axis=1)


def _log_beta(advantage: np.ndarray, kl: float, near: float | None) -> float:
    """log β at which the tilt by fixed advantages has mean KL `kl`, from equally likely samples.
    Raises NoRoot if none does."""

    def excess(log_beta: float) -> float:
        logs = _tilt(advantage, log_beta)
        mean = np.mean(np.sum(np.exp(logs) * (logs + np.log(logs.shape[1])), axis=1))
        return float(np.log(max(mean, 1e-300) / kl))

    if near is None:  # a small tilt costs var(ψ) / (2 β²)
        largest = np.ptp(advantage, axis=1).max()
        if not largest > 0:
            raise NoRoot(SMALLEST)
        near = float(np.log(largest) + 0.5 * np.log(np.mean((advantage / largest).var(1)) / 2 / kl))
    low, high = min(near, SMALLEST), near + REACH
    return falling_root(excess, near, step=0.01, growth=2, low=low, high=high, xtol=1e-10)
