"""Offline training: on stored reference samples, without generating anything.

A `Task` says what the rows are, one response each or two, and what the loss is of their log-ratios.
The warm start of on-policy methods is one: move the policy towards the tilt. Reference
log-probabilities come from the store. Every row is visited once per pass, in random order.
"""

from collections.abc import Callable, Mapping, Sequence
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
from .guards import FiniteGradients
from .loop import common_arguments, finish
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


@dataclass(frozen=True)
class Task:
    """Rows to learn from, and their loss."""

    samples: np.ndarray
    """Which responses a row holds, shape (rows, responses a row): prompt · K + sample."""

    columns: Mapping[str, np.ndarray]
    """Numbers that the loss reads, of each row, shape (rows,)."""

    loss: Callable[[torch.Tensor, Mapping[str, torch.Tensor]], torch.Tensor]
    """Mean loss of a batch: log-ratios, shape (batch, responses a row), and the columns, beside
    them `reference_logprob` in the shape of the log-ratios."""


def train_offline(
    config: Config,
    model_path: str,
    prompts: Sequence[Prompt],
    samples: StoredSamples,
    task: Task,
    passes: int,
    out: Path,
    report: Callable[[int, int], None],
) -> None:
    """Train into `out/model` on a task about stored samples of `prompts`."""
    tokenizer = load_tokenizer(model_path, config.trust_remote_code)
    texts = [prompt_text(tokenizer, p.messages) for p in prompts]
    ids = tokenize(tokenizer, texts)["input_ids"]
    k = samples.rewards.shape[1]
    responses = [tokens for row in samples.responses for tokens in row]
    data = Dataset.from_dict(
        {
            "prompt": [ids[row[0] // k] for row in task.samples],
            "responses": [[responses[i] for i in row] for row in task.samples],
            "prompt_id": [prompts[row[0] // k].id for row in task.samples],
            "reference_logprob": samples.logprobs.ravel()[task.samples],
            **task.columns,
        }
    )
    arguments = TrainingArguments(
        str(out),
        num_train_epochs=passes,
        learning_rate=config.train.warm_start_learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=5,
        per_device_train_batch_size=max(
            1, config.train.warm_start_batch_size // task.samples.shape[1]
        ),
        remove_unused_columns=False,
        **common_arguments(config),
    )
    trainer = TaskTrainer(
        with_adapters(config, fresh_policy(config, model_path)),
        arguments,
        Collator(tokenizer.pad_token_id, (*task.columns, "reference_logprob")),
        data,
        loss=task.loss,
        temperature=config.sampling.temperature,
        callbacks=[Progress(report)],
    )
    trainer.add_callback(FiniteGradients(lambda: trainer.prompt_ids))
    finish(trainer, out)


@dataclass(frozen=True)
class Collator:
    """Rows of stored samples as one padded batch, the responses of a row one after the other."""

    pad: int
    columns: Sequence[str]

    def __call__(self, rows):
        pairs = [(row["prompt"], response) for row in rows for response in row["responses"]]
        ids, mask, kept = collate(*zip(*pairs, strict=True), self.pad)
        floats = {
            name: torch.tensor([row[name] for row in rows], dtype=torch.float32)
            for name in self.columns
        }
        names = [row["prompt_id"] for row in rows]
        return {"ids": ids, "mask": mask, "kept": kept, "prompt_ids": names, **floats}


class TaskTrainer(Trainer):
    """The transformers trainer with the loss of a task."""

    def __init__(self, *args, loss, temperature: float, **options):
        super().__init__(*args, **options)
        self.task_loss, self.temperature = loss, temperature
        self.prompt_ids: list[str] = []

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self.prompt_ids = inputs.pop("prompt_ids")
        kept, reference = inputs["kept"], inputs["reference_logprob"]
        length = kept.shape[1]
        logits = response_logits(model, inputs["ids"], inputs["mask"], length, self.temperature)
        chosen = logits.log_softmax(-1).gather(2, inputs["ids"][:, -length:, None])[..., 0]
        log_ratio = (chosen * kept).sum(1).reshape(reference.shape) - reference
        loss = self.task_loss(log_ratio, inputs)
        return (loss, None) if return_outputs else loss
