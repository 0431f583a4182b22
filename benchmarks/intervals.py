"""Coverage of intervals: simulated evaluations whose win rates are known."""

from functools import partial

import numpy as np
from scipy.special import betaln

import infalign as ia
from infalign.evaluation.uncertainty import EITHER_WAY, AbstractInterval

LARGE = 500_000
"""Number of prompts over which the truth of a case is averaged."""


def powers(rng, shape, median, spread):
    """k of policies F(u) = u^k, log-normal over prompts."""
    return median * np.exp(spread * rng.normal(size=shape))


def winning(rng, prompts, median, spread):
    """Best-of-4 from 8 samples, fewer on some prompts: policy F(u) = u^k, median k, log-normal."""
    k = powers(rng, (prompts, 1), median, spread)
    policy, reference = rng.random((prompts, 8)) ** (1 / k), rng.random((prompts, 8))
    policy[::2, -1] = reference[1::2, -2:] = np.nan
    many = powers(rng, LARGE, median, spread)
    return ia.win_rate(policy, reference, ia.BestOfN(4)), (many / (many + 1)).mean()


def tied(rng, prompts):
    """Best-of-4 from 8 samples that pass or fail; the reference's pass rate p₀ is Beta(1, 3)."""
    start = rng.beta(1, 3, (prompts, 1))
    policy = rng.random((prompts, 8)) < start + 0.4 * (1 - start)
    reference = rng.random((prompts, 8)) < start
    # W - ½ = ½ E[(1 - p₀)⁴ - (1 - p)⁴], p = p₀ + .4 (1 - p₀), and E (1 - p₀)⁴ = 3/7.
    return ia.win_rate(policy, reference, ia.BestOfN(4)), 0.5 + 0.5 * (1 - 0.6**4) * 3 / 7


def passing(rng, prompts, a, b, k, m):
    """pass@k from m samples; pass rates are Beta(a, b)."""
    rate = rng.beta(a, b, (prompts, 1))
    fails = np.exp(betaln(a, b + k) - betaln(a, b))
    return ia.pass_at(rng.random((prompts, m)) < rate, k), 1 - fails


def one_sample(rng, prompts, rate):
    """pass@1 from a single sample per prompt, which passes or fails."""
    return ia.pass_at(rng.random((prompts, 1)) < rate, 1), rate


def null(rng, prompts):
    """The same policy twice, best-of-4 from 8 samples that pass or fail; rates are Beta(1, 3)."""
    rate = rng.beta(1, 3, (prompts, 1))
    ours, theirs = rng.random((prompts, 8)) < rate, rng.random((prompts, 8)) < rate
    return ia.win_rate(ours, theirs, ia.BestOfN(4)), 0.5


def attacked(rng, prompts):
    """Worst-of-8 from 16 samples: F(u) = u³⁰, but on a tenth of the prompts F(u) = u."""
    k = np.where(rng.random((prompts, 1)) < 0.1, 1, 30)
    policy, reference = rng.random((prompts, 16)) ** (1 / k), rng.random((prompts, 16))
    aligned = win_rate_of_powers(30, ia.WorstOfN(8))
    return ia.win_rate(policy, reference, ia.WorstOfN(8)), 0.1 * 0.5 + 0.9 * aligned


def win_rate_of_powers(k, procedure):
    """W of F(u) = u^k, by the midpoint rule."""
    u = (np.arange(200_000) + 0.5) / 200_000
    return 1 - np.mean(procedure.cdf(u**k) * procedure.density(u))


def levels(rng, prompts):
    """Best-of-4 from 8 samples with rewards 0, 1, 2, the reference's; 2 or 3 on a fifth of the
    prompts are missing."""
    reference = rng.integers(3, size=(prompts, 8)).astype(float)
    policy = rng.integers(3, size=(prompts, 8)).astype(float)
    policy[::5, -3:] = reference[::5, -2:] = np.nan
    return ia.win_rate(policy, reference, ia.BestOfN(4)), 0.5


def differing(rng, prompts, a, b):
    """Two policies on the same prompts, F(u) = u^(a k) and u^(b k), at best-of-4."""
    k, many = powers(rng, (prompts, 1), 1, 1), powers(rng, LARGE, 1, 1)
    ours, theirs = (rng.random((prompts, 8)) ** (1 / (c * k)) for c in (a, b))
    estimate = ia.win_rate_difference(ours, theirs, rng.random((prompts, 8)), ia.BestOfN(4))
    return estimate, (a * many / (a * many + 1) - b * many / (b * many + 1)).mean()


