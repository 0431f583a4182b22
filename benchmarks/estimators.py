"""Benchmarks of evaluation: win rates of many prompts, compared with a sort and with resampling."""

import numpy as np

import infalign as ia

PROCEDURE = ia.BestOfN(8)

RESAMPLES = 1000
"""Draws with replacement for each prompt and side: the usual estimate of best@n."""

LOOPED = 2
"""Prompts that are resampled in plain loops; the time of all prompts is extrapolated."""

REWARDS = {
    "all different": lambda rng, shape: rng.normal(size=shape),
    "pass or fail": lambda rng, shape: (rng.random(shape) < 0.5).astype(float),
    "one decimal": lambda rng, shape: rng.normal(size=shape).round(1),
    "a tenth missing": lambda rng, shape: np.where(
        rng.random(shape) < 0.1, np.nan, rng.normal(size=shape)
    ),
}


def estimators(plan, timed) -> list[dict]:
    """The win rate at best-of-8, `np.sort` of both sides, and 1,000 resamples of each."""
    # Freeing a large array makes the allocator keep its pages; otherwise each sort requests new
    # ones and takes twice as long.
    np.empty(2**21)
    rows = []
    for kind, draw in REWARDS.items():
        policy, reference = _samples(draw, plan.prompts, plan.samples)
        row = {
            "procedure": PROCEDURE.spec,
            "rewards": kind,
            "prompts": plan.prompts,
            "samples": plan.samples,
            "resamples": RESAMPLES,
            "win_rate": ia.win_rate(policy, reference, PROCEDURE).value,
            "estimate": timed(lambda a=policy, b=reference: ia.win_rate(a, b, PROCEDURE)),
            "sort": timed(lambda a=policy, b=reference: (np.sort(a, axis=1), np.sort(b, axis=1))),
        }
        row["per_sort"] = row["estimate"]["min"] / row["sort"]["min"]
        if not np.isnan(policy).any():
            again = timed(lambda a=policy, b=reference: resampled(a, b, PROCEDURE.n))
            few = slice(0, LOOPED)
            loop = timed(
                lambda a=policy[few], b=reference[few]: resampled_in_loops(a, b, PROCEDURE.n)
            )
            loop = loop["min"] * plan.prompts / min(LOOPED, plan.prompts)
            row |= {"resampled": again, "ratio": again["min"] / row["estimate"]["min"]}
            row |= {"looped_seconds": loop, "looped_ratio": loop / row["estimate"]["min"]}
        rows.append(row)
    return rows


def estimators_growth(plan, timed) -> list[dict]:
    """The same for growing numbers of samples and of prompts."""
    sizes = [("samples", plan.prompts, m) for m in plan.growing_samples]
    sizes += [("prompts", p, plan.samples) for p in plan.growing_prompts]
    rows = []
    for grows, prompts, samples in sizes:
        policy, reference = _samples(REWARDS["all different"], prompts, samples)
        rows.append(
            {
                "procedure": PROCEDURE.spec,
                "grows": grows,
                "prompts": prompts,
                "samples": samples,
                "estimate": timed(lambda a=policy, b=reference: ia.win_rate(a, b, PROCEDURE)),
                "sort": timed(
                    lambda a=policy, b=reference: (np.sort(a, axis=1), np.sort(b, axis=1))
                ),
            }
        )
    return rows


def resampled(policy, reference, n: int) -> np.ndarray:
    """Win rates by the best of n samples drawn with replacement, 1,000 times per prompt and side.

    Biased for any number of draws: with n = 4 out of 4 samples, all four are rarely drawn.
    """
    rng, wins = np.random.default_rng(0), np.empty(len(policy))
    for row, sides in enumerate(zip(policy, reference, strict=True)):
        a, b = (s[rng.integers(s.size, size=(RESAMPLES, n))].max(1) for s in sides)
        wins[row] = ((a > b) + 0.5 * (a == b)).mean()
    return wins


def resampled_in_loops(policy, reference, n: int) -> np.ndarray:
    """The same in a loop over draws, as training libraries do it."""
    rng, wins = np.random.default_rng(0), np.empty(len(policy))
    for row, sides in enumerate(zip(policy, reference, strict=True)):
        a, b = (
            np.array([np.max(s[rng.choice(s.size, n, replace=True)]) for _ in range(RESAMPLES)])
            for s in sides
        )
        wins[row] = ((a > b) + 0.5 * (a == b)).mean()
    return wins


def _samples(draw, prompts: int, samples: int):
    """Rewards of a policy and of a reference, (prompts, samples) each."""
    rng = np.random.default_rng(0)
    return draw(rng, (prompts, samples)), draw(rng, (prompts, samples))
