"""KL targeting by weight interpolation: scale a policy's weight change to reach the target KL.

θ(α) = θ_ref + α (θ − θ_ref) leads from the reference (α = 0) through the trained policy (α = 1).
The sequence KL grows roughly like α², so a secant method in logarithms finds the target in few
measurements. WARP (Ramé et al., arXiv:2406.16768) also interpolates toward the initialization after
RLHF. Missing the target is an error, since the policy's results would be those at another KL.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from infalign import _progress, disk, storage
from infalign.errors import DataError
from infalign.manifest import Stage
from infalign.models.hf import LanguageModel
from infalign.models.kl import sequence_kl
from infalign.prompts import Prompt

from .recipe import Recipe
from .weights import save_policy, saved_state

__all__ = ["land", "nearest", "responses_per_prompt", "search"]

LANDING = "landing.json"
"""The last file of a method; a method that has it is trained."""

SAMPLES = 1024
"""Approximate number of responses, over all prompts, on which each KL is measured."""

FARTHEST = 4.0
"""Largest α; weights beyond a few times the trained change are meaningless."""

ACCEPTED = 0.1
"""Largest relative distance between the measured KL and the target."""

MOST_TRIES = 6
"""Number of measurements before the search gives up."""

DRAWING = 0.7
"""Share of a measurement's time that drawing the responses takes, about."""

_REMEDY = (
    "Train longer, or with other step sizes (`train.steps`, `train.warm_start`, "
    "`train.learning_rate`, `train.warm_start_learning_rate`)."
)


def land(
    recipe: Recipe,
    trained: Path,
    prompts: Sequence[Prompt],
    target_kl: float,
    *,
    seed: int,
    out: Path,
    stage: Stage,
    report: Callable[[int, int], None],
) -> None:
    """Write the policy at the target KL to `out/model`, and the record of the search to
    `landing.json`.

    The KL is measured on `prompts`. Every measurement draws with the same seed, so only α differs
    between them. Raises DataError if the target is out of reach.
    """
    reference, policy = (
        LanguageModel(
            recipe.model_path,
            temperature=recipe.sampling.temperature,
            max_new_tokens=recipe.sampling.max_new_tokens,
            dtype="float32",
            trust_remote_code=recipe.trust_remote_code,
        )
        for _ in range(2)
    )
    start, end = reference.model.state_dict(), saved_state(trained)
    conversations = [p.messages for p in prompts]
    per_prompt = responses_per_prompt(len(prompts))

    def interpolate(alpha: float) -> None:
        weights = {k: torch.lerp(v, end[k].to(v), alpha) for k, v in start.items()}
        policy.model.load_state_dict(weights)

    def measure(alpha: float) -> float:
        interpolate(alpha)
        with _progress.share(0, DRAWING):
            responses = policy.sample(
                conversations, per_prompt, seed=seed, batch_size=recipe.sampling.batch_size
            )
        with _progress.share(DRAWING, 1):
            return float(sequence_kl(policy, reference, conversations, responses).exact.mean())

    tried = search(measure, target_kl, progress=report)
    alpha, kl = nearest(tried, target_kl)
    interpolate(alpha)
    with stage.recording(out / "model"), disk.writing(out / "model"):
        save_policy(policy.model, out / "model")
        policy.tokenizer.save_pretrained(out / "model")
    with stage.recording(out / LANDING):
        storage.write_json(
            out / LANDING,
            {"alpha": alpha, "kl": kl, "target": target_kl, "tried": [list(t) for t in tried]},
        )


def responses_per_prompt(prompts: int) -> int:
    """Responses to each of `prompts` prompts on which a KL is measured."""
    return max(1, round(SAMPLES / prompts))


def search(
    measure: Callable[[float], float],
    target_kl: float,
    *,
    tolerance: float = 0.01,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[float, float]]:
    """The (α, KL) pairs measured until a KL is within a relative `tolerance` of the target.

    Raises DataError if the KL stays below the target up to `FARTHEST`, if none of `MOST_TRIES`
    measurements comes within `ACCEPTED` of it, or if a KL is not finite.
    """
    tried: list[tuple[float, float]] = []
    alpha = 1.0
    while len(tried) < MOST_TRIES:
        with _progress.part(len(tried), len(tried) + 1, MOST_TRIES):
            kl = measure(alpha)
        tried.append((alpha, kl))
        progress(len(tried), MOST_TRIES)
        if not np.isfinite(kl):
            raise DataError(
                f"The policy's KL is {kl} at {alpha:.3g} times the trained change of weights: "
                "training diverged. Use smaller steps (`train.learning_rate`, "
                "`train.warm_start_learning_rate`)."
            )
        if abs(kl / target_kl - 1) <= tolerance:
            break
        if alpha == FARTHEST and kl < target_kl:
            raise DataError(
                f"Training moved the policy too little: {FARTHEST:g} times its change of weights "
                f"gives a KL of {kl:.2g} nats, less than the {target_kl:g} asked for. Scaling "
                f"further would leave the policy that was trained. {_REMEDY}"
            )
        alpha = _next(tried, target_kl)
    alpha, kl = nearest(tried, target_kl)
    if abs(kl / target_kl - 1) > ACCEPTED:
        raise DataError(
            f"No multiple of the trained change of weights has a KL of {target_kl:g} nats: the "
            f"nearest of {len(tried)} tries has {kl:.3g}, at {alpha:.3g} times the change. "
            f"{_REMEDY}"
        )
    progress(MOST_TRIES, MOST_TRIES)
    return tried


def nearest(tried: Sequence[tuple[float, float]], target_kl: float) -> tuple[float, float]:
    """The (α, KL) pair whose KL is relatively closest to the target."""
    return min(tried, key=lambda pair: abs(pair[1] / target_kl - 1))


def _next(tried: Sequence[tuple[float, float]], target_kl: float) -> float:
    """The α at which a power law through the last two measurements meets the target."""
    (before, kl_before), (alpha, kl) = tried[-2:] if len(tried) > 1 else [(0.0, 0.0), *tried]
    if kl <= 0:
        return FARTHEST
    power = 2.0
    if kl_before > 0 and alpha != before:
        # Noise must not reverse the secant, so the exponent of α is limited to between ½ and 4.
        slope = np.log(kl / kl_before) / np.log(alpha / before)
        power = float(np.clip(slope, 0.5, 4))
    # If the power law leads too far, a measurement at FARTHEST shows whether the target is in
    # reach.
    return min(float(alpha * (target_kl / kl) ** (1 / power)), FARTHEST)
