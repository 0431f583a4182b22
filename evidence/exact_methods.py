"""The optimum of each training method in a finite world, at the same mean KL.

Each is a policy over the K equally likely responses of each prompt. All methods but the optimum
itself tilt the reference by a reward, with one β for all prompts, as in training.

| here | training methods with this optimum |
|---|---|
| `optimum` | `group` |
| `design` | `rloo`, `grpo`, `likelihood`, `regression` |
| `identity` | `identity`, `qrpo`, `ipo` |
| `log` | `vbon`; `bonbon`, when weights between it and the reference have the KL |
| `raw` | `rlhf` |
| `max@n` | `pkpo` |
| `utility` | `rs-grpo` |

`dpo` has no optimum at hand: its labels are without noise, and so its log-ratios grow without end.
"""

from collections.abc import Callable
from contextlib import suppress

import numpy as np
from scipy.stats import rankdata

import infalign as ia
from infalign.calibration import Counting
from infalign.core import (
    AbstractTransform,
    ExponentialUtility,
    Log,
    RankProcedure,
    RawRewards,
    SelectedReward,
    at_kl,
    coupled_tilt,
    finite,
    first_tilt,
    log_weights,
)
from infalign.errors import SolveError
from infalign.methods.objectives import RISK

CLOSE = 1e-4
"""Accuracy of coupled optima, in nats."""
LEAST_BETA = 1e-6
"""β of an optimum that spends as much KL as raises the win rate."""
MOST_BETA = 10.0
"""β of an optimum that spends hardly any."""
HALVINGS = 30
"""Steps of the search for β between these."""


def reference(rewards: np.ndarray) -> np.ndarray:
    """The reference: all responses of a prompt are equally likely."""
    return np.full(rewards.shape, 1 / rewards.shape[1])


def tilted(values: np.ndarray, kl: float) -> np.ndarray:
    """π ∝ e^{values/β}, with the one β at which the KL averages to `kl`."""
    return from_log_ratios(log_weights(values, at_kl(RawRewards(values), kl).beta))


def from_log_ratios(log_ratios: np.ndarray) -> np.ndarray:
    """The policy with these log π/π_ref."""
    return np.exp(log_ratios) / log_ratios.shape[1]


def transformed(rewards: np.ndarray, transform: AbstractTransform) -> np.ndarray:
    """The mean of a transform over the quantiles that each response shares with its ties."""
    return Counting().fit(rewards).on(rewards).shaped(np.arange(len(rewards)), rewards, transform)


def optimum(rewards: np.ndarray, procedure: RankProcedure, kl: float) -> np.ndarray:
    """The policy of the highest win rate, at a mean KL of `kl`.

    If the optimum's KL jumps over `kl`, or if no more KL raises the win rate, it is the optimum
    with the next smaller KL.
    """
    # Prompts with the same ties are the same problem.
    order = np.argsort(rewards, axis=1)
    ranks = rankdata(np.take_along_axis(rewards, order, 1), "dense", axis=1)
    distinct, which = np.unique(ranks, axis=0, return_inverse=True)
    if 2 * len(distinct) > len(rewards):
        with suppress(SolveError):
            return finite.solve(rewards, reference(rewards), procedure, kl=kl).policy
    policy = np.empty(rewards.shape)
    np.put_along_axis(policy, order, _within(distinct, which, procedure, kl)[which], 1)
    return policy


def _within(
    distinct: np.ndarray, which: np.ndarray, procedure: RankProcedure, kl: float
) -> np.ndarray:
    """The optimum of the smallest β whose KL does not exceed `kl`, by bisection.

    - `distinct`: rewards of prompts that differ; `which`: the row of each prompt.
    """

    def at(log_beta: float) -> tuple[np.ndarray, bool]:
        now = finite.solve(distinct, reference(distinct), procedure, beta=np.exp(log_beta))
        return now.policy, float(np.mean(now.kl[which])) <= kl

    low, high = np.log(LEAST_BETA), np.log(MOST_BETA)
    best, spent_less = at(low)
    if spent_less:
        return best  # no more KL raises the win rate
    best, spent_less = at(high)
    if not spent_less:
        raise SolveError(f"No optimum of {procedure} has a KL of at most {kl:g} nats.")
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        policy, spent_less = at(middle)
        if spent_less:
            best, high = policy, middle
        else:
            low = middle
    return best


def design(rewards: np.ndarray, procedure: RankProcedure, kl: float) -> np.ndarray:
    """InfAlign-CTRL: the transform that is optimal for continuous rewards."""
    return tilted(transformed(rewards, ia.design(procedure, kl=kl).transform), kl)


def identity(rewards: np.ndarray, procedure: RankProcedure, kl: float) -> np.ndarray:
    """The calibrated reward."""
    return tilted(transformed(rewards, ia.Identity()), kl)


def log(rewards: np.ndarray, procedure: RankProcedure, kl: float) -> np.ndarray:
    """The logarithm of the calibrated reward."""
    return tilted(transformed(rewards, Log()), kl)


def raw(rewards: np.ndarray, procedure: RankProcedure, kl: float) -> np.ndarray:
    """The raw reward."""
    return tilted(rewards, kl)


def max_at_n(rewards: np.ndarray, procedure: RankProcedure, kl: float) -> np.ndarray:
    """The mean raw reward of the selected response."""
    utility = SelectedReward(procedure)
    return from_log_ratios(coupled_tilt(rewards, utility, kl, close=CLOSE)[1])


def utility(rewards: np.ndarray, procedure: RankProcedure, kl: float) -> np.ndarray:
    """An exponential utility, for reward where high ones are selected and against risk elsewhere.

    Its strength is in units of the spread within a prompt, as in training.
    """
    sign = 1 if procedure.cdf(np.array([0.5]))[0] <= 0.5 else -1
    exponential = ExponentialUtility(sign * RISK / np.sqrt(rewards.var(1).mean()))
    solver = coupled_tilt if sign > 0 else first_tilt
    options = {"close": CLOSE} if sign > 0 else {}
    return from_log_ratios(solver(rewards, exponential, kl, **options)[1])


METHODS: dict[str, Callable[[np.ndarray, RankProcedure, float], np.ndarray]] = {
    "optimum": optimum,
    "design": design,
    "identity": identity,
    "log": log,
    "raw": raw,
    "max@n": max_at_n,
    "utility": utility,
}
