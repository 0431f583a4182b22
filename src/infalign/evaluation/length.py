"""Length of responses, and how much of a win rate it explains.

Reward models and judges prefer long responses, so a policy can win by length alone. The
length-controlled win rate regresses the outcome on the difference in length and predicts it at
equal length (Dubois et al., Length-Controlled AlpacaEval, arXiv:2404.04475).
"""

from dataclasses import dataclass, fields

import numpy as np
from scipy.special import expit

from infalign import _check
from infalign._look import Shown
from infalign.core import AbstractProcedure, finite_rewards
from infalign.errors import ArgumentError, DataError

from .chances import selection_chances
from .uncertainty import Estimate, Extrapolated, over_prompts

__all__ = [
    "Candidates",
    "LengthControl",
    "LengthSummary",
    "extrapolates",
    "length_control",
    "length_controlled",
    "length_summary",
]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Levels of the quantiles in a `LengthSummary`."""

PRIOR_SD = 10.0
"""Standard deviation, in log-odds, of the normal prior of both coefficients. It keeps estimates
finite if length decides every outcome; otherwise it is negligible with a dozen prompts or more."""

ALL = 1 - 1e-9
"""Share of pairs above which a policy's responses count as always longer, or always shorter."""


ENOUGH = 0.2
"""Least share of pairs on each side of equal length, or at it, for a win rate at equal length that
is no extrapolation."""


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


@dataclass(frozen=True)
class LengthControl(Shown):
    """A win rate, and the win rate predicted between responses of equal length.

    Where fewer than a fifth of the selected pairs lie on one side of equal length, or at it, the
    prediction is an extrapolation: `controlled` and `explained` are `Extrapolated`, and `warning`
    says why.
    """

    win_rate: Estimate
    controlled: Estimate
    """Predicted win rate of selected responses that are as long as the reference's."""

    explained: Estimate
    """`win_rate` − `controlled`, paired by prompt: the part explained by length."""

    slope: float
    """Log-odds of winning per unit of tanh(difference / `scale`)."""

    scale: float
    """Standard deviation of the length difference of selected pairs, in the lengths' unit."""

    longer: float
    """Share of selected pairs in which the policy's response is the longer one."""

    shorter: float
    """Share of selected pairs in which it is the shorter one."""

    @property
    def extrapolates(self) -> bool:
        """Whether fewer than a fifth of the pairs are not longer, or not shorter."""
        return extrapolates(self.longer, self.shorter)

    @property
    def warning(self) -> str | None:
        """Why the win rate at equal length is an extrapolation; None if it is not."""
        if not self.extrapolates:
            return None
        share, side = max((self.longer, "longer"), (self.shorter, "shorter"))
        return (
            f"The win rate at equal length is an extrapolation: in {100 * share:.0f} % of the "
            f"selected pairs the policy's response is the {side} one."
        )

    def __str__(self) -> str:
        return f"{self.controlled} at equal length, {self.win_rate} as selected"


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

    If they are longer, or shorter, in more than four of five pairs, the controlled rate is
    `Extrapolated`, and says so wherever it is printed. Raises DataError if they are always longer
    or always shorter.
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
    prompts = len(cells)
    longer, shorter = (float(weight[side].sum() / prompts) for side in (d > 0, d < 0))
    if max(longer, shorter) > ALL:
        side = "longer" if longer > shorter else "shorter"
        raise DataError(
            f"The policy's selected responses are all {side} than the reference's (on each of "
            f"{prompts} prompts), so there is no evidence at equal length. Report the lengths "
            "instead (`length_summary`), or compare with a reference of another length limit."
        )
    mean = weight @ d / prompts
    scale = float(np.sqrt(weight @ (d - mean) ** 2 / prompts))
    x = np.tanh(d / scale) if scale > 0 else np.zeros_like(d)
    coefficients, moved = _logistic(x, weight, won, prompt, prompts)
    plain = over_prompts(np.bincount(prompt, won, prompts), bounds=(0, 1))
    controlled = float(expit(coefficients[0]))
    # Jackknife pseudo-values, shifted so that their mean is the estimate itself.
    influence = (prompts - 1) * (controlled - expit(moved[:, 0]))
    influence += controlled - influence.mean()
    at_equal = over_prompts(influence, bounds=(0, 1))
    explained = over_prompts(plain.per_prompt - influence, bounds=(-1, 1))
    if extrapolates(longer, shorter):
        at_equal, explained = (
            Extrapolated(**{f.name: getattr(estimate, f.name) for f in fields(Estimate)})
            for estimate in (at_equal, explained)
        )
    return LengthControl(
        win_rate=plain,
        controlled=at_equal,
        explained=explained,
        slope=float(coefficients[1]),
        scale=scale,
        longer=longer,
        shorter=shorter,
    )


def extrapolates(longer: float, shorter: float) -> bool:
    """Whether a win rate at equal length is an extrapolation, given the shares of pairs on either
    side of it. Pairs at equal length are evidence for both."""
    return 1 - max(longer, shorter) < ENOUGH


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


def _logistic(x, weight, won, prompt, prompts):
    """Coefficients (α, γ) of the penalized logistic regression, shape (2,), and the coefficients
    with each prompt left out, shape (prompts, 2), each approximated by one Newton step."""
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
    # Leaving a prompt out subtracts its slopes from the gradient, which is 0 at the optimum, and
    # its own matrix Σ w p (1 - p) [1 x; x x²] from the curvature.
    by_prompt = np.stack([np.bincount(prompt, s, prompts) for s in slopes], axis=1)
    inner = weight * p * (1 - p)
    moments = [np.bincount(prompt, inner * x**power, prompts) for power in range(3)]
    own = np.stack([np.stack(moments[:2], 1), np.stack(moments[1:], 1)], axis=2)
    return c, c + np.linalg.solve(curvature - own, by_prompt[..., None])[..., 0]
