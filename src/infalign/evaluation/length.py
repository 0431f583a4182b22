"""Length: how long responses are, and how much of a win rate goes with it.

Reward models and judges like long responses, so a policy can win by length alone. The
length-controlled win rate is what a regression of the outcome on the difference in length predicts
at equal length (Dubois et al., Length-Controlled AlpacaEval, arXiv:2404.04475).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from infalign import _check
from infalign.core import AbstractProcedure, finite_rewards
from infalign.errors import DataError

from .chances import selection_chances
from .uncertainty import SKEWED, Estimate, over_prompts

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

PRIOR_SD = 10.0
"""Standard deviation, in log-odds, of the normal prior of both coefficients: finite estimates where
length decides every outcome, and no force beside a dozen prompts where it does not."""


@dataclass(frozen=True)
class LengthSummary:
    """How long the responses of one policy are; every prompt has the same weight."""

    mean: Estimate
    sd: float
    """Standard deviation over all responses, between prompts and within."""

    quantiles: tuple[float, ...]
    """At `QUANTILES`: the shortest length that so many do not exceed."""


def length_summary(lengths, chances=None) -> LengthSummary:
    """Mean, spread and quantiles of lengths, in whatever unit they have.

    - `lengths`: shape (prompts, samples); nan marks a sample that was not drawn.
    - `chances`: weight of each sample, such as `selection_chances`, which gives the length of
      selected responses; rows sum to 1. Default: all drawn samples alike.

    >>> length_summary([[4, 2], [6, 4]]).mean.value
    4.0
    """
    lengths = _check.finite_matrix("lengths", lengths, of="lengths", missing=True)
    drawn = ~np.isnan(lengths)
    if chances is None:
        _check.enough_samples("lengths", drawn.sum(1), 1, "length_summary")
        chances = drawn / drawn.sum(1, keepdims=True)
    chances = np.asarray(chances, float)
    if chances.shape != lengths.shape or not np.allclose(chances.sum(1, where=drawn), 1):
        raise ValueError(
            "`chances` must have one weight per sample that was drawn, with sum 1 in every row; "
            f"got shape {chances.shape} for lengths of shape {lengths.shape}. "
            "`selection_chances` makes them."
        )
    mean = over_prompts(np.sum(chances * lengths, axis=1, where=drawn))
    values, weights = lengths[drawn], chances[drawn] / len(lengths)
    order = np.argsort(values)
    # Rounding must not push a quantile to the next length.
    at = np.searchsorted(np.cumsum(weights[order]), np.array(QUANTILES) - 1e-12)
    return LengthSummary(
        mean,
        float(np.sqrt(weights @ (values - mean.value) ** 2)),
        tuple(float(q) for q in values[order][at]),
    )


@dataclass(frozen=True)
class LengthControl:
    """A win rate, and what is left of it between responses of equal length."""

    win_rate: Estimate
    controlled: Estimate
    """Predicted win rate of kept responses that are as long as the reference's."""

    explained: Estimate
    """`win_rate` − `controlled`, paired by prompt: what goes with length."""

    slope: float
    """Log-odds of winning per unit of tanh(difference / `scale`)."""

    scale: float
    """Standard deviation of the length difference of kept pairs, in the lengths' unit."""

    longer: float
    """Share of kept pairs in which the policy's response is the longer one."""

    shorter: float


