"""The offline methods: each is a function from a setting and stored rewards to rows and a loss."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from infalign.core import BestOfN, Identity
from infalign.errors import ConfigError

from . import losses
from .method import DESIGN, OTHER, Offline, Setting, Task
from .objectives import calibrated, identity_beta, transformed
from .requirements import best_of_samples, transform_of_quantiles

__all__ = [
    *("TOWARD_TILT", "bonbon", "dpo", "ipo", "likelihood", "quantile_regression", "regression"),
    *("toward_likelihood", "toward_regression"),
]

DPO_BETA = 0.1
"""As in the paper. Labels here have no noise, so there is no correct β; KL targeting sets the
KL."""

BONBON_ALPHA = 0.005
"""As in the paper."""

BALANCE = 0.5
"""Share of the regression's weights that follow the tilt."""

SEED = 20_241_219


def toward_likelihood(tilt: np.ndarray) -> Task:
    """Weighted likelihood: the forward KL to a tilt, given its log-weights, shape (prompts, K)."""
    weight = np.exp(tilt)
    largest = float(weight.max())
    return _pointwise(
        {"weight": weight},
        lambda ratio, rows: losses.tilt_loss(ratio[:, 0], rows["weight"], largest),
    )


def toward_regression(tilt: np.ndarray) -> Task:
    """Regression on the log-weights of a tilt, shape (prompts, K)."""
    return _on_log_ratio(tilt, BALANCE)


TOWARD_TILT: Mapping[str, Callable[[np.ndarray], Task]] = {
    "likelihood": toward_likelihood,
    "regression": toward_regression,
}
"""`train.warm_start_loss` → the task that leads to a tilt, given its log-weights."""


def likelihood(s: Setting, rewards: np.ndarray) -> Task:
    """Weighted likelihood toward the optimum of InfAlign-CTRL."""
    return toward_likelihood(transformed(s).tilt(rewards))


def regression(s: Setting, rewards: np.ndarray) -> Task:
    """Regression on the log-weights of that optimum."""
    return toward_regression(transformed(s).tilt(rewards))


def quantile_regression(s: Setting, rewards: np.ndarray) -> Task:
    """QRPO with its identity transform: unweighted, on the calibrated reward."""
    return _on_log_ratio(calibrated(s).tilt(rewards), 0.0)


def ipo(s: Setting, rewards: np.ndarray) -> Task:
    """IPO maximizes the calibrated reward, so τ is the β of that reward at the target KL."""
    return _pairs(rewards, 2, partial(losses.ipo_loss, tau=identity_beta(s)))


def dpo(s: Setting, rewards: np.ndarray) -> Task:
    """Pairs of samples; the sample with the higher reward is preferred."""
    return _pairs(rewards, 2, partial(losses.dpo_loss, beta=DPO_BETA))


def bonbon(s: Setting, rewards: np.ndarray) -> Task:
    """Raises ConfigError unless the procedure is best-of-n with n from 2 to K."""
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


def _on_log_ratio(log_weight: np.ndarray, balance: float) -> Task:
    return _pointwise(
        {"log_weight": log_weight},
        lambda ratio, rows: losses.regression_loss(ratio[:, 0], rows["log_weight"], balance),
    )


def _pointwise(columns: dict[str, np.ndarray], loss: Callable) -> Task:
    size = next(iter(columns.values())).size
    return Task(np.arange(size)[:, None], {name: x.ravel() for name, x in columns.items()}, loss)


def _pairs(rewards: np.ndarray, n: int, loss: Callable) -> Task:
    return Task(_extremes(rewards, n), {}, lambda ratio, rows: loss(ratio[:, 0], ratio[:, 1]))


def _extremes(rewards: np.ndarray, n: int) -> np.ndarray:
    """Best and worst of random disjoint groups of n samples of a prompt, shape (rows, 2).

    Groups in which all rewards tie are left out.
    """
    rng = np.random.default_rng(SEED)
    prompts, k = rewards.shape
    groups = rng.permuted(np.tile(np.arange(k), (prompts, 1)), axis=1)[:, : k // n * n]
    groups = groups.reshape(-1, n)
    rows = np.repeat(np.arange(prompts), k // n)[:, None]
    values = rewards[rows, groups]
    ends = np.stack([values.argmax(1), values.argmin(1)], axis=1)
    extremes = rows * k + np.take_along_axis(groups, ends, axis=1)
    extremes = extremes[values.max(1) > values.min(1)]
    if not len(extremes):
        raise ConfigError(
            f"All stored rewards tie within groups of {n}, so there is no preference to learn. "
            "Use a reward that distinguishes responses."
        )
    return extremes


OFFLINE = (
    Offline(
        "likelihood",
        "likelihood weighted by the tilt",
        "forward KL from the optimum of `rloo`: weighted likelihood with a control variate",
        task=likelihood,
        trained_on=DESIGN,
        source="ours",
    ),
    Offline(
        "regression",
        "regression on the tilt",
        "(log w − log π/π_ref)², weighted by (1 + w)/2; log w = Φ/β − log Z with the exact Z",
        task=regression,
        trained_on=DESIGN,
        source="after QRPO",
    ),
    Offline(
        "qrpo",
        "quantile regression (QRPO)",
        "the loss of `regression`, unweighted, with the identity as Φ",
        task=quantile_regression,
        trained_on=Identity(),
        source="QRPO, arXiv:2507.08068",
        needs=partial(transform_of_quantiles, Identity()),
    ),
    Offline(
        "ipo",
        "IPO",
        "(h − 1/(2τ))²; h: difference of a pair's log-ratios; τ: the β of `identity`",
        task=ipo,
        trained_on=Identity(),
        source="IPO, arXiv:2310.12036",
        needs=partial(transform_of_quantiles, Identity()),
    ),
    Offline(
        "dpo",
        "DPO",
        "−log σ(β h)",
        task=dpo,
        trained_on=OTHER,
        source="DPO, arXiv:2305.18290",
    ),
    Offline(
        "bonbon",
        "best-of-n likelihood and IPO (BonBon)",
        "negative log-likelihood of the best of n, plus IPO on the best and worst of n",
        task=bonbon,
        trained_on=OTHER,
        source="BonBon, arXiv:2406.00832",
        needs=best_of_samples,
    ),
)
"""The loss of each method."""
