"""Length of responses, and how much of a win rate it explains.

Reward models and judges prefer long responses, so a policy can win by length alone. The
length-controlled win rate regresses the outcome on the difference in length and predicts it at
equal length (Dubois et al., Length-Controlled AlpacaEval, arXiv:2404.04475).
"""

from dataclasses import dataclass

import numpy as np

from infalign import _check
from infalign._look import Shown
from infalign.core import AbstractProcedure, finite_rewards
from infalign.errors import ArgumentError

from .chances import selection_chances
from .equal_length import LengthControl, Pairs, at_equal_length
from .uncertainty import Estimate, over_prompts

__all__ = [
    "Candidates",
    "LengthSummary",
    "length_control",
    "length_controlled",
    "length_summary",
]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Levels of the quantiles in a `LengthSummary`."""


@dataclass(frozen=True)
class LengthSummary(Shown):
    """Statistics of one policy's response lengths; every prompt has the same weight."""

    mean: Estimate
    sd: float
    """Standard deviation over all responses, between prompts and within."""

    quantiles: tuple[float, ...]
    """At the levels `QUANTILES`: the shortest length such that this share of responses is no
    longer."""


def length_summary(lengths, chances=None) -> LengthSummary:
    """Mean, spread and quantiles of lengths, in the unit of `lengths`.

    - `lengths`: shape (prompts, samples); nan marks a sample that was not drawn.
    - `chances`: weight of each sample, such as `selection_chances`, which gives the length of
      selected responses; rows sum to 1. Default: equal weights.

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
        raise ArgumentError(
            "chances",
            "must have one weight per sample that was drawn, with sum 1 in every row; "
            f"got shape {chances.shape} for lengths of shape {lengths.shape}. "
            "`selection_chances` computes them.",
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


@dataclass(frozen=True, eq=False)
class Candidates(Shown):
    """The samples that one side selects from, each field of shape (prompts, samples)."""

    rewards: np.ndarray
    lengths: np.ndarray
    chances: np.ndarray
    """Selection chance of each sample; rows sum to 1."""


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

    All pairs of a policy sample and a reference sample of a prompt are used, each weighted by the
    chance that both are selected, so no subset is drawn. Logistic regression fits their outcomes 0,
    ½, 1 to the length difference d, which has standard deviation s: P(win) = σ(α + γ tanh(d / s)).
    The controlled win rate is σ(α). Standard errors are those of a jackknife over prompts, with one
    Newton step for each.

    As in AlpacaEval, the regression is logistic in tanh of the standardized difference and predicts
    at zero. Unlike in AlpacaEval, outcomes are comparisons of rewards instead of a judge's
    preferences; all prompts share one intercept instead of a difficulty estimated from other
    models; a weak normal prior replaces the cross-validated penalty; errors are clustered by
    prompt. The controlled rate is descriptive, not causal: whatever makes responses both longer and
    better counts as length. It does not predict the win rate of a policy that is trained to give
    shorter answers.

    - `policy_rewards`, `policy_lengths`: shape (prompts, m), nan where no sample was drawn; those
      of the reference (prompts, k). Lengths in any unit, tokens or characters.
    - `procedure`, `against`: how policy and reference are decoded. Default of `against`:
      `procedure`.
    - `calibration`: as in `win_rate`.

    The intercept is identified where pairs lie on both sides of equal length and close to it.
    Elsewhere the regression continues a curve that no pair has shown, and whatever differs between
    prompts with large and small differences passes for an effect of length. `controlled` then has
    no value. It is `Bounds`: for each slope γ of `LengthControl.slopes`, the intercept is fitted
    alone, and the bounds are the union of the intervals of σ(α). They hold if the truth follows the
    curve with one of these slopes, whatever the slope is confounded with.
    """
    ours = _samples("policy", policy_rewards, policy_lengths)
    theirs = _samples("reference", reference_rewards, reference_lengths)
    _check.paired_rows(policy_rewards=ours[0], reference_rewards=theirs[0])
    return length_control(
        Candidates(*ours, selection_chances(ours[0], procedure, calibration=calibration)),
        Candidates(
            *theirs, selection_chances(theirs[0], against or procedure, calibration=calibration)
        ),
    )


def length_control(policy: Candidates, reference: Candidates) -> LengthControl:
    """`length_controlled` for known selection chances."""
    sides = [(side.rewards, side.lengths, side.chances) for side in (policy, reference)]
    cells = [_cells(*row) for row in zip(*sides[0], *sides[1], strict=True)]
    prompt = np.repeat(np.arange(len(cells)), [len(d) for d, _, _ in cells])
    d, weight, won = (np.concatenate(column) for column in zip(*cells, strict=True))
    return at_equal_length(Pairs(d, weight, won, prompt, len(cells)))


def _samples(side: str, rewards, lengths) -> tuple[np.ndarray, np.ndarray]:
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
    """One prompt's pairs, grouped by length difference: the differences, the weights, and the
    weights of wins."""
    ours, theirs = chance > 0, their_chance > 0
    d = (length[ours, None] - their_length[theirs]).ravel()
    w = (chance[ours, None] * their_chance[theirs]).ravel()
    outcome = (1 + np.sign(reward[ours, None] - their_reward[theirs]).ravel()) / 2
    values, place = np.unique(d, return_inverse=True)
    return values, np.bincount(place, w), np.bincount(place, w * outcome)
