"""Offline training: on stored reference samples, without generating anything.

A `Task` says what the rows are, one response each or two, and what the loss is of their log-ratios.
The warm start of on-policy methods is one: move the policy towards the tilt. Reference
log-probabilities come from the store. Every row is visited once per pass, in random order, some of
one prompt together: where the model allows it, a prompt is read once for them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from infalign.config import Config
from infalign.models.loading import load_tokenizer, prompt_text, tokenize
from infalign.models.logits import collate, raw_logits
from infalign.models.shared_prompts import repeats, shared_logits
from infalign.prompts import Prompt

from .callbacks import Progress
from .guards import FiniteGradients
from .loop import common_arguments, finish
from .weights import fresh_policy, with_adapters

TOGETHER = 8
"""Responses of one prompt that are in a batch together, at most: a prompt read once for 8 costs
little, and more of one prompt say less than others would."""


WARM_UP = 0.05
"""Share of the steps in which the step size rises: a fixed number of them would be all that short
trainings have."""


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
    logprobs = samples.logprobs.ravel()[task.samples]
    bundles = _bundles(task.samples[:, 0] // k, task.samples.shape[1], config.seed)
    data = Dataset.from_dict(
        {
            "prompt_id": [prompts[owner].id for owner, _ in bundles],
            "prompt": [ids[owner] for owner, _ in bundles],
            "responses": [
                [[responses[i] for i in task.samples[row]] for row in rows] for _, rows in bundles
            ],
            "reference_logprob": [logprobs[rows].tolist() for _, rows in bundles],
            **{name: [x[rows].tolist() for _, rows in bundles] for name, x in task.columns.items()},
        }
    )
    arguments = TrainingArguments(
        str(out),
        num_train_epochs=passes,
        learning_rate=config.train.warm_start_learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=WARM_UP,
        per_device_train_batch_size=max(
            1, config.train.warm_start_batch_size // max(rows.size for _, rows in bundles)
        ),
        remove_unused_columns=False,
        **common_arguments(config),
    )
    trainer = TaskTrainer(
        with_adapters(config, fresh_policy(config, model_path)),
        arguments,
        Collator((*task.columns, "reference_logprob")),
        data,
        loss=task.loss,
        temperature=config.sampling.temperature,
        pad=tokenizer.pad_token_id,
        callbacks=[Progress(report)],
    )
    trainer.add_callback(FiniteGradients(lambda: trainer.prompt_ids))
    finish(trainer, out)


def _bundles(owners: np.ndarray, width: int, seed: int) -> list[tuple[int, np.ndarray]]:
    """Rows of one prompt that stay together, at random: the prompt, and which rows.

    - `owners`: the prompt of each row.
    - `width`: responses in a row.
    """
    rng, size = np.random.default_rng(seed), max(1, TOGETHER // width)
    order = rng.permutation(len(owners))
    order = order[np.argsort(owners[order], kind="stable")]
    edges = np.flatnonzero(np.diff(owners[order])) + 1
    return [
        (int(owners[rows[0]]), rows[start : start + size])
        for rows in np.split(order, edges)
        for start in range(0, len(rows), size)
    ]


@dataclass(frozen=True)
class Collator:
    """Bundles of rows as one batch of rows: numbers as tensors, token ids as they are."""

    columns: Sequence[str]

    def __call__(self, bundles):
        floats = {
            name: torch.tensor([x for b in bundles for x in b[name]], dtype=torch.float32)
            for name in self.columns
        }
        return {
            "prompt_ids": [b["prompt_id"] for b in bundles],
            "prompts": [b["prompt"] for b in bundles],
            "responses": [r for b in bundles for row in b["responses"] for r in row],
            "owners": [i for i, b in enumerate(bundles) for row in b["responses"] for _ in row],
            **floats,
        }


class TaskTrainer(Trainer):
    """The transformers trainer with the loss of a task."""

    def __init__(self, *args, loss, temperature: float, pad: int, **options):
        super().__init__(*args, **options)
        self.task_loss, self.temperature, self.pad = loss, temperature, pad
        self.prompt_ids: list[str] = []
        # Spread over processes, models are called as a whole only.
        alone = self.accelerator.distributed_type == DistributedType.NO
        self.shares = alone and repeats(self.model)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self.prompt_ids, reference = inputs["prompt_ids"], inputs["reference_logprob"]
        texts = (inputs["prompts"], inputs["responses"], inputs["owners"])
        ids, kept, logits = self._shared(model, *texts)
        logits = logits.float() / self.temperature
        chosen = logits.log_softmax(-1).gather(2, ids[..., None])[..., 0]
        log_ratio = (chosen * kept).sum(1).reshape(reference.shape) - reference
        loss = self.task_loss(log_ratio, inputs)
        return (loss, None) if return_outputs else loss

    def _shared(self, model, prompts, responses, owners):
        if self.shares and max(map(len, prompts)) > 1:
            return shared_logits(model, prompts, responses, owners, self.pad)
        device = self.accelerator.device
        read = collate([prompts[i] for i in owners], responses, self.pad)
        ids, mask, kept = (x.to(device) for x in read)
        length = kept.shape[1]
        return ids[:, -length:], kept, raw_logits(model, ids, mask, length)
