"""Selection chances: the probability that a procedure selects each sample, and estimates from them.

The chances are averaged over all ways to draw the procedure's responses from a prompt's samples.
Every quantity of the selected response (its reward, another reward, its length, a judge's verdict)
is a mean over the samples with these weights. The mean is unbiased, and no subset is ever drawn.
Compute the chances once per policy and procedure; they serve every quantity.
"""

from collections.abc import Sequence

import numpy as np

from infalign import _check
from infalign.core import AbstractProcedure, finite_rewards
from infalign.seeds import prompt_keys, uniforms

from .laws import calibrated, drawn, law
from .uncertainty import EITHER_WAY, AbstractInterval, Estimate, over_prompts

__all__ = ["draw_selected", "selected_mean", "selected_win_rate", "selection_chances"]


def selection_chances(rewards, procedure: AbstractProcedure, *, calibration=None) -> np.ndarray:
    """Chance that `procedure` selects each sample, in the shape of `rewards`; rows sum to 1.

    Tied samples share their chance evenly; a sample that was not drawn (nan) has chance 0.

    - `calibration`: as in `win_rate`.

    Raises ValueError for a prompt with fewer samples than the procedure draws.

    >>> from infalign import BestOfN
    >>> selection_chances([[5.0, 1.0, 3.0]], BestOfN(2)).round(3).tolist()
    [[0.667, 0.0, 0.333]]
    """
    rewards = finite_rewards("rewards", rewards, missing=True)
    sizes = drawn(rewards)
    _check.enough_samples("rewards", sizes, procedure.draws, procedure)
    reference = calibrated(calibration, rewards, procedure)
    order = np.argsort(rewards, axis=1)  # nan last
    ranked = np.take_along_axis(rewards, order, axis=1)
    chances = np.zeros_like(rewards)
    for m in np.unique(sizes):
        rows = sizes == m
        own = law(procedure, ranked[rows, :m], None if reference is None else reference[rows])
        share = np.zeros((rows.sum(), rewards.shape[1]))
        share[:, :m] = _shared_by_ties(ranked[rows, :m], np.atleast_2d(own))
        np.put_along_axis(placed := np.empty_like(share), order[rows], share, axis=1)
        chances[rows] = placed
    return chances


def selected_mean(
    values: np.ndarray, chances: np.ndarray, *, interval: AbstractInterval = EITHER_WAY
) -> Estimate:
    """Mean of `values` over the responses that are selected with these chances.

    - `values`, `chances`: shape (prompts, samples). Rows of chances sum to 1, and chances are 0
      where a value is nan.
    """
    return over_prompts(np.nansum(chances * values, axis=1), interval=interval)


def selected_win_rate(
    policy_values: np.ndarray,
    policy_chances: np.ndarray,
    reference_values: np.ndarray,
    reference_chances: np.ndarray,
    *,
    interval: AbstractInterval = EITHER_WAY,
) -> Estimate:
    """Chance that the policy's selected response has the higher value; ties count one half.

    - `policy_values`, `policy_chances`: as in `selected_mean`, shape (prompts, m); those of the
      reference (prompts, k).
    """
    columns = (policy_values, policy_chances, reference_values, reference_chances)
    wins = np.array([_beats(*row) for row in zip(*columns, strict=True)])
    return over_prompts(wins, bounds=(0, 1), interval=interval)


def draw_selected(
    chances: np.ndarray, count: int, *, seed: int, keys: Sequence[str] | None = None
) -> np.ndarray:
    """Indices of `count` independently selected samples of each prompt, shape (prompts, count).

    Every sample draws a waiting time with its chance as the rate, and the first is selected. The
    times depend on seed, key and number of sample alone, so that with more samples, prompts or
    draws as many selections as possible stay what they were.

    - `keys`: names of the prompts, all different. Default: "0", "1", …
    """
    selected = np.empty((len(chances), count), int)
    for row, (key, own) in enumerate(zip(prompt_keys(keys, list(chances)), chances, strict=True)):
        waits = -np.log1p(-uniforms(seed, key, 0, len(own), count))
        possible = np.flatnonzero(own)
        selected[row] = possible[(waits[possible] / own[possible, None]).argmin(0)]
    return selected


def _shared_by_ties(ranked: np.ndarray, law: np.ndarray) -> np.ndarray:
    """The chance of each ranked sample under `law`; tied samples share it evenly."""
    m = ranked.shape[1]
    rises = np.diff(ranked, axis=1) > 0
    edge = np.ones((len(ranked), 1), bool)
    # Sample i is tied with the samples from first[i] up to, but not including, last[i].
    first = np.maximum.accumulate(np.where(np.hstack([edge, rises]), np.arange(m), 0), axis=1)
    ends = np.where(np.hstack([rises, edge]), np.arange(1, m + 1), m)
    last = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    law = np.broadcast_to(law, (len(ranked), m + 1))
    up_to, below = (np.take_along_axis(law, place, axis=1) for place in (last, first))
    return (up_to - below) / (last - first)


def _beats(a, chance_a, b, chance_b) -> float:
    """P(a > b) + ½ P(a = b) for values drawn with the given chances; nan has chance 0."""
    order = np.argsort(b)  # nan last
    below = np.concatenate([[0.0], np.cumsum(chance_b[order])])
    ranked, known = b[order], ~np.isnan(a)
    low = below[np.searchsorted(ranked, a[known], "left")]
    up_to = below[np.searchsorted(ranked, a[known], "right")]
    return float(chance_a[known] @ (low + up_to) / 2)
