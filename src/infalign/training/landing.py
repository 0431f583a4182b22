"""Landing: scale a policy's change of weights until its KL is the one that was asked for.

θ(α) = θ_ref + α (θ − θ_ref) leads from the reference (α = 0) to the trained policy (α = 1). Its
sequence KL grows about as α², so a secant in logarithms finds the target in a few measurements.
Interpolating towards the initialisation after RLHF: WARP, Ramé et al., arXiv:2406.16768.
A policy that cannot be brought to the target is an error: its numbers would be those of another KL.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from infalign import storage
from infalign.config import Config
from infalign.errors import DataError
from infalign.models.hf import LanguageModel
from infalign.models.kl import sequence_kl
from infalign.prompts import Prompt

from .weights import save_policy, saved_state

SAMPLES = 1024
"""Responses, over all prompts, on which each KL is measured, about."""

FARTHEST = 4.0
"""Largest α: beyond a few times the change that was trained, weights mean nothing any more."""

ACCEPTED = 0.1
"""Largest relative distance between the KL that was found and the target."""

_REMEDY = (
    "Train longer, or with other step sizes (`train.steps`, `train.warm_start`, "
    "`train.learning_rate`, `train.warm_start_learning_rate`)."
)


def land(
    config: Config,
    model_path: str,
    trained: Path,
    prompts: Sequence[Prompt],
    target_kl: float,
    seed: int,
    out: Path,
    report: Callable[[str, int, int], None],
) -> None:
    """Write the policy at the target KL to `out/model`, and how it was found to `landing.json`.

    The KL is measured on `prompts`. The same seed draws every time, so that α is the
    only thing that changes between measurements. Raises DataError when the target is out of reach.
    """
    options = {
        "temperature": config.sampling.temperature,
        "max_new_tokens": config.sampling.max_new_tokens,
        "trust_remote_code": config.trust_remote_code,
    }
    reference, policy = (LanguageModel(model_path, **options) for _ in range(2))
    start, end = reference.model.state_dict(), saved_state(trained)
    conversations = [p.messages for p in prompts]
    per_prompt = max(1, round(SAMPLES / len(prompts)))

    def place(alpha: float) -> None:
        weights = {k: torch.lerp(v, end[k].to(v), alpha) for k, v in start.items()}
        policy.model.load_state_dict(weights)

    def measure(alpha: float) -> float:
        place(alpha)
        batch = config.sampling.batch_size
        drawn = policy.sample(conversations, per_prompt, seed=seed, batch_size=batch)
        return float(sequence_kl(policy, reference, conversations, drawn).exact.mean())

    tried = search(measure, target_kl, progress=lambda done, of: report("landing", done, of))
    alpha, kl = nearest(tried, target_kl)
    place(alpha)
    save_policy(policy.model, out / "model")
    policy.tokenizer.save_pretrained(out / "model")
    storage.write_json(
        out / "landing.json",
        {"alpha": alpha, "kl": kl, "target": target_kl, "tried": [list(t) for t in tried]},
    )


def search(
    measure: Callable[[float], float],
    target: float,
    *,
    tolerance: float = 0.01,
    tries: int = 6,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[tuple[float, float]]:
    """The (α, KL) pairs measured on the way to a KL within `tolerance` of `target`, relatively.

    Raises DataError when the KL stays below the target up to `FARTHEST`, when none of `tries`
    comes within `ACCEPTED` of it, and when a KL is not a number.
    """
    tried: list[tuple[float, float]] = []
    alpha = 1.0
    while len(tried) < tries:
        kl = measure(alpha)
        tried.append((alpha, kl))
        progress(len(tried), tries)
        if not np.isfinite(kl):
            raise DataError(
                f"The policy's KL is {kl} at {alpha:.3g} times the trained change of weights: "
                "training diverged. Use smaller steps (`train.learning_rate`, "
                "`train.warm_start_learning_rate`)."
            )
        if abs(kl / target - 1) <= tolerance:
            break
        if alpha == FARTHEST and kl < target:
            raise DataError(
                f"Training moved the policy too little: {FARTHEST:g} times its change of weights "
                f"gives a KL of {kl:.2g} nats, less than the {target:g} asked for, and more is no "
                f"longer what was trained. {_REMEDY}"
            )
        alpha = _next(tried, target)
    alpha, kl = nearest(tried, target)
    if abs(kl / target - 1) > ACCEPTED:
        raise DataError(
            f"No multiple of the trained change of weights has a KL of {target:g} nats: the "
            f"nearest of {len(tried)} tries has {kl:.3g}, at {alpha:.3g} times the change. "
            f"{_REMEDY}"
        )
    progress(tries, tries)
    return tried


def nearest(tried: Sequence[tuple[float, float]], target: float) -> tuple[float, float]:
    """The try whose KL is relatively closest to the target."""
    return min(tried, key=lambda t: abs(t[1] / target - 1))


def _next(tried: Sequence[tuple[float, float]], target: float) -> float:
    """The α at which a power law through the last two measurements meets the target."""
    (before, kl_before), (alpha, kl) = tried[-2:] if len(tried) > 1 else [(0.0, 0.0), *tried]
    if kl <= 0:
        return FARTHEST
    power = 2.0
    if kl_before > 0 and alpha != before:
        # Noise must not turn the secant around: KL grows between α^½ and α⁴.
        slope = np.log(kl / kl_before) / np.log(alpha / before)
        power = float(np.clip(slope, 0.5, 4))
    # Where the power law leads too far, the farthest place shows whether the target is in reach.
    return min(float(alpha * (target / kl) ** (1 / power)), FARTHEST)
