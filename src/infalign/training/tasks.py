"""The offline methods: from raw rewards of stored samples to rows and losses."""

from collections.abc import Callable
from functools import partial

import numpy as np

from infalign.core import BestOfN, Identity
from infalign.errors import ConfigError

from . import losses
from .methods import Setting, objective
from .offline import Task

DPO_BETA = 0.1
"""As in the paper. Labels here have no noise, so no β is the right one; the landing sets the KL."""

BONBON_ALPHA = 0.005
"""As in the paper."""

BALANCE = 0.5
"""Of the regression: half of the weight as the tilt has it."""

SEED = 20_241_219


def tilt_task(tilt: np.ndarray) -> Task:
    """Weighted likelihood: the forward KL to a tilt, whose log-weights are given, (prompts, K)."""
    weight = np.exp(tilt)
    largest = float(weight.max())
    return _pointwise(
        {"weight": weight},
        lambda ratio, rows: losses.tilt_loss(ratio[:, 0], rows["weight"], largest),
    )


def task(method: str, setting: Setting, rewards: np.ndarray) -> Task:
    """What an offline method learns from raw rewards of stored samples, (prompts, K).

    Raises ConfigError where the method does not know the procedure.
    """
    return TASKS[method](setting, rewards)


def _likelihood(s: Setting, rewards: np.ndarray) -> Task:
    return tilt_task(objective("rloo", s).tilt(rewards))


def _regression(s: Setting, rewards: np.ndarray) -> Task:
    return _on_log_ratio(objective("rloo", s).tilt(rewards), BALANCE)


def _quantile_regression(s: Setting, rewards: np.ndarray) -> Task:
    """QRPO with its identity transform: unweighted, on the calibrated reward."""
    return _on_log_ratio(objective("identity", s).tilt(rewards), 0.0)


def _on_log_ratio(log_weight: np.ndarray, balance: float) -> Task:
    return _pointwise(
        {"log_weight": log_weight},
        lambda ratio, rows: losses.regression_loss(ratio[:, 0], rows["log_weight"], balance),
    )


def _ipo(s: Setting, rewards: np.ndarray) -> Task:
    """τ is the β of the calibrated reward at the target KL, which is what IPO maximizes."""
    found = s.expected.achieved(Identity(), s.procedure, s.against, kl=s.kl)
    return _pairs(rewards, 2, partial(losses.ipo_loss, tau=found.beta))


def _dpo(s: Setting, rewards: np.ndarray) -> Task:
    return _pairs(rewards, 2, partial(losses.dpo_loss, beta=DPO_BETA))


def _bonbon(s: Setting, rewards: np.ndarray) -> Task:
    n = s.procedure.n if isinstance(s.procedure, BestOfN) else 0
    if not 2 <= n <= rewards.shape[1]:
        raise ConfigError(
            f"`bonbon` learns the best of n ≥ 2 out of at most `calibration.samples` "
            f"({rewards.shape[1]}); `procedure` is {s.procedure.spec}. Use another method."
        )

    def loss(ratio, rows):
        best = ratio[:, 0] + rows["reference_logprob"][:, 0]
        return losses.bonbon_loss(ratio[:, 0], ratio[:, 1], best, n, BONBON_ALPHA)

    return Task(_extremes(rewards, n), {}, loss)


TASKS: dict[str, Callable[[Setting, np.ndarray], Task]] = {
    "likelihood": _likelihood,
    "regression": _regression,
    "qrpo": _quantile_regression,
    "ipo": _ipo,
    "dpo": _dpo,
    "bonbon": _bonbon,
}
"""An offline method is a function from a setting and rewards to a task."""


def _pointwise(columns, loss) -> Task:
    size = next(iter(columns.values())).size
    return Task(np.arange(size)[:, None], {name: x.ravel() for name, x in columns.items()}, loss)


def _pairs(rewards: np.ndarray, n: int, loss: Callable) -> Task:
    return Task(_extremes(rewards, n), {}, lambda ratio, rows: loss(ratio[:, 0], ratio[:, 1]))


def _extremes(rewards: np.ndarray, n: int) -> np.ndarray:
    """Best and worst of disjoint groups of n samples of a prompt, at random, as many as there are;
    without groups whose rewards all tie. Shape (rows, 2)."""
    rng = np.random.default_rng(SEED)
    prompts, k = rewards.shape
    groups = rng.permuted(np.tile(np.arange(k), (prompts, 1)), axis=1)[:, : k // n * n]
    groups = groups.reshape(-1, n)
    rows = np.repeat(np.arange(prompts), k // n)[:, None]
    values = rewards[rows, groups]
    ends = np.stack([values.argmax(1), values.argmin(1)], axis=1)
    chosen = np.take_along_axis(groups, ends, axis=1)
    found = (rows * k + chosen)[values.max(1) > values.min(1)]
    if not len(found):
        raise ConfigError(
            f"All stored rewards tie within groups of {n}: there is nothing to prefer. Use a "
            "reward that tells responses apart."
        )
    return found
