"""What the design and the methods need of the KL and the number of samples, known before any sample
is drawn."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from infalign.calibration.outlook import RankOutlook
from infalign.core import (
    AbstractTransform,
    BestOfN,
    FewSamples,
    RankProcedure,
    at_kl,
    design,
    parse_transform,
)
from infalign.errors import ConfigError, SolveError

__all__ = [
    "Budget",
    "best_of_samples",
    "budget",
    "most_nats",
    "nothing",
    "own_optimum",
    "stored_tilt",
    "transform_of_quantiles",
    "transform_of_ranks",
]

NEAR = 0.5
"""Share of the largest KL that K samples express, above which the best table itself is computed:
near the limit it may fail where its first guess does not."""

MOST_SAMPLES = 100_000
"""Largest number of samples that a message advises."""


@dataclass(frozen=True)
class Budget:
    """What is known of a run's design before its samples are drawn."""

    procedure: RankProcedure
    against: RankProcedure
    kl: float
    """The KL that every method is brought to, in nats."""

    samples: int
    """Reference samples per prompt, K."""

    ranks: bool
    """Whether quantiles are ranks among a prompt's own samples, which bounds the KL that they
    express. Calibrators that pool prompts express more."""


def budget(
    procedure: RankProcedure,
    against: RankProcedure,
    transform: str,
    *,
    kl: float | None,
    beta: float | None,
    samples: int,
    ranks: bool,
) -> Budget:
    """The budget of a design.

    Raises SolveError if no policy of the transform has the KL: with exact quantiles, or with
    `samples` samples per prompt.
    """
    optimal = transform == "optimal"
    if optimal:
        chosen: AbstractTransform = design(procedure, kl=kl, beta=beta, against=against).transform
    else:
        chosen = parse_transform(transform)
        if kl is not None:
            at_kl(chosen, kl)
    if kl is None:
        kl = RankOutlook(samples).achieved(chosen, procedure, against, beta=beta).kl
    elif optimal or ranks:
        with _within(f"`transform` {transform}", kl, samples):
            FewSamples(samples).at_kl(chosen, kl)
            if optimal and kl > NEAR * most_nats(samples):
                RankOutlook(samples).best(procedure, against, kl=kl)
    return Budget(procedure, against, kl, samples, ranks)


def nothing(budget: Budget) -> None:
    """For methods that can be trained to any KL."""


def stored_tilt(budget: Budget) -> None:
    """For methods that weight the K stored samples of a prompt: their tilt has less than log K
    nats."""
    most = math.log(budget.samples)
    if budget.kl >= most:
        enough = math.ceil(math.exp(budget.kl / NEAR)) if budget.kl < 5 else 0
        raise SolveError(
            f"it weights the {budget.samples} stored samples of a prompt, and no weights have "
            f"{budget.kl:.3g} nats: they reach less than log {budget.samples} = {most:.3g} nats. "
            f"{_remedy(enough)}"
        )


def transform_of_ranks(transform: AbstractTransform, budget: Budget) -> None:
    """For methods that train on a fixed transform of ranks among a prompt's samples."""
    at_kl(transform, budget.kl)
    with _within(f"`{transform.spec}`", budget.kl, budget.samples):
        FewSamples(budget.samples).at_kl(transform, budget.kl)


def transform_of_quantiles(transform: AbstractTransform, budget: Budget) -> None:
    """For methods that train on a fixed transform of the calibrator's quantiles."""
    at_kl(transform, budget.kl)
    if budget.ranks:
        transform_of_ranks(transform, budget)


def own_optimum(budget: Budget) -> None:
    """For methods that train to the optimum for exact quantiles."""
    design(budget.procedure, kl=budget.kl, against=budget.against)


def best_of_samples(budget: Budget) -> None:
    """For methods that learn the best of n stored samples: best-of-n, with n from 2 to K."""
    procedure = budget.procedure
    n = procedure.n if isinstance(procedure, BestOfN) else 0
    if not 2 <= n <= budget.samples:
        raise ConfigError(
            "it learns the best of n ≥ 2 out of at most `calibration.samples` "
            f"({budget.samples}); `procedure` is {procedure.spec}. Use another method."
        )


def most_nats(samples: int) -> float:
    """The largest KL, averaged over prompts, that ranks among `samples` samples express."""
    return sum(1 / k for k in range(1, samples + 1))


@contextmanager
def _within(who: str, kl: float, samples: int) -> Iterator[None]:
    """A SolveError of the block, with the settings and the remedy."""
    try:
        yield
    except SolveError as error:
        enough, most = samples, most_nats(samples)
        while most < kl / NEAR and enough < MOST_SAMPLES:
            enough += 1
            most += 1 / enough
        limit = most_nats(samples)
        why = f"ranks among them express at most {limit:.3g} nats, 1 + 1/2 + … + 1/K, on average."
        raise SolveError(
            f"{who} does not reach `kl` {kl:.3g} nats with `calibration.samples` {samples}: "
            f"{why if kl >= limit else error} {_remedy(enough if most >= kl / NEAR else 0)}"
        ) from error


def _remedy(samples: int) -> str:
    """- `samples`: a number that is large enough; 0 if there is none."""
    if not samples:
        return "Use a smaller `kl`."
    return f"Use a smaller `kl`, or more `calibration.samples`, such as {samples}."
