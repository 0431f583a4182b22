"""Variance components of win rates, from the samples of a pilot."""

from dataclasses import dataclass

import numpy as np

from infalign import _check
from infalign._look import Shown
from infalign.core import AbstractProcedure, finite_rewards, require_by_rank
from infalign.errors import ArgumentError

from .estimators import win_rate, win_rate_difference
from .uncertainty import over_prompts
from .variance import NO_THEORY

__all__ = ["Components", "components"]


@dataclass(frozen=True)
class Components(Shown):
    """The variance of per-prompt estimates, split by source."""

    between: float
    """Variance of the true value between prompts. The estimate is unbiased, so it can be below 0 if
    the variance is small."""

    between_stderr: float
    """Standard error of `between`."""

    within: float
    """Mean sampling variance of one prompt's estimate at the pilot's numbers of samples."""

    prompts: int
    samples: int
    reference_samples: int


def components(
    a_rewards,
    b_rewards,
    reference_rewards,
    procedure: AbstractProcedure,
    *,
    rng: np.random.Generator,
    against: AbstractProcedure | None = None,
    splits: int = 16,
) -> Components:
    """Variance components from a pilot: of a difference, or of a win rate if `b_rewards` is None.

    Disjoint halves of a prompt's samples share the prompt's true value but no noise. The covariance
    of their estimates is therefore the variance of the true value; it is averaged over random
    halves. The rest of the full estimates' variance is sampling noise.

    - `a_rewards`, `b_rewards`, `reference_rewards`: shape (prompts, samples), finite, any scale.
      Half of the samples must be at least as many as the procedure draws.
    - `splits`: number of random halvings.
    """
    _check.count("splits", splits)
    given = {"a_rewards": a_rewards, "b_rewards": b_rewards, "reference_rewards": reference_rewards}
    arrays = {k: finite_rewards(k, v) for k, v in given.items() if v is not None}
    prompts = len(arrays["a_rewards"])
    if prompts < 2:
        raise ArgumentError(
            "a_rewards", f"must have at least 2 prompts to show how they differ; got {prompts}."
        )
    ours = require_by_rank("procedure", procedure, NO_THEORY)
    theirs = ours if against is None else require_by_rank("against", against, NO_THEORY)
    for name, values in arrays.items():
        side = theirs if name == "reference_rewards" else ours
        half = np.full(len(values), values.shape[1] // 2)
        _check.enough_samples(f"each half of {name}", half, side.draws, side)

    def estimate(parts: list[np.ndarray]) -> np.ndarray:
        if b_rewards is None:
            a, reference = parts
            return win_rate(a, reference, procedure, against=against).per_prompt
        a, b, reference = parts
        return win_rate_difference(a, b, reference, procedure, against=against).per_prompt

    products = np.zeros(prompts)
    for _ in range(splits):
        orders = [rng.permutation(v.shape[1]) for v in arrays.values()]
        halves = [
            estimate([v[:, o[side::2]] for v, o in zip(arrays.values(), orders, strict=True)])
            for side in (0, 1)
        ]
        first, second = (h - h.mean() for h in halves)
        products += first * second * prompts / (prompts - 1) / splits
    between = over_prompts(products)
    total = float(estimate(list(arrays.values())).var(ddof=1))
    return Components(
        between=between.value,
        between_stderr=between.stderr,
        within=total - between.value,
        prompts=prompts,
        samples=arrays["a_rewards"].shape[1],
        reference_samples=arrays["reference_rewards"].shape[1],
    )