def length_controlled(
    policy_rewards,
    policy_lengths,
    reference_rewards,
    reference_lengths,
    procedure: AbstractProcedure,
    *,
    against: AbstractProcedure | None = None,
    calibration=None,
) -> LengthControl:
    """How much of an inference-time win rate is explained by length.

    All pairs of a policy and a reference sample of a prompt enter, each weighted by the chance
    that both are kept, so no subset is drawn. Their outcomes 0, ½, 1 are regressed on
    tanh(d / s), d the difference in length and s its standard deviation, by logistic loss:
    P(win) = σ(α + γ tanh(d / s)), and σ(α) is the controlled win rate. Standard errors are those of
    a jackknife over prompts, one Newton step for each.

    As in AlpacaEval: logistic, tanh of the standardized difference, prediction at zero. Unlike it:
    outcomes are comparisons of rewards instead of a judge's preferences; one intercept for all
    prompts instead of a difficulty of each, estimated from other models; a weak normal prior
    instead of a cross-validated penalty; errors clustered by prompt. It describes, and proves no
    cause: what makes responses both longer and better is counted as length, so the controlled
    rate is no forecast for a policy that is made to answer shorter.

    - `policy_rewards`, `policy_lengths`: shape (prompts, m), nan where no sample was drawn; those
      of the reference (prompts, k). Lengths in any unit, tokens or characters.
    - `procedure`, `against`: how policy and reference are decoded; the same unless given.
    - `calibration`: as in `win_rate`.

    Raises DataError when the policy's responses are always longer, or always shorter: the win rate
    at equal length would be an extrapolation.
    """
    ours = _samples("policy", policy_rewards, policy_lengths)
    theirs = _samples("reference", reference_rewards, reference_lengths)
    if len(ours[0]) != len(theirs[0]):
        raise ValueError(
            f"`policy_rewards` and `reference_rewards` must have one row per prompt each; "
            f"got {len(ours[0])} and {len(theirs[0])} rows."
        )
    kept = (
        selection_chances(ours[0], procedure, calibration=calibration),
        selection_chances(theirs[0], against or procedure, calibration=calibration),
    )
    cells = [_cells(*row) for row in zip(*ours, kept[0], *theirs, kept[1], strict=True)]
    prompt = np.repeat(np.arange(len(cells)), [len(d) for d, _, _ in cells])
    d, weight, won = (np.concatenate(column) for column in zip(*cells, strict=True))
    prompts = len(cells)
    longer, shorter = (float(weight[side].sum() / prompts) for side in (d > 0, d < 0))
    if max(longer, shorter) > 1 - 1e-9:
        side = "longer" if longer > shorter else "shorter"
        raise DataError(
            f"Every response that `{procedure!r}` keeps is {side} than the reference's (all of "
            f"{prompts} prompts), so nothing is known of equal length. Report the lengths instead "
            "(`length_summary`), or compare with a reference of another length limit."
        )
    mean = weight @ d / prompts
    scale = float(np.sqrt(weight @ (d - mean) ** 2 / prompts))
    x = np.tanh(d / scale) if scale > 0 else np.zeros_like(d)
    coefficients, moved = _logistic(x, weight, won, prompt, prompts)
    plain = over_prompts(np.bincount(prompt, won, prompts), bounds=(0, 1), interval=SKEWED)
    controlled = float(expit(coefficients[0]))
    influence = (prompts - 1) * (controlled - expit(moved[:, 0]))
    influence += controlled - influence.mean()
    return LengthControl(
        plain,
        over_prompts(influence, bounds=(0, 1), interval=SKEWED),
        over_prompts(plain.per_prompt - influence, bounds=(-1, 1)),
        float(coefficients[1]),
        scale,
        longer,
        shorter,
    )


def _samples(side, rewards, lengths):
    rewards = finite_rewards(f"{side}_rewards", rewards, missing=True)
    lengths = _check.finite_matrix(f"{side}_lengths", lengths, of="lengths", missing=True)
    missing = np.isnan(rewards), np.isnan(lengths)
    if rewards.shape != lengths.shape or (missing[0] != missing[1]).any():
        raise ValueError(
            f"`{side}_lengths` must have one length per reward; got shape {lengths.shape} for "
            f"rewards of shape {rewards.shape}, {missing[1].sum()} and {missing[0].sum()} missing."
        )
    return rewards, lengths


def _cells(reward, length, chance, their_reward, their_length, their_chance):
    """One prompt's pairs, those of equal length difference together: differences, weights, and
    weights won."""
    kept, their_selected = chance > 0, their_chance > 0
    d = (length[kept, None] - their_length[their_selected]).ravel()
    w = (chance[kept, None] * their_chance[their_selected]).ravel()
    outcome = (1 + np.sign(reward[kept, None] - their_reward[their_selected]).ravel()) / 2
    values, place = np.unique(d, return_inverse=True)
    return values, np.bincount(place, w), np.bincount(place, w * outcome)


def _logistic(x, weight, won, prompt, prompts):
    """Coefficients (α, γ) of the penalized logistic regression, and what each becomes, to one
    Newton step, without each of the prompts: shapes (2,) and (prompts, 2)."""
    design = np.stack([np.ones_like(x), x])
    prior = np.eye(2) / PRIOR_SD**2

    def loss(c):
        eta = c @ design
        return weight @ np.logaddexp(0, eta) - won @ eta + c @ prior @ c / 2

    def derivatives(c):
        p = expit(c @ design)
        slopes = design * (weight * p - won)
        return p, slopes, (design * (weight * p * (1 - p))) @ design.T + prior

    c = np.zeros(2)
    while True:
        p, slopes, curvature = derivatives(c)
        step = np.linalg.solve(curvature, slopes.sum(1) + prior @ c)
        size = 1.0
        while loss(c - size * step) >= loss(c) and size > 1e-3:
            size /= 2
        if size <= 1e-3 or np.abs(step).max() < 1e-12:
            break
        c = c - size * step
    by_prompt = np.stack([np.bincount(prompt, s, prompts) for s in slopes], axis=1)
    inner = weight * p * (1 - p)
    moments = [np.bincount(prompt, inner * x**power, prompts) for power in range(3)]
    own = np.stack([np.stack(moments[:2], 1), np.stack(moments[1:], 1)], axis=2)
    return c, c + np.linalg.solve(curvature - own, by_prompt[..., None])[..., 0]
