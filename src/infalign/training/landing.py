"""Landing: scale a policy's change of weights until its KL is the one that was asked for.

θ(α) = θ_ref + α (θ − θ_ref) leads from the reference (α = 0) to the trained policy (α = 1). Its
sequence KL grows about as α², so a secant in logarithms finds the target in a few measurements.
Interpolating towards the initialisation after RLHF: WARP, Ramé et al., arXiv:2406.16768.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from infalign import storage
from infalign.config import Config
from infalign.errors import DataError
from infalign.models.hf import LanguageModel, sequence_kl
from infalign.prompts import Prompt

from .weights import save_policy, saved_state

SAMPLES = 1024
"""Responses, over all prompts, on which each KL is measured, about."""


def land(
    config: Config,
    model_path: str,
    trained: Path,
    prompts: Sequence[Prompt],
    target_kl: float,
    seed: int,
    out: Path,
    report: Callable[[str, int, int], None],
    *,
    tolerance: float = 0.01,
    tries: int = 6,
) -> None:
    """Write the policy at the target KL to `out/model`, and how it was found to `landing.json`.

    The KL is measured on `prompts`. The same seed draws every time, so that α is the
    only thing that changes between measurements.
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
        return float(sequence_kl(policy, reference, conversations, drawn).mean())

    tried = [(1.0, measure(1.0))]
    if tried[0][1] < target_kl / 400:
        raise DataError(
            f"The policy in {trained} has hardly moved: its KL is {tried[0][1]:.2g} nats of the "
            f"{target_kl:g} asked for. Train longer, or with larger steps (`train.steps`, "
            "`train.learning_rate`, `train.warm_start`)."
        )
    report("landing", 1, tries)
    while len(tried) < tries and abs(np.log(tried[-1][1] / target_kl)) > tolerance:
        alpha = _next(tried, target_kl)
        tried.append((alpha, measure(alpha)))
        report("landing", len(tried), tries)
    report("landing", tries, tries)
    alpha, kl = min(tried, key=lambda t: abs(np.log(t[1] / target_kl)))
    place(alpha)
    save_policy(policy.model, out / "model")
    policy.tokenizer.save_pretrained(out / "model")
    storage.write_json(
        out / "landing.json",
        {"alpha": alpha, "kl": kl, "target": target_kl, "tried": [list(t) for t in tried]},
    )


def _next(tried: list[tuple[float, float]], target: float) -> float:
    """The α at which a power law through the last two measurements meets the target."""
    alphas, kls = np.log(tried).T
    power = 2.0
    if len(tried) > 1:
        # Noise must not turn the secant around: KL grows between α^½ and α⁴.
        power = float(np.clip((kls[-1] - kls[-2]) / (alphas[-1] - alphas[-2]), 0.5, 4))
    # Beyond a few times the change that was trained, weights mean nothing any more.
    step = np.clip((np.log(target) - kls[-1]) / power, -2, np.log(2))
    return float(np.exp(alphas[-1] + step))
