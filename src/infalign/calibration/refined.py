"""Quantiles refined by samples of the policy, weighted back to the reference.

Few of the K reference samples reach the rewards of a trained policy, but the policy's own samples
do. The balance heuristic of multiple importance sampling weights each of the K + m samples of a
prompt by 1/(K + m π/π_ref), which is at most 1/K whatever the ratio. Source: Veach and Guibas,
Optimally combining sampling techniques, SIGGRAPH 1995, section 3.3.
"""

from dataclasses import dataclass, field

import numpy as np

from infalign import _check
from infalign.core import finite_rewards

from .interface import AbstractCalibrator, AbstractFitted, sorted_rewards

__all__ = ["FittedRefined", "Refined"]


@dataclass(frozen=True, eq=False)
class Refined(AbstractCalibrator):
    """Weighted mid-rank among a prompt's reference samples and samples of one policy.

    When: the policy has moved away from the reference, most of its rewards beat all K reference
    samples, and log-probabilities under both models are available. The relative standard error of
    the chance to beat a reward that the policy reaches often is then about 1/√m. All policy samples
    of a prompt must come from one policy; a prompt without any (nan) gets plain ranks. Rewards may
    tie.

    Its arrays have one row per prompt, in the order of the rewards given to `fit`. It applies to
    these prompts only, so a calibration store cannot use it: `refined.fit(rewards).shaped(…)` gives
    training rewards.
    """

    log_ratios: np.ndarray = field(repr=False)
    """log π/π_ref of the reference samples, in the order of the rewards, (prompts, K)."""

    policy_rewards: np.ndarray = field(repr=False)
    """Shape (prompts, m), nan where a prompt has fewer."""

    policy_log_ratios: np.ndarray = field(repr=False)
    """log π/π_ref of the policy's samples, in nats, (prompts, m)."""

    @property
    def needs(self):
        return "policy samples"

    def fit(self, rewards, features=None):
        """As in `AbstractCalibrator`; also raises ValueError if a sample has no log-ratio."""
        sorted_rewards(rewards)
        reference = np.asarray(rewards, float)
        policy = finite_rewards("policy_rewards", self.policy_rewards, missing=True)
        _check.paired_rows(rewards=reference, policy_rewards=policy)
        logs = np.hstack(
            [
                _ratios("log_ratios", self.log_ratios, reference),
                _ratios("policy_log_ratios", self.policy_log_ratios, policy),
            ]
        )
        both = np.hstack([reference, policy])
        k, m = (np.isfinite(r).sum(1)[:, None] for r in (reference, policy))
        with np.errstate(divide="ignore"):  # log 0 where a prompt has no policy samples
            weights = np.exp(-np.logaddexp(np.log(k), np.log(m) + logs))
        weights = np.where(np.isfinite(both), weights, 0)
        order = np.argsort(both, axis=1)  # nan last
        weights = np.take_along_axis(weights, order, axis=1)
        below = np.hstack([np.zeros((len(both), 1)), np.cumsum(weights, axis=1)])
        return FittedRefined(np.take_along_axis(both, order, axis=1), below / below[:, -1:])


@dataclass(frozen=True)
class FittedRefined(AbstractFitted):
    """Samples of reference and policy for every prompt, with cumulative weights."""

    rewards: np.ndarray = field(repr=False)
    """Increasing, nan last, (prompts, K + m)."""

    below: np.ndarray = field(repr=False)
    """Cumulative weight below each sample, from 0 to 1, (prompts, K + m + 1)."""

    @property
    def needs(self):
        return "policy samples"

    @property
    def prompts(self):
        return len(self.rewards)

    def on(self, rewards, features=None):
        raise ValueError(
            "Refined applies to the prompts it was fitted to: its policy samples are theirs. Fit "
            "another one with samples of the other prompts, or use Pooled."
        )

    def _intervals(self, row, rewards):
        # A reward above all samples is placed before the trailing nan, where the weight is 1.
        ends = (np.searchsorted(self.rewards[row], rewards, side) for side in ("left", "right"))
        low, high = (self.below[row, end] for end in ends)
        return low, high


def _ratios(name: str, value, rewards: np.ndarray) -> np.ndarray:
    """Log-ratios, one per sample; 0 where there is no sample."""
    value, there = np.asarray(value, float), np.isfinite(rewards)
    if value.shape != rewards.shape:
        raise ValueError(
            f"`{name}` must have one entry per sample, shape {rewards.shape}; got {value.shape}. "
            "Score the samples under both models."
        )
    # −inf: a sample that the policy never draws.
    bad = there & ~(value < np.inf)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"`{name}` must be numbers below infinity; got {value[row, column]:g} at prompt {row}, "
            f"sample {column} ({bad.sum()} of {there.sum()} samples). The reference must be able "
            "to draw each sample."
        )
    return np.where(there, value, 0.0)
