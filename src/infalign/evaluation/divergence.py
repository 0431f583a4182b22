"""The KL of a policy from its reference, in nats per sequence and in nats per token."""

from dataclasses import dataclass

import numpy as np

from infalign import _check
from infalign._look import Shown
from infalign.errors import ArgumentError

from .uncertainty import Estimate, over_prompts

__all__ = ["SequenceKL", "nats_per_sequence", "nats_per_token"]


@dataclass(frozen=True)
class SequenceKL(Shown):
    """Estimates of KL(π ‖ π_ref) from sampled responses of a policy π. Each has shape (prompts,
    responses), with nan, or 0 tokens, where a prompt has fewer responses than others.

    Both estimates have the sequence KL of a prompt as their mean. Near the reference `exact` has by
    far the smaller variance: the variance of `sampled` is about twice the KL, and that of `exact`
    is of second order. Elsewhere `exact` can have the larger variance: if π is the reference
    restricted to some of its responses, `sampled` is constant and `exact` is not. A policy with a
    small top-p, compared with the whole reference, comes close to that case.
    """

    exact: np.ndarray
    """Σ_t KL(π(·|x, y_<t) ‖ π_ref(·|x, y_<t)) along each response y, in nats; ≥ 0 up
    to rounding, inf where `impossible` is not 0. Rao-Blackwellized by token (arXiv:2504.10637)."""

    sampled: np.ndarray
    """log π(y|x) / π_ref(y|x) of each response, in nats. It may have either sign, and is inf if the
    reference cannot produce the response."""

    tokens: np.ndarray
    """Length of each response, its end token included."""

    impossible: np.ndarray
    """Positions in each response where the policy can produce a token that the reference cannot,
    usually because the reference is truncated. One such position makes the KL infinite."""


def nats_per_sequence(nats) -> Estimate:
    """Sequence KL: the mean over prompts of the mean over a prompt's responses, in nats.

    - `nats`: `SequenceKL.exact` or `.sampled`, shape (prompts, responses); nan marks a
      response that was not measured.

    If the value is inf, error and interval are nan; `.per_prompt` shows which prompts cause it.
    Raises ValueError for another shape, −inf, and a prompt without any response.

    >>> nats_per_sequence([[0.5, 1.5], [3.0, np.nan]]).value
    2.0
    """
    return _mean(_by_prompt(_checked("nats", nats)))


def nats_per_token(nats, tokens) -> Estimate:
    """KL per token: nats per sequence over tokens per sequence, the ratio of the two means.

    Every prompt has the same weight in both means, and long responses weigh more than short ones;
    this is not the mean of the responses' own ratios. The delta method gives the error of the ratio
    R from each prompt's (a − R b) / b̄. `.per_prompt` holds R plus these terms, so its mean is the
    value, and two policies can be compared prompt by prompt.

    - `nats`: as in `nats_per_sequence`.
    - `tokens`: length of each response, same shape; read where `nats` is not nan.

    Raises ValueError like `nats_per_sequence`, and for lengths below 1.

    >>> nats_per_token([[1.0], [3.0]], [[10], [30]]).value
    0.1
    """
    nats = _checked("nats", nats)
    tokens = _check.numbers("tokens", tokens)
    if tokens.shape != nats.shape:
        raise ArgumentError(
            "tokens", f"must have the shape of `nats`; got {tokens.shape} and {nats.shape}."
        )
    short = ~np.isnan(nats) & ~(tokens >= 1)
    if short.any():
        row, column = np.argwhere(short)[0]
        raise ArgumentError(
            "tokens",
            f"must be at least 1; got {tokens[row, column]:g} at prompt {row}, response "
            f"{column} ({short.sum()} of {nats.size} entries). The end token is counted.",
        )
    a, b = _by_prompt(nats), _by_prompt(np.where(np.isnan(nats), np.nan, tokens))
    if np.isinf(a).any():
        return _mean(a / b)
    ratio = a.mean() / b.mean()
    return _mean(ratio + (a - ratio * b) / b.mean())


def _checked(name: str, value) -> np.ndarray:
    value = _check.numbers(name, value)
    if value.ndim != 2 or value.size == 0:
        raise ValueError(
            f"`{name}` must be a non-empty array of shape (prompts, responses); "
            f"got shape {value.shape}."
        )
    lowest = np.argwhere(np.isneginf(value))
    if lowest.size:
        row, column = lowest[0]
        raise ValueError(
            f"`{name}` must not be -inf; got it at prompt {row}, response {column} ({len(lowest)} "
            f"of {value.size} entries). The policy cannot give such a response: measure its own."
        )
    empty = np.flatnonzero(np.isnan(value).all(1))
    if empty.size:
        raise ValueError(
            f"`{name}` must have a response of every prompt; prompt {empty[0]} has none "
            f"({empty.size} of {len(value)} prompts). Measure some, or leave those prompts out."
        )
    return value


def _by_prompt(values: np.ndarray) -> np.ndarray:
    """Mean of each row over the entries that are not nan."""
    measured = ~np.isnan(values)
    return np.where(measured, values, 0.0).sum(1) / measured.sum(1)


def _mean(per_prompt: np.ndarray) -> Estimate:
    if np.isinf(per_prompt).any():
        nan = float("nan")
        return Estimate(float("inf"), nan, nan, nan, per_prompt)
    return over_prompts(per_prompt)
