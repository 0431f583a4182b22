"""How far judges agree on who has won, beyond what chance would give.

All statistics are functions of sums over prompts, so a jackknife over prompts gives their errors
without a refit.
"""

from collections.abc import Callable

import numpy as np

from infalign import _check
from infalign.errors import ArgumentError

from .uncertainty import Estimate, over_prompts

__all__ = ["kappa", "krippendorff"]

CATEGORIES = 3
"""Loss, tie and win."""


def krippendorff(scores, prompts) -> Estimate | None:
    """Krippendorff's α of several judges, on who has won each item: policy, reference, or neither.

    α = 1 − (observed disagreement) / (disagreement by chance): 1 for perfect agreement, 0 for
    chance. Items with fewer than two verdicts do not count. Source: Krippendorff, Content Analysis
    (2004), with nominal categories.

    - `scores`: a judge's score of the policy, shape (items, judges): above ½ it wins, below it
      loses, and nan is no verdict.
    - `prompts`: index of each item's prompt, 0, 1, …

    Returns None if no item has two verdicts, or if all verdicts are of one category, where no
    disagreement could occur.

    >>> krippendorff([[1, 1], [0, 0], [1, 1], [0, 0]], range(4)).value
    1.0
    """
    categories, prompts = _categories(scores, prompts)
    counts = np.stack([(categories == c).sum(1) for c in range(CATEGORIES)], axis=1).astype(float)
    verdicts = counts.sum(1)
    several = verdicts >= 2
    # Each ordered pair of verdicts of an item counts 1 / (its verdicts − 1).
    pairs = counts[:, :, None] * counts[:, None, :]
    pairs -= np.eye(CATEGORIES) * counts[:, None, :]
    pairs = pairs[several] / (verdicts[several] - 1)[:, None, None]

    def alpha(table: np.ndarray) -> np.ndarray:
        own = table.sum(-1)
        n = own.sum(-1)
        observed = n - np.trace(table, axis1=-2, axis2=-1)
        chance = (n**2 - (own**2).sum(-1)) / (n - 1)
        return 1 - observed / chance

    return _jackknife(alpha, pairs, prompts[several])


def kappa(one, other, prompts) -> Estimate | None:
    """Cohen's κ of two judges on who has won each item that both have judged.

    - `one`, `other`: scores of the policy by each judge, shape (items,), as in `krippendorff`.

    Returns None where no item has both, or chance alone would give perfect agreement.
    """
    categories, prompts = _categories(np.stack([one, other], axis=1), prompts)
    both = (categories >= 0).all(1)
    a, b = categories[both].T
    table = np.zeros((a.size, CATEGORIES, CATEGORIES))
    table[np.arange(a.size), a, b] = 1

    def agreement(total: np.ndarray) -> np.ndarray:
        n = total.sum((-2, -1))
        observed = np.trace(total, axis1=-2, axis2=-1) / n
        chance = (total.sum(-1) * total.sum(-2)).sum(-1) / n**2
        return (observed - chance) / (1 - chance)

    return _jackknife(agreement, table, prompts[both])


def _categories(scores, prompts) -> tuple[np.ndarray, np.ndarray]:
    scores = _check.numbers("scores", scores)
    at = np.asarray(list(prompts), int)
    if scores.ndim != 2 or at.shape != scores.shape[:1]:
        raise ArgumentError(
            "scores",
            "must have shape (items, judges), with a prompt for each item; got shape "
            f"{scores.shape} and {at.size} prompts.",
        )
    return np.where(np.isnan(scores), -1, np.sign(scores - 0.5) + 1).astype(int), at


def _jackknife(
    statistic: Callable[[np.ndarray], np.ndarray], tables: np.ndarray, prompts: np.ndarray
) -> Estimate | None:
    """A function of the sum of all tables, with the jackknife over prompts; None where it is not
    defined, with all prompts or without one of them."""
    if not len(tables):
        return None
    names, places = np.unique(prompts, return_inverse=True)
    by_prompt = np.zeros((len(names), CATEGORIES, CATEGORIES))
    np.add.at(by_prompt, places, tables)
    total = by_prompt.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value, moved = statistic(total), statistic(total - by_prompt)
    if not np.isfinite(value):
        return None
    if not np.isfinite(moved).all():  # a single prompt makes the difference: no error is known
        nan = float("nan")
        return Estimate(float(value), nan, nan, nan, np.full(len(names), nan))
    pseudo = (len(names) - 1) * (value - moved)
    return over_prompts(pseudo + value - pseudo.mean(), bounds=(-1, 1))
