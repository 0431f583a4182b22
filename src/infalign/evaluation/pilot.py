"""Variance components of win rates, from the samples of a pilot."""

from dataclasses import dataclass

import numpy as np

from infalign import _check
from infalign.core import AbstractProcedure, finite_rewards

from .estimators import win_rate, win_rate_difference
from .uncertainty import over_prompts
from .variance import check_ranks


@dataclass(frozen=True)
class Components:
    """Where the spread of per-prompt estimates comes from."""

    between: float
    """Variance of the truth between prompts: unbiased, so below 0 where there is next to none."""

    between_stderr: float
    within: float
    """Mean sampling variance of one prompt's estimate at the numbers of samples of the pilot."""

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
    """Variance components of a pilot: of a difference, or of a win rate where `b_rewards` is None.

    Disjoint halves of a prompt's samples share its truth and no noise, so the covariance of their
    estimates is the variance of the truth. The mean over random halves is taken; what is left of
    the full estimates' variance is sampling noise.

    - `a_rewards`, `b_rewards`, `reference_rewards`: shape (prompts, samples), finite, any scale.
      Each half needs as many samples as are drawn.
    - `splits`: how often the samples are halved.
    """
    _check.count("splits", splits)
    given = {"a_rewards": a_rewards, "b_rewards": b_rewards, "reference_rewards": reference_rewards}
    arrays = {k: finite_rewards(k, v) for k, v in given.items() if v is not None}
    prompts = len(arrays["a_rewards"])
    if prompts < 2:
        raise ValueError(
            f"`a_rewards` must have at least 2 prompts to show how they differ; got {prompts}."
        )
    for name, values in arrays.items():
        side = (against or procedure) if name == "reference_rewards" else procedure
        check_ranks("procedure" if side is procedure else "against", side)
        half = np.full(len(values), values.shape[1] // 2)
        _check.enough_samples(f"each half of {name}", half, side.draws, side)

    def estimate(parts):
        compare = win_rate if b_rewards is None else win_rate_difference
        return compare(*parts, procedure, against=against).per_prompt

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
        between.value,
        between.stderr,
        total - between.value,
        prompts,
        arrays["a_rewards"].shape[1],
        arrays["reference_rewards"].shape[1],
    )
