"""Offline training: on stored reference samples, without generation.

A `Task` defines rows of one or two responses each, and a loss of their log-ratios. The warm start
of on-policy methods is also a task: it moves the policy toward the tilt. Reference
log-probabilities come from the store. Every row is visited once per pass, in random order. A few
rows of one prompt stay together, so that their prompt is processed only once if the model allows
it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from infalign._look import Shown
from infalign.manifest import Stage
from infalign.methods import Task
from infalign.models.loading import load_tokenizer, prompt_text, tokenize
from infalign.models.logits import collate, raw_logits
from infalign.models.shared_prompts import shared_logits, sharing
from infalign.prompts import Prompt

from .loop import FiniteGradients, Progress, common_arguments, finish, on_one_device
from .recipe import Recipe
from .weights import fresh_policy, with_adapters

__all__ = ["Collator", "StoredSamples", "TaskTrainer", "train_offline"]

BUNDLE = 8
"""Maximum number of responses to one prompt in a batch. Sharing the prompt among 8 responses makes
its cost small, and responses to one prompt are less informative than responses to several."""

WARM_UP = 0.05
"""Share of the steps over which the step size rises. A fixed number could exceed the steps of a
short training."""


@dataclass(frozen=True)
class StoredSamples(Shown):
    """Calibration samples, K for each prompt."""

    prompts: Sequence[Prompt]
    responses: Sequence[Sequence[Sequence[int]]]
    """Token ids."""

    logprobs: np.ndarray
    """Log-probability of each response under the reference, shape (prompts, K), nats."""

    rewards: np.ndarray
    """Raw rewards, shape (prompts, K)."""

    def first(self, prompts: int) -> "StoredSamples":
        """The samples of the first `prompts` prompts."""
        return StoredSamples(
            self.prompts[:prompts],
            self.responses[:prompts],
            self.logprobs[:prompts],
            self.rewards[:prompts],
        )


def train_offline(
    recipe: Recipe,
    samples: StoredSamples,
    task: Task,
    *,
    passes: int,
    out: Path,
    stage: Stage,
    report: Callable[[int, int], None],
) -> None:
    """Train on a task on stored samples; writes `out/model`."""
    tokenizer = load_tokenizer(recipe.model_path, recipe.trust_remote_code)
    width, k = task.samples.shape[1], samples.rewards.shape[1]
    bundles = _bundles(task.samples[:, 0] // k, width, recipe.seed)
    largest = max(rows.size for _, rows in bundles)
    trainer = TaskTrainer(
        with_adapters(fresh_policy(recipe, tokenizer.pad_token_id), recipe.train.lora),
        _arguments(recipe, passes, max(1, recipe.train.warm_start_batch_size // largest), out),
        Collator((*task.columns, "reference_logprob")),
        _dataset(samples, task, bundles, tokenizer),
        loss=task.loss,
        temperature=recipe.sampling.temperature,
        pad=tokenizer.pad_token_id,
        callbacks=[Progress(report)],
    )
    trainer.add_callback(FiniteGradients(lambda: trainer.prompt_ids))
    finish(trainer, out, stage)


def _arguments(recipe: Recipe, passes: int, batch_size: int, out: Path) -> TrainingArguments:
    return on_one_device(
        TrainingArguments(
            str(out),
            num_train_epochs=passes,
            learning_rate=recipe.train.warm_start_learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=WARM_UP,
            per_device_train_batch_size=batch_size,
            remove_unused_columns=False,
            **common_arguments(recipe),
        )
    )


Bundles = Sequence[tuple[int, np.ndarray]]
"""Rows that stay together: their prompt's index, and the rows."""


def _bundles(owners: np.ndarray, width: int, seed: int) -> Bundles:
    """Rows of one prompt in random order, in bundles of at most `BUNDLE` responses.

    - `owners`: the prompt of each row.
    - `width`: responses in a row.
    """
    rng, size = np.random.default_rng(seed), max(1, BUNDLE // width)
    order = rng.permutation(len(owners))
    order = order[np.argsort(owners[order], kind="stable")]
    edges = np.flatnonzero(np.diff(owners[order])) + 1
    return [
        (int(owners[rows[0]]), rows[start : start + size])
        for rows in np.split(order, edges)
        for start in range(0, len(rows), size)
    ]


def _dataset(samples: StoredSamples, task: Task, bundles: Bundles, tokenizer) -> Dataset:
    """A row for each bundle."""
    texts = [prompt_text(tokenizer, p.messages) for p in samples.prompts]
    ids = tokenize(tokenizer, texts)["input_ids"]
    responses = [tokens for row in samples.responses for tokens in row]
    logprobs = samples.logprobs.ravel()[task.samples]
    columns = {"reference_logprob": logprobs, **task.columns}
    return Dataset.from_dict(
        {
            "prompt_id": [samples.prompts[owner].id for owner, _ in bundles],
            "prompt": [ids[owner] for owner, _ in bundles],
            "responses": [
                [[responses[i] for i in task.samples[row]] for row in rows] for _, rows in bundles
            ],
            **{name: [x[rows].tolist() for _, rows in bundles] for name, x in columns.items()},
        }
    )


@dataclass(frozen=True)
class Collator(Shown):
    """Makes one batch of rows from bundles: numbers as tensors, token ids as they are."""

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

    def __init__(self, *args, loss: Callable, temperature: float, pad: int, **options):
        super().__init__(*args, **options)
        self.task_loss, self.temperature, self.pad = loss, temperature, pad
        self.prompt_ids: list[str] = []
        # In distributed training, models can only be called as a whole, so prompts cannot be
        # shared.
        alone = self.accelerator.distributed_type == DistributedType.NO
        self.language = sharing(self.model) if alone else None

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self.prompt_ids, reference = inputs["prompt_ids"], inputs["reference_logprob"]
        ids, in_response, logits = self._logits(
            model, inputs["prompts"], inputs["responses"], inputs["owners"]
        )
        logprobs = (logits.float() / self.temperature).log_softmax(-1)
        logprobs = logprobs.gather(2, ids[..., None])[..., 0]
        # (rows · width,) to (rows, width): the responses of a row are neighbors.
        log_ratio = (logprobs * in_response).sum(1).reshape(reference.shape) - reference
        loss = self.task_loss(log_ratio, inputs)
        return (loss, None) if return_outputs else loss

    def _logits(self, model, prompts, responses, owners):
        """Token ids of the responses, which of them count, and logits, a row per response."""
        if self.language is not None and max(map(len, prompts)) > 1:
            with self.accelerator.autocast():
                return shared_logits(self.language, prompts, responses, owners, self.pad)
        device = self.accelerator.device
        batch = collate([prompts[i] for i in owners], responses, self.pad)
        ids, mask, in_response = (x.to(device) for x in batch)
        length = in_response.shape[1]
        return ids[:, -length:], in_response, raw_logits(model, ids, mask, length)
