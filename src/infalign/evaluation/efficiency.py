"""KL efficiency: the share of a policy's KL that moves its responses in rank, with its error."""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from infalign._look import Shown

from .marginal import marginal_kl
from .uncertainty import Estimate

__all__ = ["Efficiency", "kl_efficiency"]

GROUPS = 20
"""Number of groups of prompts, each left out once for the standard error."""

WIDEST = 0.5
"""Largest distance of an interval's ends from an efficiency that is worth stating."""


@dataclass(frozen=True)
class Efficiency(Shown):
    """KL of the quantiles over KL of the sequences, at most 1 but for sampling error."""

    value: float
    stderr: float
    """By a jackknife over groups of prompts; nan with fewer than three prompts."""

    low: float
    high: float
    """Ends of the 95 % interval."""

    @property
    def known(self) -> bool:
        """Whether the interval is narrow enough, and contains a value that is possible."""
        return bool(self.high - self.value <= WIDEST and self.low <= 1)


def kl_efficiency(policy_rewards, reference_rewards, kl: Estimate) -> Efficiency:
    """How much of the KL raises or lowers the reward.

    - `policy_rewards`, `reference_rewards`: as for `marginal_kl`.
    - `kl`: the policy's KL in nats per sequence, of the same prompts.
    """
    policy, reference = np.asarray(policy_rewards), np.asarray(reference_rewards)
    value = marginal_kl(policy, reference) / kl.value
    group = np.arange(len(policy)) % min(len(policy), GROUPS)
    groups = int(group.max()) + 1
    if groups < 3:
        return Efficiency(value, *[float("nan")] * 3)
    without = []
    for left_out in range(groups):
        rest = group != left_out
        nats = kl.per_prompt[rest].mean()
        without.append(marginal_kl(policy[rest], reference[rest]) / nats if nats > 0 else np.nan)
    spread = (groups - 1) * np.var(without)
    stderr = float(np.sqrt(spread))
    reach = float(stdtrit(groups - 1, 0.975)) * stderr
    return Efficiency(value, stderr, value - reach, value + reach)
