"""What RLHF on the raw reward does on the quantile axis: the baseline's theory, from a store.

KL-regularised RL on the raw reward tilts each prompt's reference samples by e^{r/β}, with one β
for all prompts: a transform too, each prompt's own quantile function. With K stored rewards the
tilted policy has one density per cell ((k − 1)/K, k/K] of the quantile axis.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_softmax

from infalign import _check
from infalign.errors import DataError, SolveError
from infalign.procedures import AbstractProcedure

from .store import CalibrationStore


def log_weights(rewards: np.ndarray, beta: float) -> np.ndarray:
    """log of e^{r/β} / mean_k e^{r_k/β} for each of a prompt's samples, along the last axis."""
    return log_softmax(rewards / beta, axis=-1) + np.log(rewards.shape[-1])


def raw_kl(store: CalibrationStore, beta: float) -> float:
    """KL of the tilt, in nats, averaged over prompts."""
    kls = []
    for rewards in store.rewards.values():
        logs = log_weights(rewards, beta)
        kls.append(np.mean(np.exp(logs) * logs))
    return float(np.mean(kls))


def require_spread(store: CalibrationStore) -> float:
    """Standard deviation of the rewards within a prompt, averaged; DataError where it is zero."""
    spread = float(np.mean([np.std(r) for r in store.rewards.values()]))
    if spread == 0:
        raise DataError(
            f"The reward is constant on all {len(store.rewards)} prompts: it says nothing about "
            "responses, so no policy can be trained on it."
        )
    return spread


def raw_beta(store: CalibrationStore, kl: float) -> float:
    """The β, in units of raw reward per nat, at which the average KL is `kl` nats.

    Raises SolveError when K samples cannot express that much: log K is the most they can.
    """
    _check.positive("kl", kl)
    spread = require_spread(store)

    def excess(log_beta):
        return raw_kl(store, spread * float(np.exp(log_beta))) - kl

    if excess(-6) < 0:
        raise SolveError(
            f"{store.samples} reference samples per prompt reach {raw_kl(store, spread / 400):.3g} "
            f"nats at most, less than kl={kl:g}. Calibrate with more samples."
        )
    return float(spread * np.exp(brentq(excess, -6, 12, xtol=1e-10)))


def raw_win_rate(
    store: CalibrationStore, beta: float, procedure: AbstractProcedure, against=None
) -> float:
    """Win rate of the tilt, averaged over prompts: 1 − ∫ H(F) dG with F linear in each cell."""
    against = against or procedure
    nodes, weights = np.polynomial.legendre.leggauss(max(8, procedure.draws, against.draws))
    wins = []
    for rewards in store.rewards.values():
        share = np.exp(log_weights(rewards, beta)) / len(rewards)
        edges = np.concatenate([[0], np.cumsum(share)])
        inside = (1 + nodes) / 2  # H(F) g is a polynomial in each cell: exact
        cell = np.arange(len(rewards))[:, None]
        cdf = np.clip(edges[:-1, None] + inside * share[:, None], 0, 1)
        u = (cell + inside) / len(rewards)
        value = (procedure.cdf(cdf) * against.density(u)) @ weights / 2 / len(rewards)
        wins.append(1 - value.sum())
    return float(np.mean(wins))
