"""The parts that all trainers share: arguments, progress, resumption, guards and saved results."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_callback import ProgressCallback

from infalign import storage
from infalign.errors import DataError
from infalign.models.loading import device

from .recipe import Recipe
from .weights import save_policy

CHECKPOINT = "checkpoint-"
"""Prefix that transformers gives to checkpoint folders."""

SHOWN = 5
"""Maximum number of prompt ids in a message."""


def common_arguments(recipe: Recipe) -> dict:
    """Arguments of transformers' `TrainingArguments` that all trainers share."""
    return {
        "logging_steps": 1,
        "save_steps": recipe.train.save_steps,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": device() == "cpu",
        "bf16": True,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": device() != "cpu",
        "seed": recipe.seed,
    }


def finish(trainer: Trainer, out: Path) -> None:
    """Train from the last checkpoint to the end; save the model and the log.

    `done.json` is written last, so a folder with that file is finished.
    """
    for callback in (PrinterCallback, ProgressCallback):  # standard output is for results only
        trainer.remove_callback(callback)
    trainer.train(resume_from_checkpoint=last_checkpoint(out) if out.exists() else None)
    lines = [storage.json_line(row) for row in trainer.state.log_history]
    storage.write_text(out / "metrics.jsonl", "".join(lines))
    model: Any = trainer.model  # the trainer accepts any module; ours was made by `fresh_policy`
    save_policy(model, out / "model")
    storage.write_json(out / "done.json", {"steps": trainer.state.global_step})


def last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint in `folder`; incomplete ones are removed.

    A checkpoint's `trainer_state.json` is written last, so a checkpoint is complete if that file
    can be read.
    """
    checkpoints = sorted(
        folder.glob(f"{CHECKPOINT}*"), key=lambda p: int(p.name.removeprefix(CHECKPOINT))
    )
    for path in reversed(checkpoints):
        try:
            json.loads((path / "trainer_state.json").read_text())
            return str(path)
        except (OSError, ValueError):
            shutil.rmtree(path)
    return None


def drop_checkpoints(out: Path) -> None:
    """Remove the checkpoints of a finished training, which will not be resumed."""
    for checkpoint in out.glob(f"{CHECKPOINT}*"):
        shutil.rmtree(checkpoint)


class Progress(TrainerCallback):
    """Reports steps as `report(done, total)`."""

    def __init__(self, report: Callable[[int, int], None]):
        self.report = report

    def on_train_begin(self, args, state, control, **kwargs):
        self.report(state.global_step, state.max_steps)

    def on_step_end(self, args, state, control, **kwargs):
        self.report(state.global_step, state.max_steps)


class FiniteGradients(TrainerCallback):
    """Raises DataError before a step whose gradient is not finite.

    - `prompt_ids`: returns the prompt ids of the step.
    """

    def __init__(self, prompt_ids: Callable[[], list[str]]):
        self.prompt_ids = prompt_ids

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        # Clipping by an infinite norm turns finite gradients into 0 and infinite ones into nan, so
        # the norm detects both cases.
        if torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
            return
        ids = list(dict.fromkeys(self.prompt_ids()))
        names = ", ".join(map(repr, ids[:SHOWN])) + (" …" if len(ids) > SHOWN else "")
        raise DataError(
            f"The gradient of step {state.global_step + 1} is not finite, from prompts {names} "
            f"({len(ids)} in all). It changed no weight; the last checkpoint remains. Use a "
            "smaller step size, or inspect these prompts."
        )
