"""Offline warm start: move the policy towards the tilt on stored reference samples.

The samples y of the reference and the tilt's weights w(y) = dπ*/dπ_ref are known, so the forward
KL to the tilt can be minimised without generating anything. With ρ = π/π_ref the loss

    E_{y~π_ref}[ρ(y) − w(y) log ρ(y)]  =  KL(π* ‖ π) + constant

adds E[ρ] = 1 to the weighted likelihood: the same objective, whose per-sample gradient
(ρ − w) ∇log π vanishes at the solution instead of only averaging to zero there. Every sample is
visited once per pass, in random order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from infalign.config import Config
from infalign.models.loading import load_tokenizer, prompt_text, tokenize
from infalign.models.logits import collate, response_logits
from infalign.prompts import Prompt

from .callbacks import Progress
from .loop import common_arguments, finish
from .objectives import Objective
from .weights import fresh_policy, with_adapters


@dataclass(frozen=True)
class StoredSamples:
    """Calibration samples, K for each prompt."""

    responses: Sequence[Sequence[Sequence[int]]]
    """Token ids."""

    logprobs: np.ndarray
    """Log-probability of each response under the reference, shape (prompts, K), nats."""

    rewards: np.ndarray
    """Raw rewards, shape (prompts, K)."""

    def first(self, prompts: int) -> "StoredSamples":
        """The samples of the first so many prompts."""
        return StoredSamples(
            self.responses[:prompts], self.logprobs[:prompts], self.rewards[:prompts]
        )


def warm_start(
    config: Config,
    model_path: str,
    prompts: Sequence[Prompt],
    samples: StoredSamples,
    objective: Objective,
    out: Path,
    report: Callable[[str, int, int], None],
) -> None:
    """Train into `out/model` on stored samples of `prompts`."""
    tokenizer = load_tokenizer(model_path, config.trust_remote_code)
    texts = [prompt_text(tokenizer, p.messages) for p in prompts]
    ids = tokenize(tokenizer, texts)["input_ids"]
    k = samples.rewards.shape[1]
    data = Dataset.from_dict(
        {
            "prompt": [row for row in ids for _ in range(k)],
            "response": [tokens for row in samples.responses for tokens in row],
            "reference_logprob": samples.logprobs.ravel(),
            "weight": np.exp(objective.tilt(samples.rewards)).ravel(),
        }
    )
    arguments = TrainingArguments(
        str(out),
        num_train_epochs=config.train.warm_start,
        learning_rate=config.train.warm_start_learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=5,
        per_device_train_batch_size=config.train.warm_start_batch_size,
        remove_unused_columns=False,
        **common_arguments(config),
    )
    trainer = TiltTrainer(
        with_adapters(config, fresh_policy(config, model_path)),
        arguments,
        Collator(tokenizer.pad_token_id),
        data,
        temperature=config.sampling.temperature,
        callbacks=[Progress(lambda done, total: report("warm start", done, total))],
    )
    finish(trainer, out)


@dataclass(frozen=True)
class Collator:
    """Rows of stored samples as one padded batch."""

    pad: int

    def __call__(self, rows):
        ids, mask, kept = collate(
            [r["prompt"] for r in rows], [r["response"] for r in rows], self.pad
        )
        floats = {
            name: torch.tensor([r[name] for r in rows], dtype=torch.float32)
            for name in ("reference_logprob", "weight")
        }
        return {"ids": ids, "mask": mask, "kept": kept, **floats}


class TiltTrainer(Trainer):
    """The transformers trainer with the loss above."""

    def __init__(self, *args, temperature: float, **options):
        super().__init__(*args, **options)
        self.temperature = temperature

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        kept = inputs["kept"]
        length = kept.shape[1]
        logits = response_logits(model, inputs["ids"], inputs["mask"], length, self.temperature)
        chosen = logits.log_softmax(-1).gather(2, inputs["ids"][:, -length:, None])[..., 0]
        log_ratio = (chosen * kept).sum(1) - inputs["reference_logprob"]
        loss = tilt_loss(log_ratio, inputs["weight"])
        return (loss, None) if return_outputs else loss


def tilt_loss(log_ratio: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean of ρ − w log ρ over samples; least, at w − w log w, where ρ = w."""
    return (log_ratio.exp() - weight * log_ratio).mean()
