"""The KL of one policy from its reference, along responses that another policy wrote.

Interpolated policies are near to each other, so responses of one of them measure the KL of the next
with importance weights: KL = E[Σ_t w_t KL_t], where KL_t is the exact KL of the next token and w_t
the ratio of the probabilities of the tokens before it. The weights of each place are divided by
their mean, which is 1 in expectation.
"""

from dataclasses import dataclass

import numpy as np

from infalign._look import Shown

__all__ = ["Along", "Measured", "expected_share", "reweighted"]


@dataclass(frozen=True)
class Along(Shown):
    """What a policy says along responses, a row for each; 0 after the end of a response."""

    exact: np.ndarray
    """KL from the reference of the distribution of each token, nats."""

    logprob: np.ndarray
    """Log-probability of each token, nats."""


@dataclass(frozen=True)
class Measured(Shown):
    """A KL measured on responses of another policy."""

    kl: float
    """Nats per sequence."""

    stderr: float
    """Standard error over prompts."""

    share: float
    """Effective number of responses, (Σw)² / Σw², as a share of their number."""


def reweighted(moved: Along, drawn: Along, owners: np.ndarray) -> Measured:
    """The KL of a policy along responses of another.

    - `moved`: the policy; `drawn`: the one that wrote the responses.
    - `owners`: the prompt of each response.

    >>> one = Along(np.array([[0.1, 0.3], [0.3, 0.0]]), np.zeros((2, 2)))
    >>> round(reweighted(one, one, np.arange(2)).kl, 3)
    0.35
    """
    log_ratio = np.cumsum(moved.logprob - drawn.logprob, axis=1)
    before = np.hstack([np.zeros((len(log_ratio), 1)), log_ratio])
    weights = np.exp(before - before.max(0))
    weights /= weights.mean(0)
    of_token = (weights[:, :-1] * moved.exact).mean(0)
    # The linearized estimate: its mean is the KL, and its spread that of the ratio of means.
    values = of_token.sum() + (weights[:, :-1] * (moved.exact - of_token)).sum(1)
    by_prompt = np.bincount(owners, values) / np.bincount(owners)
    stderr = by_prompt.std(ddof=1) / len(by_prompt) ** 0.5 if len(by_prompt) > 1 else np.nan
    last = weights[:, -1]
    return Measured(
        float(of_token.sum()), float(stderr), float(last.mean() ** 2 / (last**2).mean())
    )


def expected_share(alpha: float, drawn_at: float, kl: float) -> float:
    """The effective share of responses drawn at one multiple of a change of weights for another.

    - `kl`: the KL of the policy that wrote them from the reference.

    Near a policy, KL and half the variance of the log-weights grow as the square of the distance.
    """
    return float(np.exp(-2 * kl * (alpha / drawn_at - 1) ** 2))
