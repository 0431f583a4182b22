"""Rewards to quantiles, by rank among reference samples of the same prompt."""

from typing import Literal

import numpy as np

from infalign import _check

from ._inputs import finite_rewards
from ._shapes import ArrayLike, Float, Int, Real

Smoothing = Literal["none", "add-half"]


def quantiles(
    rewards: Real[ArrayLike, "prompts m"],
    reference_rewards: Real[ArrayLike, "prompts k"],
    *,
    smoothing: Smoothing = "none",
) -> Float[np.ndarray, "prompts m"]:
    """Mid-rank quantile of each reward among the reference rewards of its prompt.

    Ĉ = (#{r_k < r} + ½ #{r_k = r}) / K, the empirical calibrated reward (InfAlign,
    arXiv:2412.19792, section 5.1). Unchanged by any strictly increasing map of the reward.

    - `rewards`: raw rewards, shape (prompts, m), any scale, finite.
    - `reference_rewards`: rewards of reference samples, shape (prompts, K), finite.
    - `smoothing`: `none`, or `add-half`: (rank + ½) / (K + 1), strictly inside (0, 1), which
      unbounded transforms such as `Log` and `Probit` need.

    Returns shape (prompts, m) in [0, 1]. Raises ValueError for other shapes or values.

    >>> quantiles([[0.0, 2.0, 9.0]], [[1.0, 2.0, 3.0, 4.0]]).tolist()
    [[0.0, 0.375, 1.0]]
    """
    given, reference = _paired(rewards, reference_rewards)
    return np.array([mid_rank(row, r, smoothing) for r, row in zip(given, reference, strict=True)])


def randomized_quantiles(
    rewards: Real[ArrayLike, "prompts m"],
    reference_rewards: Real[ArrayLike, "prompts k"],
    *,
    rng: np.random.Generator,
) -> Float[np.ndarray, "prompts m"]:
    """Quantiles with ties and the gaps between ranks broken at random: (#{r_k < r} + v) / (K + 1).

    v is uniform on [0, 1 + #{r_k = r}]. Unlike mid-ranks, these are exactly uniform for fresh
    reference samples, for any K and any number of ties. Densities and tests of uniformity need
    this. Source: the randomized probability integral transform, as in Smith, Diagnostic checks of
    non-standard time series models, Journal of Forecasting 4 (1985).

    Returns shape (prompts, m) in [0, 1). Raises ValueError as `quantiles` does.
    """
    given, reference = _paired(rewards, reference_rewards)
    places = [ranks(row, r) for r, row in zip(given, reference, strict=True)]
    below, up_to = np.array(places).swapaxes(0, 1)
    return (below + rng.random(given.shape) * (up_to - below + 1)) / (reference.shape[1] + 1)


def ranks(
    reference: Real[np.ndarray, "k"], rewards: Real[np.ndarray, "*any"]
) -> tuple[Int[np.ndarray, "*any"], Int[np.ndarray, "*any"]]:
    """How many of one prompt's sorted `reference` rewards lie below each reward, and how many at or
    below it.

    Reference rewards cut the axis into K + 1 cells. A reward lies in the cell of its rank; with
    ties, it may lie in any cell from the first number to the second.
    """
    return np.searchsorted(reference, rewards, "left"), np.searchsorted(reference, rewards, "right")


def interval(
    reference: Real[np.ndarray, "k"], rewards: Real[np.ndarray, "*any"], smoothing: Smoothing
) -> tuple[Float[np.ndarray, "*any"], Float[np.ndarray, "*any"]]:
    """Ends of the quantile interval of each reward's ties; equal if it has no ties."""
    below, up_to = ranks(reference, rewards)
    return ends(below, up_to, len(reference), smoothing)


def ends(
    below: Real[np.ndarray, "*any"],
    up_to: Real[np.ndarray, "*any"],
    samples: int | Int[np.ndarray, "..."],
    smoothing: Smoothing,
) -> tuple[Float[np.ndarray, "*any"], Float[np.ndarray, "*any"]]:
    """Quantiles of ranks among `samples` rewards: of the rank `below` all ties, and of the rank
    `up_to` and including them."""
    if _check.one_of("smoothing", smoothing, ("none", "add-half")) == "add-half":
        return (below + 0.5) / (samples + 1), (up_to + 0.5) / (samples + 1)
    return below / samples, up_to / samples


def mid_rank(
    reference: Real[np.ndarray, "k"], rewards: Real[np.ndarray, "*any"], smoothing: Smoothing
) -> Float[np.ndarray, "*any"]:
    """Quantiles of `rewards` among one prompt's sorted `reference` rewards."""
    low, high = interval(reference, rewards, smoothing)
    return (low + high) / 2


def _paired(
    rewards: Real[ArrayLike, "prompts m"], reference_rewards: Real[ArrayLike, "prompts k"]
) -> tuple[Float[np.ndarray, "prompts m"], Float[np.ndarray, "prompts k"]]:
    """Both as finite arrays with one row per prompt; the reference is sorted."""
    given = finite_rewards("rewards", rewards)
    reference = np.sort(finite_rewards("reference_rewards", reference_rewards), axis=1)
    _check.paired_rows(rewards=given, reference_rewards=reference)
    return given, reference
