"""The mean reward of the response that a procedure selects; with 0/1 rewards, pass@k.

The average over all n-subsets of a prompt's samples is unbiased and has minimum variance. Drawing
with replacement is biased: with one success in four samples it estimates best-of-4 as 1 − (3/4)⁴ =
0.684, though every set of four contains the success.
"""

import numpy as np

from infalign import _check
from infalign.core import AbstractProcedure, BestOfN, WorstOfN, finite_rewards, require_procedure

from .laws import calibrated, drawn, law, rectangles
from .uncertainty import EITHER_WAY, AbstractInterval, Estimate, over_prompts

__all__ = ["best_reward", "pass_all", "pass_at", "selected_reward", "worst_reward", "zero_or_one"]


def selected_reward(
    rewards,
    procedure: AbstractProcedure,
    *,
    calibration=None,
    interval: AbstractInterval = EITHER_WAY,
) -> Estimate:
    """Mean reward of the response that `procedure` selects.

    - `rewards`: shape (prompts, m), any scale; nan marks a sample that was not drawn.
    - `calibration`: as for `win_rate`, for `SoftBestOfN` and `Rewind` only.
    - `interval`: the method for the interval.

    Raises ValueError if a prompt has fewer samples than the procedure draws.

    >>> from infalign import BestOfN
    >>> selected_reward([[1.0, 2.0, 6.0]], BestOfN(2)).value   # the best of each pair: 2, 6, 6
    4.666666666666667
    """
    require_procedure("procedure", procedure)
    rewards = finite_rewards("rewards", rewards, missing=True)
    _check.enough_samples("rewards", drawn(rewards), procedure.draws, procedure)
    checked = calibrated(calibration, rewards, procedure)
    means = np.empty(len(rewards))
    for rows, (some,) in rectangles(rewards):
        chances = np.diff(law(procedure, some, None if checked is None else checked[rows]))
        means[rows] = (np.sort(some, axis=1) * chances).sum(1)
    return over_prompts(means, interval=interval)


def best_reward(rewards, n: int, *, interval: AbstractInterval = EITHER_WAY) -> Estimate:
    """Mean of the highest of n rewards: `selected_reward` of `BestOfN(n)`.

    >>> best_reward([[1.0, 2.0, 6.0]], 3).value
    6.0
    """
    return selected_reward(rewards, BestOfN(n), interval=interval)


def worst_reward(rewards, n: int, *, interval: AbstractInterval = EITHER_WAY) -> Estimate:
    """Mean of the lowest of n rewards: `selected_reward` of `WorstOfN(n)`.

    >>> worst_reward([[1.0, 2.0, 6.0]], 3).value
    1.0
    """
    return selected_reward(rewards, WorstOfN(n), interval=interval)


def pass_at(correct, k: int, *, interval: AbstractInterval = EITHER_WAY) -> Estimate:
    """Chance that at least one of k samples is correct: pass@k, 1 − C(m − c, k)/C(m, k).

    - `correct`: 0 or 1, or booleans, shape (prompts, m); nan marks a sample that was not drawn.
    - `k`: samples drawn, at most the m of every prompt.
    - `interval`: the method for the interval.

    Source: Chen et al., Evaluating large language models trained on code, arXiv:2107.03374, eq. 1.

    >>> pass_at([[0, 0, 1, 0], [1, 1, 0, 0]], 2).per_prompt.round(4).tolist()
    [0.5, 0.8333]
    """
    correct, samples = _enough(correct, k)
    failures = np.count_nonzero(correct == 0, axis=1)
    return over_prompts(1 - _all_among(failures, samples, k), bounds=(0, 1), interval=interval)


def pass_all(correct, k: int, *, interval: AbstractInterval = EITHER_WAY) -> Estimate:
    """Chance that all k samples are correct: pass^k, C(c, k)/C(m, k).

    Arguments as for `pass_at`. Source: Yao et al., τ-bench, arXiv:2406.12045, section 3.

    >>> pass_all([[0, 0, 1, 0], [1, 1, 1, 0]], 2).per_prompt.round(4).tolist()
    [0.0, 0.5]
    """
    correct, samples = _enough(correct, k)
    successes = np.count_nonzero(correct == 1, axis=1)
    return over_prompts(_all_among(successes, samples, k), bounds=(0, 1), interval=interval)


def _enough(correct, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The checked outcomes, and the number of samples of each prompt, at least k."""
    k = _check.count("k", k)
    correct = zero_or_one("correct", correct)
    samples = drawn(correct)
    remedy = "Draw more samples, or use a smaller `k`."
    _check.enough_samples("correct", samples, k, f"k={k}", remedy)
    return correct, samples


def _all_among(chosen: np.ndarray, samples: np.ndarray, k: int) -> np.ndarray:
    """Chance that k of the samples, drawn at random, are all among the chosen ones."""
    chances = np.empty(len(samples))
    for m in np.unique(samples):
        rows = samples == m
        chances[rows] = BestOfN(k).subset_cdf(int(m))[chosen[rows]]
    return chances


def zero_or_one(name: str, correct) -> np.ndarray:
    """`correct` as floats: 0, 1, or nan where a sample was not drawn."""
    correct = _check.finite_matrix(name, correct, missing=True)
    other = ~np.isnan(correct) & (correct != 0) & (correct != 1)
    if other.any():
        row, column = np.argwhere(other)[0]
        raise ValueError(
            f"`{name}` must be 0 or 1, or nan where a sample was not drawn; got "
            f"{correct[row, column]:g} at prompt {row}, sample {column} "
            f"({other.sum()} of {correct.size} entries). For graded rewards use `best_reward`."
        )
    return correct