def selecting(rng, prompts):
    """Mean best-of-4 reward from 8 rewards with log-normal means: unbounded, with a heavy tail."""
    means = powers(rng, (prompts, 1), 1, 1)
    rewards = means * -np.log(rng.random((prompts, 8)))
    # The best of 4 exponential rewards has mean 1 + 1/2 + 1/3 + 1/4, the means e^½.
    return ia.best_reward(rewards, 4), np.exp(0.5) * 25 / 12


RATE, DIFFERENCE, REWARD = ((0, 1), EITHER_WAY), ((-1, 1), EITHER_WAY), (None, EITHER_WAY)
"""Bounds of an estimate, and its default interval."""

CASES = {
    "win rate .50": (RATE, partial(winning, median=1, spread=1)),
    "win rate .76": (RATE, partial(winning, median=4, spread=1)),
    "win rate .93": (RATE, partial(winning, median=20, spread=1)),
    "win rate .95": (RATE, partial(winning, median=19, spread=0.2)),
    "win rate .69, 0/1 rewards": (RATE, tied),
    "pass@4 .80, even rates": (RATE, partial(passing, a=1, b=1, k=4, m=16)),
    "pass@4 .36, mostly 0 or 1": (RATE, partial(passing, a=0.2, b=0.8, k=4, m=16)),
    "pass@4 .93, few low": (RATE, partial(passing, a=1, b=0.3, k=4, m=16)),
    "pass@8 .995, few low": (RATE, partial(passing, a=2, b=0.3, k=8, m=16)),
    "pass@4 .998, few low": (RATE, partial(passing, a=3, b=0.1, k=4, m=16)),
    "null, 0/1 rewards": (RATE, null),
    "null, three levels, ragged": (RATE, levels),
    "worst-of-8 .95, a tenth at .5": (RATE, attacked),
    "pass@1 .01, one sample": (RATE, partial(one_sample, rate=0.01)),
    "pass@1 .95, 8 samples": (RATE, partial(passing, a=19, b=1, k=1, m=8)),
    "pass@1 .95, one sample": (RATE, partial(one_sample, rate=0.95)),
    "difference .05 near .75": (DIFFERENCE, partial(differing, a=4, b=3)),
    "difference .05 near .90": (DIFFERENCE, partial(differing, a=20, b=10)),
    "best reward, log-normal": (REWARD, selecting),
}

ALTERNATIVES = {"Student": ia.Student(), "bootstrap": ia.Bootstrap(0, 1000)}


def coverage(plan) -> list[dict]:
    """Share of 95 % intervals that contain the truth, by case and number of prompts."""
    rows = []
    for name, ((bounds, default), make) in CASES.items():
        for prompts in plan.coverage_prompts:
            rng = np.random.default_rng(0)
            estimate, truth = make(rng, plan.runs * prompts)
            runs = estimate.per_prompt.reshape(-1, prompts)
            few = runs[: plan.bootstrap_runs]
            row = {"case": name, "prompts": prompts, "truth": float(truth)}
            row |= {"runs": len(runs), "bootstrap_runs": len(few)}
            for kind, interval in {"default": default, **ALTERNATIVES}.items():
                judged = few if kind == "bootstrap" else runs
                # Without bounds, alternatives do not allow for prompts that were not drawn.
                known = bounds if kind == "default" else None
                row[kind] = covering(judged, truth, known, interval)
            rows.append(row)
    return rows


def covering(runs, truth, bounds, interval: AbstractInterval) -> dict:
    """Shares of the runs whose interval contains the truth, lies above it and lies below it, and
    the median width.

    - `runs`: per-prompt values, shape (runs, prompts).
    """
    estimates = [ia.over_prompts(values, bounds=bounds, interval=interval) for values in runs]
    low, high = np.array([e.low for e in estimates]), np.array([e.high for e in estimates])
    slack = 1e-12  # a bound equal to the truth up to rounding contains it
    return {
        "holds": float(np.mean((low <= truth + slack) & (truth <= high + slack))),
        "above": float(np.mean(low > truth + slack)),
        "below": float(np.mean(high < truth - slack)),
        "width": float(np.median(high - low)),
    }
